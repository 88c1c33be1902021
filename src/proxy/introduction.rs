//! The PROXY protocol: who the proxy before us says its client is, and what we say to an instance.
//!
//! 1. A connection to a listener with `proxy_protocol` begins with a header, ahead of TLS and of anything else. It is read
//!    by itself: `peek` looks at what has come, and only the header's own bytes are taken off the socket.
//! 2. From there on the address in it is the one the connection came from, for all purposes; whether it is itself a trusted
//!    proxy, whose X-Forwarded-* are believed, is asked of that address.
//! 3. An instance whose service wants a header gets one per connection, which then belongs to one client.
//!
//! Invariants: only trusted proxies are read at all; the header has one deadline and a size; who sends none is refused, since
//! a request without it would count as the proxy's own.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::Shared;
use super::arrival::Arrival;
use super::downstream::{Link, Met};
use super::limits::Limit;
use super::serve::{LAST_WORDS, until_ending};
use crate::model::ServicePolicy;
use crate::proxy_protocol::{Header, LENGTH_MAX, Parsed, Said, Wrong, parse, write};

/// What came of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It named a client.
    Proxied,
    /// The proxy speaks for itself.
    Local,
    /// The connection is not from a trusted proxy, and was not read.
    Untrusted,
    Malformed,
    Timeout,
    /// The proxy left first.
    Closed,
    /// We have said one to an instance.
    Sent,
}

impl Outcome {
    pub const ALL: [Self; 7] =
        [Self::Proxied, Self::Local, Self::Untrusted, Self::Malformed, Self::Timeout, Self::Closed, Self::Sent];

    /// The value of the label `result`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proxied => "proxied",
            Self::Local => "local",
            Self::Untrusted => "untrusted",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Sent => "sent",
        }
    }
}

/// How many headers came to what.
#[derive(Debug, Default)]
pub struct HeaderStats([AtomicU64; Outcome::ALL.len()]);

impl HeaderStats {
    /// The number with this one.
    fn count(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn all(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|n| n.load(Ordering::Relaxed))
    }
}

/// Reads the header off a new connection, whose ends are then those that it names. `None`: it was refused.
pub async fn hear(stream: &mut TcpStream, met: Met, shared: &Shared, ending: &mut watch::Receiver<bool>) -> Option<Met> {
    let (peer, stats) = (met.peer, &met.stats);
    if !shared.trusted.holds(peer.ip()) {
        stats.headers.count(Outcome::Untrusted);
        debug!(%peer, "Connection refused: it is not from a trusted proxy");
        return None;
    }
    let (outcome, why) = match until_ending(ending, shared.limits.handshake, LAST_WORDS, header(stream)).await {
        Ok(Ok(Said::Proxied { client, local })) => {
            stats.headers.count(Outcome::Proxied);
            return Some(Met { peer: client, local, ..met });
        }
        Ok(Ok(Said::Local)) => {
            stats.headers.count(Outcome::Local);
            return Some(met);
        }
        Ok(Err(Failed::Wrong(wrong))) => (Outcome::Malformed, wrong.to_owned()),
        Ok(Err(Failed::Io(error))) => {
            stats.headers.count(Outcome::Closed);
            debug!(%peer, %error, "Connection ended ahead of its PROXY header");
            return None;
        }
        Err(_) => {
            stats.limits.count(Limit::Handshake);
            (Outcome::Timeout, "no whole header came in time".to_owned())
        }
    };
    let n = stats.headers.count(outcome);
    // A proxy that sends none sends none with any connection: the first is worth a line, and that it goes on.
    if n.is_power_of_two() {
        warn!(%peer, n, "Connection refused: a trusted proxy has to begin with a PROXY header, and {why}");
    } else {
        debug!(%peer, n, "Connection refused: {why}");
    }
    None
}

enum Failed {
    Wrong(Wrong),
    Io(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Takes the header off the socket, and nothing behind it.
async fn header(stream: &mut TcpStream) -> Result<Said, Failed> {
    let mut bytes = vec![0; LENGTH_MAX];
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let seen = match stream.try_io(Interest::READABLE, || peek(stream, &mut bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            seen => seen?,
        };
        match parse(&bytes[..seen]).map_err(Failed::Wrong)? {
            Parsed::Whole(Header { length, said }) => {
                stream.read_exact(&mut bytes[..length]).await?;
                return Ok(said);
            }
            Parsed::Incomplete if seen == 0 || ready.is_read_closed() => {
                return Err(Failed::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            // What is there stays there, so it would be ready at once: from now on only what is new wakes us.
            Parsed::Incomplete => {
                let _ = stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
            }
        }
    }
}

/// What has come, without taking it.
fn peek(stream: &TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    let flags = nix::sys::socket::MsgFlags::MSG_PEEK;
    nix::sys::socket::recv(stream.as_raw_fd(), bytes, flags).map_err(io::Error::from)
}

/// What an instance is told ahead of everything else on a new connection; empty where its service does not want it.
pub fn for_instance(policy: &ServicePolicy, arrival: &Arrival, link: &Link) -> Vec<u8> {
    let Some(version) = policy.proxy_protocol else { return Vec::new() };
    let is_peer = arrival.client.to_canonical() == arrival.peer.ip().to_canonical();
    // Of somebody whom only X-Forwarded-For names, the port is not known.
    let client = if is_peer { arrival.peer } else { SocketAddr::new(arrival.client, 0) };
    link.stats.headers.count(Outcome::Sent);
    write(version, &Said::Proxied { client, local: link.local })
}
