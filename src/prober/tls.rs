//! TLS to an instance, as its service's policy says: who may vouch for it, and under which name.

use std::hash::{Hash, Hasher};
use std::io;
use std::sync::{Arc, LazyLock, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::model::{Host, UpstreamTls};

/// How to speak TLS in one check. Two are equal if they say the same.
#[derive(Debug, Clone)]
pub struct Tls {
    verify: bool,
    ca: Option<String>,
    name: String,
    over_http2: bool,
    /// Made by the first probe that needs it, and shared by all of this check.
    made: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Tls {
    /// `host`: as the instance's address has it, which is its name unless the policy says another.
    pub fn new(policy: Option<&UpstreamTls>, host: &Host, over_http2: bool) -> Self {
        let name = policy.and_then(|p| p.server_name.clone()).unwrap_or_else(|| match host {
            Host::Name(name) => name.to_string(),
            Host::Ip(ip) => ip.to_string(),
        });
        let ca = policy.and_then(|p| p.ca.clone());
        Self { verify: policy.is_none_or(|p| p.verify), ca, name, over_http2, made: OnceLock::new() }
    }

    pub async fn handshake(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let config = self.made.get_or_init(|| self.config()).clone()?;
        let name = ServerName::try_from(self.name.clone()).map_err(|_| format!("{:?} cannot be a server's name", self.name))?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| words(&error))?;
        if self.over_http2 && stream.get_ref().1.alpn_protocol() != Some(HTTP_2) {
            return Err("it does not offer HTTP/2".to_owned());
        }
        Ok(stream)
    }

    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let mut config = if self.verify {
            builder.with_root_certificates(self.roots()?).with_no_client_auth()
        } else {
            let anyone = Arc::new(Anyone::new(&provider));
            builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth()
        };
        // Every probe is a new acquaintance: that is what it is to find out.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![if self.over_http2 { HTTP_2 } else { HTTP_1 }.to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, String> {
        let Some(ca) = &self.ca else { return Ok(SYSTEM_ROOTS.clone()) };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            let added = certificate.map_err(|error| error.to_string()).and_then(|c| roots.add(c).map_err(|e| e.to_string()));
            added.map_err(|reason| format!("tls.ca of the policy: {reason}"))?;
        }
        Ok(Arc::new(roots))
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        let said = |tls: &Self| (tls.verify, tls.over_http2);
        said(self) == said(other) && self.name == other.name && self.ca == other.ca
    }
}

impl Eq for Tls {}

impl Hash for Tls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.verify, &self.ca, &self.name, self.over_http2).hash(state);
    }
}

/// rustls wraps what it has to say into an I/O error with a text around it.
fn words(error: &io::Error) -> String {
    error.get_ref().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Takes every certificate, because the policy says `verify: false`; that the other side has its key is still checked.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl Anyone {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Those whom the system trusts, read once. None at all, if they cannot be read: then every handshake says so.
static SYSTEM_ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    match rustls_native_certs::load_native_certs() {
        Ok(certificates) => {
            roots.add_parsable_certificates(certificates);
        }
        Err(error) => tracing::warn!(%error, "The system's certificates cannot be read; probes over TLS need tls.ca"),
    }
    Arc::new(roots)
});

const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";
