//! `HOST:PORT` as services declare it: an IPv4 address, an IPv6 address in brackets, or a DNS name.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Where an instance says it listens. A DNS name is resolved later, in the background.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub host: Host,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    Ip(IpAddr),
    /// Lower case, without a final dot.
    Name(Arc<str>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError {
    said: String,
    reason: &'static str,
}

impl Address {
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let fail = |reason| Err(AddressError { said: text.to_owned(), reason });
        let Some((host, port)) = text.rsplit_once(':') else {
            return fail("it has no port");
        };
        let Ok(port) = port.parse::<u16>() else {
            return fail("its port is not a number in 1..=65535");
        };
        if port == 0 {
            return fail("port 0 cannot be connected to");
        }
        if let Some(inner) = host.strip_prefix('[') {
            let Some(Ok(ip)) = inner.strip_suffix(']').map(str::parse::<Ipv6Addr>) else {
                return fail("what stands in brackets is not an IPv6 address");
            };
            return Ok(Self { host: Host::Ip(ip.into()), port });
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            if ip.is_ipv6() {
                return fail("an IPv6 address stands in brackets, as in [::1]:8080");
            }
            return Ok(Self { host: Host::Ip(ip), port });
        }
        match dns_name(host) {
            Some(name) => Ok(Self { host: Host::Name(name), port }),
            None => fail("its host is neither an IP address nor a DNS name"),
        }
    }

    /// The address itself, when no name has to be looked up.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not HOST:PORT: {}", self.said, self.reason)
    }
}

impl std::error::Error for AddressError {}

fn dns_name(host: &str) -> Option<Arc<str>> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    // A last label of digits only would be a mistyped IPv4 address.
    let numeric_end = host.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    (host.len() <= 253 && host.split('.').all(label) && !numeric_end).then(|| host.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_kind_survive_a_round_trip() {
        for (said, shown) in [
            ("10.0.0.5:8080", "10.0.0.5:8080"),
            ("[::1]:80", "[::1]:80"),
            ("[2001:db8::5]:65535", "[2001:db8::5]:65535"),
            ("Orders.Internal.:8080", "orders.internal:8080"),
            ("api_1:3000", "api_1:3000"),
        ] {
            assert_eq!(Address::parse(said).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_wrong_address_says_what_is_wrong() {
        for (said, reason) in [
            ("10.0.0.5", "no port"),
            ("10.0.0.5:http", "not a number"),
            ("10.0.0.5:70000", "not a number"),
            ("10.0.0.5:0", "port 0"),
            ("::1:80", "brackets"),
            ("[::1:80", "brackets"),
            ("10.0.0.300:80", "neither"),
            ("http://a:80", "neither"),
            ("-a:80", "neither"),
            (":80", "neither"),
            ("", "no port"),
        ] {
            let error = Address::parse(said).unwrap_err().to_string();
            assert!(error.contains(reason), "{said}: {error}");
        }
    }
}
