//! A WebSocket through the proxy.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use super::World;
use super::client::PATIENCE;

pub struct WebSocket(WebSocketStream<TcpStream>);

impl World {
    pub fn websocket(&self, path: &str) -> WebSocket {
        self.handle().block_on(WebSocket::open(self.listen, path)).unwrap_or_else(|error| panic!("a WebSocket: {error}"))
    }

    /// The status of an answer that is no WebSocket.
    pub fn websocket_refused(&self, path: &str) -> u16 {
        let refused = async {
            let stream = TcpStream::connect(self.listen).await.expect("the proxy accepts");
            match tokio_tungstenite::client_async(format!("ws://app.example{path}"), stream).await {
                Err(tungstenite::Error::Http(answer)) => answer.status().as_u16(),
                other => panic!("{other:?} in place of a refusal"),
            }
        };
        self.handle().block_on(async { timeout(PATIENCE, refused).await.expect("an answer in time") })
    }

    /// Says it and hears what comes back.
    pub fn echo(&self, socket: &mut WebSocket, said: &str) -> Result<String, String> {
        self.handle().block_on(socket.echo(said))
    }
}

impl WebSocket {
    pub async fn open(to: std::net::SocketAddr, path: &str) -> Result<Self, String> {
        let open = async {
            let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
            let opened = tokio_tungstenite::client_async(format!("ws://app.example{path}"), stream).await;
            opened.map(|(socket, _)| Self(socket)).map_err(|error| error.to_string())
        };
        timeout(PATIENCE, open).await.map_err(|_| "not open in time".to_owned())?
    }

    /// Waits until the other side ends it. How long that took, at most `PATIENCE`.
    pub async fn ends(mut self) -> Duration {
        let began = Instant::now();
        let _ = timeout(PATIENCE, async { while self.0.next().await.is_some_and(|said| said.is_ok()) {} }).await;
        began.elapsed()
    }

    /// Waits until the other side ends it, and says with which code it did.
    pub async fn close_code(mut self) -> Option<u16> {
        let ends = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                    Some(Ok(_)) => {}
                    _ => return None,
                }
            }
        };
        timeout(PATIENCE, ends).await.ok().flatten()
    }

    pub async fn echo(&mut self, said: &str) -> Result<String, String> {
        let exchange = async {
            self.0.send(Message::text(said)).await.map_err(|error| error.to_string())?;
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => Ok(text.to_string()),
                other => Err(format!("{other:?} in place of an echo")),
            }
        };
        timeout(PATIENCE, exchange).await.map_err(|_| "no echo in time".to_owned())?
    }
}
