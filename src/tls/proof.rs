//! The certificate that TLS-ALPN-01 asks for (RFC 8737): it vouches for nobody, but says what only we can know.

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

/// Made anew by each proxy, with a key that never leaves it. `Err` says why there is none.
pub fn proof(domain: &str, key_authorization: &str) -> Result<Arc<CertifiedKey>, String> {
    let failed = |error: rcgen::Error| format!("no proof can be made for {domain:?}: {error}");
    let mut params = CertificateParams::new(vec![domain.to_owned()]).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    let said = digest(&SHA256, key_authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(said.as_ref())];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let signing = super::provider().key_provider.load_private_key(PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    let signing = signing.map_err(|error| format!("no proof can be made for {domain:?}: {error}"))?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing)))
}

#[cfg(test)]
mod tests {
    use x509_parser::oid_registry::asn1_rs::oid;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    #[test]
    fn it_names_the_domain_alone_and_holds_the_digest_as_a_critical_extension() {
        let proof = proof("shop.example", "token.print").unwrap();
        let (_, certificate) = X509Certificate::from_der(&proof.cert[0]).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len();
        let identifier = certificate.get_extension_unique(&oid!(1.3.6.1.5.5.7.1.31)).unwrap().unwrap();
        let expected = [&[4, 32][..], digest(&SHA256, b"token.print").as_ref()].concat();
        assert_eq!((names, identifier.critical, identifier.value), (1, true, &expected[..]));
    }
}
