//! What ACME directories (RFC 8555) ask of us, and what became of our orders: shared by all proxies through the registry.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::CertifiedKey;

use super::ChallengeToken;

/// How a directory convinces itself that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChallengeKind {
    /// It asks for `/.well-known/acme-challenge/TOKEN` on port 80.
    #[default]
    Http01,
    /// It begins a handshake of its own on port 443 (RFC 8737).
    TlsAlpn01,
}

impl ChallengeKind {
    pub const ALL: [Self; 2] = [Self::Http01, Self::TlsAlpn01];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// `/acme/challenges/TOKEN`: what a directory may ask any proxy at this moment. Nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChallengeSpec {
    pub token: ChallengeToken,
    pub kind: ChallengeKind,
    /// In lower case.
    pub domain: Arc<str>,
    /// The token and the fingerprint of the account's key.
    pub key_authorization: Arc<str>,
}

/// The same with what a handshake answers.
#[derive(Debug, Clone)]
pub struct Challenge {
    pub spec: ChallengeSpec,
    /// Some, for TLS-ALPN-01.
    pub proof: Option<Arc<CertifiedKey>>,
}

/// `/acme/orders/NAME`: what became of the last order for one certificate, which stands under `/certificates/acme:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeOrder {
    pub state: AcmeOrderState,
    pub domains: Vec<Arc<str>>,
    /// The URL of the directory that was asked.
    pub directory: String,
    /// The proxy that asked.
    pub proxy: String,
    pub at: SystemTime,
    /// When the next order is due; `None` while this one is under way.
    pub next: Option<SystemTime>,
    /// How many have failed in a row.
    pub n_failed: u32,
    /// What the last one failed of, in words.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeOrderState {
    /// Under way, or whoever placed it has ended meanwhile.
    Pending,
    Issued,
    Failed,
}

impl AcmeOrderState {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Issued, Self::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Issued => "issued",
            Self::Failed => "failed",
        }
    }
}
