//! A way to a program that can go silent: bytes stop in both directions, and nothing is closed. What a firewall that
//! drops packets, or a lost host, looks like.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::ports::free_address;

pub struct Forwarder {
    pub address: SocketAddr,
    silent: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Forwarder {
    pub fn start(handle: &Handle, to: SocketAddr) -> Self {
        let listener = handle.block_on(TcpListener::bind(free_address())).expect("a free address");
        let address = listener.local_addr().expect("the address of our own listener");
        let (silent, is_silent) = watch::channel(false);
        let accepting = handle.spawn(accept(listener, to, is_silent));
        Self { address, silent, accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn go_silent(&self) {
        self.silent.send_replace(true);
    }

    /// What was held back arrives as well.
    pub fn speak_again(&self) {
        self.silent.send_replace(false);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, silent: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let silent = silent.clone();
        connections.spawn(async move {
            let Ok(far) = TcpStream::connect(to).await else { return };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::join!(carry(near_in, far_out, silent.clone()), carry(far_in, near_out, silent));
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut silent: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        // An error means that the story is over.
        if silent.wait_for(|silent| !silent).await.is_err() || to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}
