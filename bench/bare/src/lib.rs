//! A component that answers a constant: what the host and WASI cost when the guest does nothing.
//!
//! Its answer is the one that request-info gives to the benchmark, byte for byte, and is handed over
//! in the same order: written and finished before it is set.

#![expect(unsafe_code, reason = "the macro that exports the handler writes it")]

#[expect(clippy::same_length_and_capacity, reason = "the macro writes it")]
mod bindings {
    use super::Bare;

    wit_bindgen::generate!({ path: "wit", generate_all });
    export!(Bare);
}

use bindings::{
    exports::wasi::http::incoming_handler::Guest,
    wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam},
};

const ANSWER: &[u8] = include_bytes!("answer.txt");

struct Bare;

impl Guest for Bare {
    fn handle(_: IncomingRequest, response_out: ResponseOutparam) {
        let headers = Fields::from_list(&[
            ("content-type".into(), b"text/plain; charset=utf-8".into()),
            ("content-length".into(), ANSWER.len().to_string().into()),
        ])
        .expect("the headers are well-formed");
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("the body is taken once");
        let stream = body.write().expect("the stream is taken once");
        let permitted = stream.check_write().expect("the stream is open");
        assert!(permitted >= ANSWER.len() as u64);
        stream.write(ANSWER).expect("the length is permitted");
        drop(stream);
        OutgoingBody::finish(body, None).expect("the length is the announced one");
        ResponseOutparam::set(response_out, Ok(response));
    }
}
