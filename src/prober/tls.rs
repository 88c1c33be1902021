//! TLS of a probe, under the same trust as requests to the instance.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::trust::{HTTP_2, Trust, server_name, words};

/// How to speak TLS in one check. Two are equal if they say the same.
#[derive(Debug, Clone)]
pub struct Tls {
    pub trust: Arc<Trust>,
    /// Which the certificate has to have.
    pub name: String,
    pub over_http2: bool,
}

impl Tls {
    pub async fn handshake(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let (config, name) = (self.trust.probe(self.over_http2)?, server_name(&self.name)?);
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| words(&error))?;
        if self.over_http2 && stream.get_ref().1.alpn_protocol() != Some(HTTP_2) {
            return Err("it does not offer HTTP/2".to_owned());
        }
        Ok(stream)
    }

    fn said(&self) -> (u64, &str, bool) {
        (self.trust.number, &self.name, self.over_http2)
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.said() == other.said()
    }
}

impl Eq for Tls {}

impl Hash for Tls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.said().hash(state);
    }
}
