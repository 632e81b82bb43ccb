//! The routes, their methods and statuses, and the headers of every answer.

use std::borrow::Cow;

use http::{HeaderName, Method, StatusCode, header};
use serde::Serialize;

use crate::{
    address, json,
    negotiation::{Format, negotiate},
    page,
    refusal::Refusal,
    report::{Report, VERSION},
    settings::Settings,
    text,
    visit::{BODY_LIMIT, Headers, Visit},
};

/// The `OpenAPI` description of all routes.
const OPENAPI: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));

/// The answer to a visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Never an interim one (1xx).
    pub status: StatusCode,
    /// Each name once.
    pub headers: Vec<(HeaderName, Cow<'static, str>)>,
    /// Empty in the answer to HEAD, whose Content-Length is that of GET.
    pub body: Vec<u8>,
}

impl Answer {
    fn set(&mut self, name: HeaderName, value: impl Into<Cow<'static, str>>) {
        self.headers.push((name, value.into()));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Report,
    Ip,
    UserAgent,
    Headers,
    Version,
    Healthz,
    OpenApi,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Report,
            "/ip" => Self::Ip,
            "/user-agent" => Self::UserAgent,
            "/headers" => Self::Headers,
            "/version" => Self::Version,
            "/healthz" => Self::Healthz,
            "/openapi.json" => Self::OpenApi,
            _ => return None,
        })
    }

    fn allow(self) -> &'static str {
        match self {
            Self::Report => "GET, HEAD, OPTIONS, POST",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    fn is_negotiated(self) -> bool {
        matches!(self, Self::Report | Self::Headers)
    }
}

/// Answers a visit. If the settings could not be read, every route but `/version` answers with the reason.
#[must_use]
pub fn respond(visit: &Visit, settings: &Result<Settings, String>) -> Answer {
    let path = with_unreserved_decoded(visit.path());
    let response = match Route::of(&path) {
        Some(route) => {
            let mut response = route_response(route, visit, settings).unwrap_or_else(|refusal| answer_of(&refusal));
            if route.is_negotiated() {
                response.set(header::VARY, "Accept");
            }
            response
        }
        // The server as a whole (RFC 9110, section 9.3.7).
        None if path == "*" && visit.method == Method::OPTIONS => options(Route::Report),
        None => answer_of(&Refusal::NotFound(path.into_owned())),
    };
    let mut response = finish(response);
    if visit.method == Method::HEAD {
        response.body.clear();
    }
    response
}

/// Answers a request that is refused before its route is known.
#[must_use]
pub fn refuse(refusal: &Refusal) -> Answer {
    finish(answer_of(refusal))
}

/// Decodes percent-encoded unreserved characters, which does not change what a path means (RFC 3986, section 6.2.2.2).
/// Encoded reserved characters stay encoded, because decoding them would.
fn with_unreserved_decoded(path: &str) -> Cow<'_, str> {
    let mut parts = path.split('%');
    let first = parts.next().unwrap_or_default();
    if first.len() == path.len() {
        return path.into();
    }
    let mut decoded = first.to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            decoded.push(byte.into());
            decoded.push_str(&part[2..]);
        } else {
            decoded.push('%');
            decoded.push_str(part);
        }
    }
    decoded.into()
}

/// Adds the headers of every answer.
fn finish(mut response: Answer) -> Answer {
    response.set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response.set(header::CACHE_CONTROL, "no-store");
    if response.status != StatusCode::NO_CONTENT {
        response.set(header::CONTENT_LENGTH, response.body.len().to_string());
    }
    response
}

fn route_response(route: Route, visit: &Visit, settings: &Result<Settings, String>) -> Result<Answer, Refusal> {
    let defaults = Settings::default();
    let settings = match settings {
        Ok(settings) => settings,
        Err(_) if route == Route::Version => &defaults, // it uses no setting
        Err(reason) => return Err(Refusal::Misconfigured(reason.clone())),
    };
    match visit.method {
        Method::GET | Method::HEAD => {}
        Method::OPTIONS => return Ok(options(route)),
        Method::POST if route == Route::Report => {
            if visit.body.len() > BODY_LIMIT {
                return Err(Refusal::BodyTooLarge);
            }
        }
        _ => {
            return Err(Refusal::MethodNotAllowed {
                method: visit.method.clone(),
                path: visit.path().to_owned(),
                allow: route.allow(),
            });
        }
    }
    Ok(match route {
        Route::Version => json(&VERSION),
        Route::OpenApi => answer(Format::Json, OPENAPI.into()),
        Route::Healthz => plain("ok\n".into()),
        Route::UserAgent => {
            let mut text = String::new();
            text::line(&mut text, &visit.headers.value(header::USER_AGENT.as_str()).unwrap_or_default());
            plain(text)
        }
        Route::Ip => plain(match address::find(visit, settings).ip {
            Some(ip) => format!("{ip}\n"),
            None => format!("{}\n", text::ABSENT),
        }),
        Route::Headers => match requested_format(visit)? {
            Format::Text => plain(text::headers(&visit.headers)),
            Format::Html => html(page::headers(&visit.headers)),
            Format::Json => json(&HeadersDocument { headers: &visit.headers }),
        },
        Route::Report => {
            let format = requested_format(visit)?;
            let report = Report::new(visit, settings)?;
            match format {
                Format::Text => plain(text::report(&report)),
                Format::Html => html(page::report(&report)),
                Format::Json => json(&report.document()),
            }
        }
    })
}

fn options(route: Route) -> Answer {
    let mut response = Answer { status: StatusCode::NO_CONTENT, headers: Vec::new(), body: Vec::new() };
    response.set(header::ALLOW, route.allow());
    response
}

/// `/headers` as JSON.
#[derive(Serialize)]
struct HeadersDocument<'a> {
    headers: &'a Headers,
}

/// The format that `?format=` names, else the one that Accept prefers.
fn requested_format(visit: &Visit) -> Result<Format, Refusal> {
    let query = visit.query().unwrap_or_default().as_bytes();
    if let Some((_, name)) = form_urlencoded::parse(query).find(|(key, _)| key == "format") {
        return Format::from_name(&name).ok_or_else(|| Refusal::UnknownFormat(name.into_owned()));
    }
    negotiate(&visit.headers).ok_or(Refusal::NotAcceptable)
}

fn answer(format: Format, body: Vec<u8>) -> Answer {
    // No answer has more headers, so the list never grows.
    let mut response = Answer { status: StatusCode::OK, headers: Vec::with_capacity(8), body };
    response.set(header::CONTENT_TYPE, format.content_type());
    response
}

fn plain(body: String) -> Answer {
    answer(Format::Text, body.into_bytes())
}

fn html(body: String) -> Answer {
    let mut response = answer(Format::Html, body.into_bytes());
    response.set(header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY);
    response.set(header::REFERRER_POLICY, "no-referrer");
    response
}

fn json(document: &impl Serialize) -> Answer {
    answer(Format::Json, json::to_vec(document))
}

/// A refusal is one line of text, even if the visitor's input has several.
fn answer_of(refusal: &Refusal) -> Answer {
    let mut response = plain(format!("{refusal}\n"));
    response.status = refusal.status();
    match refusal {
        Refusal::MethodNotAllowed { allow, .. } => response.set(header::ALLOW, *allow),
        // The accepted encodings (RFC 9110, section 15.5.16).
        Refusal::EncodedForm(_) => response.set(header::ACCEPT_ENCODING, "identity"),
        _ => {}
    }
    response
}
