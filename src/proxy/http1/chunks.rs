//! The chunked coding (RFC 9112 §7.1), read strictly and in pieces of any size.
//!
//! What it leads to is written anew, so nothing that is odd here reaches anybody; still, what two readers could take
//! differently is refused: sizes without digits or too large, line ends that are not CR LF, control characters.

use httparse::Status;

use crate::proxy::forward::may_trail;

/// How far the body has been read.
#[derive(Debug)]
pub struct Chunks {
    at: At,
    /// Of the chunk's size while that is read, of its bytes afterwards.
    left: u64,
    /// Bytes on the line that is read.
    line: usize,
    trailers: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size,
    /// Behind the digits: spaces, then an extension or the end of the line.
    Space,
    Extension,
    SizeFeed,
    Bytes,
    BytesReturn,
    BytesFeed,
    Trailer,
    TrailerFeed,
    End,
}

#[derive(Debug, PartialEq, Eq)]
pub struct BadChunk;

impl Chunks {
    pub fn new() -> Self {
        Self { at: At::Size, left: 0, line: 0, trailers: Vec::new() }
    }

    pub fn is_done(&self) -> bool {
        self.at == At::End
    }

    /// Once it is done: the last chunk anew, with those of the trailers that may go on.
    pub fn write_last(&self, out: &mut Vec<u8>) -> Result<(), BadChunk> {
        if self.trailers.is_empty() {
            out.extend_from_slice(LAST);
            return Ok(());
        }
        let mut room = [httparse::EMPTY_HEADER; TRAILER_FIELDS_MAX];
        let Ok(Status::Complete((_, fields))) = httparse::parse_headers(&self.trailers, &mut room) else { return Err(BadChunk) };
        out.extend_from_slice(b"0\r\n");
        for field in fields.iter().filter(|field| may_trail(field.name)) {
            [field.name.as_bytes(), b": ", field.value, b"\r\n"].iter().for_each(|part| out.extend_from_slice(part));
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Shows the pieces of the body to `put` and says how many bytes it has used: all of them, unless the body has ended.
    pub fn decode(&mut self, bytes: &[u8], mut put: impl FnMut(&[u8])) -> Result<usize, BadChunk> {
        let mut used = 0;
        while used < bytes.len() && self.at != At::End {
            if self.at == At::Bytes {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - used);
                put(&bytes[used..used + n]);
                used += n;
                self.left -= n as u64;
                if self.left == 0 {
                    self.at = At::BytesReturn;
                }
            } else {
                self.step(bytes[used])?;
                used += 1;
            }
        }
        Ok(used)
    }

    fn step(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.line += 1;
        if self.line > LINE_MAX {
            return Err(BadChunk);
        }
        self.at = match (self.at, byte) {
            (At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.line <= DIGITS_MAX => {
                let digit = (byte as char).to_digit(16).ok_or(BadChunk)?;
                self.left = self.left << 4 | u64::from(digit);
                At::Size
            }
            (At::Size, b'\r' | b';' | b' ' | b'\t') if self.line == 1 => return Err(BadChunk),
            (At::Size | At::Space | At::Extension, b'\r') => At::SizeFeed,
            (At::Size | At::Space, b';') => At::Extension,
            (At::Size | At::Space, b' ' | b'\t') => At::Space,
            (At::Extension, b'\t' | b' '..=b'~' | 0x80..) => At::Extension,
            (At::SizeFeed, b'\n') => {
                self.line = 0;
                if self.left == 0 { At::Trailer } else { At::Bytes }
            }
            (At::BytesReturn, b'\r') => At::BytesFeed,
            (At::BytesFeed, b'\n') => {
                self.line = 0;
                At::Size
            }
            (At::Trailer, b'\r') => At::TrailerFeed,
            (At::TrailerFeed, b'\n') if self.line == 2 => {
                if !self.trailers.is_empty() {
                    self.trailers.extend_from_slice(b"\r\n");
                }
                At::End
            }
            (At::TrailerFeed, b'\n') => {
                self.line = 0;
                self.trailers.extend_from_slice(b"\r\n");
                At::Trailer
            }
            (At::Trailer, b'\t' | b' '..=b'~' | 0x80..) if self.trailers.len() < TRAILERS_MAX => {
                self.trailers.push(byte);
                At::Trailer
            }
            _ => return Err(BadChunk),
        };
        Ok(())
    }
}

/// A chunk of its own around a piece of a body.
pub fn write(piece: &[u8], out: &mut Vec<u8>) {
    if piece.is_empty() {
        // It would be the last one.
        return;
    }
    write_size(piece.len(), out);
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
}

/// The line before a piece of that length.
pub fn write_size(length: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[length >> (4 * digit) & 15]));
    out.extend_from_slice(b"\r\n");
}

/// The end of a body without trailers.
pub const LAST: &[u8] = b"0\r\n\r\n";

/// 2⁶⁰ bytes are enough, and cannot overflow.
const DIGITS_MAX: usize = 15;
/// Extensions are used by nobody, but to make a proxy read without end.
const LINE_MAX: usize = 4096;
const TRAILERS_MAX: usize = 8 * 1024;
const TRAILER_FIELDS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is read of it, cut at `cut`, with what follows the body behind a bar; `None`: it is refused.
    fn read(wire: &[u8], cut: usize) -> Option<String> {
        let mut chunks = Chunks::new();
        let mut body = Vec::new();
        let mut rest: Vec<u8> = Vec::new();
        for piece in [&wire[..cut], &wire[cut..]] {
            let used = if chunks.is_done() { 0 } else { chunks.decode(piece, |part| body.extend_from_slice(part)).ok()? };
            rest.extend_from_slice(&piece[used..]);
        }
        let mut last = Vec::new();
        if chunks.is_done() {
            chunks.write_last(&mut last).ok()?;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(format!("{}|{}|{}", text(&body), text(&last).replace("\r\n", "/"), text(&rest)))
    }

    /// The same however it is cut.
    fn check(wire: &str, expected: Option<&str>) {
        for cut in 0..=wire.len() {
            assert_eq!(read(wire.as_bytes(), cut).as_deref(), expected, "{wire:?} cut at {cut}");
        }
    }

    #[test]
    fn bodies_are_read_in_pieces_of_any_size() {
        check("5\r\nhello\r\n0\r\n\r\nGET", Some("hello|0//|GET"));
        check("3\r\nabc\r\n5;x=y\r\ndefgh\r\n00\r\n\r\n", Some("abcdefgh|0//|"));
        check("A;a=\"b c\"\r\n0123456789\r\n0;last\r\n\r\n", Some("0123456789|0//|"));
        check("5  \r\nhello\r\n0 ;x\r\n\r\n", Some("hello|0//|"));
        check("5\r\nhel", Some("hel||"));
    }

    #[test]
    fn trailers_go_on_but_for_those_that_decide() {
        check("0\r\nX-Sum: 1\r\nServer-Timing: a\r\n\r\n", Some("|0/X-Sum: 1/Server-Timing: a//|"));
        check("0\r\nContent-Length: 5\r\nHost: b\r\nX_Forwarded_For: c\r\nX-Pointsman-Attempt: 9\r\n\r\n", Some("|0//|"));
        check("0\r\nno colon\r\n\r\n", None);
        check("0\r\nX : 1\r\n\r\n", None);
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        for wire in [
            "\r\nhello\r\n0\r\n\r\n",
            ";x\r\n\r\n",
            " 5\r\nhello\r\n",
            "5\nhello\r\n",
            "5\rhello\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "0x5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "-5\r\nhello\r\n",
            "5 5\r\nhello\r\n",
            "5;a\0b\r\nhello\r\n",
            "5;a\nb\r\nhello\r\n",
            "0000000000000005\r\nhello\r\n",
            "ffffffffffffffff\r\n",
            "0\r\n\n",
            "0\r\nX: 1\n\r\n",
            "0\r\nX: \u{1}\r\n\r\n",
        ] {
            check(wire, None);
        }
        check(&format!("5;{}\r\nhello\r\n", "x".repeat(5000)), None);
        check(&format!("0\r\nX: {}\r\n\r\n", "x".repeat(9000)), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(pieces in prop::collection::vec("[a-z]{0,40}", 0..8), cut in 0.0..1.0) {
            let mut wire = Vec::new();
            pieces.iter().for_each(|piece| write(piece.as_bytes(), &mut wire));
            wire.extend_from_slice(LAST);
            wire.extend_from_slice(b"next");
            let cut = (wire.len() as f64 * cut) as usize;
            prop_assert_eq!(read(&wire, cut), Some(format!("{}|0//|next", pieces.concat())));
        }

        #[test]
        fn no_bytes_are_read_differently_for_how_they_are_cut(wire in "[0-9a-f;x \\r\\n]{0,60}") {
            let whole = read(wire.as_bytes(), 0);
            for cut in 0..=wire.len() {
                prop_assert_eq!(read(wire.as_bytes(), cut), whole.clone());
            }
        }
    }
}
