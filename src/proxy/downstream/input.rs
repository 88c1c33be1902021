//! What has arrived on a connection and waits: a buffer that exists only while it holds something, where a head ends in
//! it, and what the first bytes of a connection tell.

use std::future::Future;
use std::io;
use std::mem;
use std::pin::pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, ReadBuf};

use super::stream::Stream;

/// Bytes that arrived before somebody asked for them. Without memory while a connection is idle.
#[derive(Default)]
pub struct Input {
    bytes: Vec<u8>,
    taken: usize,
}

impl Input {
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Reads more, up to `room` bytes in all.
    pub fn poll_fill(&mut self, stream: &mut Stream, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        if self.taken > 0 {
            self.bytes.drain(..mem::take(&mut self.taken));
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(INPUT_SIZE);
        } else if self.bytes.len() == self.bytes.capacity() {
            self.bytes.reserve(INPUT_SIZE);
        }
        let room = room.min(self.bytes.capacity()).saturating_sub(self.bytes.len());
        let mut space = bytes::BufMut::limit(&mut self.bytes, room);
        pin!(stream.read_buf(&mut space)).poll(cx)
    }

    pub fn consume(&mut self, n: usize) {
        self.taken = self.bytes.len().min(self.taken + n);
    }

    /// Moves the memory when nothing else is in it.
    pub fn take_vec(&mut self, n: usize) -> Vec<u8> {
        if self.taken == 0 && n == self.bytes.len() {
            return mem::take(&mut self.bytes);
        }
        let taken = self.rest()[..n].to_vec();
        self.consume(n);
        taken
    }

    pub fn put_back(&mut self, mut bytes: Vec<u8>) {
        bytes.extend_from_slice(self.rest());
        *self = Self { bytes, taken: 0 };
    }

    pub fn take(&mut self, buf: &mut ReadBuf<'_>, at_most: usize) -> usize {
        let rest = self.rest();
        let n = at_most.min(rest.len()).min(buf.remaining());
        buf.put_slice(&rest[..n]);
        self.taken += n;
        n
    }

    pub fn release(&mut self) {
        if self.rest().is_empty() {
            *self = Self::default();
        }
    }
}

/// Finds the empty line that ends a head, however it is cut into pieces.
#[derive(Default)]
pub struct HeadScan {
    has_text: bool,
    line_has_text: bool,
}

impl HeadScan {
    /// Where the head ends in these bytes, which follow those of the calls before.
    pub fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.line_has_text => self.line_has_text = false,
                // Empty lines before the request line are no head yet (RFC 9112 §2.2).
                b'\n' if self.has_text => return Some(at + 1),
                b'\n' | b'\r' => {}
                _ => (self.has_text, self.line_has_text) = (true, true),
            }
        }
        None
    }
}

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    Http1,
    Http2,
    /// The beginning of the preface of HTTP/2; more has to come.
    Unclear,
    Closed,
}

pub fn opening(bytes: &[u8]) -> Opening {
    match bytes.len().min(PREFACE.len()) {
        n if bytes[..n] != PREFACE[..n] => Opening::Http1,
        n if n == PREFACE.len() => Opening::Http2,
        _ => Opening::Unclear,
    }
}

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most heads fit four times over; also how far a client may send ahead.
pub const INPUT_SIZE: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_empty_line_however_it_is_cut() {
        for (text, head) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("\r\n\r\nGET / HTTP/1.0\r\n\r\nrest", "\r\n\r\nGET / HTTP/1.0\r\n\r\n"),
            ("GET / HTTP/1.1\nHost: a\n\nrest", "GET / HTTP/1.1\nHost: a\n\n"),
        ] {
            for cut in 0..=text.len() {
                let mut scan = HeadScan::default();
                let (first, second) = text.as_bytes().split_at(cut);
                let end = scan.end(first).or_else(|| scan.end(second).map(|end| cut + end));
                assert_eq!(end, Some(head.len()), "{text:?} cut at {cut}");
            }
        }
        assert_eq!(HeadScan::default().end(b"GET / HTTP/1.1\r\nHost: a\r\n"), None);
    }

    #[test]
    fn the_preface_is_told_from_a_request_by_its_first_bytes() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.0\r\n\r\n"[..], Opening::Http1),
            (b"P", Opening::Unclear),
            (b"PUT /", Opening::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Opening::Unclear),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Opening::Http2),
        ] {
            assert_eq!(opening(bytes), expected, "{bytes:?}");
        }
    }
}
