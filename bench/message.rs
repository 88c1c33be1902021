//! HTTP/1.1 messages as they arrive: a head, then a body of known length, in chunks, or up to the close. Read for
//! speed and for both directions; it trusts the other side, which is always ours or a proxy under measurement.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

#[derive(Debug)]
pub enum Broken {
    Reset,
    /// Closed where a message had to start, or in its middle.
    Closed,
    Malformed,
}

pub struct Head {
    /// 0 if this is a request.
    pub status: u16,
    pub body: Body,
    pub keeps_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

/// What was read from one connection and not used yet.
pub struct Inbox {
    bytes: Box<[u8]>,
    used: usize,
    filled: usize,
    head: Vec<u8>,
}

impl Inbox {
    pub fn new() -> Self {
        Self { bytes: vec![0; SIZE].into(), used: 0, filled: 0, head: Vec::new() }
    }

    /// The next head.
    pub async fn head(&mut self, stream: &mut TcpStream) -> Result<Head, Broken> {
        loop {
            let waiting = &self.bytes[self.used..self.filled];
            if let Some(end) = find(waiting, b"\r\n\r\n") {
                self.head.clear();
                self.head.extend_from_slice(&waiting[..end + 4]);
                self.used += end + 4;
                return parse(&self.head).ok_or(Broken::Malformed);
            }
            self.more(stream).await?;
        }
    }

    /// A field of the last head.
    pub fn field(&self, name: &str) -> Option<&str> {
        fields(&self.head).find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).and_then(|(_, value)| text(value))
    }

    /// Reads the body to its end and hands it on piece by piece.
    pub async fn body(&mut self, stream: &mut TcpStream, body: Body, mut piece: impl FnMut(&[u8])) -> Result<(), Broken> {
        match body {
            Body::Length(n) => self.exactly(stream, n, &mut piece).await,
            Body::Chunked => self.chunks(stream, &mut piece).await,
            Body::UntilClose => loop {
                piece(&self.bytes[self.used..self.filled]);
                self.used = self.filled;
                match self.more(stream).await {
                    Ok(()) => {}
                    Err(Broken::Closed) => return Ok(()),
                    Err(broken) => return Err(broken),
                }
            },
        }
    }

    async fn exactly(&mut self, stream: &mut TcpStream, mut n: u64, piece: &mut impl FnMut(&[u8])) -> Result<(), Broken> {
        while n > 0 {
            if self.used == self.filled {
                self.more(stream).await?;
            }
            let here = (self.filled - self.used).min(usize::try_from(n).unwrap_or(usize::MAX));
            piece(&self.bytes[self.used..self.used + here]);
            self.used += here;
            n -= here as u64;
        }
        Ok(())
    }

    async fn chunks(&mut self, stream: &mut TcpStream, piece: &mut impl FnMut(&[u8])) -> Result<(), Broken> {
        loop {
            let line = self.line(stream).await?;
            let size = line.split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(size.trim(), 16).map_err(|_| Broken::Malformed)?;
            if size == 0 {
                // Trailers, up to the empty line.
                while !self.line(stream).await?.is_empty() {}
                return Ok(());
            }
            self.exactly(stream, size, piece).await?;
            self.exactly(stream, 2, &mut |_| {}).await?;
        }
    }

    async fn line(&mut self, stream: &mut TcpStream) -> Result<String, Broken> {
        loop {
            let waiting = &self.bytes[self.used..self.filled];
            if let Some(end) = find(waiting, b"\r\n") {
                let line = text(&waiting[..end]).ok_or(Broken::Malformed)?.to_owned();
                self.used += end + 2;
                return Ok(line);
            }
            self.more(stream).await?;
        }
    }

    async fn more(&mut self, stream: &mut TcpStream) -> Result<(), Broken> {
        if self.used > 0 {
            self.bytes.copy_within(self.used..self.filled, 0);
            self.filled -= self.used;
            self.used = 0;
        }
        if self.filled == self.bytes.len() {
            return Err(Broken::Malformed);
        }
        match stream.read(&mut self.bytes[self.filled..]).await {
            Ok(0) => Err(Broken::Closed),
            Ok(n) => {
                self.filled += n;
                Ok(())
            }
            Err(_) => Err(Broken::Reset),
        }
    }
}

fn parse(head: &[u8]) -> Option<Head> {
    let is_answer = head.starts_with(b"HTTP/");
    let status = if is_answer { text(head.get(9..12)?)?.parse().ok()? } else { 0 };
    let mut parsed = Head { status, body: if is_answer { Body::UntilClose } else { Body::Length(0) }, keeps_alive: true };
    for (name, value) in fields(head) {
        if name.eq_ignore_ascii_case(b"content-length") {
            parsed.body = Body::Length(text(value)?.parse().ok()?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            parsed.body = Body::Chunked;
        } else if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
            parsed.keeps_alive = false;
        }
    }
    if matches!(status, 100..=199 | 204 | 304) {
        parsed.body = Body::Length(0);
    }
    if parsed.body == Body::UntilClose {
        parsed.keeps_alive = false;
    }
    Some(parsed)
}

fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Room for a head or a piece of a body.
const SIZE: usize = 64 << 10;
