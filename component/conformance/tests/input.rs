//! What is read from the query, the form and Referer, and how much of it.

use conformance::{Request, Response, get, post, request};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::routes::is_error;
use crate::server::{Server, keeps_promises};
use crate::trial;

const URLENCODED: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=XX";
const LIMIT: usize = 64 * 1024;

/// One request, and the `url` and `event` it shows.
struct Row {
    name: &'static str,
    query: &'static str,
    /// Content type and body of a POST; without one it is a GET.
    form: Option<(&'static str, &'static [u8])>,
    referer: Option<&'static str>,
    url: Option<&'static str>,
    event: Option<&'static str>,
}

const NOTHING: Row = Row { name: "", query: "", form: None, referer: None, url: None, event: None };

const fn query(name: &'static str, query: &'static str, url: Option<&'static str>, event: Option<&'static str>) -> Row {
    Row { name, query, url, event, ..NOTHING }
}

const fn form(
    name: &'static str,
    form: (&'static str, &'static [u8]),
    url: Option<&'static str>,
    event: Option<&'static str>,
) -> Row {
    Row { name, form: Some(form), url, event, ..NOTHING }
}

const ROWS: &[Row] = &[
    NOTHING_GIVEN,
    // The query.
    query("url and event are in the query", "url=http://a.test/&event=signup", Some("http://a.test/"), Some("signup")),
    query("encoded values in the query are decoded", "url=http%3A%2F%2Fa.test%2F%3Fb%3Dc%26d&event=a+b%20c", Some("http://a.test/?b=c&d"), Some("a b c")),
    query("a key of the query is decoded", "%65vent=x&u%72l=y", Some("y"), Some("x")),
    query("the first of a repeated key of the query counts", "event=1&event=2&url=a&url=b", Some("a"), Some("1")),
    query("keys of the query are case-sensitive and whole", "Event=1&URL=2&xevent=3&event[]=4&url%20=5", None, None),
    query("a semicolon separates nothing in the query", "event=a;url=b", None, Some("a;url=b")),
    query("an equals sign belongs to the value in the query", "event=a=b==", None, Some("a=b==")),
    query("UTF-8 in the query is read", "event=%C3%A9%F0%9F%A6%80", None, Some("\u{e9}\u{1f980}")),
    query("invalid UTF-8 in the query is shown replaced", "event=a%ffb&url=%fe", Some("\u{fffd}"), Some("a\u{fffd}b")),
    query("truncated UTF-8 in the query is shown replaced", "event=a%E2%82", None, Some("a\u{fffd}")),
    query("an encoded surrogate in the query is shown replaced", "event=%ED%A0%80", None, Some("\u{fffd}\u{fffd}\u{fffd}")),
    query("a null in the query is a character", "event=a%00b", None, Some("a\0b")),
    query("empty pairs of the query are nothing", "&&event=x&&=y&=", None, Some("x")),
    // Referer.
    Row { name: "without url, Referer is shown", referer: Some("http://r.test/"), url: Some("http://r.test/"), ..NOTHING },
    Row { name: "url overrides Referer", query: "url=u", referer: Some("http://r.test/"), url: Some("u"), ..NOTHING },
    Row { name: "an empty url falls through to Referer", query: "url=&event=e", referer: Some("r"), url: Some("r"), event: Some("e"), ..NOTHING },
    Row { name: "a url without value falls through to Referer", query: "url", referer: Some("r"), url: Some("r"), ..NOTHING },
    Row { name: "an empty url without Referer is absent", query: "url=", ..NOTHING },
    Row { name: "a url in the form overrides Referer", form: Some((URLENCODED, b"url=f")), referer: Some("r"), url: Some("f"), ..NOTHING },
    Row { name: "an empty url in the form falls through to Referer", form: Some((URLENCODED, b"url=")), referer: Some("r"), url: Some("r"), ..NOTHING },
    Row { name: "an empty url in a multipart form falls through to Referer", form: Some((MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"url\"\r\n\r\n\r\n--XX--\r\n")), referer: Some("r"), url: Some("r"), ..NOTHING },
    Row { name: "an empty url in the query falls through to the form's", query: "url=", form: Some((URLENCODED, b"url=f")), referer: Some("r"), url: Some("f"), ..NOTHING },
    Row { name: "an empty url in query and form falls through to Referer", query: "url=", form: Some((URLENCODED, b"url=")), referer: Some("r"), url: Some("r"), ..NOTHING },
    Row { name: "an empty event in the query counts", query: "event=", form: Some((URLENCODED, b"event=f")), event: Some(""), ..NOTHING },
    // Forms.
    form("url and event stand in a form", (URLENCODED, b"url=u&event=e"), Some("u"), Some("e")),
    form("a form is decoded", (URLENCODED, b"url=a%26b&event=a+b%20c%C3%A9"), Some("a&b"), Some("a b c\u{e9}")),
    form("the first of a repeated key of the form counts", (URLENCODED, b"event=1&event=2"), None, Some("1")),
    form("invalid UTF-8 in a form is shown replaced, encoded or not", (URLENCODED, b"event=a%ffb&url=a\xffb"), Some("a\u{fffd}b"), Some("a\u{fffd}b")),
    form("a form's type may have parameters", ("application/x-www-form-urlencoded; charset=UTF-8", b"event=e"), None, Some("e")),
    form("a form's type is case-insensitive", ("Application/X-WWW-Form-Urlencoded", b"event=e"), None, Some("e")),
    Row { name: "the query overrides the form", query: "url=q&event=q", form: Some((URLENCODED, b"url=f&event=f")), url: Some("q"), event: Some("q"), ..NOTHING },
    Row { name: "query and form complement each other", query: "url=q", form: Some((URLENCODED, b"event=f")), url: Some("q"), event: Some("f"), ..NOTHING },
    Row { name: "the query overrides a multipart form", query: "event=q", form: Some((MULTIPART, CURL_F)), url: Some("u"), event: Some("q"), ..NOTHING },
    // Multipart forms.
    form("url and event stand in a multipart form", (MULTIPART, CURL_F), Some("u"), Some("signup")),
    form("a boundary may be quoted", ("Multipart/Form-Data; charset=utf-8; boundary=\"X X\"", b"--X X\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\ne\r\n--X X--\r\n"), None, Some("e")),
    form("a part may have headers of its own", (MULTIPART, b"--XX\r\ncontent-type: text/plain; charset=utf-8\r\nCONTENT-DISPOSITION: form-data; name=event\r\n\r\ne\r\n--XX--"), None, Some("e")),
    form("a part may have lines", (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\na\r\n--X\r\nb\r\n--XX--\r\n"), None, Some("a\r\n--X\r\nb")),
    form("the first of repeated parts counts", (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\n1\r\n--XX\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\n2\r\n--XX--\r\n"), None, Some("1")),
    form("invalid UTF-8 in a part is shown replaced", (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\na\xffb\r\n--XX--\r\n"), None, Some("a\u{fffd}b")),
    form("a part is not decoded", (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\na+b%20c\r\n--XX--\r\n"), None, Some("a+b%20c")),
    form("parts of other names are passed over", (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"event\"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n\x1a\r\n--XX\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\ne\r\n--XX--\r\n"), None, Some("e")),
    // Files.
    form("a file is never a value", (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"event\"; filename=\"f\"\r\n\r\nX\r\n--XX--\r\n"), None, None),
    form("a file whose name cannot be read is never a value", (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"event\"; filename=\"d\\\"\r\nContent-Type: application/octet-stream\r\n\r\nX\r\n--XX--\r\n"), None, None),
    form("a file with quotes in its name is never a value", (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"event\"; filename=\"a\"b\"\r\n\r\nX\r\n--XX--\r\n"), None, None),
    form("a file whose name is not quoted is never a value", (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=event; filename=C:\\d\r\n\r\nX\r\n--XX--\r\n"), None, None),
    form("a file with an extended name is never a value", (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"event\"; filename*=UTF-8''f\r\n\r\nX\r\n--XX--\r\n"), None, None),
    form("a file without a name is never a value", (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"event\"; filename=\"\"\r\n\r\nX\r\n--XX--\r\n"), None, None),
    form("behind a file a value is read", (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"event\"; filename=\"d\\\"\r\n\r\nX\r\n--XX\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\ne\r\n--XX--\r\n"), None, Some("e")),
    form("a part that is an attachment is never a value", (MULTIPART, b"--XX\r\nContent-Disposition: attachment; name=\"event\"\r\n\r\nX\r\n--XX--\r\n"), None, None),
    // Other bodies.
    form("a body in JSON is ignored", ("application/json", b"{\"url\": \"u\", \"event\": \"e\"}"), None, None),
    form("a body in plain text is ignored", ("text/plain", b"url=u&event=e"), None, None),
    form("a body of a similar type is ignored", ("application/x-www-form-urlencoded-not", b"event=e"), None, None),
    form("a body of nonsense type is ignored", ("nonsense", b"event=e"), None, None),
    form("a multipart body that is not a form is ignored", ("multipart/mixed; boundary=XX", CURL_F), None, None),
    Row { name: "with an ignored body, the query counts", query: "event=q", form: Some(("text/plain", b"event=f")), event: Some("q"), ..NOTHING },
];

const NOTHING_GIVEN: Row = Row { name: "absent values are null", ..NOTHING };

/// As `curl -F event=signup -F url=u` sends it.
const CURL_F: &[u8] = b"--XX\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\nsignup\r\n--XX\r\nContent-Disposition: form-data; name=\"url\"\r\n\r\nu\r\n--XX--\r\n";

/// Forms that no browser sends. They must get an answer of any kind.
const BROKEN_FORMS: &[(&str, &[u8])] = &[
    ("multipart/form-data", CURL_F),
    ("multipart/form-data; boundary=", CURL_F),
    ("multipart/form-data; boundary=\"", CURL_F),
    ("multipart/form-data; boundary=\u{e9}", CURL_F),
    ("multipart/form-data; boundary=YY", CURL_F),
    (MULTIPART, b""),
    (MULTIPART, b"--XX"),
    (MULTIPART, b"--XX--"),
    (MULTIPART, b"--XX\r\n"),
    (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\nnever ends"),
    (MULTIPART, b"--XX\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--XX--\r\n"),
    (MULTIPART, b"--XX\r\nno header at all\r\n\r\nx\r\n--XX--\r\n"),
    (MULTIPART, b"--XX\r\nContent-Disposition: form-data; name=\"\xff\"\r\n\r\nx\r\n--XX--\r\n"),
    (MULTIPART, b"\xff\xfe\0\0"),
    (URLENCODED, b"&=&&=%&%=%f"),
    (URLENCODED, b"\0\xff"),
];

pub(crate) fn trials(server: &'static Server) -> Vec<Trial> {
    let mut trials = vec![];
    for row in ROWS {
        trials.push(trial(format!("input: {}", row.name), move || {
            let target = format!("/?{}", row.query);
            let request = match row.form {
                None => get(&target),
                Some((content_type, body)) => post(&target, content_type, body),
            };
            let request = request.header("accept", "application/json");
            shows(
                &server.ask(&row.referer.iter().fold(request, |request, referer| request.header("referer", referer))),
                row.url,
                row.event,
            );
        }));
    }
    for &(content_type, body) in BROKEN_FORMS {
        let shown = String::from_utf8_lossy(body);
        trials.push(trial(
            format!("input: the broken form {content_type} {shown:?} is answered, and not with 5xx"),
            move || {
                let response = server.ask(&post("/?format=json&url=q", content_type, body));
                match response.status {
                    200 => assert_eq!(response.json()["url"], "q"),
                    status => {
                        assert!((400..500).contains(&status), "{response:?}");
                        is_error(&response, status);
                    }
                }
            },
        ));
    }
    for query in ["event=%", "event=%zz", "event=%1", "event=a%", "event=%%41"] {
        trials.push(trial(
            format!("input: bad percent-encoding in ?{query} is shown, as it is or replaced"),
            move || {
                let event =
                    server.ask(&get(&format!("/?format=json&{query}"))).json()["event"].as_str().unwrap().to_owned();
                assert!(event.contains(['%', '\u{fffd}']), "{event:?}");
            },
        ));
    }
    trials.push(trial("input: a form's format does not choose the format", move || {
        let response = server.ask(&post("/", URLENCODED, "format=pdf").header("accept", "application/json"));
        assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    }));
    trials.push(trial(
        "input: an encoded form is answered with 415, and any other encoded body is ignored",
        move || {
            for (content_type, encoding, status) in [
                (URLENCODED, "gzip", 415),
                (MULTIPART, "gzip", 415),
                (URLENCODED, "br", 415),
                (URLENCODED, "identity, gzip", 415),
                (URLENCODED, "identity", 200),
                (URLENCODED, "", 200),
                ("text/plain", "gzip", 200),
            ] {
                let request = post("/?format=json", content_type, "event=e").header("content-encoding", encoding);
                let response = server.ask(&request);
                assert_eq!(response.status, status, "{content_type} {encoding}");
                if status == 415 {
                    is_error(&response, 415);
                    assert_eq!(response.header("accept-encoding"), Some("identity"));
                }
            }
        },
    ));
    trials.push(trial("input: a form without a type is ignored", move || {
        let bytes = format!("POST /?format=json HTTP/1.1\r\nHost: {}\r\nContent-Length: 7\r\n\r\nevent=e", server.host);
        shows(&server.connect().exchange_bytes(bytes), None, None);
    }));
    trials.push(trial("input: a query of 16 KiB is shown whole", move || {
        let event = "\u{e9}".repeat(16 * 1024 / 6);
        let encoded = "%C3%A9".repeat(16 * 1024 / 6);
        shows(&server.ask(&get(&format!("/?format=json&event={encoded}"))), None, Some(&event));
    }));
    trials.extend(cap(server));
    trials
}

/// A body may have 64 KiB.
fn cap(server: &'static Server) -> Vec<Trial> {
    let urlencoded = |size: usize| (URLENCODED, [b"event=".as_slice(), &vec![b'a'; size - 6]].concat());
    let multipart = |size: usize| {
        let (start, end) = ("--XX\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\n", "\r\n--XX--\r\n");
        (MULTIPART, [start.as_bytes(), &vec![b'a'; size - start.len() - end.len()], end.as_bytes()].concat())
    };
    let ignored = |size: usize| ("application/octet-stream", vec![b'a'; size]);
    let bodies: [(_, fn(usize) -> (&'static str, Vec<u8>)); 3] =
        [("an urlencoded", urlencoded), ("a multipart", multipart), ("an ignored", ignored)];
    let mut trials = vec![];
    for (kind, body) in bodies {
        for chunk in [None, Some(LIMIT * 2), Some(4096), Some(1000)] {
            let way = chunk.map_or("with a length".to_owned(), |size| format!("in chunks of {size}"));
            let send = move |size| {
                let (content_type, body) = body(size);
                let request = post("/?format=json", content_type, body);
                let bytes =
                    chunk.map_or(request.encode(&server.host), |chunk| request.encode_chunked(&server.host, chunk));
                server.connect().exchange_bytes(bytes)
            };
            trials.push(trial(format!("input: {kind} body of 64 KiB {way} is accepted"), move || {
                let response = send(LIMIT);
                assert_eq!(response.status, 200, "{}", response.text());
                if kind != "an ignored" {
                    let event = response.json()["event"].as_str().map(str::len);
                    assert!(event.is_some_and(|length| length > LIMIT - 100), "{event:?}");
                }
            }));
            trials.push(trial(
                format!("input: {kind} body of 64 KiB and a byte {way} is answered with 413"),
                move || {
                    is_error(&send(LIMIT + 1), 413);
                },
            ));
        }
    }
    trials.push(trial("input: a body of 8 MiB is answered with 413, read or not", move || {
        for chunked in [false, true] {
            let request = post("/", URLENCODED, vec![b'a'; 8 << 20]);
            let bytes =
                if chunked { request.encode_chunked(&server.host, 1 << 16) } else { request.encode(&server.host) };
            let mut connection = server.connect();
            let mut sending = connection.stream().try_clone().unwrap();
            // The server may stop reading once it knows the answer, so this may fail.
            let sender = std::thread::spawn(move || std::io::Write::write_all(&mut sending, &bytes));
            is_error(&connection.receive().unwrap().expect("an answer"), 413);
            connection.stream().shutdown(std::net::Shutdown::Both).ok();
            sender.join().unwrap().ok();
        }
    }));
    trials.push(trial("input: the body of a GET is not read as a form", move || {
        let get = post("/?format=json", URLENCODED, "event=e");
        let response = server.ask(&Request { method: "GET".into(), ..get });
        assert_eq!((response.status, &response.json()["event"]), (200, &Value::Null));
    }));
    trials.push(trial("input: a body with a method that is not allowed changes nothing", move || {
        for size in [10, LIMIT + 1] {
            let body = Request { method: "PUT".into(), ..post("/", URLENCODED, vec![b'a'; size]) };
            is_error(&server.connect().exchange(&body), 405);
        }
        keeps_promises(&server.ask(&request("OPTIONS", "/")));
    }));
    trials
}

fn shows(response: &Response, url: Option<&str>, event: Option<&str>) {
    assert_eq!(response.status, 200, "{}", response.text());
    let report = response.json();
    assert_eq!(json!({"url": report["url"], "event": report["event"]}), json!({"url": url, "event": event}));
}
