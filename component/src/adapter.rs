//! Translates between WASI and [`respond`]. No other module knows WASI.

#![expect(unsafe_code, clippy::same_length_and_capacity, reason = "the macro that exports the handler writes it")]
#![expect(clippy::needless_pass_by_value, reason = "the macro hands the request over")]

use http::{Method, StatusCode};
use spin_sdk::{
    http::{
        Fields, IncomingRequest, Method as SpinMethod, OutgoingBody, OutgoingResponse, ResponseOutparam,
        Scheme as SpinScheme,
    },
    http_component, variables,
};
use wasi::io::streams::StreamError;

use crate::{Answer, BODY_LIMIT, Origin, Refusal, Settings, Visit, refuse, respond, spin};

#[http_component]
fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
    let answer = match visit(&request, &|| origin(&request)) {
        Ok(visit) => respond(&visit, &settings()),
        Err(refusal) => refuse(&refusal),
    };
    send(&answer, response_out);
}

fn settings() -> Result<Settings, String> {
    let joined = variables::get("address_settings").map_err(|error| format!("address_settings: {error}"))?;
    Settings::from_joined(&joined)
}

fn origin(request: &IncomingRequest) -> Origin {
    let scheme = request.scheme().map(|scheme| match scheme {
        SpinScheme::Http => "http".to_owned(),
        SpinScheme::Https => "https".to_owned(),
        SpinScheme::Other(scheme) => scheme,
    });
    Origin { scheme, authority: request.authority() }
}

/// # Errors
/// The part of the request that cannot be read or is too long.
fn visit<'a>(incoming: &IncomingRequest, origin: &'a dyn Fn() -> Origin) -> Result<Visit<'a>, Refusal> {
    let method = match incoming.method() {
        SpinMethod::Get => Method::GET,
        SpinMethod::Head => Method::HEAD,
        SpinMethod::Post => Method::POST,
        SpinMethod::Put => Method::PUT,
        SpinMethod::Delete => Method::DELETE,
        SpinMethod::Connect => Method::CONNECT,
        SpinMethod::Options => Method::OPTIONS,
        SpinMethod::Trace => Method::TRACE,
        SpinMethod::Patch => Method::PATCH,
        SpinMethod::Other(name) => Method::from_bytes(name.as_bytes()).map_err(unreadable)?,
    };
    let target = incoming.path_with_query().unwrap_or_else(|| "/".into());
    let (peer, headers) = spin::split(&target, incoming.headers().entries())?;
    // Only a form is read, and only POST sends one.
    let body = if method == Method::POST { body_of(incoming)? } else { Vec::new() };
    Ok(Visit { peer, method, target, headers, body, origin })
}

fn unreadable(error: impl std::fmt::Display) -> Refusal {
    Refusal::Unreadable(error.to_string())
}

/// How many bytes of a body are requested at a time. A visitor who stops half-way keeps that much of the guest's memory
/// occupied, in addition to the body itself.
const CHUNK: usize = 8 * 1024;

/// The body up to one byte beyond the limit.
///
/// # Errors
/// When the body ends too early, or its framing violates HTTP.
fn body_of(request: &IncomingRequest) -> Result<Vec<u8>, Refusal> {
    let mut read = Vec::with_capacity(BODY_LIMIT + 1); // memory that is not written to costs nothing; growing the vector would copy it
    let body = request.consume().expect("the body is taken once");
    let stream = body.stream().expect("the stream is taken once");
    while read.len() <= BODY_LIMIT {
        match stream.blocking_read((BODY_LIMIT + 1 - read.len()).min(CHUNK) as u64) {
            Ok(chunk) => read.extend(chunk),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(unreadable(format!("its body breaks off: {}", error.to_debug_string())));
            }
        }
    }
    Ok(read)
}

/// Hands over the whole answer, if it fits, before it is set. The server then never waits for a body, and a server that
/// ends on SIGTERM ends between two answers.
fn send(answer: &Answer, response_out: ResponseOutparam) {
    let headers: Vec<_> =
        answer.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    let headers = Fields::from_list(&headers).expect("what http accepts as a header, WASI accepts");
    let outgoing = OutgoingResponse::new(headers);
    if answer.status != StatusCode::OK {
        outgoing.set_status_code(answer.status.as_u16()).expect("every status here is a valid one");
    }
    if answer.body.is_empty() {
        // An answer to HEAD keeps the Content-Length of the body that GET would get.
        return response_out.set(outgoing);
    }
    let body = outgoing.body().expect("the body is taken once");
    let stream = body.write().expect("the stream is taken once");
    let permitted = stream.check_write().unwrap_or(0);
    let permitted = usize::try_from(permitted).unwrap_or(usize::MAX);
    let (now, later) = answer.body.split_at(permitted.min(answer.body.len()));
    let mut sent = stream.write(now).is_ok();
    let mut response_out = Some((response_out, outgoing));
    if !later.is_empty()
        && let Some((response_out, outgoing)) = response_out.take()
    {
        response_out.set(outgoing);
        sent &= later.chunks(4096).all(|chunk| stream.blocking_write_and_flush(chunk).is_ok());
    }
    drop(stream);
    // The write fails if the visitor left half-way. The unfinished body tells the server.
    if sent {
        let _ = OutgoingBody::finish(body, None);
    }
    if let Some((response_out, outgoing)) = response_out {
        response_out.set(outgoing);
    }
}
