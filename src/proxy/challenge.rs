//! What an ACME directory asks to find out whether a name is ours. Only what the registry has as a challenge at this moment is
//! answered, whichever proxy placed the order; everything else goes its usual way.
//!
//! HTTP-01 comes ahead of whatever the listener does with requests, as a redirect. A handshake of TLS-ALPN-01 gets a
//! configuration of its own: the directory has no client certificate to show, is given no ticket, and may send no request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsAcceptor};

use super::head::RequestHead;
use super::reply::Refusal;
use crate::catalog::Acme;
use crate::model::ChallengeKind;

/// How many challenges were answered.
#[derive(Debug, Default)]
pub struct ChallengeStats([AtomicU64; ChallengeKind::ALL.len()]);

impl ChallengeStats {
    pub fn all(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|n| n.load(Ordering::Relaxed))
    }

    fn count(&self, kind: ChallengeKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// `Err` is the answer to HTTP-01.
pub fn answer(acme: &Acme, head: &RequestHead<'_>, stats: &ChallengeStats) -> Result<(), Refusal> {
    if !acme.awaits_requests() || !matches!(*head.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let token = head.path.strip_prefix(FOLDER);
    let Some(key_authorization) = token.and_then(|token| acme.key_authorization(token)) else { return Ok(()) };
    stats.count(ChallengeKind::Http01);
    Err(Refusal::Challenge { key_authorization: key_authorization.clone() })
}

/// A handshake whose beginning may have been read.
pub enum Begun {
    Fresh(TcpStream),
    Read(StartHandshake<TcpStream>),
    ByDirectory(StartHandshake<TcpStream>, Arc<CertifiedKey>),
}

impl Begun {
    /// As with any client.
    pub async fn finish(self, config: Arc<ServerConfig>) -> io::Result<TlsStream<TcpStream>> {
        match self {
            Self::Fresh(stream) => TlsAcceptor::from(config).accept(stream).await,
            Self::Read(start) | Self::ByDirectory(start, _) => start.into_stream(config).await,
        }
    }
}

/// Reads who comes, if it may be a directory.
pub async fn meet(acme: &Acme, stream: TcpStream) -> io::Result<Begun> {
    if !acme.awaits_handshakes() {
        return Ok(Begun::Fresh(stream));
    }
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let proof = proof(acme, &start.client_hello()).cloned();
    Ok(match proof {
        Some(proof) => Begun::ByDirectory(start, proof),
        None => Begun::Read(start),
    })
}

/// Shows the proof. The directory has seen all it came for when the handshake is over.
pub async fn prove(start: StartHandshake<TcpStream>, proof: Arc<CertifiedKey>, stats: &ChallengeStats) -> io::Result<()> {
    let provider = rustls::crypto::CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?.with_no_client_auth();
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(proof)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    let mut stream: TlsStream<TcpStream> = start.into_stream(Arc::new(config)).await?;
    stats.count(ChallengeKind::TlsAlpn01);
    stream.shutdown().await
}

/// RFC 8737 §3: it offers this protocol and no other.
fn proof<'a>(acme: &'a Acme, hello: &ClientHello<'_>) -> Option<&'a Arc<CertifiedKey>> {
    let mut offered = hello.alpn()?;
    let is_alone = offered.next() == Some(PROTOCOL) && offered.next().is_none();
    acme.proof(hello.server_name()?).filter(|_| is_alone)
}

const FOLDER: &str = "/.well-known/acme-challenge/";
const PROTOCOL: &[u8] = b"acme-tls/1";
