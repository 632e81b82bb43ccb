//! The visitor's address, as far as it can be known, and how it was found.

use std::{borrow::Cow, fmt::Write as _, net::IpAddr};

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    forwarding::{Entry, ForwardingHeader},
    settings::{Settings, Trust},
    visit::{Headers, Visit},
};

/// The explanation names these headers as ignored when no proxy is trusted.
const FORWARDING_HEADERS: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "cf-connecting-ip"];

/// The visitor's address and why it is that one.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Address {
    /// `None` if the server does not report the peer.
    pub(crate) ip: Option<IpAddr>,
    /// Whether only a trusted proxy can have invented it.
    pub(crate) verified: bool,
    /// `peer`, or the name of the header that it was read from.
    pub(crate) source: Cow<'static, str>,
    /// A sentence for the visitor.
    pub(crate) explanation: Cow<'static, str>,
    /// All entries that were considered, from the farthest to the peer.
    pub(crate) chain: Vec<Entry>,
}

/// Finds the visitor's address from who called and what the headers say, as far as they are believed.
pub(crate) fn find(visit: &Visit, settings: &Settings) -> Address {
    let Some(peer) = visit.peer.map(|peer| peer.to_canonical()) else {
        return Address {
            ip: None,
            verified: false,
            source: "peer".into(),
            explanation: "The server did not say which address the connection came from.".into(),
            chain: Vec::new(),
        };
    };
    let (header, headers) = (&settings.header, &visit.headers);
    match &settings.trust {
        Trust::Nobody => ignoring(peer, headers, header, "no proxy is trusted to report a visitor"),
        Trust::Proxies(trusted) if !is_trusted(trusted, peer) => {
            ignoring(peer, headers, header, &format!("{peer} is not a trusted proxy"))
        }
        Trust::Proxies(trusted) => {
            let entries = header.entries(headers);
            let found = match header {
                ForwardingHeader::Single(_) => single(header, &entries, peer),
                _ => nearest_untrusted(header, &entries, peer, trusted),
            };
            found.address(header, peer, entries)
        }
        Trust::Hops(hops) => {
            let entries = header.entries(headers);
            counted(header, &entries, peer, *hops).address(header, peer, entries)
        }
    }
}

fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// The peer, because what a forwarding header says is not believed.
fn ignoring(peer: IpAddr, headers: &Headers, configured: &ForwardingHeader, why: &str) -> Address {
    let mut explanation = Cow::Borrowed("This is the address that the connection came from.");
    let configured = configured.name();
    let mut ignored: Vec<_> = headers
        .pairs()
        .filter(|(name, _)| FORWARDING_HEADERS.contains(name) || *name == configured)
        .map(|(name, _)| title_case(name))
        .collect();
    ignored.dedup();
    if let Some((last, others)) = ignored.split_last() {
        let (others, verb) = match others {
            [] => (String::new(), "is"),
            _ => (format!("{} and ", others.join(", ")), "are"),
        };
        let _ = write!(explanation.to_mut(), " {others}{last} {verb} ignored, because {why}.");
    }
    Address { ip: Some(peer), verified: true, source: "peer".into(), explanation, chain: vec![Entry::Address(peer)] }
}

/// The result of a walk through a believed header. Without an `ip`, the peer's is used.
struct Found {
    ip: Option<IpAddr>,
    verified: bool,
    explanation: String,
}

impl Found {
    fn address(self, header: &ForwardingHeader, peer: IpAddr, mut entries: Vec<Entry>) -> Address {
        entries.push(Entry::Address(peer));
        Address {
            ip: Some(self.ip.unwrap_or(peer)),
            verified: self.verified,
            source: match self.ip {
                Some(_) => header.name().to_owned().into(),
                None => "peer".into(),
            },
            explanation: self.explanation.into(),
            chain: entries,
        }
    }
}

/// Walks from the nearest entry outwards, past trusted proxies, to the first that is not one.
fn nearest_untrusted(header: &ForwardingHeader, entries: &[Entry], peer: IpAddr, trusted: &[IpNet]) -> Found {
    let name = title_case(header.name());
    let mut nearest = None;
    for entry in entries.iter().rev() {
        match entry.address() {
            None => return stopped(&name, entry, nearest),
            Some(address) if !is_trusted(trusted, address) => {
                return Found {
                    ip: Some(address),
                    verified: true,
                    explanation: format!("A trusted proxy reported this address in {name}."),
                };
            }
            trusted => nearest = trusted,
        }
    }
    Found {
        ip: nearest,
        verified: false,
        explanation: if nearest.is_none() {
            format!("The trusted proxy at {peer} sent no address in {name}, so this is its own address.")
        } else {
            format!("Every address in {name} is a trusted proxy's; this is the farthest of them.")
        },
    }
}

/// The entry that the outermost of the given number of proxies wrote.
fn counted(header: &ForwardingHeader, entries: &[Entry], peer: IpAddr, hops: usize) -> Found {
    let name = title_case(header.name());
    let Some(first) = entries.len().checked_sub(hops) else {
        return Found {
            ip: None,
            verified: false,
            explanation: format!(
                "{name} has {} of the {hops} entries that the proxies in front write, so this is \
                 the address that the connection came from, {peer}.",
                entries.len()
            ),
        };
    };
    let written = &entries[first..];
    // A broken line may hide or invent any number of entries, so the count ends there.
    let broken = written.iter().rposition(|entry| matches!(entry, Entry::Broken(_)));
    let at = broken.unwrap_or(0);
    match written[at].address() {
        Some(address) => Found {
            ip: Some(address),
            verified: true,
            explanation: match hops {
                1 => format!("The proxy in front reported this address, the last in {name}."),
                _ => format!(
                    "The outermost of {hops} proxies in front reported this address, entry {hops} from \
                     the right in {name}."
                ),
            },
        },
        None => stopped(&name, &written[at], written[at + 1..].iter().find_map(Entry::address)),
    }
}

/// The only value of a header that holds one address.
fn single(header: &ForwardingHeader, entries: &[Entry], peer: IpAddr) -> Found {
    let name = title_case(header.name());
    let (ip, explanation) = match entries {
        [Entry::Address(address)] => {
            (Some(*address), format!("The trusted proxy at {peer} reported this address in {name}."))
        }
        [] => (None, format!("The trusted proxy at {peer} sent no {name}, so this is its own address.")),
        _ => (None, format!("{name} does not hold one address, so this is the trusted proxy's own.")),
    };
    Found { ip, verified: ip.is_some(), explanation }
}

/// The walk met an entry that is not an address, so the address that it passed last is the best known one.
fn stopped(name: &str, entry: &Entry, nearest: Option<IpAddr>) -> Found {
    Found {
        ip: nearest,
        verified: false,
        explanation: format!(
            "{name} cannot be followed beyond \u{201c}{entry}\u{201d}, which is not a visitor's address; \
             this is the last address before it."
        ),
    }
}

/// `x-forwarded-for` as people write it: X-Forwarded-For.
fn title_case(name: &str) -> String {
    let mut at_start = true;
    name.chars()
        .map(|character| {
            let upper = std::mem::replace(&mut at_start, character == '-');
            if upper { character.to_ascii_uppercase() } else { character }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;
    use crate::visit::Origin;

    const PEER: &str = "10.0.0.1";

    fn found(settings: (&str, &str, &str), headers: &[(&'static str, &str)]) -> Address {
        let (proxies, hops, header) = settings;
        let settings = Settings::parse(proxies, hops, header).unwrap();
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        let visit = Visit {
            peer: PEER.parse().ok(),
            method: Method::GET,
            target: "/".to_owned(),
            headers: Headers(headers.collect()),
            body: Vec::new(),
            origin: &Origin::default,
        };
        find(&visit, &settings)
    }

    #[test]
    fn the_address_is_the_nearest_one_that_cannot_be_forged() {
        const NOTHING: (&str, &str, &str) = ("", "", "");
        const PROXIES: (&str, &str, &str) = ("10.0.0.0/8", "", "");
        const STRANGERS: (&str, &str, &str) = ("172.16.0.0/12", "", "");
        const TWO_HOPS: (&str, &str, &str) = ("", "2", "");
        const SINGLE: (&str, &str, &str) = ("10.0.0.0/8", "", "x-real-ip");
        type Case = (
            (&'static str, &'static str, &'static str),
            &'static [(&'static str, &'static str)],
            (&'static str, bool, &'static str),
        );
        let cases: &[Case] = &[
            (NOTHING, &[("x-forwarded-for", "192.0.2.1")], ("10.0.0.1", true, "peer")),
            (STRANGERS, &[("x-forwarded-for", "192.0.2.1")], ("10.0.0.1", true, "peer")),
            (PROXIES, &[], ("10.0.0.1", false, "peer")),
            (PROXIES, &[("x-forwarded-for", "192.0.2.1, 192.0.2.2, 10.9.9.9")], ("192.0.2.2", true, "x-forwarded-for")),
            (PROXIES, &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], ("10.0.0.3", false, "x-forwarded-for")),
            (PROXIES, &[("x-forwarded-for", "192.0.2.1, unknown, 10.0.0.2")], ("10.0.0.2", false, "x-forwarded-for")),
            (PROXIES, &[("x-forwarded-for", "unknown")], ("10.0.0.1", false, "peer")),
            (PROXIES, &[("x-forwarded-for", "192.0.2.1, 0.0.0.0")], ("10.0.0.1", false, "peer")),
            (PROXIES, &[("x-forwarded-for", "192.0.2.1, ::, 10.0.0.2")], ("10.0.0.2", false, "x-forwarded-for")),
            (
                TWO_HOPS,
                &[("x-forwarded-for", "192.0.2.1, 192.0.2.2, 10.9.9.9")],
                ("192.0.2.2", true, "x-forwarded-for"),
            ),
            (TWO_HOPS, &[("x-forwarded-for", "192.0.2.1")], ("10.0.0.1", false, "peer")),
            (SINGLE, &[("x-real-ip", "192.0.2.1")], ("192.0.2.1", true, "x-real-ip")),
            (SINGLE, &[("x-real-ip", "192.0.2.1, 192.0.2.2")], ("10.0.0.1", false, "peer")),
            (SINGLE, &[("x-real-ip", "192.0.2.1"), ("x-real-ip", "192.0.2.1")], ("10.0.0.1", false, "peer")),
        ];
        for (settings, headers, expected) in cases {
            let address = found(*settings, headers);
            let ip = address.ip.unwrap().to_string();
            assert_eq!((ip.as_str(), address.verified, &*address.source), *expected, "{settings:?} {headers:?}");
            assert_eq!(
                address.chain.last().map(ToString::to_string).as_deref(),
                Some("10.0.0.1"),
                "the peer ends the chain"
            );
        }
    }

    proptest! {
        #[test]
        fn what_a_visitor_writes_never_changes_what_is_verified(forged in "[ -~]*") {
            // The proxy appends what it saw. The visitor wrote everything before that, on the same line or on another.
            let lines = [("x-forwarded-for", forged.as_str()), ("x-forwarded-for", "192.0.2.1")];
            let address = found(("10.0.0.0/8", "", ""), &lines);
            prop_assert_eq!((address.ip, address.verified), ("192.0.2.1".parse().ok(), true));
            let joined = format!("{forged}, 192.0.2.1");
            let address = found(("10.0.0.0/8", "", ""), &[("x-forwarded-for", joined.as_str())]);
            prop_assert_eq!((address.ip, address.verified), ("192.0.2.1".parse().ok(), true));
        }

        #[test]
        fn a_forged_forwarded_header_is_never_verified_as_another_address(forged in "[ -~]*") {
            let joined = format!("{forged}, for=192.0.2.1");
            let address = found(("10.0.0.0/8", "", "forwarded"), &[("forwarded", joined.as_str())]);
            prop_assert!(!address.verified || address.ip == "192.0.2.1".parse().ok(), "{:?}", address);
        }
    }
}
