//! The headers of a request as Spin hands them over: the visitor's, and Spin's own.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    ptr,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

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

/// A header's value as text. HTTP allows any bytes from 0x80 on; what is not UTF-8 is replaced.
pub(crate) fn value_text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}
