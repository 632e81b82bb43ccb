//! `--drain`: how a public server ends.

use std::time::{Duration, Instant};

use conformance::{PATIENCE, Response};

use crate::host::{Application, Host, everything_to_the_guest};

fn host(drain: &str) -> Host {
    Application::new(&everything_to_the_guest()).argument(&format!("--drain={drain}")).serve()
}

fn closes(answer: &Response) -> bool {
    answer.header("connection") == Some("close")
}

/// Sends SIGTERM, and waits until the drain has begun.
fn begin(host: &Host, signal: &str) {
    host.signal(signal);
    host.wait_for_log("stopping after a signal");
}

#[test]
fn a_kept_connection_gets_one_more_answer_and_is_closed_with_it() {
    for signal in ["TERM", "INT"] {
        let mut host = host("30s");
        let mut kept = host.connect();
        assert!(!closes(&kept.get("/count")));
        begin(&host, signal);
        let start = Instant::now();
        let answer = kept.get("/count");
        assert!(answer.status == 200 && closes(&answer), "{signal}: {answer:?}");
        assert!(kept.receive().unwrap().is_none(), "{signal}: it is closed");
        assert_eq!(host.exit().code(), Some(0), "{signal}");
        assert!(start.elapsed() < Duration::from_secs(10), "{signal}: the end was not seen to be quiet");
        host.wait_for_log("0 connections cut during a request, 0 idle ones closed");
    }
}

#[test]
fn new_requests_are_still_answered_and_probes_get_503() {
    let host = host("30s");
    let _keeps_it_open = host.connect();
    begin(&host, "TERM");
    for (path, status) in [("/count", 200), ("/trap", 500), ("/healthz", 503), ("/.well-known/spin/health", 200)] {
        let mut connection = host.connect();
        let answer = connection.get(path);
        assert!(answer.status == status && closes(&answer), "{path}: {answer:?}");
        assert!(connection.receive().unwrap().is_none(), "{path}: it is closed");
    }
}

#[test]
fn a_request_under_way_is_answered_whole() {
    let mut host = host("30s");
    let begun = "POST /repeat HTTP/1.1\r\nHost: example.com\r\nContent-Length: 6\r\n\r\nabc";
    let mut slow = host.connect().sending(begun);
    assert_eq!(slow.receive_head().unwrap().unwrap().status, 200);
    assert_eq!(slow.receive_chunk().unwrap().unwrap(), b"abc");
    begin(&host, "TERM");
    slow.send("def").unwrap();
    assert_eq!(slow.receive_chunk().unwrap().unwrap(), b"def");
    assert!(slow.receive_chunk().unwrap().is_none());
    // The head was sent before the drain began, so only the next answer announces the end.
    assert!(closes(&slow.get("/count")));
    assert_eq!(host.exit().code(), Some(0));
}

#[test]
fn no_request_on_a_kept_connection_is_lost_at_any_moment_of_the_signal() {
    for _ in 0..10 {
        let mut host = host("30s");
        let clients: Vec<_> = (0..16)
            .map(|_| {
                let mut connection = host.connect();
                std::thread::spawn(move || {
                    let deadline = Instant::now() + PATIENCE;
                    while !closes(&connection.get("/count")) {
                        assert!(Instant::now() < deadline, "no answer says that it is the last");
                    }
                })
            })
            .collect();
        begin(&host, "TERM");
        for client in clients {
            client.join().expect("each request is answered");
        }
        assert_eq!(host.exit().code(), Some(0));
    }
}

#[test]
fn connections_that_are_open_at_the_limit_are_cut_and_counted() {
    let mut host = host("500ms");
    let _busy = host.begin("/loop");
    let mut kept = host.connect();
    assert_eq!(kept.get("/count").status, 200);
    begin(&host, "TERM");
    let start = Instant::now();
    assert_eq!(host.exit().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    host.wait_for_log("1 connections cut during a request, 1 idle ones closed");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut host = host("60s");
    let mut busy = host.begin("/begin-and-loop");
    assert_eq!(busy.receive_head().unwrap().unwrap().status, 200);
    begin(&host, "TERM");
    let start = Instant::now();
    host.signal("TERM");
    assert_eq!(host.exit().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    host.wait_for_log("stopped at once after a second signal");
}

#[test]
fn a_connection_over_http_2_is_told_to_go_away() {
    let mut host = host("30s");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ends_by_itself = async {
        let stream = tokio::net::TcpStream::connect(host.address).await?;
        let (mut client, connection) = h2::client::handshake(stream).await?;
        let connection = tokio::spawn(connection);
        let request = http::Request::get("http://example.com/count").body(())?;
        let (answer, _) = client.send_request(request, true)?;
        assert_eq!(answer.await?.status(), 200);
        begin(&host, "TERM");
        connection.await?.map_err(anyhow::Error::from)
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, ends_by_itself).await }).unwrap().unwrap();
    assert_eq!(host.exit().code(), Some(0));
}

#[test]
fn without_the_flag_nothing_is_drained() {
    let mut host = Host::start();
    let mut kept = host.connect();
    assert_eq!(kept.get("/count").status, 200);
    host.signal("TERM");
    assert_eq!(host.exit().code(), Some(0));
    assert!(kept.receive().is_ok_and(|answer| answer.is_none()));
    assert_eq!(host.log(), "");
}

#[test]
fn an_invalid_duration_is_refused() {
    for wrong in ["--drain=30", "--drain=soon", "--drain=-1s", "--max-connections=0"] {
        let (code, log) = Application::new(&everything_to_the_guest()).argument(wrong).fail();
        assert!(code == Some(2) && log.contains(wrong.split_once('=').unwrap().0), "{wrong}: {code:?} {log}");
    }
}
