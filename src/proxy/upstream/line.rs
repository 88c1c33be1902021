//! The open connections of one worker to one life of one instance: who uses which, what waits too long, and how they
//! end when the instance leaves. It holds the idle ones itself, but for those in Pingora's pool.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::sync::Notify;

use super::wire::Idle;
use super::{Secure, Stream};

#[derive(Debug, Default)]
pub struct Line {
    /// How the instance is spoken to on all of them; `None`: in the clear.
    pub secure: Option<Secure>,
    state: Mutex<LineState>,
}

#[derive(Debug, Default)]
struct LineState {
    open: HashMap<RawFd, Socket, foldhash::fast::RandomState>,
    /// The one that was put back last is the last; all of them are in `open`.
    idle: VecDeque<Idle>,
    serial: u64,
    /// Attempts that have chosen this instance and have no connection yet. They may be about to take a pooled one.
    choosing: u32,
    /// Idle connections have to close, once nobody is choosing.
    closing: bool,
    /// The instance takes no new requests since then.
    left: Option<Instant>,
    /// Somebody asked for it since the last call of `forget`.
    used: bool,
}

#[derive(Debug, Default)]
struct Socket {
    /// File descriptors are used again, serials are not.
    serial: u64,
    users: u32,
    /// Of the users, those whose response has not begun.
    waiting: u32,
    /// When the waiting ones have waited long enough, all of them.
    overdue: Option<Instant>,
    /// A drain has cut it; it is on its way out.
    is_cut: bool,
    /// Whoever uses it has a last word to say, and closes it then.
    farewell: Option<Arc<Notify>>,
}

impl Line {
    pub fn new(secure: Option<Secure>) -> Self {
        Self { secure, ..Self::default() }
    }

    /// Closes what is idle, now; what is busy ends with its last request, or at the end of the drain.
    pub fn leave(&self, now: Instant) {
        let mut state = self.lock();
        state.left.get_or_insert(now);
        state.close_unused();
    }

    /// Closes what is idle, because nobody will ask for it again. What is busy is left alone.
    pub fn close_unused(&self) {
        self.lock().close_unused();
    }

    pub fn come_back(&self) {
        self.lock().left = None;
    }

    pub fn has_left(&self) -> bool {
        self.lock().left.is_some()
    }

    /// Closes connections on which every request waits for longer than it may.
    pub fn close_overdue(&self, now: Instant) {
        let state = self.lock();
        let is_overdue = |s: &Socket| s.users > 0 && s.waiting == s.users && s.overdue.is_some_and(|at| at <= now);
        state.open.iter().filter(|(_, socket)| is_overdue(socket)).for_each(|(fd, _)| shut(*fd));
    }

    /// Closes what has been idle for so long.
    pub fn close_idle(&self, now: Instant, after: Duration) {
        let mut state = self.lock();
        while state.idle.front().is_some_and(|oldest| oldest.since + after <= now) {
            state.close_oldest();
        }
    }

    /// Closes what outlasts the drain, spread over its last fifth so that not all clients come back at once.
    /// Says how many.
    pub fn close_drained(&self, now: Instant, drain: Duration) -> usize {
        let mut state = self.lock();
        let Some(left) = state.left else { return 0 };
        let ends = |serial: u64| left + drain.mul_f64(0.8 + 0.2 * spread(serial));
        let over = state.open.iter_mut().filter(|(_, socket)| !socket.is_cut && ends(socket.serial) <= now);
        over.map(|(fd, socket)| {
            socket.is_cut = true;
            match &socket.farewell {
                Some(farewell) => farewell.notify_one(),
                None => shut(*fd),
            }
        })
        .count()
    }

    /// Lets everybody say a last word who has one. Says how many.
    pub fn take_leave(&self) -> usize {
        let state = self.lock();
        state.open.values().filter_map(|socket| socket.farewell.as_ref()).map(|farewell| farewell.notify_one()).count()
    }

    /// Somebody has a connection, or is about to.
    pub fn is_busy(&self) -> bool {
        let state = self.lock();
        !state.open.is_empty() || state.choosing > 0
    }

    /// Whether it can be dropped: without connections, and not asked for since the last call.
    pub fn forget(&self) -> bool {
        let mut state = self.lock();
        !std::mem::take(&mut state.used) && state.open.is_empty() && state.choosing == 0
    }

    /// A new connection. Whoever holds it keeps the `Opened` as long as the descriptor is open, and no longer.
    pub fn opened(self: &Arc<Self>, fd: RawFd) -> Opened {
        let mut state = self.lock();
        state.serial += 1;
        let serial = state.serial;
        state.open.insert(fd, Socket { serial, ..Socket::default() });
        Opened { line: self.clone(), fd, serial }
    }

    /// The same for a connection that has its user already.
    pub(super) fn opened_busy(self: &Arc<Self>, fd: RawFd) -> Opened {
        let opened = self.opened(fd);
        let mut state = self.lock();
        state.used = true;
        if let Some(socket) = state.socket((fd, opened.serial)) {
            socket.users = 1;
        }
        drop(state);
        opened
    }

    pub(super) fn take_idle(self: &Arc<Self>) -> Option<(Stream, Opened)> {
        let mut state = self.lock();
        state.used = true;
        while let Some(Idle { stream, serial, .. }) = state.take_quiet() {
            let fd = stream.as_raw_fd();
            let Some(socket) = state.socket((fd, serial)) else { continue };
            socket.users = 1;
            return Some((stream, Opened { line: self.clone(), fd, serial }));
        }
        None
    }

    #[cfg(test)]
    pub fn open(&self) -> usize {
        self.lock().open.len()
    }

    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LineState {
    fn take_quiet(&mut self) -> Option<Idle> {
        while let Some(mut idle) = self.idle.pop_back() {
            if idle.stream.is_quiet() {
                return Some(idle);
            }
            self.open.remove(&idle.stream.as_raw_fd());
        }
        None
    }

    /// Whether there was one.
    fn close_oldest(&mut self) -> bool {
        let Some(idle) = self.idle.pop_front() else { return false };
        self.open.remove(&idle.stream.as_raw_fd());
        true
    }

    fn close_unused(&mut self) {
        while self.close_oldest() {}
        self.closing = true;
        self.close_if_settled();
    }

    fn close_if_settled(&mut self) {
        if self.closing && self.choosing == 0 {
            self.closing = false;
            self.open.iter().filter(|(_, socket)| socket.users == 0).for_each(|(fd, _)| shut(*fd));
        }
    }

    fn socket(&mut self, (fd, serial): (RawFd, u64)) -> Option<&mut Socket> {
        self.open.get_mut(&fd).filter(|socket| socket.serial == serial)
    }
}

/// Tells the line when a connection is gone, which has to be before its descriptor is closed: then a descriptor that the line
/// knows is always the one it means.
#[derive(Debug, Clone)]
pub struct Opened {
    line: Arc<Line>,
    fd: RawFd,
    serial: u64,
}

impl Opened {
    pub(super) fn put_back(&self, stream: Stream, now: Instant) {
        let mut state = self.line.lock();
        let Some(socket) = state.socket((self.fd, self.serial)) else { return };
        socket.users = 0;
        state.idle.push_back(Idle { stream, serial: self.serial, since: now });
        if state.idle.len() > IDLE_MAX {
            state.close_oldest();
        }
    }

    pub(super) fn farewell(&self) -> Arc<Notify> {
        let farewell = Arc::new(Notify::new());
        if let Some(socket) = self.line.lock().socket((self.fd, self.serial)) {
            socket.farewell = Some(farewell.clone());
        }
        farewell
    }

    pub fn gone(&self) {
        let mut state = self.line.lock();
        if state.socket((self.fd, self.serial)).is_some() {
            state.open.remove(&self.fd);
        }
    }
}

/// One attempt's hold on its instance's connections, given back on every path.
#[derive(Debug)]
pub struct Claim {
    line: Arc<Line>,
    holds: Holds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Choice,
    Connection { fd: RawFd, serial: u64, waiting: bool },
    Nothing,
}

impl Claim {
    pub fn new(line: Arc<Line>) -> Self {
        let mut state = line.lock();
        state.choosing += 1;
        state.used = true;
        drop(state);
        Self { line, holds: Holds::Choice }
    }

    pub fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// The attempt has a connection.
    pub fn connected(&mut self, fd: RawFd) {
        let mut state = self.line.lock();
        if self.holds != Holds::Choice {
            return;
        }
        state.choosing -= 1;
        self.holds = match state.open.get_mut(&fd) {
            Some(socket) => {
                socket.users += 1;
                Holds::Connection { fd, serial: socket.serial, waiting: false }
            }
            None => Holds::Nothing,
        };
        state.close_if_settled();
    }

    /// From now on the instance, or the client's body, is waited for.
    pub fn wait(&mut self, until: Instant) {
        let Holds::Connection { fd, serial, waiting } = &mut self.holds else { return };
        if let Some(socket) = self.line.lock().socket((*fd, *serial)) {
            socket.waiting += u32::from(!*waiting);
            // Of several, the last: a shared connection is only closed when nobody on it can lose anything.
            socket.overdue = if socket.users == 1 { Some(until) } else { socket.overdue.max(Some(until)) };
            *waiting = true;
        }
    }

    /// The response has begun.
    pub fn answered(&mut self) {
        let Holds::Connection { fd, serial, waiting } = &mut self.holds else { return };
        if !std::mem::take(waiting) {
            return;
        }
        if let Some(socket) = self.line.lock().socket((*fd, *serial)) {
            socket.waiting -= 1;
            socket.overdue = socket.overdue.filter(|_| socket.waiting > 0);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.answered();
        let mut state = self.line.lock();
        match self.holds {
            Holds::Choice => state.choosing -= 1,
            Holds::Connection { fd, serial, .. } => {
                if let Some(socket) = state.socket((fd, serial)) {
                    socket.users -= 1;
                }
            }
            Holds::Nothing => {}
        }
        state.close_if_settled();
    }
}

/// The caller holds the line's lock, under which a descriptor is taken out before it is closed.
fn shut(fd: RawFd) {
    // It may be closed by its other end already.
    let _ = shutdown(fd, Shutdown::Both);
}

/// Where in 0..1 a number lies; those that follow each other lie far apart, however few they are.
fn spread(serial: u64) -> f64 {
    const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;
    (serial.wrapping_mul(GOLDEN_RATIO) >> 32) as f64 / f64::from(u32::MAX)
}

/// Idle connections to one instance, on one worker: more than requests at once that an instance is likely to be given.
const IDLE_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    struct World {
        line: Arc<Line>,
        now: Instant,
    }

    /// Our end and the instance's end of a connection.
    struct Pair(TcpStream, TcpStream, Opened);

    impl World {
        fn new() -> Self {
            Self { line: Arc::default(), now: Instant::now() }
        }

        fn connect(&self) -> Pair {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let theirs = listener.accept().unwrap().0;
            theirs.set_nonblocking(true).unwrap();
            let opened = self.line.opened(ours.as_raw_fd());
            Pair(ours, theirs, opened)
        }

        fn take(&self, pair: &Pair) -> Claim {
            let mut claim = Claim::new(self.line.clone());
            claim.connected(pair.0.as_raw_fd());
            claim
        }
    }

    impl Pair {
        fn is_shut(&mut self) -> bool {
            matches!(self.1.read(&mut [0]), Ok(0))
        }
    }

    #[test]
    fn leaving_closes_idle_connections_at_once_and_busy_ones_with_their_request() {
        let world = World::new();
        let (mut idle, mut busy) = (world.connect(), world.connect());
        let claim = world.take(&busy);
        world.line.leave(world.now);
        assert!(idle.is_shut() && !busy.is_shut());
        drop(claim);
        assert!(!busy.is_shut(), "pooled again, until somebody says that the instance has left");
        world.line.leave(world.now);
        assert!(busy.is_shut());
    }

    #[test]
    fn a_connection_that_may_be_taken_this_moment_is_not_closed() {
        let world = World::new();
        let (mut first, mut second) = (world.connect(), world.connect());
        let mut claim = Claim::new(world.line.clone());
        world.line.leave(world.now);
        assert!(!first.is_shut() && !second.is_shut());
        claim.connected(first.0.as_raw_fd());
        assert!(!first.is_shut() && second.is_shut());
    }

    #[test]
    fn a_shared_connection_is_overdue_when_all_its_requests_are() {
        let world = World::new();
        let mut pair = world.connect();
        let (mut one, mut other) = (world.take(&pair), world.take(&pair));
        let second = Duration::from_secs(1);
        one.wait(world.now + second);
        world.line.close_overdue(world.now + 2 * second);
        assert!(!pair.is_shut(), "the other one may be receiving");
        other.wait(world.now + 3 * second);
        world.line.close_overdue(world.now + 2 * second);
        assert!(!pair.is_shut());
        world.line.close_overdue(world.now + 3 * second);
        assert!(pair.is_shut());
    }

    #[test]
    fn an_answer_ends_the_waiting() {
        let world = World::new();
        let mut pair = world.connect();
        let mut claim = world.take(&pair);
        claim.wait(world.now);
        claim.answered();
        world.line.close_overdue(world.now + Duration::from_secs(9));
        assert!(!pair.is_shut());
    }

    #[test]
    fn a_drain_ends_spread_over_its_last_fifth() {
        let world = World::new();
        let mut pairs: Vec<_> = (0..4).map(|_| world.connect()).collect();
        let _claims: Vec<_> = pairs.iter().map(|p| world.take(p)).collect();
        let drain = Duration::from_secs(10);
        world.line.leave(world.now);
        assert_eq!(world.line.close_drained(world.now + drain.mul_f64(0.79), drain), 0);
        let cut = [0.85, 0.9, 0.95, 1.0].map(|share| world.line.close_drained(world.now + drain.mul_f64(share), drain));
        assert_eq!(cut, [1, 1, 1, 1], "each is cut once");
        assert!(pairs.iter_mut().all(Pair::is_shut));
    }

    #[test]
    fn a_descriptor_that_is_used_again_is_another_connection() {
        let world = World::new();
        let pair = world.connect();
        let fd = pair.0.as_raw_fd();
        let claim = world.take(&pair);
        pair.2.gone();
        assert_eq!(world.line.open(), 0);
        let _again = world.line.opened(fd);
        pair.2.gone();
        drop(claim);
        assert_eq!(world.line.open(), 1);
    }
}
