//! The watch over an HTTP/2 connection at work: what passes is shown to it, what has to come in time is waited for, and who
//! has had enough of it is cut off.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::Version;
use tokio::io::AsyncWrite;
use tokio::time::{Sleep, sleep};
use tracing::debug;

use crate::proxy::Shared;
use crate::proxy::downstream::{Connection, Link};
use crate::proxy::http2::{Cause, Watch};
use crate::proxy::limits::Limit;
use crate::proxy::reply::Refusal;

pub struct Guard {
    watch: Watch,
    link: Arc<Link>,
    shared: Arc<Shared>,
    /// Of the head that is being received, by its number.
    head_alarm: Option<(u64, Pin<Box<Sleep>>)>,
    /// While the socket takes nothing.
    stall_alarm: Option<Pin<Box<Sleep>>>,
}

impl Guard {
    pub fn new(link: Arc<Link>, shared: Arc<Shared>) -> Self {
        Self { watch: Watch::new(shared.limits.head_size, Instant::now()), link, shared, head_alarm: None, stall_alarm: None }
    }

    pub fn received(&mut self, bytes: &[u8]) -> Option<Cause> {
        self.watch.begun(self.link.take_begun());
        self.watch.received(bytes, Instant::now)
    }

    pub fn sent(&mut self, bytes: &[u8]) -> Option<Cause> {
        self.stall_alarm = None;
        self.watch.sent(bytes, Instant::now)
    }

    /// Everything is with the kernel.
    pub fn flushed(&mut self) {
        self.stall_alarm = None;
    }

    /// Nothing more has come for now.
    pub fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Option<Cause> {
        let Some(head) = self.watch.head() else {
            self.head_alarm = None;
            return None;
        };
        let timeout = self.shared.limits.head_timeout;
        let alarm = match &mut self.head_alarm {
            Some((number, alarm)) if *number == head => alarm,
            other => &mut other.insert((head, Box::pin(sleep(timeout)))).1,
        };
        alarm.as_mut().poll(cx).is_ready().then_some(Cause::SlowHead)
    }

    /// Nothing more can be sent for now.
    pub fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Option<Cause> {
        let patience = self.shared.limits.answer_progress;
        let alarm = self.stall_alarm.get_or_insert_with(|| Box::pin(sleep(patience)));
        alarm.as_mut().poll(cx).is_ready().then_some(Cause::SlowRead)
    }

    /// Tells the client, as far as it listens, and ends the connection at once.
    pub fn cut(&mut self, cause: Cause, connection: &mut Connection, cx: &mut Context<'_>) -> io::Error {
        self.link.stats.http2_cuts.count(cause);
        debug!(peer = %self.link.peer, cause = cause.as_str(), "An HTTP/2 connection is cut");
        match cause {
            Cause::SlowHead => {
                self.shared.heard_of(
                    &self.link,
                    (Version::HTTP_2, 0),
                    Refusal::SlowHead.reason(),
                    self.shared.limits.head_timeout,
                );
            }
            Cause::SlowRead => {
                self.link.stats.limits.count(Limit::AnswerProgress);
                connection.abandon();
            }
            _ => {}
        }
        if let Some(frame) = self.watch.goodbye() {
            // Whether it gets there makes no difference to us.
            if let Poll::Ready(Ok(_)) = Pin::new(&mut *connection).poll_write(cx, &frame) {
                let _ = Pin::new(&mut *connection).poll_flush(cx);
            }
        }
        self.link.kill();
        io::Error::new(io::ErrorKind::ConnectionAborted, cause.as_str())
    }

    /// The codec ends the connection by itself, and says why.
    pub fn count(&self, cause: Cause) {
        self.link.stats.http2_cuts.count(cause);
        debug!(peer = %self.link.peer, cause = cause.as_str(), "An HTTP/2 connection is ended by its codec");
    }
}
