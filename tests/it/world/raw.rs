//! An upstream that says exactly the bytes it is told to, and remembers those it got.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::client::PATIENCE;

pub struct Raw {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    accepted: Arc<AtomicUsize>,
}

/// An upstream whose queue is full: whoever connects is not answered.
pub struct Deaf {
    pub address: SocketAddr,
    _socket: socket2::Socket,
    _queue: Vec<TcpStream>,
}

impl Deaf {
    pub fn start() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free address");
        socket.listen(0).expect("a listener");
        let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("its address");
        let queue = std::iter::from_fn(|| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()).collect();
        Self { address, _socket: socket, _queue: queue }
    }
}

/// One connection to it.
pub struct Line {
    pub stream: TcpStream,
    rest: Vec<u8>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    /// `talk` runs for each connection, with its number. Its threads end with their connections.
    pub fn start(talk: impl Fn(Line, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free address");
        let address = listener.local_addr().expect("the address of our own listener");
        let (heard, accepted) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default());
        let (talk, remembers, counts) = (Arc::new(talk), heard.clone(), accepted.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (talk, number) = (talk.clone(), counts.fetch_add(1, Ordering::SeqCst));
                stream.set_read_timeout(Some(PATIENCE)).expect("a deadline for reads");
                stream.set_nodelay(true).expect("no delay");
                let line = Line { stream, rest: Vec::new(), heard: remembers.clone() };
                thread::spawn(move || talk(line, number));
            }
        });
        Self { address, heard, accepted }
    }

    /// Answers every request with the same bytes.
    pub fn always(answer: &'static str) -> Self {
        Self::start(move |mut line, _| {
            while line.request().is_some() {
                line.say(answer);
            }
        })
    }

    /// Every whole request so far, head and body as they came.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("no story panics while it holds this").clone()
    }

    /// Requests so far with this method whose heads were all that was read.
    pub fn heard_of(&self, method: &str) -> usize {
        self.heard().iter().filter(|head| head.starts_with(method)).count()
    }

    /// Connections ever accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Line {
    /// The next whole request, by its framing; `None`: the connection has ended.
    pub fn request(&mut self) -> Option<String> {
        let head = self.until("\r\n\r\n")?;
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let body = match length {
            Some(length) => self.exactly(length)?,
            None if lower.contains("transfer-encoding: chunked") => {
                let mut body = String::new();
                loop {
                    let line = self.until("\r\n")?;
                    body += &line;
                    match usize::from_str_radix(line.trim_end(), 16).expect("a size without anything else") {
                        0 => break body + &self.trailers()?,
                        size => body += &self.exactly(size + 2)?,
                    }
                }
            }
            None => String::new(),
        };
        let whole = head + &body;
        self.heard.lock().expect("no story panics while it holds this").push(whole.clone());
        Some(whole)
    }

    /// The next head, whatever follows it.
    pub fn head(&mut self) -> Option<String> {
        let head = self.until("\r\n\r\n")?;
        self.heard.lock().expect("no story panics while it holds this").push(head.clone());
        Some(head)
    }

    pub fn until(&mut self, mark: &str) -> Option<String> {
        loop {
            if let Some(at) = self.rest.windows(mark.len()).position(|w| w == mark.as_bytes()) {
                return Some(String::from_utf8_lossy(&self.rest.drain(..at + mark.len()).collect::<Vec<_>>()).into_owned());
            }
            self.more()?;
        }
    }

    pub fn exactly(&mut self, n: usize) -> Option<String> {
        while self.rest.len() < n {
            self.more()?;
        }
        Some(String::from_utf8_lossy(&self.rest.drain(..n).collect::<Vec<_>>()).into_owned())
    }

    /// A proxy that is gone hears nothing.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    fn trailers(&mut self) -> Option<String> {
        let mut lines = String::new();
        loop {
            let line = self.until("\r\n")?;
            lines += &line;
            if line == "\r\n" {
                return Some(lines);
            }
        }
    }

    fn more(&mut self) -> Option<()> {
        let mut piece = [0; 64 * 1024];
        match self.stream.read(&mut piece) {
            Ok(n) if n > 0 => self.rest.extend_from_slice(&piece[..n]),
            _ => return None,
        }
        Some(())
    }
}
