//! The service's three variables: whom to believe about the visitor's address.

use std::net::IpAddr;

use http::HeaderName;
use ipnet::{IpNet, Ipv4Net};

use crate::forwarding::ForwardingHeader;

/// Whose word on the visitor's address is taken, and where it stands in a request.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) trust: Trust,
    pub(crate) header: ForwardingHeader,
}

/// What is known of the proxies in front.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// There are none, or none that may speak for a visitor.
    Nobody,
    /// They call from these networks.
    Proxies(Vec<IpNet>),
    /// There are this many, at least one, and no way around them.
    Hops(usize),
}

impl Settings {
    /// Reads the variables `trusted_proxies`, `trusted_hops` and `client_address_header`; an empty
    /// one stands for its default.
    ///
    /// # Errors
    /// A sentence that names the variable, its value and the remedy, where one cannot be read or two
    /// contradict each other.
    pub fn parse(trusted_proxies: &str, trusted_hops: &str, client_address_header: &str) -> Result<Self, String> {
        let networks = elements(trusted_proxies).map(network).collect::<Result<Vec<_>, _>>()?;
        let hops = Some(trusted_hops.trim()).filter(|hops| !hops.is_empty()).map(number_of_proxies).transpose()?;
        let header = forwarding_header(client_address_header.trim())?;
        let trust = match (networks.is_empty(), hops) {
            (true, None) => Trust::Nobody,
            (false, None) => Trust::Proxies(networks),
            (true, Some(hops)) => match &header {
                ForwardingHeader::Single(name) => {
                    return Err(format!(
                        "trusted_hops counts the entries of a list, but client_address_header is {name}, \
                         which holds one address: set trusted_proxies instead"
                    ));
                }
                _ => Trust::Hops(hops),
            },
            (false, Some(_)) => {
                return Err("trusted_proxies and trusted_hops contradict each other: set only one of them".into());
            }
        };
        Ok(Self { trust, header })
    }
}

fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|element| !element.is_empty())
}

/// An address or a CIDR block. IPv4-mapped ones become IPv4, as the addresses they are held against do.
fn network(text: &str) -> Result<IpNet, String> {
    let parse = || {
        let Some((address, prefix)) = text.split_once('/') else {
            return text.parse().ok().map(|address: IpAddr| IpNet::from(address.to_canonical()));
        };
        let address: IpAddr = address.parse().ok()?;
        if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let prefix: u8 = prefix.parse().ok()?;
        match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) => Ipv4Net::new(mapped, prefix.checked_sub(96)?).ok().map(IpNet::V4),
            (address, _) => IpNet::new(address, prefix).ok(),
        }
    };
    parse().ok_or_else(|| {
        format!(
            "trusted_proxies has {text:?}, which is neither an IP address nor a CIDR block: \
             write for example 10.0.0.0/8, 192.0.2.7"
        )
    })
}

fn number_of_proxies(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|hops| *hops > 0).ok_or_else(|| {
        format!(
            "trusted_hops is {text:?}, which is not a number of proxies: write 1 or more, \
             or leave it empty"
        )
    })
}

fn forwarding_header(text: &str) -> Result<ForwardingHeader, String> {
    let text = if text.is_empty() { "x-forwarded-for" } else { text };
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        format!(
            "client_address_header is {text:?}, which is not a header's name: write x-forwarded-for, \
             forwarded, or a header of one address such as cf-connecting-ip"
        )
    })?;
    Ok(match name.as_str() {
        "x-forwarded-for" => ForwardingHeader::XForwardedFor,
        "forwarded" => ForwardingHeader::Forwarded,
        _ => ForwardingHeader::Single(name),
    })
}
