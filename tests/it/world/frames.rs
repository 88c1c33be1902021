//! A client of HTTP/2, or an instance, that says exactly the frames it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::World;
use super::client::PATIENCE;

pub struct Frames {
    stream: TcpStream,
    held: Vec<u8>,
}

/// One that came back.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl World {
    /// Says the preface and empty SETTINGS, and has read the proxy's.
    pub fn frames(&self) -> Frames {
        self.frames_with(&[])
    }

    pub fn frames_with(&self, settings: &[(u16, u32)]) -> Frames {
        let stream = TcpStream::connect(self.listen).expect("the proxy accepts");
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline for reads");
        stream.set_write_timeout(Some(PATIENCE)).expect("a deadline for writes");
        let mut frames = Frames { stream, held: Vec::new() };
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        let opening = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &payload)].concat();
        assert!(frames.say(opening), "the proxy reads");
        let ours = frames.until(|f| f.kind == SETTINGS && f.flags & ACK != 0);
        assert!(ours.iter().any(|f| f.kind == SETTINGS && f.flags & ACK == 0), "SETTINGS of the proxy: {ours:?}");
        assert!(frames.say(frame(SETTINGS, ACK, 0, &[])), "the proxy reads");
        frames
    }
}

impl Frames {
    /// The other side: an instance that has got a connection. `None`: nobody speaks HTTP/2 on it.
    pub fn of_instance(mut stream: TcpStream) -> Option<Self> {
        stream.read_exact(&mut [0; 24]).ok()?;
        let mut frames = Self { stream, held: Vec::new() };
        frames.say([frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat()).then_some(frames)
    }

    /// `false`: the proxy has closed.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Everything that was said before has been read. `false`: the proxy has closed.
    pub fn is_heard(&mut self) -> bool {
        let is_answer = |f: &Frame| f.kind == PING && f.flags & ACK != 0 && f.payload == MARK;
        self.say(frame(PING, 0, 0, &MARK)) && self.until(is_answer).last().is_some_and(is_answer)
    }

    /// What comes until one is as wanted, or the end.
    pub fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut seen = Vec::new();
        while let Some(frame) = self.next() {
            seen.push(frame);
            if seen.last().is_some_and(&wanted) {
                break;
            }
        }
        seen
    }

    /// Everything until the proxy closes.
    pub fn rest(&mut self) -> Vec<Frame> {
        self.until(|_| false)
    }

    /// `None`: the proxy has closed.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.held.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let (kind, flags) = (head[3], head[4]);
                let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
                if self.held.len() >= 9 + length {
                    let payload = self.held.drain(..9 + length).skip(9).collect();
                    return Some(Frame { kind, flags, stream, payload });
                }
            }
            let mut piece = [0; 16 * 1024];
            match self.stream.read(&mut piece) {
                Ok(n) if n > 0 => self.held.extend_from_slice(&piece[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("nothing came, and the connection is open still")
                }
                _ => return None,
            }
        }
    }
}

impl Frame {
    /// The error of a RST_STREAM or GOAWAY.
    pub fn error(&self) -> Option<u32> {
        let code = match self.kind {
            RST_STREAM => self.payload.first_chunk(),
            GOAWAY => self.payload[4..].first_chunk(),
            _ => None,
        };
        code.map(|code| u32::from_be_bytes(*code))
    }

    pub fn ends_stream(&self) -> bool {
        (matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0) || self.kind == RST_STREAM
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A whole head without a body.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET", path, &[]))
}

/// A head that is followed by DATA.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head("POST", path, &[]))
}

/// The fields of a request, none of them compressed.
pub fn head(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "app.example")];
    usual.iter().chain(fields).flat_map(|(name, value)| field(name, value)).collect()
}

/// A literal that no table remembers.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &string(name), &string(value)].concat()
}

/// A literal that the table remembers.
pub fn remembered(name: &str, value: &str) -> Vec<u8> {
    [&[0x40][..], &string(name), &string(value)].concat()
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = match text.len() {
        short @ 0..127 => vec![short as u8],
        long => {
            let (mut bytes, mut rest) = (vec![127], long - 127);
            while rest >= 128 {
                bytes.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            bytes.push(rest as u8);
            bytes
        }
    };
    bytes.extend(text.bytes());
    bytes
}

/// Of pings that ask whether everything before them was heard.
const MARK: [u8; 8] = *b"heard so";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// Errors.
pub const NO_ERROR: u32 = 0;
pub const ENHANCE_YOUR_CALM: u32 = 11;
