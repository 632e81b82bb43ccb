//! `--max-connections`: what visitors can take of a server, and what they cannot.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use conformance::post;

use crate::host::{Application, Host, everything_to_the_guest};

fn host(connections: u32) -> Host {
    let limit = format!("--max-connections={connections}");
    Application::new(&everything_to_the_guest()).argument(&limit).serve()
}

/// Whether the host has closed it.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match stream.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn a_client_that_is_slow_is_cut_off_and_one_that_is_done_is_kept() {
    let host = host(100);
    let cases = [
        ("nothing", "", true),
        ("the beginning of HTTP/2", "PRI * HTTP/2.0\r\n", true),
        ("half a head", "GET / HTTP/1.1\r\nHost: exa", true),
        ("half a body", "POST /measure HTTP/1.1\r\nHost: example.com\r\nContent-Length: 6\r\n\r\nabc", true),
        ("half of a second head", "GET /count HTTP/1.1\r\nHost: example.com\r\n\r\nGET /", false),
        ("a request", "GET /count HTTP/1.1\r\nHost: example.com\r\n\r\n", false),
    ];
    let mut open: Vec<_> = cases
        .iter()
        .map(|(_, bytes, _)| {
            let mut stream = TcpStream::connect(host.address).unwrap();
            stream.write_all(bytes.as_bytes()).unwrap();
            stream
        })
        .collect();
    // In ten seconds, and the second between two looks.
    let deadline = Instant::now() + Duration::from_secs(30);
    for ((name, _, cut), stream) in cases.iter().zip(&mut open) {
        while *cut && !is_closed(stream) {
            assert!(Instant::now() < deadline, "{name}: it is still open");
        }
    }
    host.wait_for_log("connections that were too many, too slow or held too much");
    let mut kept = open.pop().unwrap();
    while !is_closed(&mut kept) && kept.set_read_timeout(Some(Duration::from_millis(1))).is_ok() {
        if kept.read(&mut [0; 4096]).is_err() {
            return;
        }
    }
    panic!("the kept connection was closed");
}

#[test]
fn slow_heads_do_not_keep_others_from_their_answer() {
    // Fewer than there are attackers.
    let host = host(64);
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        // Each that was closed is replaced, and all send a byte.
        slow.resize_with(200, || TcpStream::connect(host.address).unwrap());
        slow.retain_mut(|stream| !is_closed(stream) && stream.write_all(b"G").is_ok());
        for _ in 0..20 {
            let start = Instant::now();
            assert_eq!(host.get("/count").text(), "1");
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        }
    }
    host.wait_for_log("connections that were too many, too slow or held too much");
}

#[test]
fn connections_that_ask_nothing_do_not_close_those_that_are_kept() {
    let host = host(8);
    let mut kept: Vec<_> = (0..4).map(|_| host.connect()).collect();
    for connection in &mut kept {
        assert_eq!(connection.get("/count").status, 200);
    }
    let _slow: Vec<_> = (0..50).map(|_| TcpStream::connect(host.address).unwrap()).collect();
    assert_eq!(host.get("/count").status, 200);
    for connection in &mut kept {
        assert_eq!(connection.get("/count").status, 200);
    }
}

#[test]
fn a_client_that_sends_slowly_holds_no_instance() {
    let host = host(100);
    let begun = "POST /measure HTTP/1.1\r\nHost: example.com\r\nContent-Length: 6\r\n\r\nabc";
    let open: Vec<_> = (0..50).map(|_| host.connect().sending(begun)).collect();
    let start = Instant::now();
    assert_eq!(host.get("/count").text(), "1");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    for mut connection in open {
        assert_eq!(connection.exchange_bytes("def").text(), "6");
    }
}

#[test]
fn a_body_is_whole_whatever_its_length() {
    let host = host(10);
    for length in [0, 1, 65_535, 65_536, 65_537, 3_000_000] {
        let answer = host.connect().exchange(&post("/measure", "text/plain", vec![b'x'; length]));
        assert_eq!(answer.text(), length.to_string());
    }
}

#[test]
fn a_request_for_which_no_instance_is_free_is_answered_with_503() {
    let host = host(100);
    let busy: Vec<_> = (0..8).map(|_| host.begin("/loop")).collect();
    let answers: Vec<_> = (0..8).map(|_| host.get("/count").status).collect();
    assert!(answers.iter().all(|status| matches!(status, 200 | 503)) && answers.contains(&503), "{answers:?}");
    drop(busy);
}
