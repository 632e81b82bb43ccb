//! Settings that cannot be read or contradict each other: the service says so and answers nothing else.

use conformance::{get, request};
use libtest_mimic::Trial;

use crate::routes::is_error;
use crate::server::{Bed, Variables};
use crate::trial;

/// The settings, and words of the reason.
const ROWS: &[(Variables, &[&str])] = &[
    (&[("trusted_proxies", "nonsense")], &["trusted_proxies", "nonsense"]),
    (&[("trusted_proxies", "10.0.0.0/8, 10.0.0.0/33")], &["trusted_proxies", "10.0.0.0/33"]),
    (&[("trusted_proxies", "fd00::/129")], &["trusted_proxies", "fd00::/129"]),
    (&[("trusted_proxies", "10.0.0")], &["trusted_proxies", "10.0.0"]),
    (&[("trusted_proxies", "10.0.0.0/8;127.0.0.1")], &["trusted_proxies"]),
    (&[("trusted_hops", "two")], &["trusted_hops", "two"]),
    (&[("trusted_hops", "-1")], &["trusted_hops", "-1"]),
    (&[("trusted_hops", "1.5")], &["trusted_hops", "1.5"]),
    (&[("trusted_hops", "99999999999999999999999")], &["trusted_hops", "99999999999999999999999"]),
    (&[("trusted_hops", "1"), ("trusted_proxies", "127.0.0.1")], &["trusted_hops", "trusted_proxies"]),
    (&[("trusted_hops", "1"), ("client_address_header", "cf-connecting-ip")], &["trusted_hops", "cf-connecting-ip"]),
    (&[("client_address_header", "not a name")], &["client_address_header", "not a name"]),
    (&[("client_address_header", "x-forwarded-for:")], &["client_address_header", "x-forwarded-for:"]),
    (&[("client_address_header", "x\u{1b}[31m")], &["client_address_header"]),
    (&[("client_address_header", "x-real-ip;")], &["client_address_header"]),
    (&[("trusted_hops", "1;")], &["trusted_hops"]),
    (&[("trusted_proxies", ";")], &["trusted_proxies"]),
];

pub(crate) fn trials(bed: &Bed) -> Vec<Trial> {
    let mut trials = vec![];
    for &(variables, reason) in ROWS {
        let server = bed.server("127.0.0.1:0", variables);
        trials.push(trial(
            format!("settings: with {variables:?} every route but /version says what is wrong"),
            move || {
                for target in ["/", "/?format=json", "/ip", "/user-agent", "/headers", "/healthz", "/openapi.json"] {
                    let response = server.ask(&get(target).header("accept", "text/html, application/json;q=0.9"));
                    is_error(&response, 503);
                    for word in reason {
                        assert!(response.text().contains(word), "{target} does not name {word}: {}", response.text());
                    }
                    let head = server.ask(&request("HEAD", target));
                    assert_eq!((head.status, head.header("content-length")), (503, response.header("content-length")));
                }
                let version = server.ask(&get("/version"));
                assert_eq!((version.status, version.header("content-type")), (200, Some(crate::routes::JSON)));
            },
        ));
    }
    trials
}
