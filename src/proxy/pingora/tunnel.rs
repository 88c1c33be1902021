//! Upgrades, WebSocket above all: Pingora hands the connection back and two sockets are joined.
//!
//! Pingora's own tunnel is torn now and then when a 101 overtakes the empty request body (pingora #946). Here the
//! handshake runs inside `request_filter`, with the same attempts and retries as any request; after a 101 the session
//! ends as if nothing had been answered, the serving loop gets its `Connection` back, and `Tunnel::run` takes over.
//! A refused upgrade is an ordinary response.

use std::error::Error as _;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, RETRY_AFTER, SET_COOKIE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::ctx::{Arrived, RequestCtx, Stage, Way};
use super::gateway::Gateway;
use super::relay::{End, Limit, relay};
use super::websocket::Frames;
use super::{answer, gateway};
use crate::model::TimeoutPolicy;
use crate::pool::Instance;
use crate::proxy::Shared;
use crate::proxy::attempt::{Failure, Next};
use crate::proxy::downstream::Connection;
use crate::proxy::introduction::for_instance;
use crate::proxy::limits::UPGRADED_IDLE;
use crate::proxy::record::RequestRecord;
use crate::proxy::reply::Refusal;
use crate::proxy::upstream::{Claim, Wire, connect, note_no_tls};
use crate::proxy::{edit, forward};
use crate::trust::{is_refusal, words};

/// An HTTP/1.1 request without a body that names a protocol it would rather speak. `h2c` is not one of them: clients
/// that want HTTP/2 begin with it.
pub fn is_asked_for(session: &mut Session) -> bool {
    let request = session.req_header();
    let upgrade = request.headers.get(UPGRADE);
    let nominated = request.headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
    request.version == Version::HTTP_11
        && upgrade.is_some_and(|protocol| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"))
        && nominated.flat_map(|v| v.split(',')).any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
        && session.as_downstream_mut().is_body_empty()
}

/// Asks an instance for the upgrade and answers the client, or prepares the tunnel. Always the end of the request for
/// Pingora, which is what `true` says.
pub async fn open(gateway: &Gateway, session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
    let refusal = loop {
        let head = session.req_header().clone();
        match gateway.unless_gone(session, ctx, async |ctx| attempt(gateway, &head, ctx).await).await? {
            Ok((response, claim)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                match prepare(gateway, session, ctx, response, claim).await {
                    Ok(()) => return Ok(true),
                    Err(failed) => break give_up(session, ctx, failed),
                }
            }
            Ok((response, claim)) => {
                ctx.claim = Some(claim);
                let sent = pass_on(session, ctx, response).await;
                gateway.give_back(ctx);
                return sent.map(|()| true);
            }
            Err(Stop::Refused(refusal)) => break refusal,
            Err(Stop::Failed(failed)) => {
                match ctx.forwarding().map(|f| f.fail_attempt(failed, gateway::progress(session), &mut fastrand::Rng::new())) {
                    Some(Next::Retry { pause }) => gateway.unless_gone(session, ctx, async |_| sleep(pause).await).await?,
                    Some(Next::GiveUp(refusal)) => break refusal,
                    None => break Refusal::Internal,
                }
            }
        }
    };
    ctx.refuse(refusal);
    answer::refuse(session, ctx).await.map(|()| true)
}

enum Stop {
    Refused(Refusal),
    Failed(Failure),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

async fn attempt(gateway: &Gateway, head: &RequestHeader, ctx: &mut RequestCtx) -> Result<(Response<Incoming>, Claim), Stop> {
    let forwarding = ctx.forwarding().ok_or(Refusal::Internal)?;
    let instance = forwarding.next_attempt(&mut fastrand::Rng::new()).await?.instance().clone();
    let policy = forwarding.policy().ok_or(Refusal::NoInstances)?.clone();
    let (_, mut claim) = gateway.peers.claim(&instance, &policy, true, Vec::new()).ok_or(Refusal::NoneHealthy)?;
    let first = ctx.arrived.as_ref().map(|Arrived { arrival, link, .. }| for_instance(&policy, arrival, link));
    let addr = instance.standing.addr.ok_or(Refusal::NoneHealthy)?;
    if instance.spec.protocol.is_http2() {
        debug!(service = %instance.service, instance = %instance.id, "No upgrade over this protocol");
        return Err(Stop::Failed(Failure::Invalid));
    }
    let request = request(head, ctx).ok_or(Refusal::Internal)?;
    let (within, first) = (policy.connect_within(), first.unwrap_or_default());
    let connected = connect(addr, claim.line().secure.as_ref(), within, &first).await;
    let stream = connected.map_err(|no_connection| Stop::Failed(no_connection.note(&instance)))?;
    let fd = stream.as_raw_fd();
    let wire = Wire::new(claim.line(), stream);
    claim.connected(fd);
    if let Some(forwarding) = ctx.forwarding() {
        forwarding.connected(false);
    }
    let response = ask(wire, request, &policy.timeouts, &instance).await.map_err(Stop::Failed)?;
    if let Some(forwarding) = ctx.forwarding() {
        forwarding.answered(response.status().as_u16(), response.headers().contains_key(RETRY_AFTER));
    }
    ctx.first_byte = ctx.arrived.as_ref().map(|a| a.arrival.started.elapsed());
    Ok((response, claim))
}

/// The handshake as the instance gets it.
fn request(header: &RequestHeader, ctx: &RequestCtx) -> Option<Request<Empty<Bytes>>> {
    let (Some(Arrived { arrival, .. }), Stage::Forwarding(way)) = (&ctx.arrived, &ctx.stage) else { return None };
    let mut fields = header.headers.clone();
    let protocol = fields.get(UPGRADE)?.clone();
    forward::rewrite_request(&mut fields, arrival, &way.origin, way.forwarding.number());
    forward::ask_upgrade(&mut fields, protocol.as_bytes());
    edit::request(&mut fields, &way.forwarding.route.spec, || way.asked(arrival, header));
    let target = way.sent_target().map_or(header.raw_path(), str::as_bytes);
    let mut request = Request::builder().method(&header.method).uri(target).body(Empty::new()).ok()?;
    *request.headers_mut() = fields;
    Some(request)
}

async fn ask(
    wire: Wire,
    request: Request<Empty<Bytes>>,
    timeouts: &TimeoutPolicy,
    instance: &Instance,
) -> Result<Response<Incoming>, Failure> {
    let exchange = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(wire)).await?;
        // It ends with the response, or hands its socket over.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await
    };
    match timeout(timeouts.response_head, exchange).await {
        Err(_) => Err(Failure::Timeout),
        Ok(Err(error)) if error.is_parse() => Err(Failure::Invalid),
        Ok(Err(error)) => match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
            Some(cause) if is_refusal(cause) => {
                note_no_tls(instance, &words(cause));
                Err(Failure::Tls)
            }
            _ => Err(Failure::Reset),
        },
        Ok(Ok(response)) => Ok(response),
    }
}

/// Everything the tunnel needs, put where the serving loop finds it.
async fn prepare(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &mut RequestCtx,
    mut response: Response<Incoming>,
    claim: Claim,
) -> Result<(), Failure> {
    let upgraded = hyper::upgrade::on(&mut response).await.map_err(|_| Failure::Reset)?;
    let parts = upgraded.downcast::<TokioIo<Wire>>().map_err(|_| Failure::Invalid)?;
    let Stage::Forwarding(way) = std::mem::replace(&mut ctx.stage, Stage::HandedOver) else { return Err(Failure::Invalid) };
    let Some(arrived) = ctx.arrived.take() else { return Err(Failure::Invalid) };
    let idle = way.forwarding.policy().map_or(Duration::ZERO, |p| p.timeouts.upgraded_idle);
    let mut opening = switching(&response, way.forwarding.set_cookie());
    let is_websocket = response.headers().get(UPGRADE).is_some_and(|p| p.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let frames = is_websocket.then(|| Frames::behind(opening.len()));
    opening.extend_from_slice(&parts.read_buf);
    let header = session.req_header();
    let link = arrived.link.clone();
    link.hand_to(Tunnel {
        opening,
        frames,
        wire: parts.io.into_inner(),
        idle,
        facts: Facts {
            shared: gateway.shared.clone(),
            method: header.method.clone(),
            target: String::from_utf8_lossy(header.raw_path()).into_owned(),
            host: header.headers.get(HOST).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned(),
            first_byte: ctx.first_byte,
            arrived,
            way,
            sent: 0,
            reason: None,
        },
        _claim: claim,
    });
    // The session is told to give its stream back, not to close it.
    session.set_keepalive(Some(0));
    Ok(())
}

/// The head of the 101 as the client gets it.
fn switching(response: &Response<Incoming>, set_cookie: Option<HeaderValue>) -> Vec<u8> {
    let mut fields: HeaderMap = response.headers().clone();
    let protocol = fields.get(UPGRADE).cloned();
    forward::rewrite_response(&mut fields, response.status(), response.version());
    if let Some(protocol) = protocol {
        forward::ask_upgrade(&mut fields, protocol.as_bytes());
    }
    if let Some(cookie) = set_cookie {
        fields.append(SET_COOKIE, cookie);
    }
    let mut head = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for (name, value) in &fields {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The instance would rather not: its answer is the client's.
async fn pass_on(session: &mut Session, ctx: &mut RequestCtx, response: Response<Incoming>) -> Result<()> {
    let idle = ctx.way().and_then(|way| way.forwarding.policy()).map_or(Duration::ZERO, |p| p.timeouts.idle);
    let (parts, mut body) = response.into_parts();
    let mut header = ResponseHeader::build(parts.status, Some(parts.headers.len() + 2))?;
    for (name, value) in &parts.headers {
        header.append_header(name.clone(), value.clone())?;
    }
    forward::rewrite_response(&mut header, parts.status, parts.version);
    header.remove_header(&TRANSFER_ENCODING);
    let has_body = parts.status != StatusCode::NO_CONTENT && parts.status != StatusCode::NOT_MODIFIED;
    if has_body && !header.headers.contains_key(CONTENT_LENGTH) {
        header.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    answer::edit_response(&mut header, session.req_header(), ctx);
    answer::stick(&mut header, ctx);
    answer::explain(&mut header, ctx);
    forward::stay_secure(&mut header, ctx.hsts());
    session.as_downstream_mut().write_response_header(Box::new(header)).await?;
    loop {
        match timeout(idle, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    session.as_downstream_mut().write_response_body(data, false).await?;
                }
            }
            Ok(Some(Err(_))) | Err(_) => {
                ctx.broken = Some(Failure::Reset.reason());
                session.set_keepalive(None);
                session.as_downstream_mut().shutdown().await;
                return Ok(());
            }
        }
    }
    session.as_downstream_mut().finish_body().await
}

fn give_up(session: &Session, ctx: &mut RequestCtx, failed: Failure) -> Refusal {
    match ctx.forwarding().map(|f| f.fail_attempt(failed, gateway::progress(session), &mut fastrand::Rng::new())) {
        Some(Next::GiveUp(refusal)) => refusal,
        _ => Refusal::Upstream(failed),
    }
}

/// An upgraded connection, from the 101 on.
#[derive(Debug)]
pub struct Tunnel {
    /// The 101, and what the instance sent right behind it.
    opening: Vec<u8>,
    /// What the instance says, if that is a WebSocket.
    frames: Option<Frames>,
    wire: Wire,
    idle: Duration,
    facts: Facts,
    _claim: Claim,
}

impl Tunnel {
    pub async fn run(mut self, connection: Connection) {
        let (mut client, early) = connection.into_parts();
        let stats = self.facts.arrived.link.stats.clone();
        let over = self.wire.farewell();
        let frames = self.frames.as_ref().map(|_| Frames::behind(0));
        let client = End { stream: &mut client, said: early, frames };
        let said = std::mem::take(&mut self.opening);
        let instance = End { stream: self.wire.stream(), said, frames: self.frames.take() };
        let relayed = relay(client, instance, Limit { idle: self.idle, over: &over }, &stats).await;
        self.facts.sent = relayed.sent;
        self.facts.reason = relayed.was_idle.then_some(UPGRADED_IDLE);
    }
}

/// What the record of the request needs, which is written when the tunnel is gone, however that happens.
struct Facts {
    shared: Arc<Shared>,
    arrived: Arrived,
    way: Box<Way>,
    method: http::Method,
    target: String,
    host: String,
    first_byte: Option<Duration>,
    sent: u64,
    /// How it ended, if neither side wanted that.
    reason: Option<&'static str>,
}

impl Drop for Facts {
    fn drop(&mut self) {
        let Arrived { arrival, link, .. } = &self.arrived;
        self.way.forwarding.finish_attempt(false);
        let record = RequestRecord {
            at: arrival.at,
            request_id: &arrival.request_id,
            trace: arrival.trace,
            client: arrival.client,
            method: self.method.as_str(),
            host: &self.host,
            target: &self.target,
            version: Version::HTTP_11,
            status: 101,
            bytes: self.sent,
            referer: None,
            user_agent: None,
            forwarding: Some(&self.way.forwarding),
            first_byte: self.first_byte,
            total: arrival.started.elapsed(),
            reason: self.reason,
        };
        self.shared.finish(&record, &link.stats);
    }
}

impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("target", &self.target).finish_non_exhaustive()
    }
}
