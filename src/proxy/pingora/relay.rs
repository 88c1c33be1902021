//! Two sockets joined: whatever one says the other hears, until both have ended or nothing moves for too long.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until};

use crate::proxy::stats::WorkerStats;

/// One end, and what it has said already.
pub struct End<'a> {
    pub stream: &'a mut TcpStream,
    pub said: &'a [u8],
}

/// Returns the bytes that went to the client.
pub async fn relay(client: End<'_>, instance: End<'_>, idle: Duration, stats: &WorkerStats) -> u64 {
    let (client_reads, client_writes) = client.stream.split();
    let (instance_reads, instance_writes) = instance.stream.split();
    let moves = Moves::new();
    let down = Pump { moves: &moves, moved: AtomicU64::new(0), counter: &stats.sent };
    let up = Pump { moves: &moves, moved: AtomicU64::new(0), counter: &stats.received };
    tokio::select! {
        // Each direction goes on by itself: a client that does not read must not stop what it sends. An error in one
        // ends both.
        _ = async {
            tokio::try_join!(
                down.run(instance_reads, client_writes, instance.said),
                up.run(client_reads, instance_writes, client.said),
            )
        } => {}
        () = moves.ceased(idle) => {}
    }
    down.moved.into_inner()
}

struct Pump<'a> {
    moves: &'a Moves,
    moved: AtomicU64,
    counter: &'a AtomicU64,
}

impl Pump<'_> {
    async fn run(&self, from: ReadHalf<'_>, mut to: WriteHalf<'_>, said: &[u8]) -> io::Result<()> {
        self.pass(&mut to, said).await?;
        loop {
            from.readable().await?;
            // Only now: an idle tunnel holds no buffer.
            let mut chunk = Vec::with_capacity(CHUNK);
            match from.try_read_buf(&mut chunk) {
                Ok(0) => break,
                Ok(_) => self.pass(&mut to, &chunk).await?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.moves.half_closed.store(true, Ordering::Relaxed);
        to.shutdown().await
    }

    async fn pass(&self, to: &mut WriteHalf<'_>, bytes: &[u8]) -> io::Result<()> {
        self.moves.note();
        to.write_all(bytes).await?;
        self.moves.note();
        self.moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
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
