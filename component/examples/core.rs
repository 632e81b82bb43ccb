//! Answers one kind of request so many times: `core <kind> <times>`. `bench/instructions.py` counts what that takes.

use std::{env, hint::black_box};

use http::{Request, request::Builder};
use request_info::{Settings, respond};

const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
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
    let (request, trusted_proxies) = request(kind);
    for _ in 0..times {
        // A component starts anew for every request, and so the settings are read anew.
        let settings = Settings::parse(black_box(trusted_proxies), "", "x-forwarded-for");
        let response = respond(black_box(&request), &settings);
        assert_eq!(black_box(response).status(), 200);
    }
}

/// A request of this kind, and the proxies to trust with it.
fn request(kind: &str) -> (Request<Vec<u8>>, &'static str) {
    let get = || Request::get("http://localhost:3000/");
    let curl = |request: Builder| request.header("user-agent", "curl/8.5.0");
    let (builder, body, trusted_proxies) = match kind {
        "text" => (curl(get()).header("accept", "*/*"), "", ""),
        "html" => (browser(get()), "", ""),
        "json" => (curl(get()).header("accept", "application/json"), "", ""),
        "proxies" => {
            let builder = curl(get())
                .header("accept", "*/*")
                .header("x-forwarded-for", "198.51.100.7, 203.0.113.9")
                .header("x-forwarded-for", "10.0.0.5");
            (builder, "", "127.0.0.0/8, 10.0.0.0/8")
        }
        "form" => {
            let builder = curl(Request::post("http://localhost:3000/"))
                .header("accept", "*/*")
                .header("content-length", FORM.len())
                .header("content-type", "multipart/form-data; boundary=boundary");
            (builder, FORM, "")
        }
        _ => panic!("there is no kind {kind}: choose text, html, json, proxies or form"),
    };
    let request = appended_by_spin(builder).body(body.into());
    (request.expect("the request is well-formed"), trusted_proxies)
}

fn browser(request: Builder) -> Builder {
    request
        .header("user-agent", BROWSER)
        .header("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        .header("accept-language", "en-US,en;q=0.5")
        .header("accept-encoding", "gzip, deflate, br, zstd")
        .header("upgrade-insecure-requests", "1")
        .header("sec-fetch-dest", "document")
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-site", "none")
        .header("sec-fetch-user", "?1")
        .header("priority", "u=0, i")
}

fn appended_by_spin(request: Builder) -> Builder {
    request
        .header("spin-path-info", "/")
        .header("spin-full-url", "http://localhost:3000/")
        .header("spin-matched-route", "/...")
        .header("spin-base-path", "/")
        .header("spin-raw-component-route", "/...")
        .header("spin-component-route", "")
        .header("spin-client-addr", "127.0.0.1:5678")
}
