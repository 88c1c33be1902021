//! TLS in front of an upstream, as a sidecar of it would speak it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

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
    shown: Arc<Mutex<Arc<ServerConfig>>>,
    seen: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Sidecar {
    /// Shows this certificate, offers HTTP/2 and HTTP/1.1, and passes on what it decrypts.
    pub fn start(handle: &Handle, pair: &Pair, to: SocketAddr) -> Self {
        Self::offering(handle, pair, to, &["h2", "http/1.1"])
    }

    pub fn offering(handle: &Handle, pair: &Pair, to: SocketAddr, protocols: &[&str]) -> Self {
        let shown = Arc::new(Mutex::new(config(pair, protocols)));
        let seen = Arc::default();
        let listener = handle.block_on(TcpListener::bind(free_address())).expect("a free address");
        let address = listener.local_addr().expect("the address of our own listener");
        Self { address, serving: handle.spawn(serve(listener, (shown.clone(), Arc::clone(&seen)), to)), shown, seen }
    }

    /// What it shows from the next handshake on.
    pub fn shows(&self, pair: &Pair) {
        *self.shown.lock().expect("nobody panicked") = config(pair, &["h2", "http/1.1"]);
    }

    /// The names that clients asked for, as far as they got through the handshake; `-` for none.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("nobody panicked").clone()
    }
}

fn config(pair: &Pair, protocols: &[&str]) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_slice(pair.chain.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions of TLS").with_no_client_auth();
    let mut config = builder.with_single_cert(vec![certificate], key).expect("a pair");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

type Shared = (Arc<Mutex<Arc<ServerConfig>>>, Arc<Mutex<Vec<String>>>);

async fn serve(listener: TcpListener, (shown, seen): Shared, to: SocketAddr) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, seen) = (TlsAcceptor::from(shown.lock().expect("nobody panicked").clone()), seen.clone());
        connections.spawn(async move {
            let Ok(mut secure) = acceptor.accept(stream).await else { return };
            let name = secure.get_ref().1.server_name().unwrap_or("-").to_owned();
            seen.lock().expect("nobody panicked").push(name);
            let Ok(mut plain) = TcpStream::connect(to).await else { return };
            // Whoever hangs up ends it.
            let _ = copy_bidirectional(&mut secure, &mut plain).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
