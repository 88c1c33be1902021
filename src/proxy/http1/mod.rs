//! Our own HTTP/1.1, for requests to instances that speak the same: what nearly all traffic is.
//!
//! 1. [`Engine::serve`] reads heads off a client's connection, one after the other, and checks each: what this engine does
//!    not do goes to the general one.
//! 2. `exchange` is one request: route, attempts, answer. What decides is in `proxy/`, the same for both engines.
//! 3. `transfer` is one attempt: `upload` and what is written of it go up, `down` comes back, at once and in pieces.
//! 4. `head`, `response` and `chunks` are the syntax, `fields` what is rewritten between reading and writing.
//!
//! Invariants:
//! - A message is written anew from what was understood of it. What can be understood in two ways is refused: 400 to a
//!   client, 502 for an instance, and the connection it came on is closed.
//! - A connection to an instance is used again only if request and response both ended where they were said to, and nothing
//!   came behind.
//! - An idle connection holds no buffer; a busy one holds a few of a fixed size, whatever passes.
//! - A client that ends its side before its answer is whole has left, and the attempt is given up.
//! - Deliberately absent: HTTP/1.0, upgrades, HTTP/2 upstream; the general engine does them. It never sees a byte as
//!   the client wrote it: the head is checked here and written anew, and so is the body on its way there.

mod alarm;
mod answer;
mod chunks;
mod down;
mod exchange;
mod fields;
mod head;
#[cfg(any(test, fuzzing))]
pub mod laws;
mod request;
mod response;
mod transfer;
mod upload;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use alarm::Alarm;
use exchange::{After, exchange};
use head::{Head, HeadEnd};
use request::Request;
pub use response::{Ends, ends};
pub use transfer::INTERIM_MAX;
pub use upload::Upload;

use super::Shared;
use super::downstream::Connection;
use super::limits::Limit;
use super::reply::Refusal;
use super::serve::{LAST_WORDS, has_begun};
use super::upstream::{Line, Upstreams, is_current};
use crate::pool::Instance;

/// What serves one connection.
pub struct Engine {
    shared: Arc<Shared>,
    upstreams: Arc<Upstreams>,
    alarm: Alarm,
    ending: watch::Receiver<bool>,
    /// Waits for `ending` for as long as the connection lives, so that a request does not have to begin anew.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// A connection whose next request is for the general engine: its head is there, and this is the body behind it.
pub type ForGeneral = (Connection, Upload);

/// What came of waiting for a head.
enum Arrived {
    Head(Head),
    /// Ended, silent for too long, or broken.
    Nothing,
    /// And how long it took to say so.
    Refused(Refusal, Duration),
}

impl Engine {
    pub fn new(shared: Arc<Shared>, upstreams: Arc<Upstreams>, ending: watch::Receiver<bool>) -> Self {
        let mut watched = ending.clone();
        let end = Box::pin(async move { has_begun(&mut watched).await });
        Self { shared, upstreams, alarm: Alarm::new(Instant::now()), ending, end: Some(end) }
    }

    /// Serves requests until the connection is closed (`None`), or one comes that is for the general engine.
    pub async fn serve(&mut self, mut connection: Connection) -> Option<ForGeneral> {
        loop {
            let head = match self.head(&mut connection).await {
                Arrived::Head(head) => head,
                Arrived::Nothing => {
                    connection.part();
                    return None;
                }
                Arrived::Refused(refusal, took) => {
                    self.shared.refuse(connection, &refusal, took).await;
                    return None;
                }
            };
            let after = exchange(self, &mut connection, head).await;
            let stats = &connection.link().stats;
            match after {
                After::NextRequest => stats.http1.count_own(),
                After::Close { hear_out } => {
                    stats.http1.count_own();
                    connection.close(hear_out).await;
                    return None;
                }
                After::General { head, upload } => {
                    stats.http1.count_general();
                    connection.put_back(head);
                    return Some((connection, upload));
                }
            }
        }
    }

    async fn head(&mut self, connection: &mut Connection) -> Arrived {
        connection.expect_head();
        let limits = &self.shared.limits;
        let mut end = HeadEnd::default();
        let mut begun = Instant::now();
        let mut is_idle = connection.rest().is_empty();
        self.alarm.set(begun + if is_idle { limits.keep_alive } else { limits.head_timeout });
        let (size, n_fields) = (limits.head_size, limits.fields);
        let (head_timeout, room) = (limits.head_timeout, size + END_SIZE);
        let refused = |refusal, begun: Instant| Poll::Ready(Arrived::Refused(refusal, begun.elapsed()));
        poll_fn(|cx| {
            loop {
                // Some clients end a body with a line too many (RFC 9112 §2.2).
                while connection.rest().starts_with(b"\r\n") {
                    connection.consume(2);
                    end = HeadEnd::default();
                }
                match end.find(connection.rest()) {
                    Err(_) => return refused(Refusal::Malformed("a line of the head ends without CR LF"), begun),
                    Ok(Some(length)) if length <= room => {
                        let head = Head::parse(connection.take(length), n_fields);
                        return head.map_or_else(|refusal| refused(refusal, begun), |head| Poll::Ready(Arrived::Head(head)));
                    }
                    Ok(None) if connection.rest().len() < room => {}
                    Ok(_) => return refused(Refusal::HeadTooLarge, begun),
                }
                match connection.poll_more(cx, room) {
                    Poll::Ready(Ok(n)) if n > 0 => {
                        if std::mem::take(&mut is_idle) {
                            begun = Instant::now();
                            self.alarm.set(begun + head_timeout);
                        }
                    }
                    Poll::Ready(_) => return Poll::Ready(Arrived::Nothing),
                    Poll::Pending => return self.poll_patience(cx, connection, begun),
                }
            }
        })
        .await
    }

    /// Nothing more has come by now.
    fn poll_patience(&mut self, cx: &mut Context<'_>, connection: &mut Connection, begun: Instant) -> Poll<Arrived> {
        connection.release();
        let is_idle = connection.rest().is_empty();
        if is_idle && self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            self.end = None;
            // For what was sent before the client could know that we end.
            self.alarm.set(Instant::now() + LAST_WORDS);
        }
        if self.alarm.poll(cx).is_pending() {
            return Poll::Pending;
        }
        if is_idle && self.end.is_some() {
            connection.link().stats.limits.count(Limit::KeepAlive);
        }
        Poll::Ready(if is_idle { Arrived::Nothing } else { Arrived::Refused(Refusal::SlowHead, begun.elapsed()) })
    }

    fn is_ending(&self) -> bool {
        *self.ending.borrow() || self.shared.is_parting()
    }

    /// Its instance may have left while the request ran; then what was put back has to close.
    fn leave_if_gone(&self, request: &Request, instance: &Instance, line: &Line) {
        let snapshot = self.shared.live.load();
        let is_same = request.way.as_ref().is_some_and(|way| way.forwarding.sequence == snapshot.sequence);
        if !is_same && !is_current(&snapshot, instance) {
            line.leave(Instant::now());
        }
    }
}

/// A head of just the size that is allowed, and what tells that it is longer.
const END_SIZE: usize = 4;
