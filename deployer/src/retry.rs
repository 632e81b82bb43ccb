//! Repeats requests when a busy API server asks for it, as client-go does.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use kube::client::Body;
use tokio::time::{Sleep, sleep};
use tower::BoxError;
use tower::retry::Policy;

/// The limit of client-go:
/// <https://github.com/kubernetes/client-go/blob/v0.34.0/rest/with_retry.go>
const ATTEMPTS: u32 = 10;
/// The longest wait that is obeyed.
const LONGEST: Duration = Duration::from_secs(25);

/// Repeats a request that is answered with 429 or 5xx and Retry-After. Without Retry-After the answer is returned, because it may
/// come from a pod behind the API server's proxy, for example.
#[derive(Clone, Default)]
pub(crate) struct AsTold(u32);

impl<B> Policy<Request<Body>, Response<B>, BoxError> for AsTold {
    type Future = Sleep;

    fn retry(&mut self, _: &mut Request<Body>, answer: &mut Result<Response<B>, BoxError>) -> Option<Sleep> {
        let answer = answer.as_ref().ok()?;
        let status = answer.status();
        let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        let pause = Duration::from_secs(seconds);
        let is_busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        self.0 += 1;
        (is_busy && self.0 <= ATTEMPTS && pause <= LONGEST).then(|| sleep(pause))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let mut again = Request::new(request.body().try_clone()?);
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.headers_mut() = request.headers().clone();
        *again.extensions_mut() = request.extensions().clone();
        Some(again)
    }
}
