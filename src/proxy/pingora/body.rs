//! The body of an HTTP/1 request on its way into Pingora, whose reader of chunks takes an empty line for the last one and a line
//! feed for a part of an extension. What it gets is written anew from what our own reader has understood, and ends where the body
//! ends: what follows is the next request, and waits in the connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::time::{Sleep, sleep};

use crate::proxy::downstream::{Connection, INPUT_SIZE, Phase};
use crate::proxy::http1::Upload;
use crate::proxy::limits::{Limit, UNREAD_BODY};

pub struct Body {
    upload: Upload,
    /// Understood, and not yet taken.
    plain: Vec<u8>,
    taken: usize,
    /// Once the answer is out, what is left has so much time.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Body {
    pub fn new(upload: Upload) -> Self {
        Self { upload, plain: Vec::new(), taken: 0, alarm: None }
    }

    /// All of it has been taken.
    pub fn is_done(&self) -> bool {
        self.upload.is_done() && self.taken == self.plain.len()
    }

    pub fn poll_read(
        &mut self,
        connection: &mut Connection,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let rest = &self.plain[self.taken..];
            if !rest.is_empty() {
                let n = rest.len().min(buf.remaining());
                buf.put_slice(&rest[..n]);
                self.taken += n;
                return Poll::Ready(Ok(()));
            }
            if self.upload.is_done() {
                return connection.poll_probe(cx);
            }
            if connection.link().phase() == Phase::Answer {
                // Whoever asks only wants to know whether the client is there.
                return connection.poll_probe(cx);
            }
            if connection.link().phase() == Phase::Rest {
                let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(UNREAD_BODY)));
                if alarm.as_mut().poll(cx).is_ready() {
                    connection.link().stats.limits.count(Limit::UnreadBody);
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            if connection.rest().is_empty() && ready!(connection.poll_more(cx, INPUT_SIZE))? == 0 {
                return Poll::Ready(Ok(()));
            }
            self.plain.clear();
            self.taken = 0;
            let used = self.upload.pass(connection.rest(), &mut self.plain).map_err(|_| {
                connection.link().body_is_odd();
                io::Error::from(io::ErrorKind::InvalidData)
            })?;
            connection.consume(used);
        }
    }
}
