//! The headers in which proxies report the visitor: X-Forwarded-For, Forwarded (RFC 7239), and headers of one address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Serialize, Serializer};

use crate::{field::Cursor, visit::Headers};

/// A header of one address that always ends in a port. An IPv6 address before the port has no brackets (the developer guide
/// of Amazon's `CloudFront`, "Add `CloudFront` request headers").
const CLOUDFRONT: &str = "cloudfront-viewer-address";

/// The header in which proxies name the visitor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ForwardingHeader {
    /// A list to which every proxy appends the address that it was called from.
    #[default]
    XForwardedFor,
    /// The same with names and quoting (RFC 7239).
    Forwarded,
    /// A header that holds one address, such as `CF-Connecting-IP`.
    Single(String),
}

/// One element of a forwarding header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Address(IpAddr),
    /// An element that names no address: malformed, `unknown`, obfuscated, without `for`.
    Other(String),
    /// The rest of a line whose quoting is broken. The visitor may have written the start of the line and broken it, so it is
    /// unknown where a proxy's own element begins.
    Broken(String),
}

impl ForwardingHeader {
    /// In lower case.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
            Self::Single(name) => name,
        }
    }

    /// All its lines joined in order, from the farthest proxy to the nearest; empty elements ignored.
    pub(crate) fn entries(&self, headers: &Headers) -> Vec<Entry> {
        let mut entries = Vec::new();
        for line in headers.values(self.name()) {
            match self {
                Self::XForwardedFor => entries.extend(x_forwarded_for(&line)),
                Self::Forwarded => forwarded(&line, &mut entries),
                Self::Single(name) if name == CLOUDFRONT => entries.push(cloudfront(line.trim())),
                Self::Single(_) => entries.push(node(line.trim(), Brackets::Optional)),
            }
        }
        entries
    }
}

impl Entry {
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Other(_) | Self::Broken(_) => None,
        }
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Other(text) | Self::Broken(text) => formatter.write_str(text),
        }
    }
}

/// Whether an IPv6 address must be in brackets even without a port, as in RFC 7239.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Brackets {
    Optional,
    Required,
}

fn x_forwarded_for(line: &str) -> impl Iterator<Item = Entry> {
    line.split(',')
        .map(str::trim)
        .filter(|element| !element.is_empty())
        .map(|element| node(element, Brackets::Optional))
}

/// Appends the elements of one line (RFC 7239, section 4).
fn forwarded(line: &str, entries: &mut Vec<Entry>) {
    let mut cursor = Cursor::new(line);
    loop {
        cursor.skip_whitespace();
        if cursor.is_at_end() {
            return;
        }
        if cursor.eat(',') {
            continue;
        }
        let start = cursor.rest();
        match element(&mut cursor) {
            Some(nodes) => {
                let written = start[..start.len() - cursor.rest().len()].trim_end();
                entries.push(match nodes.as_slice() {
                    [only] => node(only, Brackets::Required),
                    _ => Entry::Other(written.to_owned()),
                });
            }
            None => return entries.push(Entry::Broken(start.to_owned())),
        }
    }
}

/// The values of an element's `for` parameters, or `None` if the element is malformed.
fn element<'a>(cursor: &mut Cursor<'a>) -> Option<Vec<std::borrow::Cow<'a, str>>> {
    let mut nodes = Vec::new();
    loop {
        cursor.skip_whitespace();
        if let Some(name) = cursor.token() {
            cursor.eat('=').then_some(())?;
            let value = cursor.parameter_value()?;
            if name.eq_ignore_ascii_case("for") {
                nodes.push(value);
            }
            cursor.skip_whitespace();
        }
        if cursor.is_at_end() || cursor.rest().starts_with(',') {
            return Some(nodes);
        }
        cursor.eat(';').then_some(())?;
    }
}

/// An address with an optional port (RFC 7239, section 6).
fn node(text: &str, brackets: Brackets) -> Entry {
    entry(text, parse_node(text, brackets))
}

/// An address with a port after its last colon.
fn cloudfront(text: &str) -> Entry {
    let address = text.rsplit_once(':').filter(|(_, port)| is_port(port, Brackets::Optional));
    let address = address
        .map(|(address, _)| address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address));
    entry(text, address.and_then(|address| address.parse().ok()))
}

/// IPv4-mapped IPv6 becomes IPv4. The unspecified and the broadcast address are never a visitor's.
fn entry(text: &str, address: Option<IpAddr>) -> Entry {
    match address.map(|address| address.to_canonical()) {
        Some(address) if !address.is_unspecified() && address != IpAddr::V4(Ipv4Addr::BROADCAST) => {
            Entry::Address(address)
        }
        _ => Entry::Other(text.to_owned()),
    }
}

fn parse_node(text: &str, brackets: Brackets) -> Option<IpAddr> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let address = address.parse::<Ipv6Addr>().ok()?;
        let port = port.strip_prefix(':').or(port.is_empty().then_some("0"));
        return is_port(port?, brackets).then_some(address.into());
    }
    match text.split_once(':') {
        None => text.parse().map(IpAddr::V4).ok(),
        Some((address, port)) if !port.contains(':') => {
            let address = address.parse().map(IpAddr::V4).ok()?;
            is_port(port, brackets).then_some(address)
        }
        Some(_) if brackets == Brackets::Optional => text.parse().map(IpAddr::V6).ok(),
        Some(_) => None,
    }
}

/// A port is 1 to 5 digits up to 65535; RFC 7239 also has obfuscated ones, such as `_gazonk`.
fn is_port(text: &str, brackets: Brackets) -> bool {
    let is_number =
        (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    let is_obfuscated = text.len() > 1
        && text.starts_with('_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    is_number || (brackets == Brackets::Required && is_obfuscated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(header: &ForwardingHeader, lines: &[&str]) -> Vec<Entry> {
        let lines = lines.iter().map(|line| (header.name().to_owned(), line.as_bytes().to_vec()));
        header.entries(&Headers(lines.collect()))
    }

    #[test]
    fn a_list_is_read_in_order_and_empty_elements_are_ignored() {
        let cases: &[(ForwardingHeader, &[&str], &[&str])] = &[
            (ForwardingHeader::XForwardedFor, &[], &[]),
            (ForwardingHeader::XForwardedFor, &["", " , ,"], &[]),
            (ForwardingHeader::XForwardedFor, &["192.0.2.1, x", "192.0.2.2"], &["192.0.2.1", "x", "192.0.2.2"]),
            (ForwardingHeader::Forwarded, &["for=192.0.2.1, ,for=192.0.2.2"], &["192.0.2.1", "192.0.2.2"]),
            (ForwardingHeader::Forwarded, &["proto=http;by=x"], &["proto=http;by=x"]),
            (ForwardingHeader::Forwarded, &["for=a, for=\"b"], &["a", "for=\"b"]),
        ];
        for (header, lines, expected) in cases {
            let shown: Vec<_> = entries(header, lines).iter().map(ToString::to_string).collect();
            assert_eq!(shown, *expected, "{lines:?}");
        }
    }

    #[test]
    fn a_node_is_an_address_with_an_optional_port_or_none() {
        // The node, and what it is in X-Forwarded-For and in Forwarded.
        let cases = [
            ("192.0.2.1", Some("192.0.2.1"), Some("192.0.2.1")),
            ("192.0.2.1:80", Some("192.0.2.1"), Some("192.0.2.1")),
            ("[2001:db8::1]", Some("2001:db8::1"), Some("2001:db8::1")),
            ("[2001:db8::1]:65535", Some("2001:db8::1"), Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1"), None),
            ("[::ffff:192.0.2.1]", Some("192.0.2.1"), Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1"), None),
            ("192.0.2.1:_port", None, Some("192.0.2.1")),
            ("192.0.2.1:65536", None, None),
            ("192.0.2.1:+80", None, None),
            ("192.0.2.1:", None, None),
            ("192.0.2.01", None, None),
            ("192.0.2", None, None),
            ("192.0.2.1/32", None, None),
            ("[fe80::1%eth0]", None, None),
            ("fe80::1%1", None, None),
            ("[192.0.2.1]", None, None),
            ("[2001:db8::1", None, None),
            ("[2001:db8::1]x", None, None),
            ("unknown", None, None),
            ("_hidden", None, None),
            ("0.0.0.0", None, None),
            ("0.0.0.0:80", None, None),
            ("::", None, None),
            ("[::]:80", None, None),
            ("[::ffff:0.0.0.0]", None, None),
            ("255.255.255.255", None, None),
            ("[::ffff:255.255.255.255]", None, None),
            ("255.255.255.254", Some("255.255.255.254"), Some("255.255.255.254")),
        ];
        for (text, optional, required) in cases {
            for (brackets, expected) in [(Brackets::Optional, optional), (Brackets::Required, required)] {
                let address = node(text, brackets).address().map(|address| address.to_string());
                assert_eq!(address.as_deref(), expected, "{text}");
            }
        }
    }

    #[test]
    fn the_last_colon_in_cloudfronts_header_separates_the_port() {
        let header = ForwardingHeader::Single(CLOUDFRONT.to_owned());
        let cases = [
            ("198.51.100.10:46532", Some("198.51.100.10")),
            ("2001:db8::7:8080", Some("2001:db8::7")),
            ("2001:0db8:0000:0000:0000:0000:0000:0007:443", Some("2001:db8::7")),
            ("2001:db8::443", None), // `2001:db8:` is not an address
            ("::ffff:192.0.2.1:80", Some("192.0.2.1")),
            ("[2001:db8::7]:8080", Some("2001:db8::7")),
            ("::1:80", Some("::1")),
            ("198.51.100.10", None),
            ("198.51.100.10:", None),
            ("2001:db8::7:65536", None),
            ("2001:db8::7:80 80", None),
            ("0.0.0.0:80", None),
            (":::80", None),
            ("", None),
        ];
        for (value, expected) in cases {
            let address = entries(&header, &[value])[0].address().map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn an_address_is_read_back_in_every_form_that_proxies_write(address: IpAddr, port: u16) {
            let canonical = entry("", Some(address)).address();
            prop_assume!(canonical.is_some());
            let socket = std::net::SocketAddr::new(address, port).to_string();
            let quoted = if address.is_ipv6() { format!("\"[{address}]\"") } else { address.to_string() };
            for line in [address.to_string(), socket.clone()] {
                prop_assert_eq!(entries(&ForwardingHeader::XForwardedFor, &[&line])[0].address(), canonical);
            }
            for line in [format!("for={quoted}"), format!("proto=http; For=\"{socket}\"")] {
                prop_assert_eq!(entries(&ForwardingHeader::Forwarded, &[&line])[0].address(), canonical);
            }
        }

        #[test]
        fn no_line_panics(line in "([ -~é]|for=|\"|\\\\|,|;|\\[|\\]|:)*") {
            for header in [
                ForwardingHeader::XForwardedFor,
                ForwardingHeader::Forwarded,
                ForwardingHeader::Single("x-real-ip".to_owned()),
            ] {
                entries(&header, &[&line]);
            }
        }
    }
}
