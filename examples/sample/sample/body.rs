//! The bodies it answers with. None is ever whole in memory, whatever its size.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::HeaderMap;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};

pub type Failure = Box<dyn Error + Send + Sync>;
pub type AnswerBody = UnsyncBoxBody<Bytes, Failure>;

pub fn full(bytes: impl Into<Bytes>) -> AnswerBody {
    boxed(Full::new(bytes.into()))
}

pub fn boxed<B>(body: B) -> AnswerBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Failure>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// `n` bytes, announced with their length.
pub fn page(n: u64) -> AnswerBody {
    boxed(Page { left: n })
}

/// Pieces with a pause before each but the first; ends early once `until` is ready.
pub fn paced(
    n: u64,
    pause: Duration,
    piece: impl Fn(u64) -> Bytes + Send + 'static,
    until: impl Future<Output = ()> + Send + 'static,
) -> AnswerBody {
    let until = Box::pin(until);
    let pieces = stream::unfold((0, piece, until), move |(sent, piece, mut until)| async move {
        if sent == n {
            return None;
        }
        if sent > 0 {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = until.as_mut() => return None,
            }
        }
        let frame = Frame::data(piece(sent + 1));
        Some((Ok::<_, Infallible>(frame), (sent + 1, piece, until)))
    });
    boxed(StreamBody::new(pieces))
}

/// A text and, after it, trailers.
pub fn with_trailers(text: &'static str, trailers: HeaderMap) -> AnswerBody {
    let frames = [Frame::data(Bytes::from_static(text.as_bytes())), Frame::trailers(trailers)];
    boxed(StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>))))
}

/// Its first half, and then the connection breaks.
pub fn half(text: &'static str) -> AnswerBody {
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(text.as_bytes())))]);
    let broken = stream::once(async {
        // What was not sent when the connection breaks is lost with it.
        tokio::time::sleep(HALF_OUT).await;
        Err::<Frame<Bytes>, Failure>("asked to break".into())
    });
    boxed(StreamBody::new(first.chain(broken)))
}

/// A request's body of which the first piece has arrived.
pub async fn begun(mut body: Incoming) -> Result<AnswerBody, hyper::Error> {
    let first = body.frame().await.transpose()?;
    let pieces = stream::iter(first.map(Ok)).chain(BodyStream::new(body));
    Ok(boxed(StreamBody::new(pieces)))
}

/// Reads a whole body; its length and its Adler-32, which a lost, doubled or misplaced byte changes.
pub async fn sum(mut body: Incoming) -> Result<(u64, u32), hyper::Error> {
    let (mut n, mut low, mut high) = (0_u64, 1_u32, 0_u32);
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame?.into_data() else { continue };
        n += bytes.len() as u64;
        for run in bytes.chunks(ADLER_RUN) {
            for byte in run {
                low += u32::from(*byte);
                high += low;
            }
            low %= ADLER_MODULUS;
            high %= ADLER_MODULUS;
        }
    }
    Ok((n, high << 16 | low))
}

/// One static page, repeated.
struct Page {
    left: u64,
}

impl Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let n = self.left.min(PAGE.len() as u64);
        self.left -= n;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PAGE[..n as usize])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

const HALF_OUT: Duration = Duration::from_millis(5);
static PAGE: [u8; 64 << 10] = [b'.'; 64 << 10];
const ADLER_MODULUS: u32 = 65_521;
/// The longest run of bytes after which `high` still fits its 32 bits.
const ADLER_RUN: usize = 5_552;
