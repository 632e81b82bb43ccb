//! Holds the host to what Spin does and to its own promises, from outside: each test starts one, on a manifest of its own, and
//! asks it over real sockets. What runs inside is the component in `tests/guest`, whose paths do one thing each.

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
