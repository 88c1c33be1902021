//! What an instance need not say because it can be found out: our address as the registry sees it, and a name for us.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use http::Uri;

/// The address this machine uses on its way to an endpoint: the right interface in bridged and host networks alike.
/// Connecting a UDP socket sends nothing.
pub fn source_address(endpoint: &str) -> io::Result<IpAddr> {
    let uri: Uri = endpoint.parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(ETCD_PORT);
    let remote = (host, port).to_socket_addrs()?.next().ok_or_else(|| io::Error::other("the name has no address"))?;
    let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

/// The machine's, or in a container the container's, name.
pub fn hostname() -> io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned())
}

const ETCD_PORT: u16 = 2379;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_a_loopback_endpoint_starts_at_loopback() {
        assert_eq!(source_address("http://127.0.0.1:2379").unwrap(), IpAddr::from(Ipv4Addr::LOCALHOST));
        assert_eq!(source_address("http://127.0.0.1").unwrap(), IpAddr::from(Ipv4Addr::LOCALHOST));
        assert!(source_address("nothing at all").is_err());
    }

    #[test]
    fn the_machine_has_a_name() {
        assert!(!hostname().unwrap().is_empty());
    }
}
