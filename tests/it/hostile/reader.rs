//! An instance that reads requests as strictly as anybody could: whatever the RFCs leave to a reader is odd to it, and it says so.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Answers each whole request with 200 and remembers it as `METHOD TARGET [BODY] [+TRAILER…]`.
pub struct Instance {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Instance {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free address");
        let address = listener.local_addr().expect("the address of our own listener");
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let remembers = heard.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let remembers = remembers.clone();
                stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline for reads");
                thread::spawn(move || serve(stream, &remembers));
            }
        });
        Self { address, heard }
    }

    /// What it has heard since it was asked last. Each request was remembered before it was answered.
    pub fn forget(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.lock().expect("no story panics while it holds this"))
    }
}

/// Its threads end with their connections.
fn serve(mut stream: TcpStream, heard: &Mutex<Vec<String>>) {
    let mut rest = Vec::new();
    loop {
        let seen = match read(&mut rest, &mut stream) {
            Err(End::Closed) => return,
            Err(End::Odd(what)) => Err(format!("ODD {what}")),
            Ok(seen) => Ok(seen),
        };
        let goes_on = seen.is_ok();
        heard.lock().expect("no story panics while it holds this").push(seen.unwrap_or_else(|odd| odd));
        // A proxy that is gone hears nothing.
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        if !goes_on {
            return;
        }
    }
}

enum End {
    Closed,
    Odd(String),
}

fn odd<T>(what: &str, said: &[u8]) -> Result<T, End> {
    Err(End::Odd(format!("{what}: {:?}", String::from_utf8_lossy(said))))
}

fn read(rest: &mut Vec<u8>, stream: &mut TcpStream) -> Result<String, End> {
    let first = line(rest, stream)?;
    let [method, target, b"HTTP/1.1"] = first.split(|b| *b == b' ').collect::<Vec<_>>()[..] else {
        return odd("request line", &first);
    };
    let is_target = target == b"*" || target.starts_with(b"/");
    if !is_token(method) || !is_target || target.iter().any(|b| *b <= b' ' || *b == 0x7f) {
        return odd("request line", &first);
    }
    let fields = fields(rest, stream, &NEVER_SENT)?;
    let value = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
    for once in ["host", "x-forwarded-for", "x-forwarded-proto", "x-request-id", "via", "traceparent"] {
        if value(once).len() != 1 {
            return odd(once, value(once).join(" and ").as_bytes());
        }
    }
    let mut seen = format!("{} {}", text(method), text(target));
    let (lengths, codings) = (value("content-length"), value("transfer-encoding"));
    let body = match (&lengths[..], &codings[..]) {
        ([], []) => Vec::new(),
        ([length], []) if length.parse::<usize>().is_ok_and(|n| n.to_string() == *length) => {
            exactly(length.parse().unwrap_or_default(), rest, stream)?
        }
        ([], [coding]) if coding == "chunked" => chunks(rest, stream, &mut seen)?,
        _ => return odd("framing", format!("{lengths:?} {codings:?}").as_bytes()),
    };
    if !body.is_empty() {
        seen = format!("{seen} {}", text(&body));
    }
    Ok(seen)
}

fn fields(rest: &mut Vec<u8>, stream: &mut TcpStream, never: &[&str]) -> Result<Vec<(String, String)>, End> {
    let mut fields = Vec::new();
    loop {
        let line = line(rest, stream)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let Some(at) = line.windows(2).position(|w| w == b": ") else { return odd("field", &line) };
        let (name, value) = (&line[..at], &line[at + 2..]);
        let name = text(name).to_ascii_lowercase();
        let is_plain = value.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f)) && value.trim_ascii() == value;
        if !is_token(name.as_bytes()) || !is_plain || never.contains(&&*name.replace('_', "-")) {
            return odd("field", &line);
        }
        // What a reader that takes `_` for `-` would see.
        if name.contains('_') && [&NEVER_SENT[..], &NEVER_TWICE].concat().contains(&&*name.replace('_', "-")) {
            return odd("a twin", &line);
        }
        fields.push((name, text(value)));
    }
}

fn chunks(rest: &mut Vec<u8>, stream: &mut TcpStream, seen: &mut String) -> Result<Vec<u8>, End> {
    let mut body = Vec::new();
    loop {
        let size = line(rest, stream)?;
        let Some(n) =
            usize::from_str_radix(&text(&size), 16).ok().filter(|n| format!("{n:x}").as_bytes() == size.to_ascii_lowercase())
        else {
            return odd("chunk size", &size);
        };
        if n == 0 {
            for (name, _) in fields(rest, stream, &NEVER_TRAILING)? {
                *seen += &format!(" +{name}");
            }
            return Ok(body);
        }
        body.extend(exactly(n, rest, stream)?);
        match &exactly(2, rest, stream)?[..] {
            b"\r\n" => {}
            other => return odd("behind a chunk", other),
        }
    }
}

/// Without its line end, which is CR LF; there is no other CR or LF in it.
fn line(rest: &mut Vec<u8>, stream: &mut TcpStream) -> Result<Vec<u8>, End> {
    loop {
        if let Some(at) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=at).collect();
            return match line.strip_suffix(b"\r\n") {
                Some(line) if !line.contains(&b'\r') => Ok(line.to_vec()),
                _ => odd("line end", &line),
            };
        }
        more(rest, stream)?;
    }
}

fn exactly(n: usize, rest: &mut Vec<u8>, stream: &mut TcpStream) -> Result<Vec<u8>, End> {
    while rest.len() < n {
        more(rest, stream)?;
    }
    Ok(rest.drain(..n).collect())
}

fn more(rest: &mut Vec<u8>, stream: &mut TcpStream) -> Result<(), End> {
    let mut piece = [0; 16 * 1024];
    match stream.read(&mut piece) {
        Ok(n) if n > 0 => {
            rest.extend_from_slice(&piece[..n]);
            Ok(())
        }
        _ => Err(End::Closed),
    }
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Of the client's connection, or for us alone.
const NEVER_SENT: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "http2-settings",
    "expect",
    "x-real-ip",
    "x-pointsman-debug",
    "x-forwarded-port",
];
/// Stand once; nobody may add another of them under a name that looks alike.
const NEVER_TWICE: [&str; 8] = [
    "host",
    "content-length",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
    "te",
];
const NEVER_TRAILING: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
    "trailer",
    "authorization",
    "cookie",
    "x-forwarded-for",
    "x-request-id",
    "content-type",
    "expect",
];
