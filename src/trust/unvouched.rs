//! Who is believed without an authority: anyone, or whoever shows one certificate. That the other side has its key is
//! checked all the same.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};

#[derive(Debug)]
pub struct Unvouched {
    /// `None`: takes every certificate.
    only: Option<CertificateDer<'static>>,
    signatures: WebPkiSupportedAlgorithms,
}

impl Unvouched {
    /// What `verify: false` means.
    pub fn anyone(provider: &CryptoProvider) -> Self {
        Self { only: None, signatures: provider.signature_verification_algorithms }
    }

    pub fn only(certificate: CertificateDer<'static>, provider: &CryptoProvider) -> Self {
        Self { only: Some(certificate), ..Self::anyone(provider) }
    }
}

impl ServerCertVerifier for Unvouched {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.only.as_ref().is_none_or(|only| only == shown) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, certificate, signature, &self.signatures)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, certificate, signature, &self.signatures)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_schemes()
    }
}
