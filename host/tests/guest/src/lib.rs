//! The component that the host's tests run: each path does one thing that a host must cope with.

#![expect(unsafe_code, clippy::same_length_and_capacity, reason = "the macro that exports the handler writes it")]
#![expect(clippy::needless_pass_by_value, reason = "the macro hands the request over")]

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use spin_sdk::http::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use spin_sdk::{http_component, variables};

static REQUESTS: AtomicU32 = AtomicU32::new(0);

#[http_component]
fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let path_and_query = request.path_with_query().unwrap_or_default();
    let (path, query) = path_and_query.split_once('?').unwrap_or((&path_and_query, ""));
    match path {
        "/variable" => answer(out, &format!("{:?}", variables::get(query))),
        "/environment" => {
            let variables = std::env::vars().map(|(name, value)| format!("{name}={value}\n"));
            answer(out, &variables.collect::<String>());
        }
        "/count" => answer(out, &(REQUESTS.fetch_add(1, Ordering::Relaxed) + 1).to_string()),
        "/print" => {
            println!("to standard output");
            eprintln!("to standard error");
            answer(out, "");
        }
        "/allocate" => {
            let bytes = query.parse().expect("a number of bytes");
            answer(out, &std::hint::black_box(vec![1_u8; bytes]).len().to_string());
        }
        "/measure" => {
            let length: usize = pieces(&request).map(|piece| piece.len()).sum();
            answer(out, &length.to_string());
        }
        "/repeat" => answer_in_pieces(out, pieces(&request)),
        "/trap" => panic!("as asked"),
        "/answer-and-trap" => {
            answer(out, "before the trap");
            panic!("as asked");
        }
        "/loop" => loop_for_ever(),
        "/answer-and-loop" => {
            answer(out, "before the loop");
            loop_for_ever();
        }
        "/begin-and-loop" => {
            let beginning = std::iter::once(b"the beginning".to_vec());
            answer_in_pieces(out, beginning.chain(std::iter::from_fn(|| loop_for_ever())));
        }
        "/no-answer" => {}
        _ => answer(out, &describe(&request)),
    }
}

/// The request as it came through: one line for the method, the URI, and each header.
fn describe(request: &IncomingRequest) -> String {
    let mut text = format!(
        "{:?} {:?} {:?} {:?}\n",
        request.method(),
        request.scheme(),
        request.authority(),
        request.path_with_query()
    );
    for (name, value) in request.headers().entries() {
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(&value));
    }
    text
}

/// The request's body, as it comes in.
fn pieces(request: &IncomingRequest) -> impl Iterator<Item = Vec<u8>> {
    let body = request.consume().expect("the body is taken once");
    let stream = body.stream().expect("the stream is taken once");
    std::iter::from_fn(move || {
        let piece = stream.blocking_read(1 << 16).ok();
        // Named after the stream and so dropped after it, as a body must be.
        let _owner = &body;
        piece
    })
}

fn answer(out: ResponseOutparam, text: &str) {
    answer_in_pieces(out, std::iter::once(text.as_bytes().to_vec()));
}

/// Hands over each piece before it asks for the next.
fn answer_in_pieces(out: ResponseOutparam, pieces: impl Iterator<Item = Vec<u8>>) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("the body is taken once");
    out.set(response);
    let stream = body.write().expect("the stream is taken once");
    for piece in pieces {
        // WASI takes at most this many bytes at a time.
        for part in piece.chunks(4096) {
            stream.blocking_write_and_flush(part).expect("the client listens");
        }
    }
    drop(stream);
    OutgoingBody::finish(body, None).expect("the client listens");
}

fn loop_for_ever() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
