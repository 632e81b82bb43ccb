//! Which format `Accept` gets (RFC 9110, section 12.5.1).

use conformance::get;
use libtest_mimic::Trial;

use crate::routes::{HTML, JSON, TEXT, is_error};
use crate::server::Server;
use crate::trial;

/// A format of no row: nothing is acceptable.
const NONE: &str = "406";

/// The lines of `Accept`, and the format that they get.
const ROWS: &[(&[&str], &str)] = include!("accept.in");

pub(crate) fn trials(server: &'static Server) -> Vec<Trial> {
    let mut trials = vec![];
    for &(lines, expected) in ROWS {
        trials.push(trial(format!("negotiation: Accept {lines:?} gets {expected}"), move || {
            for route in ["/", "/headers"] {
                gets(server, route, lines.iter().copied(), expected);
            }
        }));
    }
    trials.push(trial("negotiation: an acceptable type after many others is found", move || {
        let others: Vec<_> = (0..40).map(|number| format!("image/x-{number};q=0.9")).collect();
        gets(server, "/", others.iter().map(String::as_str).chain(["application/json;q=0.1"]), JSON);
        gets(server, "/", [format!("{}text/html;q=0.1", "image/png, ".repeat(500)).as_str()], HTML);
    }));
    trials
}

fn gets<'a>(server: &Server, route: &str, lines: impl IntoIterator<Item = &'a str>, expected: &str) {
    let response = server.ask(&lines.into_iter().fold(get(route), |request, line| request.header("accept", line)));
    if expected == NONE {
        is_error(&response, 406);
    } else {
        assert_eq!((response.status, response.header("content-type")), (200, Some(expected)), "{route}");
    }
    assert_eq!(response.header("vary"), Some("Accept"));
}
