//! Changes a request as Spin does before the component sees it.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, Scheme, Uri};

use crate::routes::Match;

/// Makes the URI an absolute one, whose authority is the Host header's, or with HTTP/2 its own.
///
/// # Errors
/// When there is no authority, when it is malformed, or when there are two. Spin closes the
/// connection then, without an answer.
pub(crate) fn set_authority(parts: &mut Parts) -> anyhow::Result<()> {
    let host = parts.headers.get(HOST).map(|host| Authority::try_from(host.as_bytes()));
    let host = host.transpose().context("the Host header is malformed")?;
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.authority = match (host, uri.authority) {
        (None, None) => bail!("there is no Host header"),
        (Some(host), Some(authority)) => {
            ensure!(host == authority, "the Host header and the URI name different hosts");
            Some(host)
        }
        (host, authority) => host.or(authority),
    };
    uri.scheme = Some(Scheme::HTTP);
    parts.uri = Uri::from_parts(uri)?;
    Ok(())
}

/// Appends Spin's headers to the client's own, which stay even if they have the same names.
///
/// # Errors
/// When a value of the client's headers is not UTF-8. Spin answers 500 then.
pub(crate) fn append_headers(parts: &mut Parts, found: &Match, client: SocketAddr) -> anyhow::Result<()> {
    for (name, value) in &parts.headers {
        std::str::from_utf8(value.as_bytes())
            .with_context(|| format!("the value of the header {name} is not UTF-8"))?;
    }
    // With HTTP/2 there is seldom a Host header. Spin then writes localhost, whichever authority the request names.
    let host = parts.headers.get(HOST).map_or(Ok("localhost"), HeaderValue::to_str)?;
    let path_and_query = parts.uri.path_and_query().map_or("/", |path_and_query| path_and_query.as_str());
    let raw = &found.route.raw;
    let headers = [
        ("spin-path-info", found.path_info.clone()),
        ("spin-full-url", format!("http://{host}{path_and_query}")),
        ("spin-matched-route", found.route.based.clone()),
        ("spin-base-path", "/".to_owned()),
        ("spin-raw-component-route", raw.clone()),
        ("spin-component-route", raw.strip_suffix("/...").unwrap_or(raw).to_owned()),
        ("spin-client-addr", client.to_string()),
    ];
    for (name, value) in headers {
        parts.headers.append(HeaderName::from_static(name), HeaderValue::try_from(value)?);
    }
    for (name, value) in &found.parameters {
        let name = HeaderName::try_from(format!("spin-path-match-{}", name.replace('_', "-")))?;
        parts.headers.append(name, HeaderValue::try_from(value)?);
    }
    Ok(())
}
