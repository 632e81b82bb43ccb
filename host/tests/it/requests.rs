//! What the guest gets of a request.

use std::io::Write as _;
use std::net::SocketAddr;

use conformance::{PATIENCE, Response, get, request};

use crate::host::{APPLICATION, Application, Host, everything_to_the_guest, guest, has_ipv6};

/// The headers that Spin writes for a request to everything, in its order.
const APPENDED: [&str; 7] = [
    "spin-path-info",
    "spin-full-url",
    "spin-matched-route",
    "spin-base-path",
    "spin-raw-component-route",
    "spin-component-route",
    "spin-client-addr",
];

#[test]
fn seven_headers_are_appended_to_the_client_s_own() {
    let host = Host::start();
    let mut connection = host.connect();
    let answer = connection.exchange_bytes(get("/a//b/?c=d").header("x-own", "kept").encode("example.com:8080"));
    // The order is undefined, because Spin and this host hide Host by moving the last header to its place.
    let mut headers: Vec<_> = answer.text().lines().skip(1).collect();
    headers.sort_unstable();
    let client = format!("spin-client-addr: {}", connection.stream().local_addr().unwrap());
    let expected = [
        "spin-base-path: /",
        &client,
        "spin-component-route: ",
        "spin-full-url: http://example.com:8080/a//b/?c=d",
        "spin-matched-route: /...",
        "spin-path-info: /a//b/",
        "spin-raw-component-route: /...",
        "x-own: kept",
    ];
    assert_eq!(headers, expected);
}

#[test]
fn the_headers_of_a_longer_route_have_the_values_of_its_wildcards() {
    let route = "[[trigger.http]]\nroute = \"/users/:user_id/...\"\ncomponent = \"guest\"\n";
    let host = Application::new(&format!("{APPLICATION}{route}{}", guest())).serve();
    let answer = host.get("/users/7/x/y");
    for line in [
        "spin-path-info: /x/y",
        "spin-full-url: http://example.com/users/7/x/y",
        "spin-matched-route: /users/:user_id/...",
        "spin-raw-component-route: /users/:user_id/...",
        "spin-component-route: /users/:user_id",
        "spin-path-match-user-id: 7",
    ] {
        assert!(answer.text().lines().any(|known| known == line), "{line}: {}", answer.text());
    }
}

#[test]
fn a_forged_header_stays_in_front_of_the_appended_one() {
    let host = Host::start();
    for name in APPENDED {
        let answer = host.connect().exchange(&get("/").header(name, "forged"));
        let prefix = format!("{name}: ");
        let values: Vec<_> = answer.text().lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
        assert!(matches!(values[..], ["forged", own] if own != "forged"), "{name}: {values:?}");
    }
}

#[test]
fn the_clients_address_is_that_of_the_connection_also_over_ipv6() {
    if !has_ipv6() {
        return;
    }
    let host = Application::new(&everything_to_the_guest()).argument("--listen=[::1]:0").serve();
    let mut connection = host.connect();
    let line = format!("spin-client-addr: [::1]:{}", connection.stream().local_addr().unwrap().port());
    assert!(connection.get("/").text().lines().any(|known| known == line));
}

#[test]
fn headers_of_the_connection_are_hidden() {
    let hidden = [
        ("Connection", "keep-alive"),
        ("Keep-Alive", "timeout=5"),
        ("Upgrade", "websocket"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("Proxy-Connection", "keep-alive"),
    ];
    // It adds Transfer-Encoding, which is hidden too.
    let bytes = request("POST", "/").headers(&hidden).header("x-own", "kept").encode_chunked("example.com", 1);
    let answer = Host::start().connect().exchange_bytes(bytes);
    let own: Vec<_> = answer.text().lines().skip(1).filter(|line| !line.starts_with("spin-")).collect();
    assert_eq!(own, ["x-own: kept"]);
}

#[test]
fn the_host_is_the_authority() {
    let host = Host::start();
    for authority in ["example.com", "example.com:8080", "127.0.0.1", "[::1]:3000"] {
        for target in ["/a?b=c".to_owned(), format!("http://{authority}/a?b=c")] {
            let answer = host.connect().exchange_bytes(get(&target).encode(authority));
            let line = format!("Method::Get Some(Scheme::Http) Some({authority:?}) Some(\"/a?b=c\")");
            assert_eq!(answer.text().lines().next(), Some(&*line), "{target}");
        }
    }
}

/// One request over HTTP/2 by prior knowledge, without a Host header.
fn get_over_http2(to: SocketAddr, url: &str) -> Response {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(to).await?;
        let (mut client, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        let request = http::Request::get(url).body(())?;
        let (answer, _) = client.send_request(request, true)?;
        let (head, mut incoming) = answer.await?.into_parts();
        let mut body = Vec::new();
        while let Some(part) = incoming.data().await {
            body.extend_from_slice(&part?);
        }
        anyhow::Ok(Response { status: head.status.as_u16(), headers: Vec::new(), body })
    };
    let outcome = runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await });
    outcome.expect("the host answers in time").expect("the host speaks HTTP/2")
}

#[test]
fn http2_is_spoken_by_prior_knowledge() {
    let host = Host::start();
    let answer = get_over_http2(host.address, "http://example.com:8080/a?b=c");
    assert_eq!(answer.status, 200);
    let mut lines = answer.text().lines();
    let line = "Method::Get Some(Scheme::Http) Some(\"example.com:8080\") Some(\"/a?b=c\")";
    assert_eq!(lines.next(), Some(line));
    // Spin asks for a Host header, which HTTP/2 has no need of.
    assert!(lines.any(|line| line == "spin-full-url: http://localhost/a?b=c"), "{}", answer.text());
}

#[test]
fn a_body_of_any_length_passes_in_both_directions() {
    const PIECE: usize = 1 << 16;
    const PIECES: usize = 512; // 32 MiB, as much as the guest may have at once
    let host = Application::new(&everything_to_the_guest()).argument("--request-timeout=600").serve();
    let head = |path, length| format!("POST {path} HTTP/1.1\r\nHost: example.com\r\nContent-Length: {length}\r\n\r\n");

    let mut connection = host.connect();
    connection.send(head("/measure", PIECES * PIECE)).unwrap();
    for _ in 0..PIECES {
        connection.send(vec![b'x'; PIECE]).unwrap();
    }
    assert_eq!(connection.receive().unwrap().unwrap().text(), (PIECES * PIECE).to_string());

    let mut connection = host.connect();
    let mut sender = connection.stream().try_clone().unwrap();
    connection.send(head("/repeat", PIECES * PIECE)).unwrap();
    let sending = std::thread::spawn(move || {
        for number in 0..PIECES {
            sender.write_all(&vec![u8::try_from(number % 251).unwrap(); PIECE]).unwrap();
        }
    });
    let answer = connection.receive().unwrap().unwrap();
    sending.join().unwrap();
    assert_eq!(answer.body.len(), PIECES * PIECE);
    for (number, piece) in answer.body.chunks(PIECE).enumerate() {
        assert!(piece.iter().all(|byte| usize::from(*byte) == number % 251), "piece {number}");
    }
}
