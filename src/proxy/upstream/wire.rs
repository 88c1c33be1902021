//! A connection to an instance that its line counts as busy from the moment it is opened or taken until it is put back or
//! dropped.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::Stream;
use super::line::{Line, Opened};

#[derive(Debug)]
pub struct Wire {
    /// Before the stream, so that the line forgets the descriptor before it is closed.
    counted: Counted,
    stream: Stream,
}

/// Out of the line's books when it is dropped.
#[derive(Debug)]
struct Counted {
    opened: Opened,
    is_back: bool,
}

/// One that waits for its next request.
#[derive(Debug)]
pub(super) struct Idle {
    pub stream: Stream,
    pub serial: u64,
    pub since: Instant,
}

impl Wire {
    pub fn new(line: &Arc<Line>, stream: Stream) -> Self {
        let opened = line.opened_busy(stream.as_raw_fd());
        Self { counted: Counted { opened, is_back: false }, stream }
    }

    /// The one that was put back last, if it is still good.
    pub fn take(line: &Arc<Line>) -> Option<Self> {
        let (stream, opened) = line.take_idle()?;
        Some(Self { counted: Counted { opened, is_back: false }, stream })
    }

    /// For the next request. Whoever does so sees to it that the instance has not left meanwhile.
    pub fn put_back(self, now: Instant) {
        let Self { mut counted, stream } = self;
        counted.is_back = true;
        counted.opened.put_back(stream, now);
    }

    /// Tells when the connection has to end. From now on whoever asked closes it then.
    pub fn farewell(&self) -> Arc<Notify> {
        self.counted.opened.farewell()
    }

    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.is_back {
            self.opened.gone();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
