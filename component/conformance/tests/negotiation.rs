//! Which format `Accept` gets (RFC 9110, section 12.5.1).

use libtest_mimic::Trial;

use crate::client::get;
use crate::routes::{HTML, JSON, TEXT, is_error};
use crate::server::Server;
use crate::trial;

/// A format of no row: nothing is acceptable.
const NONE: &str = "406";

/// The lines of `Accept`, and the format that they get.
const ROWS: &[(&[&str], &str)] = &[
    // Without a preference: text, html, json in this order.
    (&[], TEXT),
    (&["*/*"], TEXT),
    (&["text/*"], TEXT),
    (&["application/*"], JSON),
    (&["application/json, text/html"], HTML),
    (&["application/json, text/plain"], TEXT),
    (&["text/html, */*"], TEXT),
    (&["application/json;q=0.5, text/html;q=0.5"], HTML),
    // One format.
    (&["text/html"], HTML),
    (&["application/json"], JSON),
    (&["text/plain"], TEXT),
    (&["TEXT/HTML"], HTML),
    (&["Application/JSON"], JSON),
    (&["text/html;charset=utf-8"], HTML),
    // Browsers and tools.
    (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], HTML),
    (
        &[
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
        ],
        HTML,
    ),
    (&["application/json, text/plain, */*"], TEXT),
    (&["application/json, */*;q=0.5"], JSON),
    // Java's HttpURLConnection before version 18, and others of its kind.
    (&["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"], HTML),
    (&["text/html, image/gif, *; q=.2, */*; q=.2"], HTML),
    (&["*"], TEXT),
    (&["*;q=0.1, application/json"], JSON),
    (&["*, text/plain;q=0"], HTML),
    (&["application/json;q=.5"], JSON),
    // Any bytes above ASCII may stand in a quoted string.
    (&["image/png;x=\"\u{e9}\", application/json"], JSON),
    (&["application/json", "image/png;x=\"\u{1f980}\""], JSON),
    // Weights.
    (&["application/json, text/plain;q=0.9"], JSON),
    (&["application/json;q=0.5, text/html;q=0.8"], HTML),
    (&["application/json;q=0.800, text/html;q=0.799"], JSON),
    (&["text/html;q=0.001"], HTML),
    (&["text/html;q=1.000, text/plain;q=0.999"], HTML),
    (&["text/html;q=1., text/plain;q=0.9"], HTML),
    (&["text/html;Q=0.5, application/json;q=0.6"], JSON),
    (&["text/html ; q=0.5 , application/json ;q=0.9"], JSON),
    (&["text/html\t;\tq=0.5,\tapplication/json"], JSON),
    // Nothing is acceptable.
    (&["image/png"], NONE),
    (&["image/*, audio/*;q=0.2"], NONE),
    (&["*/*;q=0"], NONE),
    (&["text/html;q=0"], NONE),
    (&["text/html;q=0.0, text/plain;q=0.000"], NONE),
    (&["text/html;q=0."], NONE),
    (&["text/htmlx, text/htm, application/jsonp"], NONE),
    // Zero excludes.
    (&["text/html;q=0, */*"], TEXT),
    (&["text/plain;q=0, */*"], HTML),
    (&["text/plain;q=0, text/html;q=0, */*"], JSON),
    (&["text/*;q=0, */*"], JSON),
    (&["text/plain;q=0, text/*"], HTML),
    // The most specific range wins, wherever it stands.
    (&["text/*;q=0, text/html"], HTML),
    (&["text/html, text/*;q=0"], HTML),
    (&["*/*;q=0, application/json;q=0.1"], JSON),
    (&["text/*;q=0.3, text/html;q=0.7, */*;q=0.5"], HTML),
    (&["text/*;q=0.9, text/plain;q=0.2, */*;q=0.5"], HTML),
    (&["*/*;q=0.9, text/*;q=0.8, application/json;q=0.7"], TEXT),
    (&["*/*;q=0.1, text/*;q=0.2, text/plain;q=0.05"], HTML),
    (&["text/*;q=0.3, text/plain;q=0.7, text/plain;format=flowed, text/plain;format=fixed;q=0.4, */*;q=0.5"], TEXT),
    // Lines are joined.
    (&["text/html;q=0.5", "application/json"], JSON),
    (&["text/html", "*/*;q=0.1"], HTML),
    (&["image/png", "image/*", "text/html;q=0.1"], HTML),
    (&["image/png", "audio/*"], NONE),
    // Empty elements are ignored; a quoted comma separates nothing.
    (&[", ,application/json,,"], JSON),
    (&["", "application/json"], JSON),
    (&["image/png;x=\"a,text/html,b\", application/json"], JSON),
    (&["image/png;x=\"\\\",text/html,\", application/json"], JSON),
    // A malformed header counts as absent.
    (&[""], TEXT),
    (&["html"], TEXT),
    (&["text/"], TEXT),
    (&["/html"], TEXT),
    (&["text/html/x"], TEXT),
    (&["te xt/html"], TEXT),
    (&["text/html, nonsense"], TEXT),
    (&["application/json;q=1.001"], TEXT),
    (&["application/json;q=2"], TEXT),
    (&["application/json;q=-1"], TEXT),
    (&["application/json;q=0.1234"], TEXT),
    (&["application/json;q=."], TEXT),
    (&["*html"], TEXT),
    (&["application/json;q=00.5"], TEXT),
    (&["application/json;q=high"], TEXT),
    (&["application/json;q="], TEXT),
    (&["application/json;q=0,5"], TEXT),
    (&["application/json;x=\"unterminated"], TEXT),
    (&["t\u{e9}xt/html"], TEXT),
    (&["application/json", "nonsense"], TEXT),
];

pub(crate) fn trials(server: &'static Server) -> Vec<Trial> {
    let mut trials = vec![];
    for &(lines, expected) in ROWS {
        trials.push(trial(format!("negotiation: Accept {lines:?} gets {expected}"), move || {
            for route in ["/", "/headers"] {
                gets(server, route, lines.iter().copied(), expected);
            }
        }));
    }
    trials.push(trial("negotiation: a wish behind many others is heard", move || {
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
