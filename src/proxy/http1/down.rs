//! A response on its way to the client: what has come of it, where it ends, and what of it waits to be written.
//!
//! A body with a length, or one that ends with the connection, is written from the buffer it was read into; chunks are
//! copied between lines of ours.

use std::future::Future;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncReadExt;

use super::chunks::{self, Chunks};
use super::head::HeadEnd;
use super::response::{Ends, Invalid, ResponseHead};
use crate::proxy::attempt::Failure;
use crate::proxy::downstream::Connection;
use crate::proxy::upstream::Wire;

#[derive(Debug)]
pub struct Down {
    input: Vec<u8>,
    taken: usize,
    head_end: HeadEnd,
    stage: Stage,
    /// To be written in this order: ours, so many bytes of the input, ours.
    front: Vec<u8>,
    front_written: usize,
    payload: usize,
    tail: &'static [u8],
    keeps_wire: bool,
    /// The last read filled the buffer: there is more where that came from.
    was_full: bool,
}

#[derive(Debug)]
enum Stage {
    Head,
    /// So many bytes are still to come.
    Plain(u64),
    Chunked(Box<Chunks>),
    UntilEnd,
    Done,
}

impl Down {
    pub fn new() -> Self {
        Self {
            input: Vec::new(),
            taken: 0,
            head_end: HeadEnd::default(),
            stage: Stage::Head,
            front: Vec::new(),
            front_written: 0,
            payload: 0,
            tail: &[],
            keeps_wire: false,
            was_full: false,
        }
    }

    pub fn expects_head(&self) -> bool {
        matches!(self.stage, Stage::Head)
    }

    pub fn has_output(&self) -> bool {
        self.front_written < self.front.len() || self.payload > 0 || !self.tail.is_empty()
    }

    /// Whole, and written.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done) && !self.has_output()
    }

    /// Bytes that were not looked at.
    pub fn has_input(&self) -> bool {
        match self.stage {
            Stage::Head => !self.head_end.has_seen(self.input.len() - self.taken),
            _ => self.taken < self.input.len(),
        }
    }

    /// Nothing came behind the response, and nobody said that nothing should.
    pub fn keeps_wire(&self) -> bool {
        self.keeps_wire && self.taken == self.input.len()
    }

    /// Of the head that has come, if it has come whole.
    pub fn head_length(&mut self) -> Result<Option<usize>, Invalid> {
        let length = self.head_end.find(&self.input[self.taken..]).map_err(|_| Invalid)?;
        if length.unwrap_or(self.input.len() - self.taken) > HEAD_SIZE_MAX {
            return Err(Invalid);
        }
        Ok(length)
    }

    /// The next so many bytes.
    pub fn bytes(&self, n: usize) -> &[u8] {
        &self.input[self.taken..self.taken + n]
    }

    /// `front`: the head of so many bytes as the client gets it.
    pub fn begin(&mut self, front: Vec<u8>, head: ResponseHead, length: usize) {
        self.front = front;
        self.taken += length;
        self.head_end = HeadEnd::default();
        if head.status.is_informational() {
            return;
        }
        self.keeps_wire = head.keeps;
        self.stage = match head.body {
            Ends::After(0) => Stage::Done,
            Ends::After(length) => Stage::Plain(length),
            Ends::WithLastChunk => Stage::Chunked(Box::new(Chunks::new())),
            Ends::WithConnection => Stage::UntilEnd,
        };
    }

    /// Turns bytes of the body into output.
    pub fn decode(&mut self) -> Result<(), Invalid> {
        let rest = &self.input[self.taken..];
        match &mut self.stage {
            Stage::Plain(left) => {
                self.payload = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= self.payload as u64;
                if *left == 0 {
                    self.stage = Stage::Done;
                }
            }
            Stage::UntilEnd => {
                self.payload = rest.len();
                chunks::write_size(self.payload, &mut self.front);
                self.tail = b"\r\n";
            }
            Stage::Chunked(chunks) => {
                let front = &mut self.front;
                self.taken += chunks.decode(rest, |piece| chunks::write(piece, front)).map_err(|_| Invalid)?;
                if chunks.is_done() {
                    chunks.write_last(front).map_err(|_| Invalid)?;
                    self.stage = Stage::Done;
                }
            }
            Stage::Head | Stage::Done => {}
        }
        Ok(())
    }

    /// The instance has closed.
    pub fn ended(&mut self) -> Result<(), Failure> {
        match self.stage {
            Stage::UntilEnd => {
                self.tail = chunks::LAST;
                self.stage = Stage::Done;
                Ok(())
            }
            _ => Err(Failure::Reset),
        }
    }

    /// Writes what it can, and says how much of the body that was.
    pub fn poll_send(&mut self, connection: &mut Connection, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let payload = &self.input[self.taken..self.taken + self.payload];
        let pieces = [&self.front[self.front_written..], payload, self.tail];
        let mut slices = [IoSlice::new(&[]); 3];
        let mut n_slices = 0;
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            slices[n_slices] = IoSlice::new(piece);
            n_slices += 1;
        }
        let sent = ready!(connection.poll_send(cx, &slices[..n_slices]))?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(self.advance(sent)))
    }

    fn advance(&mut self, sent: usize) -> u64 {
        let of_front = sent.min(self.front.len() - self.front_written);
        self.front_written += of_front;
        let of_payload = (sent - of_front).min(self.payload);
        self.payload -= of_payload;
        self.taken += of_payload;
        self.tail = &self.tail[sent - of_front - of_payload..];
        if self.front_written == self.front.len() {
            self.front.clear();
            self.front_written = 0;
        }
        of_payload as u64
    }

    /// 0 is the end.
    pub fn poll_read(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Before there is anything to read there is no need of a buffer.
        ready!(wire.stream().poll_read_ready(cx))?;
        if self.taken > 0 {
            self.input.drain(..mem::take(&mut self.taken));
        }
        if self.input.capacity() == 0 {
            self.input.reserve_exact(INPUT_USUAL);
        } else if self.was_full {
            self.input.reserve(INPUT_LARGE);
        }
        let room = self.input.capacity() - self.input.len();
        let mut space = bytes::BufMut::limit(&mut self.input, room);
        let read = ready!(pin!(wire.stream().read_buf(&mut space)).poll(cx))?;
        self.was_full = read == room;
        Poll::Ready(Ok(read))
    }
}

/// Heads of responses fit many times over.
const INPUT_USUAL: usize = 16 * 1024;
/// For bodies that come faster than that.
const INPUT_LARGE: usize = 64 * 1024;
/// An instance is ours, so this only keeps a broken one from filling the memory.
const HEAD_SIZE_MAX: usize = 256 * 1024;
