//! A downstream connection in the form Pingora takes its streams.

use std::fmt;
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

use super::body::Body;
use super::guard::Guard;
use super::link::SessionLink;
use crate::proxy::downstream::{Connection, Phase};
use crate::proxy::http1::Upload;
use crate::proxy::http2::Cause;

pub struct Carried {
    connection: Connection,
    /// Of HTTP/1.
    body: Option<Body>,
    /// Of HTTP/2.
    guard: Option<Box<Guard>>,
    socket_digest: Arc<SocketDigest>,
    proxy_digest: Option<Arc<ProxyDigest>>,
}

impl Carried {
    pub fn new(connection: Connection, link: Arc<SessionLink>) -> Self {
        let socket_digest = SocketDigest::from_raw_fd(connection.fd());
        // Both are known already; Pingora would ask the kernel for them.
        let _ = socket_digest.peer_addr.set(Some(PingoraAddr::Inet(link.peer)));
        let _ = socket_digest.local_addr.set(Some(PingoraAddr::Inet(link.local)));
        Self { connection, body: None, guard: None, socket_digest: Arc::new(socket_digest), proxy_digest: link.into_digest() }
    }

    /// What is read behind the head is this body, and nothing else.
    pub fn with_body(self, upload: Upload) -> Self {
        Self { body: Some(Body::new(upload)), ..self }
    }

    pub fn guarded(self, guard: Guard) -> Self {
        Self { guard: Some(Box::new(guard)), ..self }
    }

    /// For the next request, if this one was read to its end.
    pub fn into_connection(self) -> Option<Connection> {
        self.body.is_none_or(|body| body.is_done()).then_some(self.connection)
    }

    fn cut(&mut self, cause: Cause, cx: &mut Context<'_>) -> io::Error {
        match &mut self.guard {
            Some(guard) => guard.cut(cause, &mut self.connection, cx),
            None => io::ErrorKind::ConnectionAborted.into(),
        }
    }

    /// What became of a write, as the guard sees it. `pieces` were offered.
    fn written(
        &mut self,
        written: Poll<io::Result<usize>>,
        pieces: &[IoSlice<'_>],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(guard) = &mut self.guard else { return written };
        let cause = match written {
            Poll::Ready(Ok(n)) => taken(pieces, n).find_map(|piece| guard.sent(piece)),
            Poll::Ready(Err(_)) => None,
            Poll::Pending => guard.poll_stalled(cx),
        };
        match cause {
            None => written,
            Some(Cause::Codec) => {
                guard.count(Cause::Codec);
                written
            }
            Some(cause) => Poll::Ready(Err(self.cut(cause, cx))),
        }
    }
}

/// The first `n` bytes of these.
fn taken<'a>(pieces: &'a [IoSlice<'a>], mut n: usize) -> impl Iterator<Item = &'a [u8]> {
    pieces.iter().map_while(move |piece| {
        let (taken, left) = (piece.len().min(n), n);
        n -= taken;
        (left > 0).then(|| &piece[..taken])
    })
}

impl AsyncRead for Carried {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { connection, body, guard, .. } = &mut *self;
        if let Some(body) = body.as_mut().filter(|_| connection.link().phase() != Phase::Head) {
            let read = body.poll_read(connection, cx, buf);
            if read.is_pending() {
                connection.send_gathered(cx);
            }
            return read;
        }
        let before = buf.filled().len();
        let read = Pin::new(connection).poll_read(cx, buf);
        let Some(guard) = guard else { return read };
        let cause = match &read {
            Poll::Ready(Ok(())) => guard.received(&buf.filled()[before..]),
            Poll::Ready(Err(_)) => None,
            Poll::Pending => guard.poll_waiting(cx),
        };
        match cause {
            None => read,
            Some(cause) => {
                buf.set_filled(before);
                Poll::Ready(Err(self.cut(cause, cx)))
            }
        }
    }
}

impl AsyncWrite for Carried {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write(cx, bytes);
        self.written(written, &[IoSlice::new(bytes)], cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write_vectored(cx, bufs);
        self.written(written, bufs, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.connection).poll_flush(cx);
        let Some(guard) = &mut self.guard else { return flushed };
        match &flushed {
            Poll::Ready(_) => guard.flushed(),
            Poll::Pending => {
                if let Some(cause) = guard.poll_stalled(cx) {
                    return Poll::Ready(Err(self.cut(cause, cx)));
                }
            }
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connection.fmt(f)
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
