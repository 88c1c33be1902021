//! Addresses to listen on, and that no two parts of the process want the same.

use std::net::SocketAddr;

use crate::wire::fields::{Read, Report};
use crate::wire::node::{Node, Place, quoted};
use crate::wire::scalar::text;

/// `0.0.0.0:8080`, `[::]:8080`; port 0 lets the system choose one. A port alone would leave open who may connect, and a
/// name which of its addresses is meant; both are answered with what to write.
pub(super) fn listen_address(node: &Node) -> Read<SocketAddr> {
    let said = text(node)?;
    let wrong = |right: String| format!("{} is not an address to listen on: {right}", quoted(said));
    if let Ok(address) = said.parse() {
        return Ok(address);
    }
    let (host, port) = said.rsplit_once(':').unwrap_or(if said.parse::<u16>().is_ok() { ("", said) } else { (said, "") });
    if port.parse::<u16>().is_err() {
        return Err(wrong("it is IP:PORT, as in \"0.0.0.0:8080\" or \"[::]:8080\"".to_owned()));
    }
    Err(wrong(match host {
        "" | "*" => format!("write \"0.0.0.0:{port}\" for all of IPv4, \"[::]:{port}\" for all, or \"127.0.0.1:{port}\""),
        "localhost" => format!("write \"127.0.0.1:{port}\""),
        host if host.parse::<std::net::Ipv6Addr>().is_ok() => format!("write \"[{host}]:{port}\""),
        _ => format!("its host is not an IP address, as in \"0.0.0.0:{port}\""),
    }))
}

/// One address that this process listens on.
pub(super) struct Taken<'a> {
    pub path: String,
    pub place: &'a Place,
    pub address: SocketAddr,
}

/// Notes each address that another, before it, has already.
pub(super) fn check_distinct(taken: &[Taken<'_>], report: &Report) {
    for (at, later) in taken.iter().enumerate() {
        if let Some(earlier) = taken[..at].iter().find(|earlier| overlap(earlier.address, later.address)) {
            let message = format!("{} is the same as {}, {}", later.address, earlier.path, earlier.address);
            report.problem(later.path.clone(), later.place, message);
        }
    }
}

/// Whether both would take the same connections.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_host = a.ip() == b.ip() || a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() != 0 && a.port() == b.port() && same_host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_address_says_what_to_write() {
        let read = |said: &str| listen_address(&Node::of_json(said.into()));
        for good in ["0.0.0.0:8080", "[::]:80", "127.0.0.1:0"] {
            assert_eq!(read(good).map(|a| a.to_string()), Ok(good.to_owned()));
        }
        for (said, right) in [
            (":8080", "write \"0.0.0.0:8080\""),
            ("8080", "write \"0.0.0.0:8080\""),
            ("*:80", "write \"0.0.0.0:80\""),
            ("localhost:80", "write \"127.0.0.1:80\""),
            ("::1:80", "write \"[::1]:80\""),
            ("example.org:80", "is not an IP address, as in \"0.0.0.0:80\""),
            ("127.0.0.1", "IP:PORT"),
            ("127.0.0.1:70000", "IP:PORT"),
            ("", "IP:PORT"),
        ] {
            assert!(read(said).unwrap_err().contains(right), "{said}: {:?}", read(said));
        }
    }

    #[test]
    fn a_wildcard_takes_every_address_of_its_family() {
        let overlap = |a: &str, b: &str| overlap(a.parse().unwrap(), b.parse().unwrap());
        assert!(overlap("0.0.0.0:80", "127.0.0.1:80") && overlap("[::1]:80", "[::]:80") && overlap("[::1]:80", "[::1]:80"));
        assert!(!overlap("0.0.0.0:80", "[::]:80") && !overlap("0.0.0.0:80", "0.0.0.0:81") && !overlap("[::]:0", "[::]:0"));
    }
}
