//! Shows visitors their own request: browser, referring URL, event and address.
//!
//! [`respond`] is the whole service as a pure function on [`http`] types, so that it is tested and
//! measured without a WebAssembly runtime. Only the adapter, which is compiled for Wasm alone, knows
//! WASI and Spin.

#![cfg_attr(not(target_family = "wasm"), forbid(unsafe_code))]

#[cfg(target_family = "wasm")]
mod adapter;
mod address;
mod field;
mod form;
mod forwarding;
mod headers;
mod negotiation;
mod page;
mod report;
#[allow(clippy::result_large_err, reason = "the error is an answer like any other")]
mod routes;
mod settings;
mod text;

pub use routes::{BODY_LIMIT, refuse, respond};
pub use settings::Settings;
