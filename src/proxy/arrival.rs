//! What is known of a request before it is routed, and never changes: who sent it, and the names it goes by.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::downstream::Link;
use crate::config::Network;
use crate::routing::{Fields, all, text};
use crate::tls::ClientCertificate;

#[derive(Debug, Clone)]
pub struct Arrival {
    pub started: Instant,
    pub at: SystemTime,
    /// Who opened the connection.
    pub peer: SocketAddr,
    /// Who sent the request, as far as trusted proxies tell.
    pub client: IpAddr,
    /// The connection comes from a trusted proxy: its X-Forwarded-* and X-Request-Id are believed.
    pub trusted: bool,
    /// Instances are told in `Forwarded` too.
    pub forwarded: bool,
    pub request_id: RequestId,
    pub trace: Trace,
    /// A trusted client wants to see what we decided.
    pub debug: bool,
    /// Who the client of this connection has shown to be.
    pub client_certificate: Option<Arc<ClientCertificate>>,
}

/// A `traceparent` (W3C Trace Context, version 00) with a span of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    pub trace_id: u128,
    pub span_id: u64,
    pub flags: u8,
    /// The client's context goes on, so its `tracestate` does too.
    pub continued: bool,
}

/// How a request is called in logs; ours are 128 random bits in hexadecimal, and cost no allocation.
#[derive(Debug, Clone)]
pub enum RequestId {
    Made([u8; 32]),
    /// A trusted proxy has named it.
    Kept(Box<str>),
}

/// The networks whose word counts, and whether ours is written in `Forwarded` too.
#[derive(Debug, Clone, Default)]
pub struct Trusted {
    networks: Vec<Network>,
    forwarded: bool,
}

impl Arrival {
    pub fn on(link: &Link, fields: &impl Fields, trusted: &Trusted, rng: &mut fastrand::Rng) -> Self {
        Self { client_certificate: link.client_certificate.clone(), ..Self::of(link.peer, fields, trusted, rng) }
    }

    /// From a client that has shown no certificate.
    pub fn of(peer: SocketAddr, fields: &impl Fields, trusted: &Trusted, rng: &mut fastrand::Rng) -> Self {
        let is_trusted = trusted.holds(peer.ip());
        let id = is_trusted.then(|| fields.text(REQUEST_ID)).flatten().filter(|id| is_request_id(id));
        Self {
            started: Instant::now(),
            at: SystemTime::now(),
            peer,
            client: if is_trusted { client_behind(fields, trusted).unwrap_or(peer.ip()) } else { peer.ip() },
            trusted: is_trusted,
            forwarded: trusted.forwarded,
            request_id: id.map_or_else(|| RequestId::make(rng), |id| RequestId::Kept(id.into())),
            trace: Trace::of(fields, rng),
            debug: is_trusted && fields.get(DEBUG).is_some_and(|v| v == b"1"),
            client_certificate: None,
        }
    }
}

impl Trusted {
    pub fn new(networks: &[Network]) -> Self {
        Self { networks: networks.to_vec(), forwarded: false }
    }

    pub fn saying_forwarded(self, forwarded: bool) -> Self {
        Self { forwarded, ..self }
    }

    pub fn holds(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(ip))
    }
}

impl Trace {
    /// Goes on with the client's trace, or starts one.
    pub fn of(fields: &impl Fields, rng: &mut fastrand::Rng) -> Self {
        let span_id = rng.u64(1..);
        match fields.text("traceparent").and_then(parse_traceparent) {
            Some((trace_id, flags)) => Self { trace_id, span_id, flags, continued: true },
            // Sampled, as a root span is by default; with 00 no service behind us would ever record one.
            None => Self { trace_id: rng.u128(1..), span_id, flags: 1, continued: false },
        }
    }
}

impl Trace {
    /// As the field says it.
    pub fn field(&self) -> [u8; 55] {
        let mut field = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex(&self.trace_id.to_be_bytes(), &mut field[3..35]);
        hex(&self.span_id.to_be_bytes(), &mut field[36..52]);
        hex(&[self.flags], &mut field[53..]);
        field
    }
}

impl RequestId {
    pub fn make(rng: &mut fastrand::Rng) -> Self {
        let mut id = [0; 32];
        hex(&rng.u128(..).to_be_bytes(), &mut id);
        Self::Made(id)
    }
}

impl Deref for RequestId {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            // Digits are ASCII, always.
            Self::Made(id) => std::str::from_utf8(id).unwrap_or_default(),
            Self::Kept(id) => id,
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

/// Two digits a byte.
fn hex(bytes: &[u8], into: &mut [u8]) {
    for (byte, digits) in bytes.iter().zip(into.chunks_exact_mut(2)) {
        digits[0] = HEX[usize::from(byte >> 4)];
        digits[1] = HEX[usize::from(byte & 15)];
    }
}

fn is_request_id(id: &str) -> bool {
    (1..=REQUEST_ID_LENGTH_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
}

/// The rightmost address of X-Forwarded-For that is not a trusted proxy itself: what is left of it anybody may have written.
fn client_behind(fields: &impl Fields, trusted: &Trusted) -> Option<IpAddr> {
    let mut nearest = None;
    let written: Vec<&[u8]> = all(fields, "x-forwarded-for").collect();
    for field in written.into_iter().rev() {
        for hop in text(field)?.rsplit(',') {
            let ip = parse_hop(hop.trim())?;
            nearest = Some(ip);
            if !trusted.holds(ip) {
                return nearest;
            }
        }
    }
    nearest
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches('"');
    hop.parse::<IpAddr>()
        .ok()
        .or_else(|| hop.parse::<SocketAddr>().ok().map(|a| a.ip()))
        .or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

fn parse_traceparent(field: &str) -> Option<(u128, u8)> {
    let mut parts = field.splitn(5, '-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        let is_hex = text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
    };
    let version = hex(version, 2)?;
    let (trace_id, span_id, flags) = (hex(trace, 32)?, hex(span, 16)?, hex(flags, 2)?);
    let more = parts.next().is_some();
    let is_valid = trace_id != 0 && span_id != 0 && version != 0xff && !(version == 0 && more);
    is_valid.then_some((trace_id, flags as u8))
}

const HEX: [u8; 16] = *b"0123456789abcdef";
pub const REQUEST_ID: &str = "x-request-id";
const DEBUG: &str = "x-pointsman-debug";
const REQUEST_ID_LENGTH_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn trusted(networks: &[(&str, u8)]) -> Trusted {
        let networks: Vec<Network> =
            networks.iter().map(|(a, prefix)| Network { address: a.parse().unwrap(), prefix: *prefix }).collect();
        Trusted::new(&networks)
    }

    fn arrival(peer: &str, fields: &[(&'static str, &str)]) -> Arrival {
        let mut headers = HeaderMap::new();
        fields.iter().for_each(|(n, v)| {
            headers.append(*n, v.parse().unwrap());
        });
        let networks = trusted(&[("10.0.0.0", 8), ("2001:db8::", 32)]);
        Arrival::of(peer.parse().unwrap(), &headers, &networks, &mut fastrand::Rng::with_seed(7))
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        for (network, prefix, ip, holds) in [
            ("10.0.0.0", 8, "10.255.0.1", true),
            ("10.0.0.0", 8, "11.0.0.1", false),
            ("10.0.0.0", 8, "::ffff:10.0.0.1", true),
            ("192.0.2.7", 32, "192.0.2.7", true),
            ("192.0.2.7", 32, "192.0.2.6", false),
            ("0.0.0.0", 0, "203.0.113.9", true),
            ("0.0.0.0", 0, "2001:db8::1", false),
            ("2001:db8::", 32, "2001:db8:1::1", true),
            ("2001:db8::", 32, "2001:db9::1", false),
            ("::", 0, "::1", true),
        ] {
            assert_eq!(trusted(&[(network, prefix)]).holds(ip.parse().unwrap()), holds, "{network}/{prefix} {ip}");
        }
    }

    #[test]
    fn the_client_is_the_last_hop_that_no_trusted_proxy_is() {
        for (peer, field, client) in [
            ("192.0.2.9:1", "1.2.3.4", "192.0.2.9"),
            ("10.0.0.1:1", "1.2.3.4", "1.2.3.4"),
            ("10.0.0.1:1", "6.6.6.6, 1.2.3.4, 10.0.0.7", "1.2.3.4"),
            ("10.0.0.1:1", "1.2.3.4:5060", "1.2.3.4"),
            ("10.0.0.1:1", "[2001:db9::1]:80", "2001:db9::1"),
            ("10.0.0.1:1", "10.0.0.8, 10.0.0.7", "10.0.0.8"),
            ("10.0.0.1:1", "1.2.3.4, unknown", "10.0.0.1"),
        ] {
            assert_eq!(arrival(peer, &[("x-forwarded-for", field)]).client.to_string(), client, "{peer} {field}");
        }
    }

    #[test]
    fn request_ids_are_kept_from_trusted_proxies_only() {
        let id = |peer, id| arrival(peer, &[("x-request-id", id)]).request_id.to_string();
        assert_eq!(id("10.0.0.1:1", "abc-1"), "abc-1");
        for made in [id("192.0.2.9:1", "abc-1"), id("10.0.0.1:1", "two words"), id("10.0.0.1:1", &"x".repeat(129))] {
            assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
        }
    }

    #[test]
    fn a_valid_trace_goes_on_with_a_span_of_ours() {
        let client = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let trace = arrival("192.0.2.9:1", &[("traceparent", client)]).trace;
        let ours = String::from_utf8(trace.field().to_vec()).unwrap();
        assert!(trace.continued && ours.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && ours.ends_with("-00"), "{ours}");
        assert!(!ours.contains("00f067aa0ba902b7"));
        for broken in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "nonsense",
        ] {
            assert!(!arrival("192.0.2.9:1", &[("traceparent", broken)]).trace.continued, "{broken}");
        }
    }
}
