//! What is answered where: routes, methods, statuses and the headers of every answer.

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use crate::{
    address,
    headers::Headers,
    negotiation::{Format, negotiate},
    page,
    report::{Report, VERSION},
    settings::Settings,
    text::{self, Visible},
};

/// The greatest body that is read, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

/// The `OpenAPI` description of all routes.
const OPENAPI: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));

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

/// Answers a request as Spin hands it over, its own headers behind the visitor's. Where the settings
/// could not be read, their error is the answer to everything but `/version`.
///
/// Of a body longer than [`BODY_LIMIT`], the first byte beyond is enough to tell.
#[must_use]
pub fn respond(request: &Request<Vec<u8>>, settings: &Result<Settings, String>) -> Response<Vec<u8>> {
    let response = match Route::of(request.uri().path()) {
        Some(route) => {
            let mut response = route_response(route, request, settings).unwrap_or_else(|error| error);
            if route.is_negotiated() {
                set(&mut response, header::VARY, "Accept");
            }
            response
        }
        None => error(
            StatusCode::NOT_FOUND,
            &format!(
                "nothing is at {}: try /, /ip, /user-agent, /headers, /version, /healthz or \
                 /openapi.json",
                percent_decode_str(request.uri().path()).decode_utf8_lossy()
            ),
        ),
    };
    let mut response = finish(response);
    if request.method() == Method::HEAD {
        response.body_mut().clear();
    }
    response
}

/// Answers a request that could not be read, or whose body broke off.
#[must_use]
pub fn refuse(reason: &str) -> Response<Vec<u8>> {
    finish(error(StatusCode::BAD_REQUEST, &format!("the request cannot be read: {reason}")))
}

/// What every answer carries.
fn finish(mut response: Response<Vec<u8>>) -> Response<Vec<u8>> {
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(&mut response, header::CACHE_CONTROL, "no-store");
    if response.status() != StatusCode::NO_CONTENT {
        let length = response.body().len().into();
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    response
}

fn route_response(
    route: Route,
    request: &Request<Vec<u8>>,
    settings: &Result<Settings, String>,
) -> Result<Response<Vec<u8>>, Response<Vec<u8>>> {
    let settings = match settings {
        Ok(settings) => Some(settings),
        Err(_) if route == Route::Version => None,
        Err(reason) => {
            return Err(error(StatusCode::SERVICE_UNAVAILABLE, &format!("misconfigured: {reason}")));
        }
    };
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::POST if route == Route::Report => {
            if request.body().len() > BODY_LIMIT {
                return Err(error(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    &format!("the body is longer than {BODY_LIMIT} bytes: send less"),
                ));
            }
        }
        Method::OPTIONS => {
            let mut response = Response::new(Vec::new());
            *response.status_mut() = StatusCode::NO_CONTENT;
            set(&mut response, header::ALLOW, route.allow());
            return Ok(response);
        }
        _ => {
            let mut response = error(
                StatusCode::METHOD_NOT_ALLOWED,
                &format!("{} is not for {}: use {}", request.method(), request.uri().path(), route.allow()),
            );
            set(&mut response, header::ALLOW, route.allow());
            return Err(response);
        }
    }
    let headers = Headers(request.headers());
    Ok(match (route, settings) {
        (Route::Version, _) => json(&VERSION),
        (Route::OpenApi, _) => answer("application/json", OPENAPI.into()),
        (Route::Healthz, _) => plain("ok\n".into()),
        (Route::UserAgent, _) => {
            let browser = headers.value(header::USER_AGENT).unwrap_or_default();
            let mut text = String::new();
            text::line(&mut text, &browser);
            plain(text)
        }
        (Route::Headers, _) => match requested_format(request)? {
            Format::Text => plain(text::headers(headers)),
            Format::Html => html(page::headers(headers)),
            Format::Json => json(&HeadersDocument { headers }),
        },
        (Route::Ip, Some(settings)) => {
            let address = address::find(headers, settings);
            plain(match address.ip {
                Some(ip) => format!("{ip}\n"),
                None => format!("{}\n", text::ABSENT),
            })
        }
        (Route::Report, Some(settings)) => {
            let format = requested_format(request)?;
            let report = Report::new(request, settings);
            match format {
                Format::Text => plain(text::report(&report)),
                Format::Html => html(page::report(&report)),
                Format::Json => json(&report),
            }
        }
        (_, None) => unreachable!("without settings only /version is answered"),
    })
}

/// What `/headers` is as JSON.
#[derive(Serialize)]
struct HeadersDocument<'a> {
    headers: Headers<'a>,
}

/// The format that `?format=` names, else the one that Accept prefers.
fn requested_format(request: &Request<Vec<u8>>) -> Result<Format, Response<Vec<u8>>> {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    if let Some((_, name)) = form_urlencoded::parse(query).find(|(key, _)| key == "format") {
        return Format::from_name(&name).ok_or_else(|| {
            error(StatusCode::BAD_REQUEST, &format!("there is no format {name:?}: use html, json or text"))
        });
    }
    negotiate(request.headers()).ok_or_else(|| {
        error(
            StatusCode::NOT_ACCEPTABLE,
            "nothing that Accept names can be had here: accept text/html, application/json or text/plain",
        )
    })
}

fn answer(content_type: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let mut response = Response::new(body);
    // As many as an answer has at most, so that the map never grows.
    response.headers_mut().reserve(8);
    set(&mut response, header::CONTENT_TYPE, content_type);
    response
}

fn plain(body: String) -> Response<Vec<u8>> {
    answer(Format::Text.content_type(), body.into_bytes())
}

fn html(body: String) -> Response<Vec<u8>> {
    let mut response = answer(Format::Html.content_type(), body.into_bytes());
    set(&mut response, header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY);
    set(&mut response, header::REFERRER_POLICY, "no-referrer");
    response
}

fn json(document: &impl Serialize) -> Response<Vec<u8>> {
    let mut body = serde_json::to_vec(document).expect("strings and lists of them are always JSON");
    body.push(b'\n');
    answer(Format::Json.content_type(), body)
}

/// An error is one line of text, whatever the visitor put into it.
fn error(status: StatusCode, message: &str) -> Response<Vec<u8>> {
    let mut response = plain(format!("{}\n", Visible(message)));
    *response.status_mut() = status;
    response
}

fn set(response: &mut Response<Vec<u8>>, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}
