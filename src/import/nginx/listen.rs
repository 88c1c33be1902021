//! `listen`: an address, and what is spoken there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::import::findings::Ledger;
use crate::import::grammar::Directive;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    pub ssl: bool,
    /// Whoever names no known host is for this server.
    pub default: bool,
    pub proxy_protocol: bool,
}

impl Listen {
    /// What nginx does where a server says nothing, as root.
    pub const UNSAID: Self = Self {
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80),
        ssl: false,
        default: false,
        proxy_protocol: false,
    };

    /// `None` is told.
    pub fn read(directive: &Directive, ledger: &mut Ledger) -> Option<Self> {
        let said = directive.arg(0);
        let Some(address) = address(said) else {
            let why =
                if said.starts_with("unix:") { "there are no Unix sockets here" } else { "is not an IP address and a port" };
            ledger.lost(directive, why, "an address of the network, as [[listener]]");
            return None;
        };
        let has = |word: &str| directive.args.iter().skip(1).any(|arg| arg == word);
        if has("quic") {
            ledger.lost(directive, "HTTP/3 is not spoken", "HTTP/2 over TLS is, on the same port");
            return None;
        }
        let unknown: Vec<&str> = directive.args.iter().skip(1).map(String::as_str).filter(|arg| !is_known(arg)).collect();
        if unknown.is_empty() {
            ledger.carried(directive);
        } else {
            ledger.lost(directive, format!("{} is not known here", unknown.join(" ")), "see [[listener]]");
        }
        let default = has("default_server") || has("default");
        Some(Self { address, ssl: has("ssl"), default, proxy_protocol: has("proxy_protocol") })
    }

    /// Others than this machine may connect, at whichever of its addresses.
    pub fn is_wide(&self) -> bool {
        self.address.ip().is_unspecified()
    }
}

/// `80`, `*:80`, `1.2.3.4`, `1.2.3.4:80`, `[::]:80`, `localhost:80`.
fn address(said: &str) -> Option<SocketAddr> {
    let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let named = said.replacen("localhost", "127.0.0.1", 1).replacen('*', "0.0.0.0", 1);
    let found = match (named.parse::<u16>(), named.parse::<SocketAddr>(), named.trim_matches(['[', ']']).parse::<IpAddr>()) {
        (Ok(port), _, _) => SocketAddr::new(all, port),
        (_, Ok(address), _) => address,
        (_, _, Ok(ip)) => SocketAddr::new(ip, 80),
        _ => return None,
    };
    (found.port() != 0).then_some(found)
}

/// What the kernel is told of a socket, and HTTP/2, are ours to choose.
fn is_known(word: &str) -> bool {
    let plain = ["default_server", "default", "ssl", "http2", "proxy_protocol", "deferred", "bind", "reuseport"];
    let valued = ["backlog", "rcvbuf", "sndbuf", "fastopen", "ipv6only", "so_keepalive", "setfib", "accept_filter"];
    plain.contains(&word) || word.split_once('=').is_some_and(|(name, _)| valued.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_whole() {
        for (said, expected) in [
            ("80", Some("0.0.0.0:80")),
            ("*:8080", Some("0.0.0.0:8080")),
            ("10.0.0.1", Some("10.0.0.1:80")),
            ("localhost:81", Some("127.0.0.1:81")),
            ("[::]:443", Some("[::]:443")),
            ("[::1]", Some("[::1]:80")),
            ("unix:/run/x", None),
            ("0", None),
            ("a.example:80", None),
        ] {
            assert_eq!(address(said).map(|a| a.to_string()).as_deref(), expected, "{said}");
        }
    }
}
