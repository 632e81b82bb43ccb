//! Checks the contract of a running request-info over real HTTP, from outside: nothing of the crate is linked in.
//!
//! - `BASE_URL=http://HOST:PORT`: asks the server that runs there with default settings, and starts nothing.
//! - `SERVER=COMMAND`: starts COMMAND in the workspace's directory, once for each configuration, with `SPIN_HTTP_LISTEN_ADDR` and
//!   `SPIN_VARIABLE_*` set, and waits for its line `Serving http://ADDRESS`: `spin up`, or the project's own host.

#![allow(clippy::too_many_lines, clippy::type_complexity, clippy::format_collect, reason = "cases are data, and many")]

mod address;
mod connection;
mod display;
mod input;
#[path = "../../../e2e/tests/it/limit.rs"]
mod limit;
mod negotiation;
mod openapi;
mod routes;
mod server;
mod settings;

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};

use crate::limit::within;
use crate::server::Bed;

/// The time limit of each trial. The first trial on a server also waits for its start.
const LIMIT: Duration = Duration::from_mins(6);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let bed = Bed::from_environment();
    let standard = bed.standard();

    let mut trials = routes::trials(standard);
    trials.extend(negotiation::trials(standard));
    trials.extend(input::trials(standard));
    trials.extend(display::trials(standard));
    trials.extend(connection::trials(standard));
    trials.extend(openapi::trials(&bed));
    if bed.configures() {
        trials.extend(address::trials(&bed));
        trials.extend(settings::trials(&bed));
    } else {
        eprintln!("addresses and settings are left out: they need SERVER, a command that starts the service");
    }

    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.has_failed() {
        bed.print_logs();
    }
    conclusion.exit_code()
}

/// A test that fails by panicking.
fn trial(name: impl Into<String>, check: impl FnOnce() + Send + 'static) -> Trial {
    let name = name.into();
    Trial::test(name.clone(), move || within(LIMIT, &name, check))
}
