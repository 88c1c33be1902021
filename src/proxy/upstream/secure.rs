//! Whether an instance is spoken to over TLS, and how. It is the same for all connections of a line.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Stream, dial};
use crate::model::{InstanceSpec, ServicePolicy};
use crate::pool::Instance;
use crate::proxy::attempt::Failure;
use crate::trust::{Trust, Trusts, server_name, words};

/// TLS to one instance.
#[derive(Debug, Clone)]
pub struct Secure {
    pub trust: Arc<Trust>,
    /// Which its certificate has to have, and which it is asked by.
    pub name: String,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum NoConnection {
    Refused(io::Error),
    TimedOut(Duration),
    /// In words.
    Tls(String),
}

impl Secure {
    /// `None`: in the clear.
    pub fn of(spec: &InstanceSpec, policy: &ServicePolicy, trusts: &Trusts) -> Option<Self> {
        let trust = spec.protocol.is_tls().then(|| trusts.of(policy.tls.as_ref()))?;
        Some(Self { name: trust.name(&spec.address.host), trust })
    }

    async fn handshake(&self, stream: TcpStream) -> Result<Stream, NoConnection> {
        let config = self.trust.http1().map_err(NoConnection::Tls)?;
        let name = server_name(&self.name).map_err(NoConnection::Tls)?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        stream.map(|stream| Stream::Tls(Box::new(stream))).map_err(|error| NoConnection::Tls(words(&error)))
    }
}

impl PartialEq for Secure {
    fn eq(&self, other: &Self) -> bool {
        self.trust.number == other.trust.number && self.name == other.name
    }
}

/// A connection for HTTP/1.1, its handshake included, within this time. `first` goes ahead of everything, TLS too.
pub async fn connect(addr: SocketAddr, secure: Option<&Secure>, within: Duration, first: &[u8]) -> Result<Stream, NoConnection> {
    let connected = async {
        let stream = dial(addr, within, first).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => NoConnection::TimedOut(within),
            _ => NoConnection::Refused(error),
        })?;
        match secure {
            None => Ok(Stream::Clear(stream)),
            Some(secure) => secure.handshake(stream).await,
        }
    };
    timeout(within, connected).await.unwrap_or_else(|_: Elapsed| Err(NoConnection::TimedOut(within)))
}

impl NoConnection {
    pub fn failure(&self) -> Failure {
        match self {
            Self::Refused(_) => Failure::Refused,
            Self::TimedOut(_) => Failure::ConnectTimeout,
            Self::Tls(_) => Failure::Tls,
        }
    }

    /// Leaves what went wrong with the instance, and says how the attempt failed.
    pub fn note(&self, instance: &Instance) -> Failure {
        match self {
            Self::Refused(error) => _ = instance.state.health.connect_failed(&format!("cannot connect: {error}")),
            Self::TimedOut(within) => _ = instance.state.health.connect_failed(&format!("no connection within {within:?}")),
            Self::Tls(reason) => note_no_tls(instance, reason),
        }
        self.failure()
    }
}

/// Logged once for each reason: an operator may mend it.
pub fn note_no_tls(instance: &Instance, reason: &str) {
    if instance.state.health.connect_failed(&format!("TLS: {reason}")) {
        tracing::warn!(service = %instance.service, instance = %instance.id, reason, "No TLS with an instance");
    }
}
