//! The body of a request on its way from the client: read by the framing it came in, written in the same framing anew, and
//! kept for a further attempt as long as it is small.

use super::chunks::{self, BadChunk, Chunks};
use crate::config::ClientLimits;
use crate::proxy::head::Framing;
use crate::proxy::reply::Refusal;

#[derive(Debug)]
pub struct Upload {
    coding: Coding,
    /// Bytes of the body that have been read.
    pub read: u64,
    kept: Vec<u8>,
    /// What may be kept.
    room: usize,
    /// More has been read than is kept.
    pub is_lost: bool,
}

#[derive(Debug)]
enum Coding {
    /// So many bytes are still to come.
    Plain(u64),
    Chunked(Box<Chunks>),
}

impl Upload {
    pub fn new(framing: Framing) -> Self {
        let coding = match framing {
            Framing::Nothing => Coding::Plain(0),
            Framing::Length(length) => Coding::Plain(length),
            Framing::Chunked => Coding::Chunked(Box::new(Chunks::new())),
        };
        Self { coding, read: 0, kept: Vec::new(), room: 0, is_lost: false }
    }

    /// Bytes kept for a further attempt.
    pub fn keep(&mut self, room: u64) {
        self.room = usize::try_from(room).unwrap_or(usize::MAX);
    }

    /// There will be no further attempt.
    pub fn keep_nothing(&mut self) {
        self.is_lost = self.read > 0;
        self.room = 0;
        self.kept = Vec::new();
    }

    /// Whether what has been read is no more than a client may send. A length is looked at before anything is read.
    pub fn fits(&self, limits: &ClientLimits) -> Result<(), Refusal> {
        if limits.body_size.is_some_and(|max| self.read > max) { Err(Refusal::BodyTooLarge) } else { Ok(()) }
    }

    pub fn is_done(&self) -> bool {
        match &self.coding {
            Coding::Plain(left) => *left == 0,
            Coding::Chunked(chunks) => chunks.is_done(),
        }
    }

    /// Whether so many bytes or more are certain to come.
    pub fn is_long(&self, bytes: u64) -> bool {
        matches!(self.coding, Coding::Plain(left) if left >= bytes)
    }

    /// Appends to `out` what an instance has to get of these bytes, and says how many of them belong to the body.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, BadChunk> {
        let Self { coding, read, kept, room, is_lost } = self;
        let mut keep = |piece: &[u8]| {
            *read += piece.len() as u64;
            if *is_lost || kept.len() + piece.len() > *room {
                *is_lost = true;
                *kept = Vec::new();
            } else {
                kept.extend_from_slice(piece);
            }
        };
        match coding {
            Coding::Plain(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                keep(&bytes[..n]);
                out.extend_from_slice(&bytes[..n]);
                *left -= n as u64;
                Ok(n)
            }
            Coding::Chunked(chunks) => {
                let used = chunks.decode(bytes, |piece| {
                    keep(piece);
                    chunks::write(piece, out);
                })?;
                if chunks.is_done() {
                    chunks.write_last(out)?;
                }
                Ok(used)
            }
        }
    }

    /// The same for what was read before: the body up to here, for another attempt.
    pub fn repeat(&self, out: &mut Vec<u8>) -> Result<(), BadChunk> {
        match &self.coding {
            Coding::Plain(_) => out.extend_from_slice(&self.kept),
            Coding::Chunked(chunks) => {
                chunks::write(&self.kept, out);
                if chunks.is_done() {
                    chunks.write_last(out)?;
                }
            }
        }
        Ok(())
    }
}
