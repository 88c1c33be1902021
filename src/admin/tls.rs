//! TLS at the admin address. A client may show a certificate; who does so has to have a good one, and needs no token.
//!
//! The files are looked at with each connection, which are few: what was renewed is served to the next one, and a pair
//! that went bad leaves the one before it in force.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

use super::patience::Patient;
use crate::config::{AdminTls, FileStamp, read_authorities};

#[derive(Debug)]
pub struct Tls {
    files: AdminTls,
    known: Mutex<Known>,
}

/// What was made of the files when they were like this.
#[derive(Debug)]
struct Known {
    stamps: Stamps,
    config: Arc<ServerConfig>,
}

type Stamps = Vec<Option<FileStamp>>;

impl Tls {
    /// `Err` says what is wrong with which file.
    pub fn open(files: &AdminTls) -> Result<Self, String> {
        let stamps = stamps(files);
        let known = Mutex::new(Known { stamps, config: read(files)? });
        Ok(Self { files: files.clone(), known })
    }

    /// Whoever calls sees to it that this ends. The stream, and whether the client has shown a certificate.
    pub async fn accept(&self, stream: Patient) -> io::Result<(TlsStream<Patient>, bool)> {
        let stream = TlsAcceptor::from(self.config()).accept(stream).await?;
        // What was shown was verified, or there would be no stream.
        let is_certified = stream.get_ref().1.peer_certificates().is_some();
        Ok((stream, is_certified))
    }

    fn config(&self) -> Arc<ServerConfig> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.files);
        if known.stamps != stamps {
            known.stamps = stamps;
            match read(&self.files) {
                Ok(config) => {
                    known.config = config;
                    info!("Certificate of the admin endpoint read again");
                }
                Err(reason) => warn!(reason, "The certificate of the admin endpoint stays as it was"),
            }
        }
        known.config.clone()
    }
}

fn read(files: &AdminTls) -> Result<Arc<ServerConfig>, String> {
    let (certificate, _) = files.pair.read(SystemTime::now()).map_err(|wrong| wrong.join("; "))?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(read_authorities(path)?, provider);
            // Orchestrators ask `/livez` without one.
            let verifier = verifier.allow_unauthenticated().build().map_err(|error| format!("{}: {error}", path.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.pair)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn stamps(files: &AdminTls) -> Stamps {
    let pair = [&files.pair.chain, &files.pair.key].into_iter();
    pair.chain(&files.client_ca).map(|path| FileStamp::of(path)).collect()
}
