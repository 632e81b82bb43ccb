//! What a visitor is shown: everything of their request that answers "what did you send me?".

use std::borrow::Cow;

use http::{Method, Request, header};
use serde::Serialize;

use crate::{
    address::{self, Address},
    form::Form,
    headers::Headers,
    settings::Settings,
};

/// The report; serialised, it is the JSON answer.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) browser: Option<Cow<'a, str>>,
    pub(crate) url: Option<Cow<'a, str>>,
    pub(crate) event: Option<String>,
    pub(crate) ip: Option<String>,
    pub(crate) address: Address,
    pub(crate) request: RequestLine<'a>,
    pub(crate) served_by: Version,
}

/// The request as it was received.
#[derive(Debug, Serialize)]
pub(crate) struct RequestLine<'a> {
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    scheme: Option<&'a str>,
    host: Option<&'a str>,
    pub(crate) headers: Headers<'a>,
}

/// Which build answers.
#[derive(Debug, Serialize)]
pub(crate) struct Version {
    pub(crate) version: &'static str,
    pub(crate) commit: &'static str,
}

/// The build that this is.
pub(crate) const VERSION: Version = Version { version: env!("CARGO_PKG_VERSION"), commit: env!("REQUEST_INFO_COMMIT") };

impl Version {
    /// The commit as people name it: its first 12 digits, and whether the tree differed from it.
    pub(crate) fn short_commit(&self) -> String {
        match self.commit.split_at_checked(40) {
            Some((digits, dirty)) => format!("{}{dirty}", &digits[..12]),
            None => self.commit.to_owned(),
        }
    }
}

impl<'a> Report<'a> {
    pub(crate) fn new(request: &'a Request<Vec<u8>>, settings: &Settings) -> Self {
        let uri = request.uri();
        let headers = Headers(request.headers());
        let form = Form::from_urlencoded(uri.query().unwrap_or_default().as_bytes())
            .or(Form::from_body(request.headers(), request.body()));
        let url = form.url.filter(|url| !url.is_empty()).map(Cow::Owned);
        let address = address::find(headers, settings);
        Self {
            browser: headers.value(header::USER_AGENT),
            url: url.or_else(|| headers.value(header::REFERER)),
            event: form.event,
            ip: address.ip.map(|ip| ip.to_string()),
            address,
            request: RequestLine {
                // HEAD asks for what GET would be answered, its length included (RFC 9110, section 9.3.2).
                method: if request.method() == Method::HEAD { "GET" } else { request.method().as_str() },
                path: uri.path(),
                query: uri.query(),
                scheme: uri.scheme_str(),
                host: uri.authority().map(http::uri::Authority::as_str),
                headers,
            },
            served_by: VERSION,
        }
    }

    /// The four values that people come for, with their labels.
    pub(crate) fn fields(&self) -> [(&'static str, Option<&str>); 4] {
        [
            ("Browser", self.browser.as_deref()),
            ("Url", self.url.as_deref()),
            ("Event", self.event.as_deref()),
            ("IP", self.ip.as_deref()),
        ]
    }
}
