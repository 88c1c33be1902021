//! Two sockets joined: whatever one says the other hears, until both have ended or nothing moves for too long.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::proxy::downstream::Stream;
use crate::proxy::stats::WorkerStats;

/// A stream that tells whether there is something to read before anybody needs a buffer.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Duplex for TcpStream {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, cx)
    }
}

impl Duplex for Stream {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, cx)
    }
}

/// One end, and what it has said already.
pub struct End<'a, S> {
    pub stream: &'a mut S,
    pub said: Vec<u8>,
}

/// Returns the bytes that went to the client.
pub async fn relay(client: End<'_, impl Duplex>, instance: End<'_, impl Duplex>, idle: Duration, stats: &WorkerStats) -> u64 {
    let moves = Moves::new();
    let mut down = Pump::new(instance.said, &moves, &stats.sent);
    let mut up = Pump::new(client.said, &moves, &stats.received);
    let (client, instance) = (client.stream, instance.stream);
    // Each direction goes on by itself: a client that does not read must not stop what it sends. An error in one ends both.
    let both = poll_fn(|cx| {
        let (down, up) = (down.poll(instance, client, cx)?, up.poll(client, instance, cx)?);
        if down.is_ready() && up.is_ready() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
    });
    tokio::select! {
        _ = both => {}
        () = moves.ceased(idle) => {}
    }
    down.moved
}

/// One direction.
struct Pump<'a> {
    moves: &'a Moves,
    counter: &'a AtomicU64,
    moved: u64,
    /// Without memory while nothing moves.
    chunk: Vec<u8>,
    written: usize,
    /// One end has said all,
    has_ended: bool,
    /// and the other knows.
    is_told: bool,
}

impl<'a> Pump<'a> {
    fn new(said: Vec<u8>, moves: &'a Moves, counter: &'a AtomicU64) -> Self {
        Self { moves, counter, moved: 0, chunk: said, written: 0, has_ended: false, is_told: false }
    }

    fn poll(&mut self, from: &mut impl Duplex, to: &mut impl Duplex, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.chunk.len() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.chunk[self.written..]))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += written;
                self.moved += written as u64;
                self.counter.fetch_add(written as u64, Ordering::Relaxed);
                self.moves.note();
            }
            if self.has_ended {
                if !self.is_told {
                    ready!(Pin::new(to).poll_shutdown(cx))?;
                    self.is_told = true;
                }
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
            self.chunk = Vec::new();
            self.written = 0;
            ready!(from.poll_read_ready(cx))?;
            let mut chunk = Vec::with_capacity(CHUNK);
            if ready!(pin!(from.read_buf(&mut chunk)).poll(cx))? == 0 {
                self.moves.half_closed.store(true, Ordering::Relaxed);
                self.has_ended = true;
            }
            self.chunk = chunk;
            self.moves.note();
        }
    }
}

/// When something last moved, in either direction.
struct Moves {
    began: Instant,
    /// Milliseconds after `began`.
    last: AtomicU64,
    half_closed: AtomicBool,
}

impl Moves {
    fn new() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0), half_closed: AtomicBool::new(false) }
    }

    fn note(&self) {
        self.last.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for so long. Looks again at least every `HALF_CLOSED_MAX`, because one side may
    /// have ended meanwhile.
    async fn ceased(&self, idle: Duration) {
        loop {
            let patience = if self.half_closed.load(Ordering::Relaxed) { idle.min(HALF_CLOSED_MAX) } else { idle };
            let until = self.began + Duration::from_millis(self.last.load(Ordering::Relaxed)) + patience;
            let now = Instant::now();
            if until <= now {
                return;
            }
            sleep_until(until.min(now + HALF_CLOSED_MAX)).await;
        }
    }
}

const CHUNK: usize = 16 * 1024;
/// What one side may still say when the other has ended.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(30);
