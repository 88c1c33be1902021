//! A way to a program that can be cut: bytes stop in both directions, nothing is closed, and nobody gets through anew.
//! What a firewall that drops packets looks like.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::Outcome;

pub struct Relay {
    pub address: SocketAddr,
    is_cut: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Relay {
    pub fn start(at: SocketAddr, to: SocketAddr) -> Outcome<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        let listener = socket.listen(QUEUE)?;
        let address = listener.local_addr()?;
        let (is_cut, cut) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, to, cut));
        Ok(Self { address, is_cut, accepting })
    }

    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// What was held back arrives as well.
    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, cut: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut turns = cut.clone();
    loop {
        if *turns.borrow_and_update() {
            let _crowd = crowd(&listener).await;
            if turns.changed().await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            turned = turns.changed() => {
                if turned.is_err() {
                    return;
                }
            }
            accepted = listener.accept() => {
                if let Ok((near, _)) = accepted {
                    connections.spawn(connect(near, to, cut.clone()));
                }
                while connections.try_join_next().is_some() {}
            }
        }
    }
}

/// Connections that fill the queue, so that the kernel drops the first packet of any other.
async fn crowd(listener: &TcpListener) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    let Ok(address) = listener.local_addr() else { return crowd };
    while crowd.len() < CROWD_MAX
        && let Ok(Ok(one)) = timeout(GETS_THROUGH, TcpStream::connect(address)).await
    {
        crowd.push(one);
    }
    crowd
}

async fn connect(near: TcpStream, to: SocketAddr, cut: watch::Receiver<bool>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::join!(carry(near_in, far_out, cut.clone()), carry(far_in, near_out, cut));
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await;
        // That it was closed does not get through either.
        if cut.wait_for(|cut| !cut).await.is_err() {
            return;
        }
        let Ok(n @ 1..) = read else { return };
        if to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

/// Connections that the kernel accepts for us; few, so that they can be used up.
const QUEUE: u32 = 8;
const CROWD_MAX: usize = 64;
/// A connection on this machine that has not come about by then has been dropped.
const GETS_THROUGH: Duration = Duration::from_millis(200);
