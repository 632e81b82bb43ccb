//! A time limit for each test, so that one that hangs fails under its own name. Other crates include this file.

use std::panic::resume_unwind;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;

/// Runs a test in a thread with its name. A test that still runs at the limit fails, and its thread runs until the process ends.
/// Most tests that hang wait for a program that they started, so the failure lists those.
pub(crate) fn within(limit: Duration, name: &str, test: impl FnOnce() + Send + 'static) -> Result<(), Failed> {
    let (running, ended) = channel::<()>();
    let run = move || {
        let _dropped_when_it_ends = running;
        test();
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread can be started");
    if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
        let own = std::process::id().to_string();
        let programs = Command::new("ps").args(["--ppid", &own, "-o", "pid,etime,args", "--cols", "300"]).output();
        let programs = programs.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
        return Err(format!("it had not ended after {limit:?}. These programs still run:\n{programs}").into());
    }
    thread.join().or_else(|panic| resume_unwind(panic))
}
