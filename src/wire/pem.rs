//! What stands in PEM texts. Their messages never repeat a text, which may hold a key.

use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

/// All certificates of a text, of which there is at least one.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut found = Vec::new();
    for (at, block) in CertificateDer::pem_slice_iter(text.as_bytes()).enumerate() {
        let unread = || format!("certificate {} of it cannot be read", at + 1);
        let certificate = block.map_err(|_| unread())?;
        if !matches!(X509Certificate::from_der(&certificate), Ok((rest, _)) if rest.is_empty()) {
            return Err(unread());
        }
        found.push(certificate);
    }
    if found.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(found) }
}

/// Certificates that may vouch for others.
pub fn authorities(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (at, certificate) in certificates.iter().enumerate() {
        let added = roots.add(certificate.clone());
        added.map_err(|error| format!("certificate {} of it cannot vouch for others: {error}", at + 1))?;
    }
    Ok(roots)
}

/// The first private key of a text.
pub fn private_key(text: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| "there is no private key in it that can be read".to_owned())
}

/// Whether the key is the one of the first certificate, and of a kind that we can sign with.
pub fn check_pair(chain: &[CertificateDer<'static>], key: &PrivateKeyDer<'static>) -> Result<(), String> {
    let key = any_supported_type(key).map_err(|_| "this kind of private key is not supported".to_owned())?;
    CertifiedKey::new(chain.to_vec(), key).keys_match().map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "is not the key of the certificate".to_owned(),
        other => other.to_string(),
    })
}
