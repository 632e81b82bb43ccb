//! The reasons for which a request is refused.

use std::fmt;

use http::{Method, StatusCode};

use crate::{
    visible::Visible,
    visit::{BODY_LIMIT, HEAD_LIMIT},
};

/// Why a request is refused. `Display` writes one line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A part of the request cannot be read. Holds the reason.
    Unreadable(String),
    /// `?format=` has this unknown name.
    UnknownFormat(String),
    /// No route has this path.
    NotFound(String),
    /// The route does not have this method.
    MethodNotAllowed {
        /// The method that was refused.
        method: Method,
        /// Before percent-decoding.
        path: String,
        /// The methods that the route has.
        allow: &'static str,
    },
    /// Accept excludes all three formats.
    NotAcceptable,
    /// The body is longer than [`BODY_LIMIT`].
    BodyTooLarge,
    /// The form has this Content-Encoding.
    EncodedForm(String),
    /// Target and headers are longer than [`HEAD_LIMIT`].
    HeadTooLarge,
    /// The service's settings cannot be read. Holds the reason.
    Misconfigured(String),
}

impl Refusal {
    /// The status of the answer (RFC 9110, section 15; 431: RFC 6585, section 5).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unreadable(_) | Self::UnknownFormat(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::EncodedForm(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Misconfigured(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Unreadable(reason) => write!(f, "the request cannot be read: {}", Visible(reason)),
            Self::UnknownFormat(name) => {
                write!(f, "unknown format \"{}\": use html, json or text", Visible(name))
            }
            Self::NotFound(path) => write!(
                f,
                "nothing is at {}: try /, /ip, /user-agent, /headers, /version, /healthz or /openapi.json",
                Visible(path)
            ),
            Self::MethodNotAllowed { method, path, allow } => {
                write!(f, "{} does not allow {}: use {allow}", Visible(path), Visible(method.as_str()))
            }
            Self::NotAcceptable => f.write_str(
                "Accept excludes every format of this answer: accept text/html, application/json or text/plain",
            ),
            Self::BodyTooLarge => write!(f, "the body is longer than {BODY_LIMIT} bytes: send less"),
            Self::EncodedForm(encoding) => {
                write!(f, "a form in Content-Encoding {} is not read: send it without", Visible(encoding))
            }
            Self::HeadTooLarge => {
                write!(f, "request target and headers are longer than {HEAD_LIMIT} bytes together: send less")
            }
            Self::Misconfigured(reason) => write!(f, "misconfigured: {}", Visible(reason)),
        }
    }
}
