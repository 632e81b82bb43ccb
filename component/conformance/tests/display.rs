//! What is shown, and that what a visitor sends stays text: in a terminal, in a browser, in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conformance::{Request, Response, get, request};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::server::{Server, keeps_promises};
use crate::trial;

/// What a visitor sends, percent-encoded, and how text shows it.
const CONTROLS: &[(&str, &str, &str)] = &[
    ("a title of a terminal", "%1b]0;x%07", r"\u001b]0;x\u0007"),
    ("a colour of a terminal", "%1b[31mred", r"\u001b[31mred"),
    ("a line feed", "a%0aip: 1.2.3.4", r"a\u000aip: 1.2.3.4"),
    ("a carriage return", "a%0d%0ab", r"a\u000d\u000ab"),
    ("a tabulator", "a%09b", r"a\u0009b"),
    ("a null", "a%00b", r"a\u0000b"),
    ("a backspace", "a%08b", r"a\u0008b"),
    ("a delete", "a%7fb", r"a\u007fb"),
    ("a next line of C1", "a%c2%85b", r"a\u0085b"),
    ("a control sequence of C1", "a%c2%9b31mb", r"a\u009b31mb"),
    ("a line separator", "a%e2%80%a8b", r"a\u2028b"),
    ("a paragraph separator", "a%e2%80%a9b", r"a\u2029b"),
    ("a right-to-left override", "a%e2%80%aeb", r"a\u202eb"),
    ("an isolate of directions", "a%e2%81%a7b", r"a\u2067b"),
    ("a zero-width space", "pay%E2%80%8Bpal", r"pay\u200bpal"),
    ("a soft hyphen", "pay%C2%ADpal", r"pay\u00adpal"),
    ("a word joiner", "a%e2%81%a0b", r"a\u2060b"),
    ("a byte order mark", "a%ef%bb%bfb", r"a\ufeffb"),
    ("a filler of Hangul", "a%e3%85%a4b", r"a\u3164b"),
    ("a sign of Arabic that is not drawn", "a%d8%80b", r"a\u0600b"),
    ("a variation selector", "a%ef%b8%8eb", r"a\ufe0eb"),
    ("a tag", "a%f3%a0%81%81b", r"a\udb40\udc41b"),
];

const SCRIPT: &str = "<script>alert(1)</script>";
const BREAKOUT: &str = "'\"></td></style></title><img src=x onerror=alert(1)><script>alert(1)</script>&lt;!--";

pub(crate) fn trials(server: &'static Server) -> Vec<Trial> {
    let mut trials = text(server);
    trials.extend(html(server));
    trials.extend(json(server));
    trials.extend(headers(server));
    trials
}

fn text(server: &'static Server) -> Vec<Trial> {
    let mut trials = vec![];
    trials.push(trial("display: joiners of scripts and emoji, and an emoji's colours, are not escaped", move || {
        for value in ["\u{915}\u{94d}\u{200d}\u{937}", "\u{645}\u{6cc}\u{200c}\u{62e}", "\u{2764}\u{fe0f}"] {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            for format in ["text", "html", "json"] {
                let response = server.ask(&get(&format!("/?format={format}&event={encoded}")));
                assert!(response.text().contains(value), "{format}: {}", response.text());
            }
        }
    }));
    for &(name, encoded, shown) in CONTROLS {
        trials.push(trial(format!("display: text shows {name} as an escape, and JSON as JSON does"), move || {
            let raw = percent_decoded(encoded);
            for key in ["event", "url"] {
                let query = format!("{key}={}", encoded.replace(' ', "+"));
                let calm = server.ask(&get(&format!("/?format=text&{key}=x")));
                let response = server.ask(&get(&format!("/?format=text&{query}")));
                is_calm(&response);
                let page = server.ask(&get(&format!("/?format=html&{query}")));
                assert!(page.text().contains(shown) && !page.text().contains(&*raw), "{}", page.text());
                assert!(response.text().contains(shown), "{}", response.text());
                assert_eq!(response.text().lines().count(), calm.text().lines().count(), "a line is forged");
                assert_eq!(server.ask(&get(&format!("/?format=json&{query}"))).json()[key], raw);
            }
        }));
    }
    trials.push(trial("display: text shows control characters of every header as escapes", move || {
        let value = "a\u{85}b\tc\u{9b}31m";
        let shown = r"a\u0085b\u0009c\u009b31m";
        for (route, header) in [
            ("/", "user-agent"),
            ("/", "referer"),
            ("/user-agent", "user-agent"),
            ("/headers", "x-any"),
            ("/headers", "user-agent"),
        ] {
            let response = server.ask(&get(route).header("accept", "text/plain").header(header, value));
            is_calm(&response);
            assert!(response.text().contains(shown), "{route}: {}", response.text());
        }
    }));
    trials.push(trial("display: text shows a visitor's browser, url, event and address", move || {
        let request = get("/?format=text&url=http://u.test/&event=signup").header("user-agent", "curl/8.5");
        let response = server.ask(&request);
        let address = server.ask(&get("/ip"));
        for value in ["curl/8.5", "http://u.test/", "signup", address.text().trim_end()] {
            assert!(response.text().contains(value), "{value} is missing: {}", response.text());
        }
        assert!(response.text().ends_with('\n'));
    }));
    trials
}

/// No control characters but line breaks.
fn is_calm(response: &Response) {
    keeps_promises(response);
    assert_eq!(response.status, 200);
    let control = response.text().chars().find(|&character| character.is_control() && character != '\n');
    assert_eq!(control, None, "{:?}", response.text());
}

fn html(server: &'static Server) -> Vec<Trial> {
    let page = move |request: Request| {
        let response = server.ask(&request.header("accept", "text/html"));
        assert_eq!((response.status, response.header("content-type")), (200, Some(crate::routes::HTML)));
        response
    };
    let mut trials = vec![];
    for route in ["/", "/headers"] {
        trials.push(trial(
            format!("display: the policy of {route} allows its own style and a data: image alone"),
            move || {
                let response = page(get(route));
                let policy = response.header("content-security-policy").expect("there is a policy");
                let mut directives: Vec<_> =
                    policy.split(';').map(str::trim).filter(|directive| !directive.is_empty()).collect();
                directives.sort_unstable();
                let style = between(response.text(), "<style>", "</style>");
                let hash = STANDARD.encode(Sha256::digest(style));
                let mut expected = [
                    "default-src 'none'",
                    &format!("style-src 'sha256-{hash}'"),
                    "img-src data:",
                    "frame-ancestors 'none'",
                    "form-action 'none'",
                    "base-uri 'none'",
                ];
                expected.sort_unstable();
                assert_eq!(directives, expected);
                assert_eq!(response.header("referrer-policy"), Some("no-referrer"));
            },
        ));
        trials.push(trial(format!("display: the page of {route} runs no script and sends no requests"), move || {
            let response = page(get(route).header("referer", "http://r.test/"));
            let html = response.text().to_ascii_lowercase();
            assert!(html.starts_with("<!doctype html>"), "{html}");
            assert_eq!(html.matches("<style").count(), 1);
            assert_eq!(html.matches(" style=").count(), 0, "the policy blocks style attributes");
            for forbidden in [
                "<script",
                "javascript:",
                "@import",
                "http-equiv",
                "<iframe",
                "<object",
                "<embed",
                "<form",
                " on",
                "src=\"http",
                "href=\"http",
                "src=\"//",
                "href=\"//",
                "url(http",
            ] {
                let found = html.find(forbidden).filter(|_| forbidden != " on");
                assert_eq!(found, None, "{forbidden} is in {html}");
            }
            assert!(html.contains("name=\"viewport\"") || html.contains("name=viewport"), "a phone needs a viewport");
            assert!(html.contains("<html lang="), "the page has a language");
        }));
        for (name, header) in [
            ("user-agent", "user-agent"),
            ("referer", "referer"),
            ("any other header", "x-any"),
            ("Accept's parameter", "accept"),
        ] {
            trials.push(trial(format!("display: the page of {route} shows markup in {name} as text"), move || {
                let value = if header == "accept" {
                    format!("text/html;x=\"{}\"", SCRIPT.replace('/', ""))
                } else {
                    BREAKOUT.into()
                };
                is_harmless(&page(get(route).header(header, value)));
            }));
        }
    }
    trials.push(trial("display: ?event=<script>alert(1)</script> is shown as text", move || {
        let encoded = "%3Cscript%3Ealert(1)%3C/script%3E";
        for query in [format!("event={encoded}"), format!("url={encoded}"), "event=&lt;script%3E".into()] {
            is_harmless(&page(get(&format!("/?{query}"))));
        }
        let response = page(get(&format!("/?event={encoded}")));
        assert!(response.text().contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{}", response.text());
    }));
    trials.push(trial("display: markup in the query is shown as text everywhere on the page", move || {
        let encoded: String = BREAKOUT.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for key in ["event", "url", "other"] {
            is_harmless(&page(get(&format!("/?{key}={encoded}"))));
        }
    }));
    trials.push(trial("display: markup that is not encoded is shown as text, or refused by the server", move || {
        // A URI may not contain angle brackets (RFC 3986, section 2). Browsers encode them, curl does not.
        for key in ["event", "url", "other"] {
            let request = get(&format!("/?{key}={SCRIPT}")).header("accept", "text/html");
            let response = server.connect().exchange(&request);
            if response.status == 400 {
                assert!(response.body.is_empty(), "{response:?}");
            } else {
                is_harmless(&response);
            }
        }
    }));
    trials.push(trial("display: a url is text and never a link", move || {
        for url in ["http://evil.test/", "javascript:alert(1)", "data:text/html,x", "//evil.test/"] {
            for request in [get(&format!("/?url={url}")), get("/").header("referer", url)] {
                let html = page(request).text().to_ascii_lowercase();
                for attribute in ["href", "src", "action"] {
                    for quote in ["", "\"", "'"] {
                        assert!(!html.contains(&format!("{attribute}={quote}{url}")), "{attribute} of {url}");
                    }
                }
                assert!(html.contains(url), "{url} is not shown");
            }
        }
    }));
    trials.push(trial("display: the page shows the four values and the sentence about the address", move || {
        let browser = "Browser/1 (A; B)";
        let response = page(get("/?url=http://u.test/&event=sign%26up").header("user-agent", browser));
        let report = server.ask(&get("/?format=json")).json();
        let sentence = report["address"]["explanation"].as_str().unwrap();
        let shown = unescaped(response.text());
        for value in [browser, "http://u.test/", "sign&up", report["ip"].as_str().unwrap(), sentence] {
            assert!(shown.contains(value), "{value} is missing: {shown}");
        }
    }));
    trials
}

fn is_harmless(response: &Response) {
    keeps_promises(response);
    let html = response.text().to_ascii_lowercase();
    for tag in ["<script", "<img src=x", "'\">", "</style></title>"] {
        assert!(!html.contains(tag), "{tag} is in {html}");
    }
}

fn json(server: &'static Server) -> Vec<Trial> {
    vec![
        trial("display: the JSON report has these members and no others", move || {
            let request = get("/?format=json&url=u&event=e").header("user-agent", "curl/8.5").header("accept", "*/*");
            let report = server.ask(&request).json();
            let ip = report["ip"].as_str().unwrap();
            let expected = json!({
                "browser": "curl/8.5", "url": "u", "event": "e", "ip": ip,
                "address": {
                    "ip": ip, "verified": true, "source": "peer",
                    "explanation": report["address"]["explanation"].as_str().unwrap(), "chain": [ip],
                },
                "request": {
                    "method": "GET", "path": "/", "query": "format=json&url=u&event=e",
                    "scheme": "http", "host": server.host,
                    "headers": [["user-agent", "curl/8.5"], ["accept", "*/*"]],
                },
                "served_by": server.ask(&get("/version")).json(),
            });
            assert_eq!(report, expected);
        }),
        trial("display: JSON has no raw control character, and none that changes the direction of text", move || {
            for encoded in
                ["%C2%9B31m", "%7F", "%C2%85", "%1b%5B", "%00%0A", "%E2%80%AE", "%E2%81%A6", "%D8%9C", "%E2%80%8F"]
            {
                let value = percent_decoded(encoded);
                let escaped: String = value
                    .chars()
                    .map(|c| match c {
                        '\n' => "\\n".to_owned(),
                        ' '..='~' => c.into(),
                        c => format!("\\u{:04x}", u32::from(c)),
                    })
                    .collect();
                let response = server.ask(&get(&format!("/?format=json&event={encoded}")));
                assert!(response.text().contains(&format!("\"event\":\"{escaped}\"")), "{}", response.text());
                assert_eq!(response.json()["event"], value);
                let headers = server.ask(&get("/headers?format=json").header("x-any", "a\u{9b}\u{202e}b"));
                assert!(headers.text().contains(r"a\u009b\u202eb"), "{}", headers.text());
            }
        }),
        trial("display: the JSON report has null for absent values", move || {
            let report = server.ask(&get("/").header("accept", "application/json")).json();
            for pointer in ["/browser", "/url", "/event", "/request/query"] {
                assert_eq!(report.pointer(pointer), Some(&Value::Null), "{pointer}");
            }
        }),
        trial("display: the JSON report says which method was used", move || {
            let report = server.ask(&request("POST", "/?format=json").header("content-length", "0")).json();
            assert_eq!(report["request"]["method"], "POST");
        }),
        trial("display: an encoded query is shown with its invalid UTF-8 replaced", move || {
            let report = server.ask(&get("/?format=json&x=%ff%zz%41")).json();
            let query = report["request"]["query"].as_str().unwrap();
            assert!(query == "format=json&x=%ff%zz%41" || query == "format=json&x=\u{fffd}%zzA", "{query}");
        }),
        trial("display: browser and url are shown as they were sent", move || {
            let value = "\u{e9}\u{1f980} \"\\ </script>";
            let report = server.ask(&get("/?format=json").header("user-agent", value).header("referer", value)).json();
            assert_eq!((&report["browser"], &report["url"]), (&json!(value), &json!(value)));
        }),
    ]
}

fn headers(server: &'static Server) -> Vec<Trial> {
    let shown = move |request: Request| headers_of(&server.ask(&request.header("accept", "application/json")));
    vec![
        trial("display: /headers keeps duplicates, their order and their values", move || {
            let sent = [("x-a", "1"), ("x-a", "2"), ("x-b", "a, b"), ("x-c", ""), ("x-b", "3"), ("x-a", "1")];
            let all = shown(get("/headers").headers(&sent));
            for name in ["x-a", "x-b", "x-c"] {
                let of = |list: &[(String, String)]| -> Vec<String> {
                    list.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
                };
                let sent: Vec<_> = sent.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                assert_eq!(of(&all), of(&sent), "{name}");
            }
            assert_eq!(all.len(), sent.len() + 1, "{all:?}");
        }),
        trial("display: /headers shows nothing that the visitor did not send", move || {
            assert_eq!(shown(get("/headers")), [("accept".to_owned(), "application/json".to_owned())]);
        }),
        trial("display: /headers shows only those spin-* headers that the visitor sent", move || {
            let sent = [
                ("spin-client-addr", "9.9.9.9:9"),
                ("spin-client-addr", "8.8.8.8:8"),
                ("spin-path-info", "/evil"),
                ("spin-full-url", "http://evil.test/"),
                ("spin-matched-route", "/evil"),
                ("spin-base-path", "/evil"),
                ("spin-raw-component-route", "/evil"),
                ("spin-component-route", "/evil"),
                ("spin-unknown", "x"),
            ];
            let mut all = shown(get("/headers").headers(&sent));
            all.retain(|(name, _)| name != "accept");
            let mut expected: Vec<_> = sent.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            all.sort();
            expected.sort();
            assert_eq!(all, expected);
        }),
        trial("display: the report shows the headers that /headers shows", move || {
            let request = |target| {
                get(target).headers(&[("x-a", "1"), ("x-a", "2"), ("spin-client-addr", "9.9.9.9:9"), ("accept", "*/*")])
            };
            let report = server.ask(&request("/?format=json"));
            assert_eq!(headers_of(&report), headers_of(&server.ask(&request("/headers?format=json"))));
        }),
        trial("display: /headers shows a header in each format", move || {
            for format in ["html", "text", "json"] {
                let response = server.ask(&get(&format!("/headers?format={format}")).header("x-any", "thing"));
                assert!(response.text().contains("x-any") && response.text().contains("thing"), "{}", response.text());
            }
            let text = server.ask(&get("/headers?format=text").headers(&[("x-a", "1"), ("x-a", "2")]));
            assert_eq!(text.text(), "x-a: 1\nx-a: 2\n");
        }),
    ]
}

/// The pairs of `/headers` or of the report, in JSON.
pub(crate) fn headers_of(response: &Response) -> Vec<(String, String)> {
    let document = response.json();
    let pairs = document.pointer("/request/headers").or(document.get("headers")).unwrap_or(&document);
    serde_json::from_value(pairs.clone()).unwrap_or_else(|error| panic!("{error}: {document}"))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start} in {text}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end} in {text}")).0
}

fn percent_decoded(encoded: &str) -> String {
    let mut bytes = vec![];
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next().unwrap()).to_digit(16).unwrap();
        bytes.push(if byte == b'%' { u8::try_from(digit() * 16 + digit()).unwrap() } else { byte });
    }
    String::from_utf8(bytes).unwrap()
}

fn unescaped(html: &str) -> String {
    html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&")
}
