//! One request from its head on: its route, its attempts, and the answer, whoever gives it.

use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::debug;

use super::Engine;
use super::answer;
use super::down::Down;
use super::head::Head;
use super::request::{Request, Way};
use super::transfer::{Stop, Transfer, Up};
use super::upload::Upload;
use crate::model::ServicePolicy;
use crate::proxy::arrival::Arrival;
use crate::proxy::attempt::{Next, Progress};
use crate::proxy::downstream::{Connection, INPUT_SIZE};
use crate::proxy::introduction::for_instance;
use crate::proxy::limits::{Limit, SLOW_READ, UNREAD_BODY};
use crate::proxy::reply::{CLIENT_GONE, Refusal};
use crate::proxy::upstream::{Wire, connect};

/// What becomes of the connection.
#[derive(Debug)]
pub enum After {
    NextRequest,
    /// `hear_out`: the client may be sending still.
    Close {
        hear_out: bool,
    },
    /// The other engine does this request. Its head is written anew; the body is still to come.
    General {
        head: Vec<u8>,
        upload: Upload,
    },
}

/// Why there is no whole answer from an instance.
enum Broken {
    Refused(Refusal),
    /// The answer had begun, or there is nobody to get one.
    Off,
}

/// What belongs to the client for as long as its request lasts.
struct Client<'c> {
    connection: &'c mut Connection,
    request: &'c mut Request,
    upload: &'c mut Upload,
}

pub async fn exchange(engine: &mut Engine, connection: &mut Connection, head: Head) -> After {
    let link = connection.link().clone();
    let arrival = Arrival::on(&link, &head, &engine.shared.trusted, &mut fastrand::Rng::new());
    let mut request = Request::new(head, arrival);
    let found = request
        .find_way(&engine.shared.live, &engine.shared.limits, &link)
        .and_then(|framing| request.admit(&engine.shared.rates).map(|()| framing).map_err(|refusal| (refusal, Some(framing))));
    if found.is_ok() && request.expects() && connection.rest().is_empty() && !send(engine, connection, [CONTINUE, &[]]).await {
        return After::Close { hear_out: false };
    }
    let (mut upload, result) = match found {
        Err((refusal, framing)) => (framing.map(Upload::new), Err(Broken::Refused(refusal))),
        Ok(framing) if request.is_general() => {
            return After::General { head: request.plain_head(), upload: Upload::new(framing) };
        }
        Ok(framing) => {
            let mut upload = Upload::new(framing);
            let client = Client { connection, request: &mut request, upload: &mut upload };
            let result = forward(engine, client).await;
            (Some(upload), result)
        }
    };
    let is_read = upload.as_ref().is_some_and(Upload::is_done);
    let after = match result {
        Ok(()) if request.closes => After::Close { hear_out: !is_read },
        Ok(()) if is_read => After::NextRequest,
        Ok(()) => match &mut upload {
            Some(upload) => drain(engine, connection, upload).await,
            None => After::Close { hear_out: true },
        },
        Err(Broken::Refused(refusal)) => refuse(engine, connection, &mut request, upload.as_mut(), &refusal).await,
        Err(Broken::Off) => {
            if request.reason == Some(SLOW_READ) {
                connection.abandon();
            }
            After::Close { hear_out: false }
        }
    };
    engine.shared.finish(&request.record(), &link.stats);
    after
}

/// Tries instances until one has answered, or there is no further attempt.
async fn forward(engine: &mut Engine, mut client: Client<'_>) -> Result<(), Broken> {
    let rng = &mut fastrand::Rng::new();
    loop {
        let Some(way) = &mut client.request.way else { return Err(Broken::Refused(Refusal::Internal)) };
        let policy = way.policy.clone();
        client.upload.keep(policy.retry.buffer);
        let Some(chosen) = unless_gone(client.connection, way.forwarding.next_attempt(rng)).await else {
            return Err(left(client.request));
        };
        let chosen = chosen.map_err(Broken::Refused)?;
        let (instance, wants_fresh) = (chosen.instance().clone(), chosen.wants_fresh);
        let Some(addr) = instance.standing.addr else { return Err(Broken::Refused(Refusal::NoneHealthy)) };
        let line = engine.upstreams.line(&instance, &policy);
        let is_shared = policy.proxy_protocol.is_none();
        let pooled = if wants_fresh || !is_shared { None } else { Wire::take(&line) };
        let ended = match pooled {
            Some(wire) => attempt(engine, &mut client, wire, true).await,
            None => {
                let first = introduction(&client, &policy);
                let connecting = connect(addr, line.secure.as_ref(), policy.connect_within(), &first);
                match unless_gone(client.connection, connecting).await {
                    None => Err(Stop::ClientGone),
                    Some(Ok(stream)) => attempt(engine, &mut client, Wire::new(&line, stream), false).await,
                    Some(Err(no_connection)) => {
                        debug!(?no_connection, "No connection to an instance");
                        Err(Stop::Failed(no_connection.note(&instance)))
                    }
                }
            }
        };
        let Client { connection, request, upload } = &mut client;
        engine.leave_if_gone(request, &instance, &line);
        let Err(stop) = ended else {
            if let Some(forwarding) = request.forwarding() {
                forwarding.finish_attempt(false);
            }
            return Ok(());
        };
        let pause = after(stop, request, upload, rng)?;
        if !pause.is_zero() && unless_gone(connection, sleep(pause)).await.is_none() {
            return Err(left(request));
        }
    }
}

/// Waits for something else than the client, for as long as the client is there. What it sends meanwhile is kept, up to the size
/// of its buffer.
async fn unless_gone<T>(connection: &mut Connection, what: impl Future<Output = T>) -> Option<T> {
    let mut what = pin!(what);
    poll_fn(|cx| match what.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => connection.poll_probe(cx).map(|_| None),
    })
    .await
}

/// The client has left between two attempts.
fn left(request: &mut Request) -> Broken {
    request.reason = Some(CLIENT_GONE);
    Broken::Off
}

/// What an instance is told first, if its service wants to know the client.
fn introduction(client: &Client<'_>, policy: &ServicePolicy) -> Vec<u8> {
    for_instance(policy, &client.request.arrival, client.connection.link())
}

/// One attempt with the connection it has got.
async fn attempt(engine: &mut Engine, client: &mut Client<'_>, mut wire: Wire, reused: bool) -> Result<(), Stop> {
    let Client { connection, request, upload } = client;
    if let Some(forwarding) = request.forwarding() {
        forwarding.connected(reused);
    }
    let up = Up::new(request, upload, connection).map_err(Stop::Refused)?;
    let is_shared = request.way.as_ref().is_some_and(|way| way.policy.proxy_protocol.is_none());
    let Engine { shared, alarm, ending, .. } = engine;
    let (limits, endings) = (&shared.limits, [&*ending, &shared.parting]);
    upload.fits(limits).map_err(Stop::Refused)?;
    let (wire_used, down) = (&mut wire, Down::new());
    let transfer =
        Transfer { connection, alarm, request, upload, wire: wire_used, limits, endings, up, down, is_new: true, n_interim: 0 };
    if transfer.run().await? && is_shared {
        wire.put_back(Instant::now());
    }
    Ok(())
}

/// Ends a failed attempt: how long to wait before the next, or what to tell the client.
fn after(stop: Stop, request: &mut Request, upload: &Upload, rng: &mut fastrand::Rng) -> Result<Duration, Broken> {
    let answered = request.is_answered();
    let Request { head, way: Some(Way { forwarding, .. }), reason, .. } = request else { return Err(Broken::Off) };
    match stop {
        Stop::Failed(failure) => {
            let progress = Progress { method: &head.method, body_read: upload.read, body_lost: upload.is_lost, answered };
            match forwarding.fail_attempt(failure, progress, rng) {
                Next::Retry { pause } => return Ok(pause),
                Next::GiveUp(refusal) if !answered => return Err(Broken::Refused(refusal)),
                Next::GiveUp(_) => *reason = Some(failure.reason()),
            }
        }
        Stop::ClientGone | Stop::SlowRead => {
            forwarding.finish_attempt(true);
            *reason = Some(if matches!(stop, Stop::SlowRead) { SLOW_READ } else { CLIENT_GONE });
        }
        Stop::Refused(refusal) => {
            forwarding.finish_attempt(true);
            if !answered {
                return Err(Broken::Refused(refusal));
            }
            *reason = Some(refusal.reason());
        }
    }
    Err(Broken::Off)
}

/// Answers in our own words.
async fn refuse(
    engine: &mut Engine,
    connection: &mut Connection,
    request: &mut Request,
    upload: Option<&mut Upload>,
    refusal: &Refusal,
) -> After {
    // What could not be read to its end cannot be followed by another request.
    let is_read = upload.is_some_and(|upload| take_rest(connection, upload));
    request.closes |= !refusal.keeps_connection() || !is_read || engine.is_ending();
    request.status = refusal.status();
    request.reason = Some(refusal.reason());
    let (head, body) = answer::write(request, refusal, connection.link().listening.hsts.as_deref());
    if send(engine, connection, [&head, &body]).await {
        request.sent = body.len() as u64;
    } else {
        return After::Close { hear_out: false };
    }
    if request.closes { After::Close { hear_out: !is_read } } else { After::NextRequest }
}

/// Drops what has arrived of a body; whether that was all.
fn take_rest(connection: &mut Connection, upload: &mut Upload) -> bool {
    upload.keep_nothing();
    if !upload.is_done() {
        match upload.pass(connection.rest(), &mut Vec::new()) {
            Ok(used) => connection.consume(used),
            Err(_) => return false,
        }
    }
    upload.is_done()
}

/// The response was whole before the request was. What is left is read and dropped, so that the next request is found
/// behind it, but not for ever.
async fn drain(engine: &mut Engine, connection: &mut Connection, upload: &mut Upload) -> After {
    engine.alarm.set(Instant::now() + UNREAD_BODY);
    let alarm = &mut engine.alarm;
    let is_read = poll_fn(|cx| {
        while !take_rest(connection, upload) {
            if !connection.rest().is_empty() {
                return Poll::Ready(false);
            }
            match connection.poll_more(cx, INPUT_SIZE) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => {
                    return alarm.poll(cx).map(|()| {
                        connection.link().stats.limits.count(Limit::UnreadBody);
                        false
                    });
                }
            }
        }
        Poll::Ready(true)
    });
    if is_read.await { After::NextRequest } else { After::Close { hear_out: true } }
}

/// Whether the client took all of it.
async fn send(engine: &mut Engine, connection: &mut Connection, [head, body]: [&[u8]; 2]) -> bool {
    engine.alarm.set(Instant::now() + engine.shared.limits.answer_progress);
    let alarm = &mut engine.alarm;
    let (mut head, mut body) = (head, body);
    poll_fn(|cx| {
        while !head.is_empty() || !body.is_empty() {
            let sent = match connection.poll_send(cx, &[IoSlice::new(head), IoSlice::new(body)]) {
                Poll::Ready(Ok(n)) if n > 0 => n,
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => {
                    return alarm.poll(cx).map(|()| {
                        connection.link().stats.limits.count(Limit::AnswerProgress);
                        false
                    });
                }
            };
            let of_head = sent.min(head.len());
            (head, body) = (&head[of_head..], &body[sent - of_head..]);
        }
        Poll::Ready(true)
    })
    .await
}

/// Said by ourselves as soon as there is a route: no instance has to be asked for it, and none can get the order wrong.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
