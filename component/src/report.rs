//! What a visitor is shown: everything of their request that answers "what did you send me?".

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    ptr,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use serde::{Serialize, Serializer};

use crate::{
    address::{self, Address},
    form::Form,
    forwarding::value_text,
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

/// A request's headers as Spin hands them over: the visitor's, in the order in which they arrived with
/// repeated ones together, and Spin's own behind them. As JSON, the visitor's as a list of pairs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Headers<'a>(pub(crate) &'a HeaderMap);

static SPIN_CLIENT_ADDR: HeaderName = HeaderName::from_static("spin-client-addr");

/// What Spin appends to every request. A visitor may have sent the same names: the last of each is
/// Spin's, and what stands before it is theirs.
const APPENDED_BY_SPIN: [&str; 7] = [
    "spin-path-info",
    "spin-full-url",
    "spin-matched-route",
    "spin-base-path",
    "spin-raw-component-route",
    "spin-component-route",
    "spin-client-addr",
];

impl<'a> Headers<'a> {
    /// The address at the other end of the connection.
    pub(crate) fn peer(self) -> Option<IpAddr> {
        let peer: SocketAddr = self.last(&SPIN_CLIENT_ADDR)?.to_str().ok()?.parse().ok()?;
        Some(peer.ip())
    }

    /// The first value of the header, as text.
    pub(crate) fn value(self, name: HeaderName) -> Option<Cow<'a, str>> {
        self.0.get(name).map(value_text)
    }

    /// Those that the visitor sent.
    pub(crate) fn of_visitor(self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        self.0
            .iter()
            .filter(move |(name, value)| {
                !(APPENDED_BY_SPIN.contains(&name.as_str())
                    && self.last(name).is_some_and(|last| ptr::eq(last, *value)))
            })
            .map(|(name, value)| (name.as_str(), value_text(value)))
    }

    fn last(self, name: &HeaderName) -> Option<&'a HeaderValue> {
        self.0.get_all(name).iter().next_back()
    }
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.of_visitor())
    }
}
