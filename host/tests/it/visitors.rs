//! `--max-connections`: what visitors can do to a server, and what they cannot.

use std::io::{ErrorKind, Read as _};
use std::time::{Duration, Instant};

use conformance::{Connection, post};

use crate::host::{Application, Host, everything_to_the_guest};

fn host(connections: u32) -> Host {
    let limit = format!("--max-connections={connections}");
    Application::new(&everything_to_the_guest()).argument(&limit).serve()
}

/// Whether the host has closed it.
fn is_closed(connection: &Connection) -> bool {
    let mut stream = connection.stream();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match stream.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn a_slow_client_is_cut_off_after_ten_seconds_and_an_idle_one_is_kept_longer() {
    let host = host(100);
    let cases = [
        ("nothing", ""),
        ("the beginning of HTTP/2", "PRI * HTTP/2.0\r\n"),
        ("half a head", "GET / HTTP/1.1\r\nHost: exa"),
        ("half a body", "POST /measure HTTP/1.1\r\nHost: example.com\r\nContent-Length: 6\r\n\r\nabc"),
    ];
    let start = Instant::now();
    let mut kept = host.connect();
    assert_eq!(kept.get("/count").status, 200);
    let slow = cases.map(|(name, bytes)| (name, host.connect().sending(bytes)));
    for (name, connection) in slow {
        while !is_closed(&connection) {
            // In ten seconds, and the second between two looks.
            assert!(start.elapsed() < Duration::from_secs(30), "{name}: it is still open");
        }
    }
    host.wait_for_log("connections that were too many, too slow or took too much memory");
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(kept.get("/count").status, 200);
}

#[test]
fn slow_heads_do_not_block_other_clients() {
    // Fewer than there are attackers.
    let host = host(64);
    let mut slow = Vec::new();
    for _ in 0..3 {
        // Each that was closed is replaced, and all send a byte.
        slow.resize_with(200, || host.connect());
        slow.retain_mut(|connection| !is_closed(connection) && connection.send("G").is_ok());
        for _ in 0..20 {
            let start = Instant::now();
            assert_eq!(host.get("/count").text(), "1");
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        }
    }
    host.wait_for_log("connections that were too many, too slow or took too much memory");
}

#[test]
fn connections_without_a_request_do_not_displace_kept_ones() {
    let host = host(8);
    let mut kept: Vec<_> = (0..4).map(|_| host.connect()).collect();
    for connection in &mut kept {
        assert_eq!(connection.get("/count").status, 200);
    }
    let _slow: Vec<_> = (0..50).map(|_| host.connect()).collect();
    assert_eq!(host.get("/count").status, 200);
    for connection in &mut kept {
        assert_eq!(connection.get("/count").status, 200);
    }
}

#[test]
fn at_the_limit_each_new_connection_replaces_the_longest_idle_one() {
    let host = host(4);
    let mut open: Vec<_> = (0..4).map(|_| host.connect()).collect();
    // It does not matter which of them was opened first.
    open.reverse();
    for connection in &mut open {
        assert_eq!(connection.get("/count").status, 200);
        host.wait_until_it_rests();
    }
    for _ in 0..2 {
        let mut waited_longest = open.remove(0);
        let mut newcomer = host.connect();
        assert_eq!(newcomer.get("/count").status, 200);
        assert!(waited_longest.receive().unwrap().is_none());
        host.wait_until_it_rests();
        open.push(newcomer);
    }
    for connection in &mut open {
        assert_eq!(connection.get("/count").status, 200);
    }
}

#[test]
fn a_client_that_sends_slowly_occupies_no_instance() {
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
fn a_body_of_any_length_is_complete() {
    let host = host(10);
    for length in [0, 1, 65_535, 65_536, 65_537, 3_000_000] {
        let answer = host.connect().exchange(&post("/measure", "text/plain", vec![b'x'; length]));
        assert_eq!(answer.text(), length.to_string());
    }
}

#[test]
fn a_request_without_a_free_instance_is_answered_with_503() {
    let application = Application::new(&everything_to_the_guest());
    let host = application.argument("--max-connections=100").argument("--request-timeout=60").serve();
    let _busy: Vec<_> = (0..8).map(|_| host.begin("/loop")).collect();
    // One is free until all eight have begun.
    let mut answers = std::iter::repeat_with(|| host.get("/count").status).take(1000);
    assert_eq!(answers.find(|status| *status != 200), Some(503));
}
