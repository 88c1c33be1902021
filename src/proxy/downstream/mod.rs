//! The stream under Pingora: one downstream connection with its own buffers, deadlines and counters.
//!
//! Pingora takes what a client sends ahead of time for an error, and leaves when the client stops listening. Both are settled
//! here, where the bytes pass:
//! - a head, which our own engine has read and found good, is handed over exactly, never a byte behind its empty line, so
//!   pipelined requests and the first bytes of an upgraded connection wait in our buffer;
//! - while a request runs, Pingora reads one byte at a time to see whether the client is still there: such a probe sees
//!   the end of the stream and nothing else.

mod input;
mod link;
mod stream;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use input::{HeadScan, Input, opening};

pub use input::{INPUT_SIZE, Opening};
pub use link::{Link, Met, Phase};
pub use stream::Stream;

use crate::proxy::arrival::RequestId;
use crate::proxy::reply::Refusal;

pub struct Connection {
    stream: Stream,
    link: Arc<Link>,
    input: Input,
    /// Small writes, gathered until the next flush or until they are worth a system call.
    output: Vec<u8>,
    head: HeadScan,
    /// Everything is out, and the client has been told that nothing follows.
    is_shut: bool,
    /// How long closing may take from here.
    closing: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub fn new(stream: Stream, link: Arc<Link>) -> Self {
        Self {
            stream,
            link,
            input: Input::default(),
            output: Vec::new(),
            head: HeadScan::default(),
            is_shut: false,
            closing: None,
        }
    }

    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The next bytes are a request head.
    pub fn expect_head(&mut self) {
        self.link.enter(Phase::Head);
        self.head = HeadScan::default();
        self.input.release();
    }

    /// Waits for the first bytes of a request; `false`: the client is gone. Costs no memory until they come.
    /// Being dropped, it has lost nothing.
    pub async fn arrived(&mut self) -> io::Result<bool> {
        Ok(!self.input.rest().is_empty() || poll_fn(|cx| self.poll_more(cx, INPUT_SIZE)).await? > 0)
    }

    /// Looks at the first bytes of a fresh connection.
    pub async fn opening(&mut self) -> io::Result<Opening> {
        if !self.arrived().await? {
            return Ok(Opening::Closed);
        }
        loop {
            match opening(self.input.rest()) {
                Opening::Unclear => {}
                clear => return Ok(clear),
            }
            if poll_fn(|cx| self.poll_more(cx, INPUT_SIZE)).await? == 0 {
                return Ok(Opening::Http1);
            }
        }
    }

    /// From here on this is HTTP/2, whose heads Pingora's codec bounds by itself.
    pub fn multiplexed(&self) {
        self.link.enter(Phase::Multiplexed);
    }

    /// The stream and what has been read from it, for whoever goes on without Pingora.
    pub fn into_parts(mut self) -> (Stream, Vec<u8>) {
        let rest = self.input.rest().to_vec();
        self.input.release();
        (self.stream, rest)
    }

    /// What has arrived and was not taken.
    pub fn rest(&self) -> &[u8] {
        self.input.rest()
    }

    pub fn consume(&mut self, n: usize) {
        self.input.consume(n);
    }

    /// The next so many bytes, as a piece of memory of their own.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        self.input.take_vec(n)
    }

    /// They were not for whoever took them.
    pub fn put_back(&mut self, bytes: Vec<u8>) {
        self.input.put_back(bytes);
    }

    /// No memory is held for what has not come.
    pub fn release(&mut self) {
        self.input.release();
    }

    /// Reads more than has arrived, up to so many bytes in all; 0 is the end. `room` is more than there are.
    pub fn poll_more(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        // Asked first: whoever only wants to know whether the client is still there needs no memory for the answer.
        ready!(self.stream.poll_read_ready(cx))?;
        let Poll::Ready(read) = self.input.poll_fill(&mut self.stream, cx, room)? else {
            // It was not to be had after all.
            self.input.release();
            return Poll::Pending;
        };
        self.link.stats.received.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Ok(read))
    }

    /// Sends what was gathered: whoever waits for the client has nothing more for it now. An error comes back with the next write.
    pub fn send_gathered(&mut self, cx: &mut Context<'_>) {
        if !self.output.is_empty() {
            let _ = self.poll_drain(cx);
        }
    }

    /// Writes as much of these as the socket takes now, in one system call.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let sent = match pieces {
            [piece] => ready!(stream.poll_write(cx, piece))?,
            _ => ready!(stream.poll_write_vectored(cx, pieces))?,
        };
        self.link.stats.sent.fetch_add(sent as u64, Ordering::Relaxed);
        Poll::Ready(Ok(sent))
    }

    /// Pushes on what TLS holds back, for whoever does not read meanwhile.
    pub fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_settle(cx)
    }

    /// Refuses what is no request, and closes. As much of the answer as the socket takes at once: whoever is refused here does
    /// not read slowly at our cost.
    pub async fn refuse(mut self, refusal: &Refusal, request_id: &str) {
        self.stream.try_write(&refusal.message(request_id));
        self.close(true).await;
    }

    /// Between two requests, when the client has nothing to say any more or was silent for too long.
    pub fn part(mut self) {
        self.stream.say_goodbye();
    }

    /// The client takes nothing of what there is for it, and is not waited for any more.
    pub fn abandon(&self) {
        self.link.abandon();
        self.stream.reset_when_closed();
    }

    /// `is_heard_out`: the client may be sending still, and would lose an answer that it has not read.
    pub async fn close(mut self, is_heard_out: bool) {
        self.link.enter(if is_heard_out { Phase::Body } else { Phase::Answer });
        // It is being closed: there is nobody to tell that it was closed already.
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut self).await;
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.input.rest().is_empty() && ready!(self.poll_more(cx, INPUT_SIZE))? == 0 {
            return Poll::Ready(Ok(()));
        }
        let offered = &self.input.rest()[..self.input.rest().len().min(buf.remaining())];
        let of_head = self.head.end(offered).unwrap_or(offered.len());
        self.input.take(buf, of_head);
        Poll::Ready(Ok(()))
    }

    /// Whether the client is still there. What it sends meanwhile is its next request.
    pub fn poll_probe(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.input.rest().len() < INPUT_SIZE {
            if ready!(self.poll_more(cx, INPUT_SIZE))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = self.input.rest().len();
        if rest > 0 {
            self.input.take(buf, rest);
            if self.input.rest().is_empty() {
                self.input.release();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.link.stats.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        let result = loop {
            if written == self.output.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.stream).poll_write(cx, &self.output[written..]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => written += n,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.output.drain(..written);
        self.link.stats.sent.fetch_add(written as u64, Ordering::Relaxed);
        result
    }

    /// Gathers what is small; what is not goes out together with what was gathered, in one system call.
    fn poll_put(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.output.len() + bytes.len() <= OUTPUT_SIZE {
            if self.output.capacity() == 0 {
                self.output.reserve_exact(OUTPUT_SIZE);
            }
            self.output.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let gathered = self.output.len();
        let slices = [IoSlice::new(&self.output), IoSlice::new(bytes)];
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices))?;
        self.link.stats.sent.fetch_add(written as u64, Ordering::Relaxed);
        if written >= gathered {
            self.output.clear();
            if written > gathered {
                return Poll::Ready(Ok(written - gathered));
            }
        } else {
            self.output.drain(..written);
        }
        // Only what had been gathered is out; take the new bytes when the socket has room again.
        ready!(self.poll_drain(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.link.stats.sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    /// Sends what is left, and says that nothing follows.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// The client may be sending still. If we closed on it, its kernel would drop our answer with the connection.
    fn poll_hear_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut heard = 0;
        while heard < LINGER_BYTES {
            self.input = Input::default();
            match ready!(self.poll_more(cx, INPUT_SIZE)) {
                Ok(n) if n > 0 => heard += n,
                _ => break,
            }
        }
        Poll::Ready(())
    }

    /// Whether closing has taken so long already that it ends here.
    fn poll_closing(&mut self, cx: &mut Context<'_>, max: Duration) -> Poll<()> {
        self.closing.get_or_insert_with(|| Box::pin(sleep(max))).as_mut().poll(cx)
    }

    fn poll_alive(&self) -> io::Result<()> {
        if self.link.is_killed() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_alive()?;
        let read = match this.link.phase() {
            Phase::Head => this.poll_head(cx, buf),
            Phase::Answer if buf.remaining() == 1 => this.poll_probe(cx),
            _ => this.poll_body(cx, buf),
        };
        if read.is_pending() {
            // Pingora does not flush what has a length.
            this.send_gathered(cx);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_alive()?;
        if this.link.phase() == Phase::Head {
            // Pingora answers a head that it cannot read without asking anybody; we answer in our words.
            if this.output.is_empty() {
                let refusal = if bytes.starts_with(b"HTTP/1.1 405") { Refusal::Method } else { Refusal::Malformed(NOT_HTTP) };
                this.output = refusal.message(&RequestId::make(&mut fastrand::Rng::new()));
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        this.poll_put(cx, bytes)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_alive()?;
        let total: usize = bufs.iter().map(|b| b.len()).sum();
        if this.output.len() + total <= OUTPUT_SIZE {
            bufs.iter().for_each(|b| this.output.extend_from_slice(b));
            return Poll::Ready(Ok(total));
        }
        if !this.output.is_empty() {
            ready!(this.poll_drain(cx))?;
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs))?;
        this.link.stats.sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        this.stream.poll_settle(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.link.is_abandoned() {
            this.stream.reset_when_closed();
            return Poll::Ready(Ok(()));
        }
        if !this.is_shut {
            match this.poll_finish(cx) {
                Poll::Ready(result) => result?,
                // A client that does not read is not waited for.
                Poll::Pending => return this.poll_closing(cx, FINISH_MAX).map(Ok),
            }
            (this.is_shut, this.closing) = (true, None);
        }
        if matches!(this.link.phase(), Phase::Head | Phase::Body | Phase::Rest) && this.poll_hear_out(cx).is_pending() {
            return this.poll_closing(cx, LINGER).map(Ok);
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.link.peer).field("phase", &self.link.phase()).finish_non_exhaustive()
    }
}

/// A response head and a small body leave in one packet.
const OUTPUT_SIZE: usize = 4 * 1024;
/// For what a client has not taken of its last answer.
const FINISH_MAX: Duration = Duration::from_secs(60);
/// How long a client is heard that has its answer already, and how much it may say at once.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;
const NOT_HTTP: &str = "the request is not valid HTTP";
