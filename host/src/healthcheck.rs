//! The health check that Docker runs in the container, because the image has no shell and no curl.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// Less than the two seconds that the image gives it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks the server that listens at an address for /healthz.
///
/// # Errors
/// When it does not answer in time, or not with 200.
pub(crate) fn check(listen: SocketAddr) -> anyhow::Result<()> {
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream
            .write_all(format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
        let mut begin = [0; 12];
        stream.read_exact(&mut begin)?;
        std::io::Result::Ok(begin)
    };
    let begin = ask().with_context(|| format!("GET http://{address}/healthz was not answered"))?;
    let status = String::from_utf8_lossy(begin.get(9..).unwrap_or_default());
    ensure!(status == "200", "GET http://{address}/healthz was answered with {status}, not with 200");
    Ok(())
}

/// The address at which a server that listens on all addresses is reached.
fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}
