//! Certificates that TLS is terminated with: as their PEM texts stand somewhere, and as what was found in them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

use super::CertificateName;

/// `/certificates/NAME`: PEM texts, not yet looked into.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateSpec {
    pub name: CertificateName,
    pub chain: String,
    pub key: String,
}

impl fmt::Debug for CertificateSpec {
    /// The key never reaches a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSpec").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A chain and the key that belongs to it. Only `tls` makes one, so whoever holds one need not check it again.
#[derive(Clone)]
pub struct Certificate {
    pub source: CertificateSource,
    /// Whom it vouches for: DNS names in lower case, `*.example.com` among them.
    pub names: Vec<Arc<str>>,
    /// The subject as RFC 4514 writes it.
    pub subject: String,
    pub issuer: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// SHA-256 of the certificate itself.
    pub fingerprint: [u8; 32],
    /// What handshakes use.
    pub pair: Arc<CertifiedKey>,
}

/// Where a certificate stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateSource {
    /// The file of its chain.
    File(Arc<Path>),
    Registry(CertificateName),
}

impl fmt::Display for CertificateSource {
    /// What metrics and messages call it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Registry(name) => name.fmt(f),
        }
    }
}

/// Two are equal that say the same from the same place; a key belongs to its certificate, so that need not be compared.
impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.fingerprint == other.fingerprint && self.pair.cert == other.pair.cert
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    /// The key never reaches a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("source", &self.source).field("names", &self.names).finish_non_exhaustive()
    }
}

/// What the configuration file gives one listener to terminate TLS with, beside its settings.
#[derive(Debug, Clone, Default)]
pub struct ListenerCertificates {
    /// In the order of the file; the first is for clients that name nobody we know.
    pub own: Vec<Arc<Certificate>>,
    /// Who vouches for clients, where they have to show a certificate.
    pub client_authorities: Option<Arc<RootCertStore>>,
}
