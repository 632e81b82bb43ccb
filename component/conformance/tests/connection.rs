//! What may happen on a connection: errors, bytes that are not HTTP, many requests, long ones, and clients that leave.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Duration;

use conformance::{Connection, Request, get, post, request};
use libtest_mimic::Trial;
use socket2::SockRef;

use crate::display::headers_of;
use crate::routes::is_error;
use crate::server::{Server, keeps_promises};
use crate::trial;

/// The limit of target and headers together, in bytes.
const HEAD_LIMIT: usize = 64 * 1024;

/// Bytes that are not a request. The answer is 400 or another 4xx, or the end of the connection.
const MALFORMED: &[(&str, &[u8])] = &[
    ("no request line", b"GARBAGE\r\n\r\n"),
    ("a request line of nulls", b"\0\0\0\0\r\n\r\n"),
    ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ("an unknown version", b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n"),
    ("no host", b"GET / HTTP/1.1\r\n\r\n"),
    ("a target with a space", b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("a target that is not a path", b"GET nonsense HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("a method with a bracket", b"G[T / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("a header without a colon", b"GET / HTTP/1.1\r\nHost: localhost\r\nNonsense\r\n\r\n"),
    ("a header name with a space", b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n"),
    ("a space before the colon", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length : 1\r\n\r\nx"),
    ("a header without a name", b"GET / HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n"),
    ("a null in a header", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n"),
    ("a length that is not a number", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: ten\r\n\r\nx"),
    ("a negative length", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\nx"),
    ("a length beyond all numbers", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\nx"),
    ("two lengths", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
    ("a transfer encoding that does not end in chunked", b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, gzip\r\n\r\nx"),
    ("a chunk size that is not a number", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nevent=e\r\n0\r\n\r\n"),
    ("a chunk that is longer than its size", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nevent=e\r\n0\r\n\r\n"),
];

pub(crate) fn trials(server: &'static Server) -> Vec<Trial> {
    let mut trials = vec![];
    for &(name, bytes) in MALFORMED {
        trials.push(trial(format!("connection: {name} is refused, and the next client is served"), move || {
            let mut connection = server.connect().sending(bytes);
            end_sending(&connection);
            if let Some(response) = unless_reset(connection.receive()) {
                assert!((400..500).contains(&response.status), "{response:?}");
            }
            serves(server);
        }));
    }
    trials.push(trial("connection: it is kept after every error", move || {
        let refused = [
            (get("/nope"), 404),
            (get("/?format=pdf"), 400),
            (request("DELETE", "/"), 405),
            (post("/ip", "text/plain", "body"), 405),
            (get("/").header("accept", "image/png"), 406),
            (request("OPTIONS", "/"), 204),
            (request("HEAD", "/nope"), 404),
        ];
        let mut connection = server.connect();
        for round in 0..3 {
            for (request, status) in &refused {
                let response = connection.exchange(request);
                keeps_promises(&response);
                assert_eq!(response.status, *status);
                let event = format!("{round}-{status}");
                assert_eq!(connection.exchange(&get(&format!("/?format=json&event={event}"))).json()["event"], event);
            }
        }
    }));
    trials.push(trial("connection: after 413 it stays usable, or is closed after the whole answer", move || {
        for chunked in [false, true] {
            let large = post("/", "application/x-www-form-urlencoded", vec![b'a'; 64 * 1024 + 1]);
            let bytes = if chunked { large.encode_chunked(&server.host, 5000) } else { large.encode(&server.host) };
            let mut connection = server.connect();
            let response = connection.exchange_bytes(&bytes);
            crate::routes::is_error(&response, 413);
            let next = get("/?format=json&event=next").encode(&server.host);
            match connection.send(&next) {
                Err(error) => assert!(is_end(error.kind()), "{error}"),
                Ok(()) => {
                    if let Some(response) = unless_reset(connection.receive()) {
                        assert_eq!(response.json()["event"], "next");
                    }
                }
            }
        }
    }));
    trials.push(trial("connection: requests sent at once are answered in their order", move || {
        let targets: Vec<_> = (0..20).map(|number| format!("/?format=json&event={number}")).collect();
        let bytes: Vec<u8> = targets.iter().flat_map(|target| get(target).encode(&server.host)).collect();
        let mut connection = server.connect().sending(bytes);
        for number in 0..targets.len() {
            assert_eq!(connection.receive().unwrap().unwrap().json()["event"], number.to_string());
        }
    }));
    trials.push(trial("connection: empty lines before a request are skipped", move || {
        let bytes = [b"\r\n\r\n".to_vec(), get("/version").encode(&server.host)].concat();
        assert_eq!(server.connect().exchange_bytes(bytes).status, 200);
    }));
    trials.push(trial("connection: `Connection: close` closes it", move || {
        let mut connection = server.connect();
        keeps_promises(&connection.exchange(&get("/").header("connection", "close")));
        assert!(connection.receive().unwrap().is_none());
    }));
    trials.push(trial("connection: a request of HTTP/1.0 is answered, and the connection closed", move || {
        let mut connection = server.connect();
        let bytes = format!("GET /?format=json HTTP/1.0\r\nHost: {}\r\n\r\n", server.host);
        assert_eq!(connection.exchange_bytes(bytes).status, 200);
        assert!(connection.receive().unwrap().is_none());
    }));
    trials.push(trial("connection: a client that waits for 100 Continue gets it", move || {
        let head = format!(
            "POST /?format=json HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n",
            server.host
        );
        let mut connection = server.connect().sending(head);
        assert_eq!(connection.receive_head().unwrap().unwrap().status, 100);
        assert_eq!(connection.exchange_bytes("event=e").json()["event"], "e");
    }));
    trials.push(trial("connection: a request that arrives byte by byte is understood", move || {
        let mut connection = server.connect();
        let bytes = post("/?format=json", "application/x-www-form-urlencoded", "event=slow").encode(&server.host);
        for byte in bytes.chunks(1) {
            connection.send(byte).unwrap();
        }
        assert_eq!(connection.receive().unwrap().unwrap().json()["event"], "slow");
    }));
    trials.push(trial("connection: 32 clients with 50 requests each see only their own values", move || {
        std::thread::scope(|scope| {
            for client in 0..32 {
                scope.spawn(move || one_of_many(server, client));
            }
        });
    }));
    trials.extend(long_requests(server));
    trials.extend(leaving_clients(server));
    trials
}

fn one_of_many(server: &Server, client: usize) {
    let mut connection = server.connect();
    for number in 0..50 {
        let own = format!("{client}-{number}");
        let form = format!("event={own}");
        let request = match number % 3 {
            0 => get(&format!("/?event={own}&format=json")),
            1 => post("/?format=json", "application/x-www-form-urlencoded", form),
            _ => post(
                "/?format=json",
                "multipart/form-data; boundary=X",
                format!("--X\r\nContent-Disposition: form-data; name=event\r\n\r\n{own}\r\n--X--\r\n"),
            ),
        };
        let response = connection.exchange(&request.header("user-agent", &own).header("referer", &own));
        keeps_promises(&response);
        let report = response.json();
        for member in ["event", "browser", "url"] {
            assert_eq!(report[member], own);
        }
    }
}

fn long_requests(server: &'static Server) -> Vec<Trial> {
    // Spin adds seven, and a server takes a hundred.
    let numbered = |count: usize| {
        (0..count - 1).fold(get("/headers?format=json"), |request, number| request.header(&format!("x-{number}"), "v"))
    };
    let mut trials = vec![
        trial("connection: 93 headers are all shown", move || {
            let headers = headers_of(&server.ask(&numbered(93)));
            assert_eq!(headers.len(), 92, "Host is not among them");
        }),
        trial("connection: 101 headers are refused with 431, and the next client is served", move || {
            let mut connection = server.connect().sending(numbered(101).encode(&server.host));
            let response = unless_reset(connection.receive());
            assert!(response.is_none_or(|response| response.status == 431));
            serves(server);
        }),
        trial("connection: a header of a mebibyte is refused, and the next client is served", move || {
            is_refused(server, get("/user-agent").header("user-agent", vec![b'a'; 1 << 20]).encode(&server.host));
        }),
        trial("connection: a target of a mebibyte is refused, and the next client is served", move || {
            is_refused(server, get(&format!("/{}", "a".repeat(1 << 20))).encode(&server.host));
        }),
    ];
    for kibibytes in [4, 16] {
        trials.push(trial(
            format!("connection: a header of {kibibytes} KiB is shown whole in each format"),
            move || {
                let value = "a<".repeat(kibibytes * 512);
                is_whole_in_json_and_text(server, &value);
                let escaped = value.replace('<', "&lt;");
                for target in ["/?format=html", "/headers?format=html"] {
                    let page = server.ask(&get(target).header("user-agent", &value));
                    assert!(page.text().contains(&escaped), "{target}");
                    assert!(!page.text().contains("bytes more"), "{target}");
                }
            },
        ));
    }
    trials.push(trial(
        "connection: the page shows 16 KiB of a header of 60 KiB, and JSON shows all of it",
        move || {
            let value = "a\"\u{e9}".repeat(15 * 1024);
            is_whole_in_json_and_text(server, &value);
            for target in ["/?format=html", "/headers?format=html"] {
                let page = server.ask(&get(target).header("user-agent", &value));
                assert!(page.text().contains("45056 bytes more, which the JSON has"), "{target}: {}", page.text());
                assert!(page.body.len() < 200 * 1024, "{target}: {} bytes", page.body.len());
            }
        },
    ));
    let head = |filler: usize| get("/headers?format=json").header("x-any", vec![b'a'; filler]);
    // The target, the header's name, and Spin's own headers do not count.
    let most = HEAD_LIMIT - "/headers?format=json".len() - "x-any".len();
    trials.push(trial("connection: target and headers of 64 KiB together are read", move || {
        let headers = headers_of(&server.ask(&head(most)));
        assert_eq!(headers[0].1.len(), most);
    }));
    trials.push(trial(
        "connection: target and headers of 64 KiB and a byte together are answered with 431",
        move || {
            for method in ["GET", "POST", "OPTIONS"] {
                is_error(&server.ask(&Request { method: method.into(), ..head(most + 1) }), 431);
            }
            let long = format!("/?event={}", "a".repeat(HEAD_LIMIT / 2));
            is_error(&server.ask(&get(&long).header("x-any", vec![b'a'; HEAD_LIMIT / 2])), 431);
            let many = (0..80).fold(get("/version"), |request, n| request.header(&format!("x-{n}"), vec![b'a'; 1024]));
            is_error(&server.ask(&many), 431);
            is_error(&server.ask(&get("/ip").header("spin-client-addr", vec![b'a'; HEAD_LIMIT])), 431);
        },
    ));
    trials.push(trial("connection: a Host of 64 KiB is refused, and the next client is served", move || {
        let host = "a".repeat(HEAD_LIMIT + 2048);
        is_refused(server, format!("GET /?format=json HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }));
    trials
}

fn is_whole_in_json_and_text(server: &Server, value: &str) {
    assert_eq!(server.ask(&get("/user-agent").header("user-agent", value)).text().trim_end(), value);
    assert_eq!(server.ask(&get("/?format=json").header("user-agent", value)).json()["browser"], value);
    for target in ["/?format=text", "/headers?format=text"] {
        assert!(server.ask(&get(target).header("user-agent", value)).text().contains(value), "{target}");
    }
}

/// Clients that leave half-way. Each is tried 20 times, with a normal end of the connection and with a reset.
fn leaving_clients(server: &'static Server) -> Vec<Trial> {
    let leavings: [(_, fn(&Server) -> Vec<u8>); 5] = [
        ("before it has sent anything", |_| vec![]),
        ("in the head", |_| b"GET / HTTP/1.1\r\nHost: loc".to_vec()),
        ("in the body", |server| {
            format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\nevent=", server.host).into_bytes()
        }),
        ("in a chunk", |server| {
            format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nevent=", server.host).into_bytes()
        }),
        ("before it has read the answer", |server| get("/?format=html").encode(&server.host)),
    ];
    let mut trials = vec![];
    for (moment, sent) in leavings {
        trials.push(trial(format!("connection: a client may leave {moment}"), move || {
            for attempt in 0..20 {
                let connection = server.connect().sending(sent(server));
                if attempt % 2 == 0 {
                    SockRef::from(connection.stream()).set_linger(Some(Duration::ZERO)).unwrap();
                }
                drop(connection);
            }
            serves(server);
        }));
    }
    trials.push(trial("connection: a body that ends too early does not cause a 5xx", move || {
        let mut connection = server.connect().sending(leavings[2].1(server));
        end_sending(&connection);
        if let Some(response) = unless_reset(connection.receive()) {
            assert!((400..500).contains(&response.status), "{response:?}");
        }
    }));
    trials.push(trial("connection: waiting clients do not block others", move || {
        let waiting: Vec<_> = (0..100).map(|_| server.connect().sending(leavings[2].1(server))).collect();
        serves(server);
        drop(waiting);
    }));
    trials
}

/// The server answers 4xx or ends the connection, perhaps before the client has sent everything, and serves the next client.
fn is_refused(server: &Server, bytes: impl AsRef<[u8]>) {
    let mut connection = server.connect();
    let response = unless_reset(connection.send(bytes).and_then(|()| connection.receive()));
    assert!(response.is_none_or(|response| (400..500).contains(&response.status)));
    serves(server);
}

fn serves(server: &Server) {
    assert_eq!(server.ask(&get("/?format=json&event=next")).json()["event"], "next");
}

/// A server that refuses the request may reset the connection before the client has sent all of it.
fn end_sending(connection: &Connection) {
    if let Err(error) = connection.stream().shutdown(Shutdown::Write) {
        assert!(is_end(error.kind()), "{error}");
    }
}

/// The answer, or `None` if the connection was closed. A client that still sends may see that as a reset.
fn unless_reset<T>(received: std::io::Result<Option<T>>) -> Option<T> {
    received.unwrap_or_else(|error| if is_end(error.kind()) { None } else { panic!("{error}") })
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted | ErrorKind::NotConnected
    )
}
