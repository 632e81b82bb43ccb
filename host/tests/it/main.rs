//! Compares the host with what Spin does and with its own promises, from outside. Each test starts a host with a manifest of its own
//! and sends requests over real sockets. The component in `tests/guest` runs inside; each of its paths does one thing.

mod answers;
mod drain;
mod errors;
mod host;
mod limits;
mod programs;
mod requests;
mod signals;
mod variables;
mod visitors;
