//! A downstream connection in the form Pingora takes its streams.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::SessionLink;
use crate::proxy::downstream::{Connection, Phase};

#[derive(Debug)]
pub struct Carried {
    connection: Connection,
    socket_digest: Arc<SocketDigest>,
    proxy_digest: Option<Arc<ProxyDigest>>,
}

impl Carried {
    pub fn new(connection: Connection, link: Arc<SessionLink>) -> Self {
        let socket_digest = SocketDigest::from_raw_fd(connection.fd());
        // Both are known already; Pingora would ask the kernel for them.
        let _ = socket_digest.peer_addr.set(Some(PingoraAddr::Inet(link.peer)));
        let _ = socket_digest.local_addr.set(Some(PingoraAddr::Inet(link.local)));
        Self { connection, socket_digest: Arc::new(socket_digest), proxy_digest: link.into_digest() }
    }

    pub fn into_connection(self) -> Connection {
        self.connection
    }
}

impl AsyncRead for Carried {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, buf)
    }
}

impl AsyncWrite for Carried {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Carried {
    async fn shutdown(&mut self) {
        // It is being closed: there is nobody to tell that it was closed already.
        let _ = tokio::io::AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Carried {
    fn id(&self) -> UniqueIDType {
        self.connection.fd()
    }
}

impl Ssl for Carried {
    /// The one way to tell Pingora that this connection speaks HTTP/2.
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        (self.connection.link().phase() == Phase::Multiplexed).then_some(ALPN::H2)
    }
}

impl GetTimingDigest for Carried {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Carried {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.proxy_digest.clone()
    }
}

impl GetSocketDigest for Carried {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket_digest.clone())
    }
}

impl Peek for Carried {}
