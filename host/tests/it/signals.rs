//! How the host ends.

use std::time::{Duration, Instant};

use crate::host::Host;

#[test]
fn a_signal_ends_it_at_once_with_0_even_during_a_request() {
    for signal in ["TERM", "INT"] {
        let mut host = Host::start();
        // The guest reports that it runs, and then continues for the ten seconds of the time limit.
        let mut connection = host.begin("/begin-and-loop");
        assert_eq!(connection.receive_head().unwrap().unwrap().status, 200);

        let start = Instant::now();
        host.signal(signal);
        let status = host.exit();
        let elapsed = start.elapsed();
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
        assert!(elapsed < Duration::from_secs(3), "{signal}: {elapsed:?}");
        assert!(!host.log().contains("took longer"), "{signal}: the request was waited for");
    }
}
