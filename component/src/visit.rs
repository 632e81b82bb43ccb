//! One visit: who called, and the request as the visitor sent it.

use std::{borrow::Cow, net::IpAddr};

use http::Method;
use serde::{Serialize, Serializer};

/// The largest body that is read, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

/// The largest head that is read, in bytes: the request target, and the names and values of the visitor's headers.
pub const HEAD_LIMIT: usize = 64 * 1024;

/// One visit, as the core sees it.
pub struct Visit<'a> {
    /// The address at the other end of the connection, if the server reports it.
    pub peer: Option<IpAddr>,
    /// May be one that no standard defines.
    pub method: Method,
    /// The request target (RFC 9112, section 3.2): the path, and the query if there is one.
    pub target: String,
    /// The visitor's own headers and no others.
    pub headers: Headers,
    /// At least [`BODY_LIMIT`] + 1 bytes of a longer body; the rest may be missing.
    pub body: Vec<u8>,
    /// The origin to which the request was sent. It is a function, because reading it calls into the host, and few answers show it.
    pub origin: &'a dyn Fn() -> Origin,
}

/// The scheme and the authority of a request (RFC 3986, section 3), if the server reports them.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// The host, and the port if there is one.
    pub authority: Option<String>,
}

impl Visit<'_> {
    pub(crate) fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }
}

/// Names, in lower case as WASI hands them over, and values, in the order in which they arrived. In JSON, a list of pairs.
///
/// This is not a map, because a visitor sends few headers, each is looked up once, and a map would be built for every
/// request.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

impl Headers {
    /// All values of the header, as text.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| text(value))
    }

    /// The first value of the header, as text.
    pub(crate) fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.values(name).next()
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), text(value)))
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.pairs())
    }
}

/// HTTP allows any bytes from 0x80 on in a value. Those that are not UTF-8 are replaced.
fn text(value: &[u8]) -> Cow<'_, str> {
    // from_utf8_lossy alone takes three times as long for valid UTF-8.
    str::from_utf8(value).map_or_else(|_| String::from_utf8_lossy(value), Cow::Borrowed)
}
