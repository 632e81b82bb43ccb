//! The report that a visitor is shown.

use std::borrow::Cow;

use http::{Method, header};
use serde::Serialize;

use crate::{
    address::{self, Address},
    form::Form,
    refusal::Refusal,
    settings::Settings,
    visit::{Headers, Origin, Visit},
};

/// The values that the page and the text show.
pub(crate) struct Report<'a> {
    pub(crate) browser: Option<Cow<'a, str>>,
    pub(crate) url: Option<Cow<'a, str>>,
    pub(crate) event: Option<String>,
    pub(crate) ip: Option<String>,
    pub(crate) address: Address,
    visit: &'a Visit<'a>,
}

/// The JSON answer: the report, and the request as it was received.
#[derive(Serialize)]
pub(crate) struct Document<'a> {
    browser: Option<&'a str>,
    url: Option<&'a str>,
    event: Option<&'a str>,
    ip: Option<&'a str>,
    address: &'a Address,
    request: RequestLine<'a>,
    served_by: Version,
}

#[derive(Serialize)]
struct RequestLine<'a> {
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    scheme: Option<String>,
    host: Option<String>,
    headers: &'a Headers,
}

/// Identifies the build that answers.
#[derive(Debug, Serialize)]
pub(crate) struct Version {
    pub(crate) version: &'static str,
    pub(crate) commit: &'static str,
}

/// The version of this build.
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
    /// # Errors
    /// When the request's form cannot be read.
    pub(crate) fn new(visit: &'a Visit, settings: &Settings) -> Result<Self, Refusal> {
        let form = Form::from_urlencoded(visit.query().unwrap_or_default().as_bytes())
            .or(Form::from_body(&visit.headers, &visit.body)?);
        let address = address::find(visit, settings);
        Ok(Self {
            browser: visit.headers.value(header::USER_AGENT.as_str()),
            url: form.url.map(Cow::Owned).or_else(|| visit.headers.value(header::REFERER.as_str())),
            event: form.event,
            ip: address.ip.map(|ip| ip.to_string()),
            address,
            visit,
        })
    }

    pub(crate) fn headers(&self) -> &'a Headers {
        &self.visit.headers
    }

    pub(crate) fn document(&self) -> Document<'_> {
        let visit = self.visit;
        let Origin { scheme, authority } = (visit.origin)();
        Document {
            browser: self.browser.as_deref(),
            url: self.url.as_deref(),
            event: self.event.as_deref(),
            ip: self.ip.as_deref(),
            address: &self.address,
            request: RequestLine {
                // HEAD gets the headers that GET would get, the length included (RFC 9110, section 9.3.2).
                method: if visit.method == Method::HEAD { "GET" } else { visit.method.as_str() },
                path: visit.path(),
                query: visit.query(),
                scheme,
                host: authority,
                headers: self.headers(),
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
