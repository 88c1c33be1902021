//! FLOOR 1. The PROXY protocol's header, versions 1 and 2, both directions: bytes ↔ who the client of a proxy is.
//!
//! A proxy that forwards connections writes the header before anything else, TLS included. Whose header is believed, and
//! how long one may take, is not known here; this is the grammar, to the byte.
//!
//! Invariants:
//! - `parse` never looks behind the header, and never takes a header for whole that could go on.
//! - What can be read in two ways, or says more than it may, is no header.
//! - A header is at most `LENGTH_MAX` bytes.

mod crc32c;
mod v1;
mod v2;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::model::ProxyProtocol;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header; more has to come.
    Incomplete,
    Whole(Header),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it takes.
    pub length: usize,
    pub said: Said,
}

/// On whose behalf the connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The proxy's own, as for a health check, or of somebody whom it cannot name.
    Local,
    Proxied {
        /// Who connected to the proxy.
        client: SocketAddr,
        /// Where to.
        local: SocketAddr,
    },
}

/// Why these bytes are no header, in words.
pub type Wrong = &'static str;

/// Reads the header that `bytes` begin with.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Wrong> {
    match bytes.first() {
        None => Ok(Parsed::Incomplete),
        Some(b'P') => v1::parse(bytes),
        Some(b'\r') => v2::parse(bytes),
        Some(_) => Err(NONE),
    }
}

/// The header that says so.
pub fn write(version: ProxyProtocol, said: &Said) -> Vec<u8> {
    let said = match *said {
        Said::Proxied { client, local } => Some(of_one_family(client, local)),
        Said::Local => None,
    };
    match version {
        ProxyProtocol::V1 => v1::write(said),
        ProxyProtocol::V2 => v2::write(said),
    }
}

/// A header has room for one family: where they differ, both are written as IPv6.
fn of_one_family(client: SocketAddr, local: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
    let mapped = |a: SocketAddr| match a.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), a.port()),
        IpAddr::V6(_) => a,
    };
    let (client, local) = (canonical(client), canonical(local));
    if client.is_ipv4() == local.is_ipv4() { (client, local) } else { (mapped(client), mapped(local)) }
}

/// As it is meant: a scope or a flow has no place in a header, and a mapped address is an IPv4 address.
fn address(ip: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(ip).to_canonical(), port)
}

const NONE: Wrong = "there is no PROXY header";
/// Version 1 has 107 bytes at most. Version 2 may have 64 KiB, of which addresses take 36; what cloud balancers and TLS
/// terminators add comes to a few hundred.
pub const LENGTH_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address_of_any_family() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
            (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from),
        ]
    }

    const STARTS: &[&[u8]] = &[b"", b"PROXY ", b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21"];

    fn canonical(a: SocketAddr) -> SocketAddr {
        SocketAddr::new(a.ip().to_canonical(), a.port())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_nothing_behind_it(
            client in address_of_any_family(),
            local in address_of_any_family(),
            version in prop_oneof![Just(ProxyProtocol::V1), Just(ProxyProtocol::V2)],
            behind: Vec<u8>,
        ) {
            let header = write(version, &Said::Proxied { client, local });
            for cut in 0..header.len() {
                prop_assert_eq!(parse(&header[..cut]), Ok(Parsed::Incomplete), "cut at {}", cut);
            }
            let said = Said::Proxied { client: canonical(client), local: canonical(local) };
            let whole = Ok(Parsed::Whole(Header { length: header.len(), said }));
            prop_assert_eq!(parse(&[&header[..], &behind].concat()), whole);
        }

        #[test]
        fn any_bytes_are_read_without_harm_and_a_header_lies_within_them(
            start in prop::sample::select(STARTS),
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, &rest].concat();
            if let Ok(Parsed::Whole(Header { length, .. })) = parse(&bytes) {
                prop_assert!(length <= bytes.len() && length <= LENGTH_MAX);
                prop_assert_eq!(parse(&bytes[..length]), parse(&bytes));
            }
        }

        #[test]
        fn more_bytes_never_mend_what_is_wrong(bytes in prop::collection::vec(any::<u8>(), 0..64), more: Vec<u8>) {
            if parse(&bytes).is_err() {
                prop_assert!(parse(&[bytes, more].concat()).is_err());
            }
        }
    }

    #[test]
    fn a_request_is_no_header() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"POST / HTTP/1.1\r\n"] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(parse(b"\r\n\r\n"), Ok(Parsed::Incomplete));
    }

    #[test]
    fn the_proxys_own_connections_say_so() {
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            let header = write(version, &Said::Local);
            assert_eq!(parse(&header), Ok(Parsed::Whole(Header { length: header.len(), said: Said::Local })));
        }
    }
}
