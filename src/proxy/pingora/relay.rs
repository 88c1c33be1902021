//! Two sockets joined: whatever one says the other hears, until both have ended, nothing moves for too long, or it has to
//! end. What ends before its time is told so, if it is a WebSocket.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::websocket::{Frames, going_away, going_away_masked};
use crate::proxy::stats::WorkerStats;
use crate::proxy::{downstream, upstream};

/// A stream that tells whether there is something to read before anybody needs a buffer.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Duplex for upstream::Stream {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, cx)
    }
}

impl Duplex for downstream::Stream {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, cx)
    }
}

/// One end, and what it has said already.
pub struct End<'a, S> {
    pub stream: &'a mut S,
    pub said: Vec<u8>,
    /// What it says in frames, if it does.
    pub frames: Option<Frames>,
}

/// What ends a tunnel before its ends do.
pub struct Limit<'a> {
    /// How long nothing may move.
    pub idle: Duration,
    /// The drain is over.
    pub over: &'a Notify,
}

/// What came of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes that went to the client.
    pub sent: u64,
    /// It was ended because nothing moved.
    pub was_idle: bool,
}

pub async fn relay(
    client: End<'_, impl Duplex>,
    instance: End<'_, impl Duplex>,
    limit: Limit<'_>,
    stats: &WorkerStats,
) -> Relayed {
    let moves = Moves::new();
    let mut down = Pump::new(instance.said, instance.frames, &moves, &stats.sent);
    let mut up = Pump::new(client.said, client.frames, &moves, &stats.received);
    let (client, instance) = (client.stream, instance.stream);
    // Each direction goes on by itself: a client that does not read must not stop what it sends. An error in one ends both.
    let both = poll_fn(|cx| {
        let (down, up) = (down.poll(instance, client, cx)?, up.poll(client, instance, cx)?);
        if down.is_ready() && up.is_ready() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
    });
    let was_idle = tokio::select! {
        _ = both => return Relayed { sent: down.moved, was_idle: false },
        () = moves.ceased(limit.idle) => true,
        () = limit.over.notified() => false,
    };
    let (to_client, to_instance) = (going_away(), going_away_masked(fastrand::u32(..).to_ne_bytes()));
    let farewell = async { tokio::join!(down.end(client, &to_client), up.end(instance, &to_instance)) };
    // Whoever does not take it in time misses it.
    let _ = timeout(FAREWELL, farewell).await;
    Relayed { sent: down.moved, was_idle }
}

/// One direction.
struct Pump<'a> {
    moves: &'a Moves,
    counter: &'a AtomicU64,
    moved: u64,
    /// Of what has been written.
    frames: Option<Frames>,
    /// Without memory while nothing moves.
    chunk: Vec<u8>,
    written: usize,
    /// One end has said all,
    has_ended: bool,
    /// and the other knows.
    is_told: bool,
}

impl<'a> Pump<'a> {
    fn new(said: Vec<u8>, frames: Option<Frames>, moves: &'a Moves, counter: &'a AtomicU64) -> Self {
        Self { moves, counter, moved: 0, frames, chunk: said, written: 0, has_ended: false, is_told: false }
    }

    fn poll(&mut self, from: &mut impl Duplex, to: &mut impl Duplex, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.chunk.len() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.chunk[self.written..]))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                if let Some(frames) = &mut self.frames {
                    frames.pass(&self.chunk[self.written..self.written + written]);
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

    /// The last word of this direction, where one may stand.
    async fn end(&self, to: &mut impl Duplex, word: &[u8]) -> io::Result<()> {
        if !self.is_told && self.frames.as_ref().is_some_and(Frames::is_between) {
            to.write_all(word).await?;
            to.flush().await?;
        }
        to.shutdown().await
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

/// For the last word to a client or an instance that may not read any more.
const FAREWELL: Duration = Duration::from_millis(500);
const CHUNK: usize = 16 * 1024;
/// What one side may still say when the other has ended.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(30);
