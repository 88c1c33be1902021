//! TLS in front of an upstream, as a sidecar of it would speak it.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::ports::free_address;
use super::tls::Pair;

pub struct Sidecar {
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Sidecar {
    /// Shows this certificate, offers HTTP/2 and HTTP/1.1, and passes on what it decrypts.
    pub fn start(handle: &Handle, pair: &Pair, to: SocketAddr) -> Self {
        let certificate = CertificateDer::from_pem_slice(pair.chain.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions of TLS").with_no_client_auth();
        let mut config = builder.with_single_cert(vec![certificate], key).expect("a pair");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = handle.block_on(TcpListener::bind(free_address())).expect("a free address");
        let address = listener.local_addr().expect("the address of our own listener");
        Self { address, serving: handle.spawn(serve(listener, acceptor, to)) }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, to: SocketAddr) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            let Ok(mut secure) = acceptor.accept(stream).await else { return };
            let Ok(mut plain) = TcpStream::connect(to).await else { return };
            // Whoever hangs up ends it.
            let _ = copy_bidirectional(&mut secure, &mut plain).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
