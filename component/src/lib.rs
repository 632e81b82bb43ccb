//! Shows visitors their own request: browser, referring URL, event and address.
//!
//! [`respond`] is the whole service as a pure function on [`http`] types, so it can be tested and measured without a
//! WebAssembly runtime. Only the adapter knows WASI, and only Wasm builds contain it. `spin.rs` knows what Spin adds to a
//! request.

#![cfg_attr(not(target_family = "wasm"), forbid(unsafe_code))]

#[cfg(target_family = "wasm")]
mod adapter;
mod address;
mod field;
mod form;
mod forwarding;
mod json;
mod negotiation;
mod page;
mod refusal;
mod report;
mod routes;
mod settings;
#[cfg(any(target_family = "wasm", test))]
mod spin;
mod text;
mod visible;
mod visit;

pub use refusal::Refusal;
pub use routes::{Answer, refuse, respond};
pub use settings::Settings;
pub use visit::{BODY_LIMIT, HEAD_LIMIT, Headers, Origin, Visit};
