//! WebSocket: whatever comes goes back.

use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::debug;

use super::answer::{Answer, text};
use super::body;
use super::connection::Link;
use super::instance::Stage;
use super::stopping;

/// Answers 101 and leaves the connection to [`echo`].
pub fn accept(mut request: Request<Incoming>, link: &Link) -> Answer {
    let fields = request.headers();
    let asked = fields.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let (true, Some(key)) = (asked, fields.get(SEC_WEBSOCKET_KEY)) else {
        return text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket\n".to_owned());
    };
    let Ok(accepted) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return text(StatusCode::BAD_REQUEST, "no usable Sec-WebSocket-Key\n".to_owned());
    };
    link.becomes_websocket(hyper::upgrade::on(&mut request));
    let mut answer = Response::new(body::full(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accepted);
    answer
}

/// Echoes until the client closes; says 1001 (going away) when the service stops.
pub async fn echo(upgrade: OnUpgrade, mut stage: watch::Receiver<Stage>) {
    let stream = match upgrade.await {
        Ok(stream) => TokioIo::new(stream),
        Err(error) => return debug!(%error, "An upgrade did not come about"),
    };
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = stopping(&mut stage) => {
                let _ = socket.close(Some(CloseFrame { code: CloseCode::Away, reason: "stopping".into() })).await;
                return;
            }
        };
        let sent = match message {
            Some(Ok(message)) if message.is_text() || message.is_binary() => socket.send(message).await,
            // Pings and closes are answered by the library as it reads and flushes.
            Some(Ok(_)) => socket.flush().await,
            Some(Err(error)) => Err(error),
            None => return,
        };
        match sent {
            Ok(()) => {}
            Err(Error::ConnectionClosed) => return,
            Err(error) => return debug!(%error, "A WebSocket ended early"),
        }
    }
}

/// The largest message held to be sent back.
const MESSAGE_MAX: usize = 16 << 20;
