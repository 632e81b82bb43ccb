//! The one place that knows WASI and Spin: from Spin's request to [`respond`], and its answer back.

#![expect(unsafe_code, clippy::same_length_and_capacity, reason = "the macro that exports the handler writes it")]
#![expect(clippy::needless_pass_by_value, reason = "the macro hands the request over")]

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, uri::Scheme};
use spin_sdk::{
    http::{
        Headers, IncomingRequest, Method as SpinMethod, OutgoingBody, OutgoingResponse, ResponseOutparam,
        Scheme as SpinScheme,
    },
    http_component, variables,
};
use wasi::io::streams::StreamError;

use crate::{BODY_LIMIT, Settings, refuse, respond};

#[http_component]
fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
    let response = match http_request(&request) {
        Ok(request) => respond(&request, &settings()),
        Err(reason) => refuse(&reason),
    };
    send(&response, response_out);
}

fn settings() -> Result<Settings, String> {
    let variable = |name| variables::get(name).map_err(|error| format!("{name}: {error}"));
    Settings::parse(&variable("trusted_proxies")?, &variable("trusted_hops")?, &variable("client_address_header")?)
}

/// # Errors
/// What of the request cannot be read.
fn http_request(request: &IncomingRequest) -> Result<Request<Vec<u8>>, String> {
    // Only a form is ever looked at, and only POST brings one.
    let body = match request.method() {
        SpinMethod::Post => body_of(request)?,
        _ => Vec::new(),
    };
    with_body(request, body).map_err(|error| error.to_string())
}

fn with_body(request: &IncomingRequest, body: Vec<u8>) -> Result<Request<Vec<u8>>, http::Error> {
    let method = match request.method() {
        SpinMethod::Get => Method::GET,
        SpinMethod::Head => Method::HEAD,
        SpinMethod::Post => Method::POST,
        SpinMethod::Put => Method::PUT,
        SpinMethod::Delete => Method::DELETE,
        SpinMethod::Connect => Method::CONNECT,
        SpinMethod::Options => Method::OPTIONS,
        SpinMethod::Trace => Method::TRACE,
        SpinMethod::Patch => Method::PATCH,
        SpinMethod::Other(name) => Method::from_bytes(name.as_bytes())?,
    };
    let mut uri = Uri::builder().path_and_query(request.path_with_query().unwrap_or_else(|| "/".into()));
    if let Some(authority) = request.authority() {
        uri = uri.authority(authority).scheme(match request.scheme() {
            Some(SpinScheme::Https) => Scheme::HTTPS,
            _ => Scheme::HTTP,
        });
    }
    let mut converted = Request::new(body);
    *converted.method_mut() = method;
    *converted.uri_mut() = uri.build()?;
    let entries = request.headers().entries();
    let mut headers = HeaderMap::with_capacity(entries.len());
    for (name, value) in entries {
        headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_bytes(&value)?);
    }
    *converted.headers_mut() = headers;
    Ok(converted)
}

/// The body up to one byte beyond the limit.
///
/// # Errors
/// When it breaks off before its end, or is not framed as HTTP wants it.
fn body_of(request: &IncomingRequest) -> Result<Vec<u8>, String> {
    let mut read = Vec::new();
    let body = request.consume().expect("the body is taken once");
    let stream = body.stream().expect("the stream is taken once");
    while read.len() <= BODY_LIMIT {
        match stream.blocking_read((BODY_LIMIT + 1 - read.len()) as u64) {
            Ok(chunk) => read.extend(chunk),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(format!("its body breaks off: {}", error.to_debug_string()));
            }
        }
    }
    Ok(read)
}

/// Hands the answer over whole where it fits, before it is set: the server then never waits for a
/// body, and one that ends at SIGTERM ends between answers.
fn send(response: &Response<Vec<u8>>, response_out: ResponseOutparam) {
    let headers: Vec<_> =
        response.headers().iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let headers = Headers::from_list(&headers).expect("what http accepts as a header, WASI accepts");
    let outgoing = OutgoingResponse::new(headers);
    if response.status() != StatusCode::OK {
        outgoing.set_status_code(response.status().as_u16()).expect("every status here is a valid one");
    }
    if response.body().is_empty() {
        // Without a body, Content-Length stays what it would be with one, as HEAD wants it.
        return response_out.set(outgoing);
    }
    let body = outgoing.body().expect("the body is taken once");
    let stream = body.write().expect("the stream is taken once");
    let permitted = stream.check_write().unwrap_or(0);
    let permitted = usize::try_from(permitted).unwrap_or(usize::MAX);
    let (now, later) = response.body().split_at(permitted.min(response.body().len()));
    let mut sent = stream.write(now).is_ok();
    let mut response_out = Some((response_out, outgoing));
    if !later.is_empty()
        && let Some((response_out, outgoing)) = response_out.take()
    {
        response_out.set(outgoing);
        sent &= later.chunks(4096).all(|chunk| stream.blocking_write_and_flush(chunk).is_ok());
    }
    drop(stream);
    // A visitor who left half-way is no error of ours: the unfinished body tells the server.
    if sent {
        let _ = OutgoingBody::finish(body, None);
    }
    if let Some((response_out, outgoing)) = response_out {
        response_out.set(outgoing);
    }
}
