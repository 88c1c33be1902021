//! One attempt at one instance, both directions at once: the request goes up while its response may already come down.
//!
//! Invariants:
//! - Nothing is read that there is no room to write: each direction holds one buffer, whatever the size of the body.
//! - What has come is passed on before more is waited for, so events arrive one by one.
//! - Once a byte of a response has gone to the client, the attempt is not given up for another.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::StatusCode;
use tokio::io::AsyncWrite;
use tokio::sync::watch;

use super::alarm::Alarm;
use super::down::Down;
use super::request::{Request, Way};
use super::response::{self, Invalid};
use super::upload::Upload;
use crate::config::ClientLimits;
use crate::proxy::attempt::{Failure, Progress};
use crate::proxy::downstream::{Connection, INPUT_SIZE};
use crate::proxy::reply::{BAD_CHUNK, Refusal};
use crate::proxy::upstream::{Wire, note_no_tls};
use crate::trust::{is_refusal, words};

/// What an attempt works on.
pub struct Transfer<'t> {
    pub connection: &'t mut Connection,
    pub alarm: &'t mut Alarm,
    pub request: &'t mut Request,
    pub upload: &'t mut Upload,
    pub wire: &'t mut Wire,
    pub limits: &'t ClientLimits,
    /// Of these, one being true makes an answer the last of its connection.
    pub endings: [&'t watch::Receiver<bool>; 2],
    pub up: Up,
    pub down: Down,
    /// Nothing has been waited for.
    pub is_new: bool,
    /// Responses that came before the response.
    pub n_interim: usize,
}

/// How an attempt broke off.
#[derive(Debug)]
pub enum Stop {
    Failed(Failure),
    ClientGone,
    /// The client takes nothing of its answer.
    SlowRead,
    /// The client's fault.
    Refused(Refusal),
}

/// Towards the instance.
#[derive(Debug)]
pub struct Up {
    /// The head, then one piece of the body after the other.
    out: Vec<u8>,
    written: usize,
    /// Nothing of what was written waits in a buffer of TLS.
    is_flushed: bool,
    /// The instance does not take the rest; its response may say why.
    is_broken: bool,
    /// Since when the response is all that is waited for.
    asked: Option<Instant>,
}

impl Up {
    /// The request from its beginning, as far as the client has sent it.
    pub fn new(request: &Request, upload: &mut Upload, connection: &mut Connection) -> Result<Self, Refusal> {
        let mut out = Vec::with_capacity(OUT_USUAL);
        request.write_head(&mut out);
        upload.repeat(&mut out).map_err(|_| BAD_CHUNK)?;
        if !upload.is_done() && !connection.rest().is_empty() {
            let used = upload.pass(connection.rest(), &mut out).map_err(|_| BAD_CHUNK)?;
            connection.consume(used);
        }
        Ok(Self { out, written: 0, is_flushed: false, is_broken: false, asked: None })
    }

    fn is_flushed(&self) -> bool {
        self.written == self.out.len() && self.is_flushed
    }

    /// Writes what there is, and flushes when it is all written.
    fn poll_write(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.written == self.out.len() {
            ready!(Pin::new(wire).poll_flush(cx))?;
            self.is_flushed = true;
            return Poll::Ready(Ok(()));
        }
        self.is_flushed = false;
        match ready!(Pin::new(wire).poll_write(cx, &self.out[self.written..]))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => {
                self.written += n;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Transfer<'_> {
    /// Returns when the response is whole, and says whether the instance's connection may carry another request.
    pub async fn run(mut self) -> Result<bool, Stop> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Stop>> {
        let went_up = self.poll_up(cx)?;
        let came_down = self.poll_down(cx)?;
        if self.down.is_done() {
            let whole = self.upload.is_done() && self.up.is_flushed() && !self.up.is_broken;
            return Poll::Ready(Ok(whole && self.down.keeps_wire()));
        }
        if went_up || came_down || mem::take(&mut self.is_new) {
            let due = self.due(Instant::now());
            self.alarm.set(due);
        }
        match self.alarm.poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(self.too_slow())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether anything has moved.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        let mut moved = false;
        loop {
            if !self.up.is_flushed() && !self.up.is_broken {
                match self.up.poll_write(self.wire, cx) {
                    Poll::Pending => return Ok(moved),
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => self.up.is_broken = true,
                }
                moved = true;
                continue;
            }
            if self.upload.is_done() || self.up.is_broken {
                self.poll_client(cx)?;
                return Ok(moved);
            }
            self.up.out.clear();
            self.up.written = 0;
            if self.connection.rest().is_empty() {
                let room = if self.upload.is_long(LARGE as u64) { LARGE } else { INPUT_SIZE };
                match self.connection.poll_more(cx, room) {
                    Poll::Pending => return Ok(moved),
                    Poll::Ready(Ok(n)) if n > 0 => {}
                    Poll::Ready(_) => return Err(Stop::ClientGone),
                }
            }
            let used = self.upload.pass(self.connection.rest(), &mut self.up.out).map_err(|_| Stop::Refused(BAD_CHUNK))?;
            self.connection.consume(used);
            self.upload.fits(self.limits).map_err(Stop::Refused)?;
            moved = true;
        }
    }

    /// Nothing of this request is to come. What the client sends is its next one; or it leaves.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        while self.connection.rest().len() < INPUT_SIZE {
            match self.connection.poll_more(cx, INPUT_SIZE) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Err(Stop::ClientGone),
            }
        }
        // A client that has sent so far ahead is not read, but what it was sent before may not be with it yet.
        match self.connection.poll_settle(cx) {
            Poll::Ready(Err(_)) => Err(Stop::ClientGone),
            _ => Ok(()),
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        let mut moved = false;
        loop {
            if self.down.has_output() {
                match self.down.poll_send(self.connection, cx) {
                    Poll::Pending => return Ok(moved),
                    Poll::Ready(Ok(n)) => self.request.sent += n,
                    Poll::Ready(Err(_)) => return Err(Stop::ClientGone),
                }
            } else if self.down.is_done() {
                return Ok(moved);
            } else if self.down.has_input() {
                self.interpret()?;
            } else {
                match self.down.poll_read(self.wire, cx) {
                    Poll::Pending => return Ok(moved),
                    Poll::Ready(Ok(0)) => self.down.ended().map_err(Stop::Failed)?,
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Err(Stop::Failed(self.broken(&error))),
                }
            }
            moved = true;
        }
    }

    fn broken(&self, error: &io::Error) -> Failure {
        if !self.down.expects_head() || !is_refusal(error) {
            return Failure::Reset;
        }
        if let Some(attempt) = self.request.way.as_ref().and_then(|way| way.forwarding.current()) {
            note_no_tls(attempt.instance(), &words(error));
        }
        Failure::Tls
    }

    /// What has come from the instance and was not looked at.
    fn interpret(&mut self) -> Result<(), Stop> {
        let invalid = |_: Invalid| Stop::Failed(Failure::Invalid);
        if !self.down.expects_head() {
            return self.down.decode().map_err(invalid);
        }
        let Some(length) = self.down.head_length().map_err(invalid)? else { return Ok(()) };
        let read = response::read(self.down.bytes(length), &self.request.head.method).map_err(invalid)?;
        let head = read.head;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked: the bytes behind it would be taken for the next answer.
            return Err(Stop::Failed(Failure::Invalid));
        }
        let mut front = Vec::with_capacity(OUT_USUAL);
        if head.status.is_informational() {
            self.n_interim += 1;
            if self.n_interim > INTERIM_MAX {
                return Err(Stop::Failed(Failure::Invalid));
            }
            read.write(false, |_| {}, &[], &mut front);
            self.down.begin(front, head, length);
            return Ok(());
        }
        let Some(way) = &mut self.request.way else { return Err(Stop::Failed(Failure::Invalid)) };
        let status = head.status.as_u16();
        let method = &self.request.head.method;
        let progress = Progress { method, body_read: self.upload.read, body_lost: self.upload.is_lost, answered: false };
        let pushes_back = read.pushes_back();
        if way.forwarding.retries_status(status, pushes_back, progress) {
            return Err(Stop::Failed(Failure::Status(status)));
        }
        let cookie = way.forwarding.set_cookie();
        self.request.closes |= self.endings.iter().any(|ending| *ending.borrow());
        let (closes, explained) = (self.request.closes, self.request.explained(None));
        let hsts = self.connection.link().listening.hsts.as_deref();
        read.write(
            closes,
            |fields| {
                self.request.edit_response(fields, hsts);
                // What the client remembers its instance by.
                cookie.iter().for_each(|cookie| fields.append("set-cookie", cookie.as_bytes()));
            },
            &explained,
            &mut front,
        );
        self.down.begin(front, head, length);
        if self.down.has_input() {
            // In one system call with the head; or it turns out here that there is nothing to be sent.
            self.down.decode().map_err(invalid)?;
        }
        if let Some(forwarding) = self.request.forwarding() {
            forwarding.answered(status, pushes_back);
        }
        self.request.answered(status);
        self.upload.keep_nothing();
        Ok(())
    }

    fn due(&mut self, now: Instant) -> Instant {
        let Some(Way { policy, is_grpc, .. }) = &self.request.way else { return now };
        let timeouts = &policy.timeouts;
        if self.down.has_output() {
            now + self.limits.answer_progress
        } else if !self.down.expects_head() {
            now + timeouts.idle
        } else if self.is_asked() {
            *self.up.asked.get_or_insert(now) + policy.head_within()
        } else if !self.up.is_flushed() || *is_grpc {
            now + timeouts.idle
        } else {
            now + self.limits.body_progress
        }
    }

    fn too_slow(&self) -> Stop {
        if self.down.has_output() {
            Stop::SlowRead
        } else if self.down.expects_head() && !self.is_asked() && self.up.is_flushed() {
            Stop::Refused(Refusal::SlowBody)
        } else {
            Stop::Failed(Failure::Timeout)
        }
    }

    /// The whole request is with the instance, or as much of it as it takes.
    fn is_asked(&self) -> bool {
        self.up.is_broken || (self.upload.is_done() && self.up.is_flushed())
    }
}

/// Interim responses to one request: hints and progress are few, a flood of them only keeps a connection busy.
pub const INTERIM_MAX: usize = 32;
/// Heads, and small bodies with them.
const OUT_USUAL: usize = 2 * 1024;
/// The buffer of a body that is at least as long.
const LARGE: usize = 64 * 1024;
