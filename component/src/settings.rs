//! The service's three variables, which say whose reports of the visitor's address are trusted.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::{field::Cursor, forwarding::ForwardingHeader};

/// Whose reports of the visitor's address are trusted, and which header holds them.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub(crate) trust: Trust,
    pub(crate) header: ForwardingHeader,
}

/// What is known about the proxies in front.
#[derive(Clone, Debug, Default)]
pub(crate) enum Trust {
    /// No proxy is trusted.
    #[default]
    Nobody,
    /// The proxies call from these networks.
    Proxies(Vec<IpNet>),
    /// This many proxies, at least one, stand in front, and every request passes through all of them.
    Hops(usize),
}

impl Settings {
    /// Reads the three variables as spin.toml joins them, by semicolons. One variable instead of three saves two calls into
    /// the host for each request.
    ///
    /// # Errors
    /// Those of [`Settings::parse`], and a semicolon in a value, which none of them may contain.
    pub fn from_joined(variables: &str) -> Result<Self, String> {
        let mut parts = variables.split(';');
        let (Some(proxies), Some(hops), Some(header), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(format!(
                "trusted_proxies, trusted_hops or client_address_header contains a semicolon (together \
                 {variables:?}): separate networks by commas"
            ));
        };
        Self::parse(proxies, hops, header)
    }

    /// Reads the variables `trusted_proxies`, `trusted_hops` and `client_address_header`; an empty
    /// one stands for its default.
    ///
    /// # Errors
    /// If a variable cannot be read, or two contradict each other: a sentence that names the variable, its value and the
    /// remedy.
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

/// An address or a CIDR block. IPv4-mapped ones become IPv4, as do the addresses that they are compared with.
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
    if matches!(text, "" | "x-forwarded-for") {
        return Ok(ForwardingHeader::XForwardedFor); // the default, without the work of parsing it
    }
    let mut cursor = Cursor::new(text);
    let name = cursor.token().filter(|_| cursor.is_at_end()).ok_or_else(|| {
        format!(
            "client_address_header is {text:?}, which is not a header's name: write x-forwarded-for, \
             forwarded, or a header of one address such as cf-connecting-ip"
        )
    })?;
    let name = name.to_ascii_lowercase();
    Ok(match name.as_str() {
        "x-forwarded-for" => ForwardingHeader::XForwardedFor,
        "forwarded" => ForwardingHeader::Forwarded,
        _ => ForwardingHeader::Single(name),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn trusted_proxies_are_addresses_and_cidr_blocks() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" , ,", &[]),
            ("192.0.2.7", &["192.0.2.7/32"]),
            ("10.0.0.0/8,fd00::/8 , 192.0.2.7", &["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"]),
            ("::ffff:192.0.2.7", &["192.0.2.7/32"]),
            ("::ffff:10.0.0.0/104", &["10.0.0.0/8"]),
            ("0.0.0.0/0", &["0.0.0.0/0"]),
        ];
        for (text, expected) in cases {
            let networks = match Settings::parse(text, "", "").unwrap().trust {
                Trust::Nobody => Vec::new(),
                Trust::Proxies(networks) => networks,
                Trust::Hops(_) => panic!("no hops are set"),
            };
            assert_eq!(networks.iter().map(ToString::to_string).collect::<Vec<_>>(), *expected, "{text}");
        }
    }

    #[test]
    fn joined_variables_are_read_like_single_ones_and_a_semicolon_in_one_is_an_error() {
        let settings = Settings::from_joined(" 10.0.0.0/8 ; ; cf-connecting-ip ").unwrap();
        assert!(matches!(settings.trust, Trust::Proxies(networks) if networks.len() == 1));
        assert_eq!(settings.header, ForwardingHeader::Single("cf-connecting-ip".to_owned()));
        for joined in ["10.0.0.0/8;127.0.0.1;;x-forwarded-for", ";;", ";1;;", ";;;x-real-ip", ";1;x-forwarded-for", ""]
        {
            let is_good = joined.matches(';').count() == 2;
            let error = Settings::from_joined(joined).err();
            assert_eq!(error.is_none(), is_good, "{joined}: {error:?}");
            for name in ["trusted_proxies", "trusted_hops", "client_address_header"] {
                assert!(error.as_ref().is_none_or(|error| error.contains(name)), "{joined}: {error:?}");
            }
        }
    }

    #[test]
    fn an_error_names_the_variable_its_value_and_the_remedy() {
        let cases = [
            (("nonsense", "", ""), ["trusted_proxies", "\"nonsense\"", "write for example"]),
            (("10.0.0.0/+8", "", ""), ["trusted_proxies", "\"10.0.0.0/+8\"", "write for example"]),
            (("::ffff:10.0.0.0/95", "", ""), ["trusted_proxies", "/95", "write for example"]),
            (("", "0", ""), ["trusted_hops", "\"0\"", "write 1 or more"]),
            (("10.0.0.0/8", "1", ""), ["trusted_proxies", "trusted_hops", "set only one"]),
            (("", "1", "x-real-ip"), ["trusted_hops", "x-real-ip", "set trusted_proxies"]),
            (("", "", "a b"), ["client_address_header", "\"a b\"", "write x-forwarded-for"]),
        ];
        for ((proxies, hops, header), words) in cases {
            let error = Settings::parse(proxies, hops, header).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{word} is not in: {error}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(proxies: String, hops in "[0-9a-z+ -]*", header: String) {
            let _ = Settings::parse(&proxies, &hops, &header);
        }
    }
}
