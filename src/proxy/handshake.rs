//! TLS at a listener: the handshake, and which certificate a client gets.
//!
//! 1. A worker hands over a fresh connection; the handshake runs in that connection's own task, under a deadline.
//! 2. rustls asks [`Offered`] for a certificate at each ClientHello; it looks into `Live` at that moment. So a certificate
//!    is swapped without anybody's doing, and open connections keep what they have. While ACME challenges are pending,
//!    `challenge` looks first whether a directory comes for its proof.
//! 3. What came of it is counted; nothing about it is logged above `debug`, since anybody can make it fail.
//!
//! Invariants:
//! - One key for tickets for each listener, shared by its workers and changed every six hours, so a session is resumed
//!   across workers and swaps. A listener's tickets are worth nothing at another one.
//! - Where clients show certificates, tickets end with the authorities: nobody is known by who is no longer believed.
//! - A listener that wants certificates of clients and has no authorities to ask (yet) refuses everybody.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::catalog::Live;
use crate::config::{ClientAuth, TlsConfig, TlsVersion};
use crate::proxy::challenge::{self, Begun};
use crate::proxy::stats::{HandshakeResult, HandshakeStats, HandshakeVersion, WorkerStats};
use crate::tls::ClientCertificate;

/// Terminates TLS for one listener, whichever worker took the connection.
#[derive(Debug)]
pub struct Terminator {
    listener: usize,
    client_auth: ClientAuth,
    versions: &'static [&'static SupportedProtocolVersion],
    live: Arc<Live>,
    current: Mutex<Option<Current>>,
}

/// Good as long as the authorities stay the same.
#[derive(Debug)]
struct Current {
    authorities: Option<Arc<RootCertStore>>,
    config: Arc<ServerConfig>,
}

/// What a handshake settled.
#[derive(Debug)]
pub struct Secured {
    pub stream: Box<TlsStream<TcpStream>>,
    pub protocol: Option<Negotiated>,
    /// Verified. `None` if none was asked for, or none shown.
    pub client: Option<ClientCertificate>,
}

/// By ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Negotiated {
    Http1,
    Http2,
}

/// Why there is no connection. The stream is there where the client may still be told something.
#[derive(Debug)]
pub enum Unsecured {
    /// It speaks plain HTTP.
    NotTls(TcpStream),
    /// It was an ACME directory, which wanted nothing more.
    Proved,
    Failed,
}

impl Terminator {
    pub fn new(listener: usize, config: &TlsConfig, live: Arc<Live>) -> Self {
        let versions: &[_] = match config.min_version {
            TlsVersion::V1_2 => &FROM_1_2,
            TlsVersion::V1_3 => &FROM_1_3,
        };
        Self { listener, client_auth: config.client_auth, versions, live, current: Mutex::default() }
    }

    /// Whoever calls sees to it that this ends. Counts what came of it, unless it is dropped.
    pub async fn accept(&self, stream: TcpStream, worker: &WorkerStats) -> Result<Secured, Unsecured> {
        let stats = &worker.handshakes;
        let mut first = [0];
        if let Ok(1..) = stream.peek(&mut first).await
            && first[0].is_ascii_uppercase()
        {
            // A handshake begins with 22; a request with its method.
            stats.count(HandshakeVersion::None, HandshakeResult::NotTls);
            return Err(Unsecured::NotTls(stream));
        }
        let acme = self.live.load().acme.clone();
        let begun = match challenge::meet(&acme, stream).await {
            Ok(Begun::ByDirectory(start, proof)) => {
                return Err(match challenge::prove(start, proof, &worker.challenges).await {
                    Ok(()) => {
                        stats.count(HandshakeVersion::None, HandshakeResult::Proved);
                        Unsecured::Proved
                    }
                    Err(error) => failed(&error, stats),
                });
            }
            Ok(begun) => begun,
            Err(error) => return Err(failed(&error, stats)),
        };
        let Some(config) = self.config() else {
            stats.count(HandshakeVersion::None, HandshakeResult::NoCertificate);
            return Err(Unsecured::Failed);
        };
        match begun.finish(config).await {
            Ok(stream) => {
                let connection = stream.get_ref().1;
                stats.count(version(connection), kind(connection));
                Ok(Secured { protocol: protocol(connection), client: client(connection), stream: Box::new(stream) })
            }
            Err(error) => Err(failed(&error, stats)),
        }
    }

    /// `None`: there is nothing to verify clients by, though they have to be.
    fn config(&self) -> Option<Arc<ServerConfig>> {
        let authorities = match self.client_auth {
            ClientAuth::None => None,
            ClientAuth::Request | ClientAuth::Require => {
                Some(self.live.load().certificates.client_authorities(self.listener)?.clone())
            }
        };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |current: &&Current| match (&current.authorities, &authorities) {
            (Some(was), Some(is)) => Arc::ptr_eq(was, is),
            (was, is) => was.is_none() && is.is_none(),
        };
        if let Some(current) = current.as_ref().filter(is_same) {
            return Some(current.config.clone());
        }
        let config = self.build(authorities.clone()).inspect_err(|error| debug!(%error, "TLS cannot be set up")).ok()?;
        let config = Arc::new(config);
        *current = Some(Current { authorities, config: config.clone() });
        Some(config)
    }

    fn build(&self, authorities: Option<Arc<RootCertStore>>) -> Result<ServerConfig, rustls::Error> {
        let provider = CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(default_provider()));
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(self.versions)?;
        let builder = match authorities {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider);
                let verifier = match self.client_auth {
                    ClientAuth::Require => verifier,
                    ClientAuth::None | ClientAuth::Request => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?)
            }
        };
        let offered = Offered { listener: self.listener, live: self.live.clone() };
        let mut config = builder.with_cert_resolver(Arc::new(offered));
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        let ticketer: Arc<dyn ProducesTickets> = Ticketer::new()?;
        config.ticketer = ticketer;
        Ok(config)
    }
}

/// The certificates of one listener.
#[derive(Debug)]
struct Offered {
    listener: usize,
    live: Arc<Live>,
}

impl ResolvesServerCert for Offered {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.live.load();
        let mut fitting = snapshot.certificates.find(self.listener, hello.server_name());
        // One name may have a certificate for each kind of key; the client has said which kinds it knows.
        let fitting = fitting.find(|certificate| certificate.pair.key.choose_scheme(hello.signature_schemes()).is_some());
        fitting.map(|certificate| certificate.pair.clone())
    }
}

fn protocol(connection: &ServerConnection) -> Option<Negotiated> {
    match connection.alpn_protocol()? {
        HTTP_2 => Some(Negotiated::Http2),
        _ => Some(Negotiated::Http1),
    }
}

fn client(connection: &ServerConnection) -> Option<ClientCertificate> {
    ClientCertificate::read(connection.peer_certificates()?.first()?)
}

fn version(connection: &ServerConnection) -> HandshakeVersion {
    match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => HandshakeVersion::V1_2,
        Some(ProtocolVersion::TLSv1_3) => HandshakeVersion::V1_3,
        _ => HandshakeVersion::None,
    }
}

fn kind(connection: &ServerConnection) -> HandshakeResult {
    match connection.handshake_kind() {
        Some(HandshakeKind::Resumed) => HandshakeResult::Resumed,
        _ => HandshakeResult::Full,
    }
}

fn failed(error: &io::Error, stats: &HandshakeStats) -> Unsecured {
    debug!(%error, "A handshake failed");
    stats.count(HandshakeVersion::None, why(error));
    Unsecured::Failed
}

fn why(error: &io::Error) -> HandshakeResult {
    use rustls::Error;
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return HandshakeResult::Closed };
    match error {
        Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) | Error::NoCertificatesPresented => {
            HandshakeResult::ClientCertificate
        }
        Error::General(reason) if reason.contains("no server certificate chain resolved") => HandshakeResult::NoCertificate,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => HandshakeResult::Incompatible,
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate,
        ) => HandshakeResult::Distrusted,
        Error::AlertReceived(_) => HandshakeResult::Closed,
        _ => HandshakeResult::Invalid,
    }
}

static FROM_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static FROM_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";
