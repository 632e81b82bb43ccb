//! The host's own limits, which Spin does not have, or not by default.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::host::{Application, Host, everything_to_the_guest};

fn host_with_timeout(seconds: u32) -> Host {
    Application::new(&everything_to_the_guest()).argument(&format!("--request-timeout={seconds}")).serve()
}

#[test]
fn if_the_guest_takes_too_long_the_host_answers_with_500_and_keeps_the_connection() {
    let host = host_with_timeout(1);
    let mut connection = host.connect();
    let start = Instant::now();
    let answer = connection.get("/loop");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!((answer.status, answer.text()), (500, ""));
    host.wait_for_log("component guest did not answer GET /loop: it took longer than 1 s (--request-timeout)");
    assert_eq!(connection.get("/count").status, 200);
}

#[test]
fn an_answer_that_has_begun_is_cut_off_when_the_guest_takes_too_long() {
    let host = host_with_timeout(1);
    let mut connection = host.begin("/begin-and-loop");
    assert_eq!(connection.receive_head().unwrap().unwrap().status, 200);
    assert_eq!(connection.receive_chunk().unwrap().unwrap(), b"the beginning");
    // The last chunk is missing, so the client must not take the answer for complete.
    assert_eq!(connection.receive_chunk().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    host.wait_for_log("component guest failed after its answer had begun: it took longer than 1 s (--request-timeout)");
}

#[test]
fn an_answer_is_sent_at_once_even_if_the_guest_takes_too_long_after_it() {
    // Longer than two answers take, however busy the machine is.
    let host = host_with_timeout(5);
    let mut connection = host.connect();
    for _ in 0..2 {
        assert_eq!(connection.get("/answer-and-loop").text(), "before the loop");
    }
    assert!(!host.log().contains("took longer"), "the answers waited for the end of the guest");
    host.wait_for_log("component guest failed after its answer had begun: it took longer than 5 s (--request-timeout)");
}

#[test]
fn guests_that_compute_endlessly_do_not_block_others() {
    let host = host_with_timeout(60);
    let cores = std::thread::available_parallelism().unwrap().get();
    let busy: Vec<_> = (0..4 * cores).map(|_| host.begin("/loop")).collect();
    for _ in 0..5 {
        assert_eq!(host.get("/count").text(), "1");
    }
    assert!(!host.log().contains("took longer"), "the others had ended before");
    drop(busy);
}

#[test]
fn a_burst_of_connections_is_taken_even_while_the_host_does_not_run() {
    let host = Host::start();
    host.signal("STOP");
    for number in 0..2000 {
        let taken = TcpStream::connect_timeout(&host.address, Duration::from_millis(500));
        taken.unwrap_or_else(|error| panic!("connection {number}: {error}"));
    }
    host.signal("CONT");
    assert_eq!(host.get("/count").text(), "1");
}

#[test]
fn an_instance_has_32_mebibytes_by_default() {
    let argument = "--max-instance-memory=67108864";
    let cases = [
        (None, None, 32),
        (Some(argument), None, 64),
        (None, Some("16777216"), 16),
        (Some(argument), Some("16777216"), 64),
    ];
    for (argument, variable, mebibytes) in cases {
        let mut application = Application::new(&everything_to_the_guest());
        if let Some(argument) = argument {
            application = application.argument(argument);
        }
        if let Some(variable) = variable {
            application = application.environment("SPIN_MAX_INSTANCE_MEMORY", variable);
        }
        let host = application.serve();
        let allocate = |mebibytes: u32| host.get(&format!("/allocate?{}", mebibytes << 20)).status;
        // The guest's own stack and data take less than two.
        assert_eq!(allocate(mebibytes - 2), 200, "{argument:?} {variable:?}");
        assert_eq!(allocate(mebibytes), 500, "{argument:?} {variable:?}");
        assert_eq!(allocate(mebibytes - 2), 200, "{argument:?} {variable:?}, once more");
    }
}
