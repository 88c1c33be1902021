//! Who vouches for others.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Those whom the system trusts.
pub fn system_authorities() -> Result<Arc<RootCertStore>, String> {
    let found = rustls_native_certs::load_native_certs().map_err(|error| format!("the system's certificates: {error}"))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found);
    Ok(Arc::new(roots))
}

/// Every certificate of a PEM text. `Err` says what is wrong with it.
pub fn authorities(pem: &[u8]) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for (n, certificate) in (1..).zip(CertificateDer::pem_slice_iter(pem)) {
        let certificate = certificate.map_err(|_| format!("certificate {n} of it is not valid PEM"))?;
        roots.add(certificate).map_err(|error| format!("certificate {n} of it cannot vouch for anybody: {error}"))?;
    }
    if roots.is_empty() {
        return Err(
            "holds no certificate, so it says nobody who may vouch for others; it is a PEM text of those who do".to_owned()
        );
    }
    Ok(Arc::new(roots))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::samples::Sample;

    #[test]
    fn every_certificate_of_the_text_counts_and_none_is_no_text() {
        let pem = Sample::of(&["a.example"]).make().chain + &Sample::of(&["b.example"]).make().chain;
        assert_eq!(authorities(pem.as_bytes()).unwrap().len(), 2);
        assert!(authorities(b"").unwrap_err().contains("no certificate"));
        assert!(authorities(b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n").is_err());
    }
}
