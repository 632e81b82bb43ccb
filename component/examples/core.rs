//! Answers one kind of request many times: `core <kind> <times>`. `bench/instructions.py` counts the instructions.

use std::{env, hint::black_box};

use http::Method;
use request_info::{Headers, Origin, Settings, Visit, respond};

const BROWSERS_HEADERS: [(&str, &str); 10] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("upgrade-insecure-requests", "1"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "none"),
    ("sec-fetch-user", "?1"),
    ("priority", "u=0, i"),
];
const FORM: &str = "\
    --boundary\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\nsignup\r\n\
    --boundary\r\nContent-Disposition: form-data; name=\"url\"\r\n\r\nhttps://example.com/\r\n\
    --boundary--\r\n";

fn main() {
    let arguments: Vec<_> = env::args().collect();
    let [_, kind, times] = &arguments[..] else {
        panic!("usage: core text|html|json|proxies|form <times>");
    };
    let times: u32 = times.parse().expect("a number of times");
    let (trusted_proxies, visit) = visit(kind);
    let variables = format!("{trusted_proxies};;x-forwarded-for");
    for _ in 0..times {
        // Each request gets a new instance of the component, which reads the settings again.
        let settings = Settings::from_joined(black_box(&variables));
        let answer = respond(black_box(&visit), &settings);
        assert_eq!(black_box(answer).status, 200);
    }
}

/// A visit of this kind, and the proxies to trust with it.
fn visit(kind: &str) -> (&'static str, Visit<'static>) {
    let curl = ("user-agent", "curl/8.5.0");
    let anything = ("accept", "*/*");
    let (trusted_proxies, headers, body) = match kind {
        "text" => ("", vec![curl, anything], ""),
        "html" => ("", BROWSERS_HEADERS.to_vec(), ""),
        "json" => ("", vec![curl, ("accept", "application/json")], ""),
        "proxies" => {
            let forwarded = [("x-forwarded-for", "198.51.100.7, 203.0.113.9"), ("x-forwarded-for", "10.0.0.5")];
            ("127.0.0.0/8, 10.0.0.0/8", vec![curl, anything, forwarded[0], forwarded[1]], "")
        }
        "form" => {
            let content = [("content-length", "155"), ("content-type", "multipart/form-data; boundary=boundary")];
            ("", vec![curl, anything, content[0], content[1]], FORM)
        }
        _ => panic!("unknown kind {kind}: choose text, html, json, proxies or form"),
    };
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let visit = Visit {
        peer: "127.0.0.1".parse().ok(),
        method: if body.is_empty() { Method::GET } else { Method::POST },
        target: "/".to_owned(),
        headers: Headers(headers.collect()),
        body: body.into(),
        origin: &|| Origin { scheme: Some("http".to_owned()), authority: Some("localhost:3000".to_owned()) },
    };
    (trusted_proxies, visit)
}
