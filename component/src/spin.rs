//! Separates the headers that Spin adds to a request from the visitor's own.

use std::net::{IpAddr, SocketAddr};

use crate::{
    refusal::Refusal,
    visit::{HEAD_LIMIT, Headers},
};

/// A component is not given the Host header, which `spin-full-url` contains. This is its limit, in bytes.
const HOST_LIMIT: usize = 1024;

/// The headers that Spin appends to every request (Spin 3.6.3, crates/trigger-http/src/headers.rs). A visitor may have sent
/// the same names, so only the last of each is Spin's.
const APPENDED: [&str; 7] = [
    "spin-path-info",
    "spin-full-url",
    "spin-matched-route",
    "spin-base-path",
    "spin-raw-component-route",
    "spin-component-route",
    CLIENT_ADDR,
];
const CLIENT_ADDR: &str = "spin-client-addr";

/// Returns the peer and the visitor's own headers. `entries` are all headers that Spin hands over with a request for `target`.
///
/// # Errors
/// When target and headers are longer than [`HEAD_LIMIT`].
pub(crate) fn split(target: &str, mut entries: Vec<(String, Vec<u8>)>) -> Result<(Option<IpAddr>, Headers), Refusal> {
    let mut last = [usize::MAX; APPENDED.len()];
    for (position, (name, _)) in entries.iter().enumerate().filter(|(_, (name, _))| name.starts_with("spin-")) {
        if let Some(known) = APPENDED.iter().position(|known| known == name) {
            last[known] = position;
        }
    }
    let mut peer = None;
    let mut size = target.len();
    let mut position = 0;
    entries.retain(|(name, value)| {
        let is_visitors = !last.contains(&position);
        position += 1;
        if is_visitors {
            size += name.len() + value.len();
        } else if name == CLIENT_ADDR {
            peer = str::from_utf8(value).ok().and_then(|address| address.parse::<SocketAddr>().ok());
        } else if value.len() > HEAD_LIMIT + HOST_LIMIT {
            size = usize::MAX / 2;
        }
        is_visitors
    });
    if size > HEAD_LIMIT {
        return Err(Refusal::HeadTooLarge);
    }
    Ok((peer.map(|peer| peer.ip()), Headers(entries)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(visitor: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        let spin = APPENDED.map(|name| (name, if name == CLIENT_ADDR { "[2001:db8::1]:5678" } else { "/..." }));
        let entry = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
        visitor.iter().chain(&spin).map(entry).collect()
    }

    #[test]
    fn only_the_last_of_each_spin_header_is_spins() {
        let sent = [("a", "1"), ("spin-client-addr", "192.0.2.1:1"), ("spin-base-path", "/x"), ("spin-other", "2")];
        for rotation in 0..4 {
            let mut all = entries(&sent);
            // When wasi-http removes Host, the last header takes its place.
            all[..sent.len()].rotate_left(rotation);
            let (peer, headers) = split("/", all).unwrap();
            assert_eq!(peer, "2001:db8::1".parse().ok());
            let mut expected = entries(&sent)[..sent.len()].to_vec();
            expected.rotate_left(rotation);
            assert_eq!(headers.0, expected);
        }
    }

    #[test]
    fn without_spins_address_there_is_no_peer() {
        for address in [None, Some("nonsense"), Some("192.0.2.1")] {
            let entries = address.map(|address| (CLIENT_ADDR.to_owned(), address.into())).into_iter().collect();
            assert_eq!(split("/", entries).unwrap().0, None, "{address:?}");
        }
    }

    #[test]
    fn target_and_headers_have_64_kib_together_and_host_has_one_more() {
        let full_url = |length: usize| ("spin-full-url".to_owned(), vec![b'x'; length]);
        let header = |length: usize| ("name".to_owned(), vec![b'x'; length]);
        let target = |length: usize| "/".repeat(length);
        let cases = [
            (target(HEAD_LIMIT), vec![], true),
            (target(HEAD_LIMIT + 1), vec![], false),
            (target(1), vec![header(HEAD_LIMIT - 5)], true),
            (target(1), vec![header(HEAD_LIMIT - 4)], false),
            (target(2), vec![header(HEAD_LIMIT - 5)], false),
            (target(1), vec![header(HEAD_LIMIT / 2), header(HEAD_LIMIT / 2)], false),
            (target(1), vec![header(0); HEAD_LIMIT / 4], false),
            (target(HEAD_LIMIT), vec![full_url(HEAD_LIMIT + 21)], true),
            (target(1), vec![full_url(HEAD_LIMIT + HOST_LIMIT + 1)], false),
        ];
        for (number, (target, entries, is_read)) in cases.into_iter().enumerate() {
            assert_eq!(split(&target, entries).is_ok(), is_read, "case {number}");
        }
    }
}
