//! Answers that are known as a whole, and answers that are written while they leave.
//!
//! A long answer (100,000 instances are tens of megabytes) is written piece by piece by a task of its own, which waits
//! whenever `PIECES_WAITING` of them have not left yet: memory stays small and the runtime is never held for long.
//! An answer that was not finished breaks the connection, so that nobody takes a part for the whole.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

pub enum Body {
    Whole(Bytes),
    Pieces(mpsc::Receiver<Piece>),
    Finished,
}

pub enum Piece {
    More(Bytes),
    Last,
}

impl Body {
    /// `write` runs in a task of its own until it ends or nobody reads any more.
    pub fn in_pieces<W, F>(write: W) -> Self
    where
        W: FnOnce(Outlet) -> F,
        F: Future<Output = Result<(), Gone>> + Send + 'static,
    {
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
        let writing = write(Outlet { pieces: pieces.clone() });
        tokio::spawn(async move {
            if writing.await.is_ok() {
                // Whoever has gone needs no end.
                let _ = pieces.send(Piece::Last).await;
            }
        });
        Self::Pieces(waiting)
    }
}

/// Where the pieces of an answer go.
pub struct Outlet {
    pieces: mpsc::Sender<Piece>,
}

/// Nobody reads the answer any more.
#[derive(Debug)]
pub struct Gone;

impl Outlet {
    /// Sends what was gathered if it is enough for a piece, and gives way to others now and then.
    pub async fn pass(&self, gathered: &mut String) -> Result<(), Gone> {
        tokio::task::coop::consume_budget().await;
        if gathered.len() < PIECE_SIZE {
            return Ok(());
        }
        self.send(std::mem::take(gathered)).await
    }

    /// Waits until nobody reads any more.
    pub async fn gone(&self) {
        self.pieces.closed().await;
    }

    pub async fn send(&self, text: String) -> Result<(), Gone> {
        self.pieces.send(Piece::More(text.into())).await.map_err(|_| Gone)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let piece = match this {
            Self::Whole(bytes) => Some(Piece::More(std::mem::take(bytes))),
            Self::Pieces(waiting) => ready!(waiting.poll_recv(cx)),
            Self::Finished => return Poll::Ready(None),
        };
        if !matches!((&*this, &piece), (Self::Pieces(_), Some(Piece::More(_)))) {
            *this = Self::Finished;
        }
        Poll::Ready(match piece {
            Some(Piece::More(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Piece::Last) => None,
            None => Some(Err(io::Error::other("the answer was not finished"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Pieces(_) => false,
            Self::Finished => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(_) => SizeHint::default(),
            Self::Finished => SizeHint::with_exact(0),
        }
    }
}

pub const PIECE_SIZE: usize = 32 * 1024;
const PIECES_WAITING: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn pieces_arrive_in_order_and_end() {
        let body = Body::in_pieces(|out| async move {
            for n in 0..100 {
                out.send(format!("{n} ")).await?;
            }
            Ok(())
        });
        let all = body.collect().await.unwrap().to_bytes();
        assert_eq!(all, (0..100).map(|n| format!("{n} ")).collect::<String>());
    }

    #[tokio::test]
    async fn an_unfinished_answer_is_an_error() {
        let body = Body::in_pieces(|out| async move {
            out.send("half".to_owned()).await?;
            Err(Gone)
        });
        assert!(body.collect().await.is_err());
    }

    #[tokio::test]
    async fn a_writer_stops_when_nobody_reads() {
        let (told, stopped) = tokio::sync::oneshot::channel();
        let mut body = Body::in_pieces(|out| async move {
            while out.send("x".to_owned()).await.is_ok() {}
            told.send(()).map_err(|()| Gone)
        });
        body.frame().await.unwrap().unwrap();
        drop(body);
        stopped.await.unwrap();
    }
}
