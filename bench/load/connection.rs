//! One client connection: a request goes out in one write, its answer comes back whole or as a [`Failure`].

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Failure;
use crate::message::{Broken, Inbox};

/// A request, spelt out once and sent often.
#[derive(Clone)]
pub struct Request {
    bytes: Vec<u8>,
    /// Pages of body still to be sent after `bytes`.
    body_left: u64,
}

impl Request {
    pub fn new(method: &str, host: &str, path: &str, body: u64, close: bool) -> Self {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
        if body > 0 {
            head += &format!("content-length: {body}\r\n");
        }
        if close {
            head += "connection: close\r\n";
        }
        let mut bytes = (head + "\r\n").into_bytes();
        let at_once = body.min(PAGE.len() as u64);
        bytes.extend_from_slice(&PAGE[..at_once as usize]);
        Self { bytes, body_left: body - at_once }
    }

    pub fn get(host: &str, path: &str) -> Self {
        Self::new("GET", host, path, 0, false)
    }
}

pub struct Answer {
    pub status: u16,
    pub keeps_alive: bool,
}

pub struct Connection {
    stream: TcpStream,
    inbox: Inbox,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let connecting = timeout(PATIENCE, TcpStream::connect(address)).await;
        let stream = connecting.map_err(|_| Failure::Timeout)?.map_err(|_| Failure::Connect)?;
        let _ = stream.set_nodelay(true);
        Ok(Self { stream, inbox: Inbox::new() })
    }

    pub async fn exchange(&mut self, request: &Request) -> Result<Answer, Failure> {
        self.exchange_into(request, |_| {}).await
    }

    /// After it, [`Self::field`] reads the answer's head.
    pub async fn exchange_into(&mut self, request: &Request, piece: impl FnMut(&[u8])) -> Result<Answer, Failure> {
        timeout(PATIENCE, self.untimed(request, piece)).await.map_err(|_| Failure::Timeout)?.map_err(Failure::from)
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.inbox.field(name)
    }

    /// The body is written whole before the answer is read: not for services that answer as they read.
    async fn untimed(&mut self, request: &Request, piece: impl FnMut(&[u8])) -> Result<Answer, Broken> {
        self.stream.write_all(&request.bytes).await.map_err(|_| Broken::Reset)?;
        let mut left = request.body_left;
        while left > 0 {
            let n = left.min(PAGE.len() as u64);
            self.stream.write_all(&PAGE[..n as usize]).await.map_err(|_| Broken::Reset)?;
            left -= n;
        }
        let mut head = self.inbox.head(&mut self.stream).await?;
        while head.status < 200 {
            head = self.inbox.head(&mut self.stream).await?;
        }
        self.inbox.body(&mut self.stream, head.body, piece).await?;
        Ok(Answer { status: head.status, keeps_alive: head.keeps_alive })
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Reset => Self::Reset,
            Broken::Closed => Self::Closed,
            Broken::Malformed => Self::Malformed,
        }
    }
}

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
static PAGE: [u8; 64 << 10] = [b'.'; 64 << 10];
