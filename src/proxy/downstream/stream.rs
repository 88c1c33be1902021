//! What carries a connection: a socket, or TLS on one.
//!
//! Both can be asked whether there is something to read without a buffer in hand, so an idle connection needs none. TLS
//! may accept bytes that its socket does not take yet: they go out before the next ones do, whenever somebody reads, and
//! with every flush.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    /// On the heap: its state is a kilobyte, and most of the time a plain connection needs none of it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Ready once a read would find something: bytes, the end, or an error.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => {
                push_on(stream, cx);
                Pin::new(stream).poll_fill_buf(cx).map_ok(|_| ())
            }
        }
    }

    /// Ready once the socket has taken everything.
    pub fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) if stream.get_ref().1.wants_write() => Pin::new(stream).poll_flush(cx),
            Self::Tls(_) => Poll::Ready(Ok(())),
        }
    }

    /// Says that nothing follows, as far as the socket takes it at once. TLS tells an end from a broken connection by that; a
    /// socket's close says enough by itself.
    pub fn say_goodbye(&mut self) {
        if let Self::Tls(stream) = self {
            let (_, session) = stream.get_mut();
            session.send_close_notify();
            push_on(stream, &mut Context::from_waker(Waker::noop()));
        }
    }

    /// When it is closed, what the client has not taken is thrown away, and the client told so: the kernel would keep it for
    /// minutes.
    pub fn reset_when_closed(&self) {
        let socket = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        // A socket that refuses is closed the usual way.
        let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }

    /// Writes what the socket takes at once, and forgets the rest.
    pub fn try_write(&mut self, bytes: &[u8]) {
        let cx = &mut Context::from_waker(Waker::noop());
        // Whoever is told here is about to be closed: there is nobody to tell that it did not arrive.
        let _ = match self {
            Self::Plain(stream) => stream.try_write(bytes).is_ok(),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes).is_ready(),
        };
    }
}

/// An error comes back with the next write.
fn push_on(stream: &mut TlsStream<TcpStream>, cx: &mut Context<'_>) {
    if stream.get_ref().1.wants_write() {
        let _ = Pin::new(stream).poll_flush(cx);
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Plain(stream) => stream.as_raw_fd(),
            Self::Tls(stream) => stream.as_raw_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => {
                push_on(stream, cx);
                Pin::new(stream).poll_read(cx, buf)
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_settle(cx))?;
        match this {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_settle(cx))?;
        match this {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_settle(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
