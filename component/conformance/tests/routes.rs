//! Every route, method, format, status and header.

use conformance::{Response, get, post, request};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::server::{Server, keeps_promises};
use crate::trial;

pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const JSON: &str = "application/json";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// Route, `Allow`, media type of a GET that accepts anything, whether `Accept` and `?format` choose another.
pub(crate) const ROUTES: &[(&str, &str, &str, bool)] = &[
    ("/", "GET, HEAD, OPTIONS, POST", TEXT, true),
    ("/ip", "GET, HEAD, OPTIONS", TEXT, false),
    ("/user-agent", "GET, HEAD, OPTIONS", TEXT, false),
    ("/headers", "GET, HEAD, OPTIONS", TEXT, true),
    ("/version", "GET, HEAD, OPTIONS", JSON, false),
    ("/healthz", "GET, HEAD, OPTIONS", TEXT, false),
    ("/openapi.json", "GET, HEAD, OPTIONS", JSON, false),
];

/// The three formats: the value of `?format`, the media type for `Accept`, and that of the answer.
const FORMATS: &[(&str, &str, &str)] =
    &[("html", "text/html", HTML), ("json", "application/json", JSON), ("text", "text/plain", TEXT)];

const UNKNOWN_PATHS: &[&str] = &[
    "/nope",
    "/ip/",
    "/IP",
    "//",
    "//ip",
    "/index.html",
    "/favicon.ico",
    "/user_agent",
    "/version.json",
    "/openapi",
    "/headers/x",
    "/%",
    "/%zz",
    "/%ff",
    "/%00",
    "/%0aHTTP/1.1%20200",
    "/%1b]0;x%07",
    "/%c2%9b31m",
    "/..%2fip",
    "/%E2%80%AEpi",
    "/user%2dagent/",
    "/%2Fip",
    "/ip%2F",
    "/ip%3F",
    "/%2569p",
    "/%2",
    "/ip%",
    "/%C3%A9",
    "/%2e/ip",
    "/%2A",
    "/*",
];

/// The same path with unreserved characters encoded (RFC 3986, section 6.2.2.2), and its route.
const ENCODED_PATHS: &[(&str, &str)] = &[
    ("/user%2Dagent", "/user-agent"),
    ("/user%2dagent", "/user-agent"),
    ("/%69p", "/ip"),
    ("/%69%70", "/ip"),
    ("/openapi%2Ejson", "/openapi.json"),
    ("/%76ersion", "/version"),
    ("/healt%68z?x", "/healthz"),
];

pub(crate) fn trials(server: &'static Server) -> Vec<Trial> {
    let mut trials = vec![];
    for &(route, allow, media_type, negotiated) in ROUTES {
        trials.push(trial(format!("routes: GET {route} is answered with 200 as {media_type}"), move || {
            let response = server.ask(&get(route));
            assert_eq!((response.status, response.header("content-type")), (200, Some(media_type)));
            assert_eq!(response.header("vary"), negotiated.then_some("Accept"));
            assert_eq!(response.header("allow"), None);
        }));
        trials.push(trial(format!("routes: HEAD {route} has the headers of GET and no body"), move || {
            same_head(server, route, "*/*");
        }));
        trials.push(trial(format!("routes: OPTIONS {route} is answered with 204 and Allow"), move || {
            let response = server.ask(&request("OPTIONS", route));
            assert_eq!((response.status, response.header("allow")), (204, Some(allow)));
            assert_eq!(response.header("content-type"), None);
        }));
        for method in ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get", "POST"] {
            if !allow.contains(method) {
                trials.push(trial(format!("routes: {method} {route} is answered with 405 and Allow"), move || {
                    let response = server.ask(&request(method, route));
                    is_error(&response, 405);
                    assert_eq!(response.header("allow"), Some(allow));
                }));
            }
        }
        if negotiated {
            trials.extend(negotiated_trials(server, route));
        } else {
            trials.push(trial(format!("routes: {route} ignores Accept and format"), move || {
                let response = server.ask(&get(&format!("{route}?format=pdf")).header("accept", "image/png"));
                assert_eq!((response.status, response.header("content-type")), (200, Some(media_type)));
            }));
        }
    }
    for &path in UNKNOWN_PATHS {
        for method in ["GET", "DELETE"] {
            trials.push(trial(format!("routes: {method} {path} is answered with 404"), move || {
                is_error(&server.ask(&request(method, path)), 404);
            }));
        }
        trials.push(trial(format!("routes: HEAD {path} has the headers of GET and no body"), move || {
            same_head(server, path, "*/*");
        }));
    }
    for &(path, route) in ENCODED_PATHS {
        trials.push(trial(format!("routes: {path} is {route}"), move || {
            let (encoded, plain) = (server.ask(&get(path)), server.ask(&get(route)));
            assert_eq!((encoded.status, &encoded.body), (200, &plain.body));
            let options = server.ask(&request("OPTIONS", path));
            assert_eq!(options.header("allow"), server.ask(&request("OPTIONS", route)).header("allow"));
        }));
    }
    trials.push(trial("routes: OPTIONS * is answered with 204 and the methods of the service", move || {
        let response = server.ask(&request("OPTIONS", "*"));
        assert_eq!((response.status, response.header("allow")), (204, Some("GET, HEAD, OPTIONS, POST")));
        // Any other request for `*` is not a request for a resource.
        if let Ok(Some(response)) = server.connect().sending("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n").receive() {
            assert!((400..500).contains(&response.status), "{response:?}");
        }
    }));
    trials.push(trial("routes: a path with bytes above ASCII is never answered with 5xx", move || {
        for path in ["/\u{e9}", "/\u{9b}", "/\u{202e}"] {
            let response = server.connect().exchange(&get(path));
            assert!((400..500).contains(&response.status), "{path}: {response:?}");
        }
        let response = server.connect().sending(b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n").receive().unwrap();
        assert!(response.is_none_or(|response| (400..500).contains(&response.status)));
    }));
    trials.push(trial("routes: POST / is answered like GET /", move || {
        for &(format, _, media_type) in FORMATS {
            let response = server.ask(&post(&format!("/?format={format}"), "text/plain", "x"));
            assert_eq!((response.status, response.header("content-type")), (200, Some(media_type)));
        }
        let empty = server.ask(&post("/", "application/x-www-form-urlencoded", ""));
        assert_eq!((empty.status, empty.header("vary")), (200, Some("Accept")));
    }));
    trials.push(trial("routes: POST / is refused like GET /", move || {
        is_error(&server.ask(&post("/?format=pdf", "text/plain", "x")), 400);
        is_error(&server.ask(&post("/", "text/plain", "x").header("accept", "image/png")), 406);
    }));
    trials.push(trial("routes: /healthz answers ok", move || {
        assert_eq!(server.ask(&get("/healthz")).text().trim_end_matches('\n'), "ok");
    }));
    trials.push(trial("routes: /user-agent is the browser's own name on one line", move || {
        assert_eq!(server.ask(&get("/user-agent").header("user-agent", "curl/8.5")).text(), "curl/8.5\n");
        assert!(server.ask(&get("/user-agent")).text().lines().count() <= 1);
    }));
    trials.push(trial("routes: /ip is the address on one line", move || {
        let answer = server.ask(&get("/ip"));
        let line = answer.text().strip_suffix('\n').expect("a line");
        line.parse::<std::net::IpAddr>().expect("an address");
        assert_eq!(server.ask(&get("/?format=json")).json()["ip"], line);
    }));
    trials.push(trial("routes: /version has the version and the commit of the report", move || {
        let version = server.ask(&get("/version")).json();
        assert_eq!(version, server.ask(&get("/?format=json")).json()["served_by"]);
        is_version(&version);
    }));
    trials.push(trial("routes: a target in absolute form is understood", move || {
        let response = server.ask(&get(&format!("http://{}/version", server.host)));
        assert_eq!((response.status, response.header("content-type")), (200, Some(JSON)));
    }));
    trials
}

/// The tests of a route that is answered in each of the formats.
fn negotiated_trials(server: &'static Server, route: &'static str) -> Vec<Trial> {
    let mut trials = vec![];
    for &(format, accept, media_type) in FORMATS {
        let target = format!("{route}?format={format}");
        trials.push(trial(format!("routes: {target} is answered as {media_type}, independent of Accept"), {
            let target = target.clone();
            move || {
                for accept in ["*/*", "image/png", "text/html", "application/json", "text/plain", "*/*;q=0"] {
                    let response = server.ask(&get(&target).header("accept", accept));
                    assert_eq!((response.status, response.header("content-type")), (200, Some(media_type)), "{accept}");
                }
            }
        }));
        trials.push(trial(format!("routes: HEAD {target} has the headers of GET and no body"), move || {
            same_head(server, &target, "*/*");
        }));
        trials.push(trial(format!("routes: {route} for Accept: {accept} varies with it, HEAD too"), move || {
            let response = server.ask(&get(route).header("accept", accept));
            assert_eq!((response.status, response.header("content-type")), (200, Some(media_type)));
            assert_eq!(response.header("vary"), Some("Accept"));
            same_head(server, route, accept);
        }));
    }
    for format in ["pdf", "", "HTML", "html,json", "%ff", "%1b]0;x%07", "html%0a", "html%20", "htm%00l"] {
        let target = format!("{route}?format={format}");
        trials.push(trial(format!("routes: {target} is answered with 400 naming the three"), move || {
            let response = server.ask(&get(&target));
            is_error(&response, 400);
            names_the_three(&response);
            same_head(server, &target, "*/*");
        }));
    }
    trials.push(trial(
        format!("routes: {route} for Accept: image/png is answered with 406 naming the three"),
        move || {
            let response = server.ask(&get(route).header("accept", "image/png"));
            is_error(&response, 406);
            names_the_three(&response);
            assert_eq!(response.header("vary"), Some("Accept"));
            same_head(server, route, "image/png");
        },
    ));
    trials.push(trial(format!("routes: {route} takes the first of repeated formats, decoded"), move || {
        for query in ["format=json&format=pdf", "x=%ff&format=json", "%66ormat=%6Ason", "&&format=json&"] {
            let response = server.ask(&get(&format!("{route}?{query}")));
            assert_eq!(response.header("content-type"), Some(JSON), "{query}");
        }
    }));
    trials
}

/// One line of text says what is wrong.
pub(crate) fn is_error(response: &Response, status: u16) {
    keeps_promises(response);
    assert_eq!((response.status, response.header("content-type")), (status, Some(TEXT)), "{response:?}");
    let line = response.text().strip_suffix('\n').unwrap_or_else(|| panic!("not a line: {:?}", response.text()));
    assert!(!line.is_empty() && !line.contains(char::is_control), "not one plain line: {line:?}");
}

fn names_the_three(response: &Response) {
    for name in ["html", "json", "text"] {
        assert!(response.text().contains(name), "{name} is not named: {}", response.text());
    }
}

/// HEAD is answered like GET, without the body.
fn same_head(server: &Server, target: &str, accept: &str) {
    let of = |method| {
        let mut response = server.ask(&request(method, target).header("accept", accept));
        response.headers.retain(|(name, _)| name != "date");
        (response.status, response.headers, response.body)
    };
    let (get, head) = (of("GET"), of("HEAD"));
    assert_eq!((get.0, get.1), (head.0, head.1));
    // A body would arrive in front of the answer to the next request.
    let mut connection = server.connect();
    connection.exchange(&request("HEAD", target).header("accept", accept));
    assert_eq!(connection.get("/version").status, 200);
}

/// `{"version": …, "commit": …}`, the commit 40 hexadecimal digits, perhaps dirty, or unknown.
fn is_version(document: &Value) {
    let (version, commit) = (document["version"].as_str().unwrap(), document["commit"].as_str().unwrap());
    assert_eq!(document, &json!({"version": version, "commit": commit}));
    assert!(version.split('.').filter(|part| part.parse::<u32>().is_ok()).count() == 3, "{version}");
    let digits = commit.strip_suffix("-dirty").unwrap_or(commit);
    assert!(
        commit == "unknown" || digits.len() == 40 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{commit}"
    );
}
