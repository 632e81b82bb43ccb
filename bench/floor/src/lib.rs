//! A component that makes the host calls of request-info and answers a constant: what the platform costs a request, so
//! that the rest is request-info's own.
//!
//! Its answer is bench/bare's, handed over in the same order: written and finished before it is set.

#![expect(unsafe_code, clippy::same_length_and_capacity, reason = "the macro that exports the handler writes it")]
#![expect(clippy::needless_pass_by_value, reason = "the macro hands the request over")]

use std::hint::black_box;

use spin_sdk::{
    http::{Headers, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam},
    http_component, variables,
};

const ANSWER: &[u8] = include_bytes!("../../bare/src/answer.txt");

#[http_component]
fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
    black_box((
        request.method(),
        request.path_with_query(),
        request.headers().entries(),
        variables::get("address_settings").expect("spin.toml defines it"),
    ));
    // As many headers as request-info's text has.
    let headers = [
        ("content-type", "text/plain; charset=utf-8"),
        ("vary", "Accept"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("content-length", &ANSWER.len().to_string()),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let response = OutgoingResponse::new(Headers::from_list(&headers).expect("the headers are well-formed"));
    let body = response.body().expect("the body is taken once");
    let stream = body.write().expect("the stream is taken once");
    let permitted = stream.check_write().expect("the stream is open");
    assert!(permitted >= ANSWER.len() as u64);
    stream.write(ANSWER).expect("the length is permitted");
    drop(stream);
    OutgoingBody::finish(body, None).expect("the length is the announced one");
    response_out.set(response);
}
