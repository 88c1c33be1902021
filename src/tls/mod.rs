//! FLOOR 1. What is known of certificates: whether a chain and a key go together, whom they vouch for, and which one a
//! client gets.
//!
//! 1. `check` makes a `Certificate` of two PEM texts, or says what is wrong with which of them.
//! 2. `CertBook` keeps those in force; what changes makes one `Certificates`, which a snapshot carries.
//! 3. A handshake asks `Certificates::find` with the name that the client sent: exact name, wildcard, default. That of an ACME
//!    directory is answered with a `proof`.
//!
//! Invariants: no message repeats a line of a key; nobody here reads a clock, a socket, or a file but those of the
//! system's authorities.

mod authorities;
mod book;
mod check;
mod index;
mod proof;
#[cfg(test)]
pub mod samples;
mod x509;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use authorities::{authorities, system_authorities};
pub use book::{CertBook, Certificates};
pub use check::{Checked, Flaw, Part, Pem, check};
pub use index::CertIndex;
pub use proof::proof;
pub use x509::{ClientCertificate, fingerprint_text};

/// Who signs and verifies for us.
fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}
