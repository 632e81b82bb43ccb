//! The answers that a client gets, and when its connection is kept.

use conformance::get;

use crate::host::{APPLICATION, Application, Host, everything_to_the_guest, guest};

#[test]
fn health_is_answered_by_the_host_itself() {
    let answer = Host::start().get("/.well-known/spin/health");
    assert_eq!((answer.status, answer.text()), (200, "OK"));
}

#[test]
fn a_path_without_a_route_is_answered_with_an_empty_404() {
    let route = "[[trigger.http]]\nroute = \"/only\"\ncomponent = \"guest\"\n";
    let host = Application::new(&format!("{APPLICATION}{route}{}", guest())).serve();
    assert_eq!(host.get("/only").status, 200);
    for path in ["/", "/onl", "/only/x", "/.well-known/spin/nothing"] {
        let answer = host.get(path);
        assert_eq!((answer.status, answer.text()), (404, ""), "{path}");
    }
}

#[test]
fn if_the_guest_does_not_answer_the_host_answers_with_an_empty_500() {
    let host = Host::start();
    for (path, reason) in [("/trap", "unreachable"), ("/no-answer", "it ended without an answer")] {
        let answer = host.get(path);
        assert_eq!((answer.status, answer.text()), (500, ""), "{path}");
        host.wait_for_log(&format!("component guest did not answer GET {path}: "));
        host.wait_for_log(reason);
    }
}

#[test]
fn an_answer_is_sent_whole_even_if_the_guest_traps_after_it() {
    let host = Host::start();
    let mut connection = host.connect();
    for _ in 0..2 {
        let answer = connection.get("/answer-and-trap");
        assert_eq!((answer.status, answer.text()), (200, "before the trap"));
    }
    host.wait_for_log("component guest failed after its answer had begun: ");
}

#[test]
fn a_header_that_is_not_utf_8_is_answered_with_an_empty_500() {
    let host = Host::start();
    let answer = host.connect().exchange(&get("/").header("x-own", b"a\xffb"));
    assert_eq!((answer.status, answer.text()), (500, ""));
    host.wait_for_log("the value of the header x-own is not UTF-8");
}

#[test]
fn a_request_without_a_definite_host_closes_the_connection_without_an_answer() {
    let host = Host::start();
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: not a host\r\n\r\n",
        "GET http://example.com/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
    ] {
        assert!(host.connect().sending(request).receive().unwrap().is_none(), "{request:?}");
    }
    assert_eq!(host.get("/").status, 200);
}

#[test]
fn more_than_a_hundred_headers_are_refused_with_431() {
    let host = Host::start();
    let of = |headers| {
        let request = (1..headers).fold(get("/"), |request, number| request.header(&format!("x-{number}"), "v"));
        host.connect().exchange(&request).status
    };
    assert_eq!([of(100), of(101)], [200, 431]);
}

#[test]
fn a_connection_is_kept_after_every_answer() {
    let host = Host::start();
    let mut connection = host.connect();
    for (path, status) in [("/count", 200), ("/trap", 500), ("/no-answer", 500), ("/.well-known/spin/nothing", 404)] {
        assert_eq!(connection.get(path).status, status, "{path}");
    }
    assert_eq!(connection.get("/count").text(), "1");
    let answer = connection.exchange(&get("/").header("connection", "close"));
    assert_eq!(answer.status, 200);
    assert!(connection.receive().unwrap().is_none(), "close is obeyed");
}

#[test]
fn every_request_gets_a_fresh_instance() {
    let host = Host::start();
    let mut connection = host.connect();
    for _ in 0..5 {
        assert_eq!(connection.get("/count").text(), "1");
    }
}

#[test]
fn what_the_guest_prints_goes_to_standard_error() {
    let host = Application::new(&everything_to_the_guest()).serve();
    assert_eq!(host.get("/print").status, 200);
    host.wait_for_log("to standard output\n");
    host.wait_for_log("to standard error\n");
    let address = host.address;
    assert_eq!(host.rest_of_output(), format!("Available Routes:\n  guest: http://{address} (wildcard)\n"));
}
