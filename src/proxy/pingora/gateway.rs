//! What Pingora calls for each request. Every callback translates: plain values out of the session, one question to the
//! part of `proxy/` that owns it, the answer back.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Version, header};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio::sync::watch;
use tracing::debug;

use super::ctx::{Arrived, Due, RequestCtx, Stage, Way};
use super::link::SessionLink;
use super::peers::Peers;
use super::{answer, failure, tunnel};
use crate::catalog::Live;
use crate::model::Protocol;
use crate::proxy::Shared;
use crate::proxy::arrival::Arrival;
use crate::proxy::attempt::{Attempt, Failure, Next, Progress};
use crate::proxy::downstream::Phase;
use crate::proxy::forward::{self, Origin};
use crate::proxy::head::{RawHead, RequestHead};
use crate::proxy::http1::{Ends, INTERIM_MAX, ends};
use crate::proxy::http2::Cause;
use crate::proxy::introduction::for_instance;
use crate::proxy::limits::{SLOW_READ, UNREAD_BODY};
use crate::proxy::record::RequestRecord;
use crate::proxy::reply::{BAD_CHUNK, CLIENT_GONE, Refusal};
use crate::proxy::route::route;
use crate::proxy::upstream::{self, is_current};
use crate::proxy::{challenge, edit};

/// One per worker.
pub struct Gateway {
    pub shared: Arc<Shared>,
    pub peers: Arc<Peers>,
    /// True once the process is about to end: connections close with their next answer.
    pub ending: watch::Receiver<bool>,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = RequestCtx;

    fn new_ctx(&self) -> RequestCtx {
        RequestCtx::default()
    }

    /// None: Pingora's compression ignores what the client prefers, and buffers streams.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<()> {
        let Some(link) = SessionLink::of(session).cloned() else {
            return Error::e_explain(ErrorType::InternalError, "a session without a link");
        };
        link.enter(Phase::Body);
        let limits = &self.shared.limits;
        session.set_read_timeout(Some(limits.body_progress));
        session.set_write_timeout(Some(limits.answer_progress));
        // An instance may answer while it still reads. What is left of the body when the answer is out is drained, or ends the
        // connection.
        session.set_total_drain_timeout(Some(UNREAD_BODY));
        session.set_close_on_response_before_downstream_finish(false);
        let arrival = Arrival::on(&link, &session.req_header().headers, &self.shared.trusted, &mut fastrand::Rng::new());
        let running = Some(link.begin());
        ctx.arrived = Some(Arrived { arrival, link, running });
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
        let found = self.find_way(session, ctx).and_then(|stage| {
            ctx.stage = stage;
            self.admit(session, ctx)
        });
        if found.is_ok() && tunnel::is_asked_for(session) {
            return tunnel::open(self, session, ctx).await;
        }
        // The first choice is made here: once Pingora is on its way to an instance, it closes the client's connection
        // whenever something fails.
        let chosen = match found {
            Ok(()) => self.choose(session, ctx).await?,
            Err(refusal) => Err(refusal),
        };
        match chosen {
            Ok(peer) => ctx.peer = Some(peer),
            Err(refusal) => {
                ctx.refuse(refusal);
                answer::refuse(session, ctx).await?;
            }
        }
        Ok(ctx.peer.is_none())
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        if let Some(chosen) = ctx.peer.take() {
            return Ok(chosen);
        }
        let pause = std::mem::take(&mut ctx.pause);
        if !pause.is_zero() {
            self.unless_gone(session, ctx, async |_| tokio::time::sleep(pause).await).await?;
        }
        self.choose(session, ctx).await?.map_err(|refusal| {
            ctx.refuse(refusal);
            Error::explain(ErrorType::InternalError, "no instance")
        })
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        fd: RawFd,
        _: Option<&Digest>,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        if let Some(claim) = &mut ctx.claim {
            claim.connected(fd);
        }
        if let Some(forwarding) = ctx.forwarding() {
            forwarding.connected(reused);
        }

        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        let (Some(Arrived { arrival, .. }), Stage::Forwarding(way)) = (&ctx.arrived, &ctx.stage) else {
            return Error::e_explain(ErrorType::InternalError, "forwarded without a route");
        };
        let protocol = way.forwarding.current().map(|attempt| attempt.instance().spec.protocol);
        if protocol == Some(Protocol::H2) && request.version != Version::HTTP_2 {
            // Pingora falls back to HTTP/1.1 where TLS did not settle on HTTP/2; the record says what it is.
            return Error::e_explain(ErrorType::TLSHandshakeFailure, NO_HTTP_2);
        }
        forward::rewrite_request(request, arrival, &way.origin, way.forwarding.number());
        if let Some(target) = way.sent_target() {
            request.set_raw_path(target.as_bytes())?;
            if request.headers.get(header::HOST).is_none() {
                // HTTP/2 had named it in the target.
                request.insert_header(header::HOST, &*way.origin.authority)?;
            }
        }
        edit::request(request, &way.forwarding.route.spec, || way.asked(arrival, session.req_header()));
        self.wait(ctx, session.as_mut().is_body_done());
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        let read = session.as_downstream().body_bytes_read() as u64;
        if self.shared.limits.body_size.is_some_and(|max| read > max) {
            ctx.refuse(Refusal::BodyTooLarge);
            return Err(Error::explain(ErrorType::ReadError, "the request body is too large").into_down());
        }
        if end {
            if body.as_ref().is_some_and(Bytes::is_empty) {
                // An HTTP/2 upload that ends with an empty frame would become two last chunks (pingora #935).
                *body = None;
            }
            if let Some(Arrived { link, .. }) = &ctx.arrived {
                link.enter(Phase::Answer);
            }
        }
        self.wait(ctx, end);
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked: the bytes behind it would be taken for the next answer. Upgrades go through `tunnel`.
            return invalid("101 without an upgrade");
        }
        if response.status.is_informational() {
            ctx.n_interim += 1;
            return if ctx.n_interim > INTERIM_MAX { invalid("a flood of interim responses") } else { Ok(()) };
        }
        let (status, version, method) = (response.status, response.version, &session.req_header().method);
        let ends = ends(response, status, version, method);
        if version < Version::HTTP_2 && ends.is_err() {
            return invalid("a response whose end can be read in two ways");
        }
        let is_whole = ends == Ok(Ends::After(0));
        let (status, pushes_back) = (response.status.as_u16(), response.headers.contains_key(header::RETRY_AFTER));
        if ctx.forwarding().is_some_and(|f| f.retries_status(status, pushes_back, progress(session))) {
            return Error::e_explain(ErrorType::HTTPStatus(status), "another instance may know better");
        }
        ctx.due = None;
        if let Some(claim) = &mut ctx.claim {
            claim.answered();
        }
        if let Some(forwarding) = ctx.forwarding() {
            forwarding.answered(status, pushes_back);
        }
        ctx.first_byte = ctx.arrived.as_ref().map(|a| a.arrival.started.elapsed());
        if is_whole {
            self.answered(session, ctx);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        _: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestCtx,
    ) -> Result<Option<Duration>> {
        if end {
            self.answered(session, ctx);
        }
        Ok(None)
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut RequestCtx) -> Result<()> {
        if response.status.is_informational() {
            return Ok(());
        }
        let (status, version) = (response.status, response.version);
        forward::rewrite_response(response, status, version);
        if session.req_header().version == Version::HTTP_10 && response.headers.contains_key(header::TRANSFER_ENCODING) {
            // HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
            response.remove_header(&header::TRANSFER_ENCODING);
        }
        if *self.ending.borrow() || self.shared.is_parting() {
            session.set_keepalive(None);
        }
        answer::edit_response(response, session.req_header(), ctx);
        answer::stick(response, ctx);
        answer::explain(response, ctx);
        forward::stay_secure(response, ctx.hsts());
        Ok(())
    }

    fn fail_to_connect(&self, session: &mut Session, _: &HttpPeer, ctx: &mut RequestCtx, error: Box<Error>) -> Box<Error> {
        let failed = failure::of_connect(&error);
        debug!(%error, "No connection to an instance");
        note_no_tls(ctx, &error);
        self.after(failed, session, ctx, error)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut RequestCtx,
        _: bool,
    ) -> Box<Error> {
        debug!(%error, "A request broke off");
        if ctx.answered {
            error.set_retry(false);
            return error;
        }
        let now = Instant::now();
        let client_is_slow = *error.esource() == ErrorSource::Downstream && *error.etype() == ErrorType::ReadTimedout;
        if client_is_slow || matches!(ctx.overdue(now), Some(Due::Body(_))) {
            ctx.refuse(Refusal::SlowBody);
        } else if matches!(ctx.stage, Stage::Refused(Refusal::BodyTooLarge, _)) {
            debug!("The client sent more than it may");
        } else if ctx.arrived.as_ref().is_some_and(|arrived| arrived.link.is_body_odd()) {
            ctx.refuse(BAD_CHUNK);
        } else if let Some(failed) = failure::of_exchange(&error, ctx.overdue(now).is_some()) {
            note_no_tls(ctx, &error);
            return self.after(failed, session, ctx, error);
        } else if *error.etype() == ErrorType::WriteTimedout {
            ctx.broken = Some(SLOW_READ);
            match &ctx.arrived {
                Some(Arrived { link, .. }) if session.as_downstream().is_http2() => link.stats.http2_cuts.count(Cause::SlowRead),
                Some(Arrived { link, .. }) => link.abandon(),
                None => {}
            }
        } else {
            ctx.broken = Some(CLIENT_GONE);
        }
        self.give_back(ctx);
        if let Some(forwarding) = ctx.forwarding() {
            forwarding.finish_attempt(true);
        }
        error.set_retry(false);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut RequestCtx) -> FailToProxy {
        let begun = session.response_written().is_some_and(|r| !r.status.is_informational());
        if !begun && !matches!(ctx.stage, Stage::Refused(..)) && *error.esource() != ErrorSource::Downstream {
            ctx.refuse(Refusal::Internal);
        }
        let mut error_code = 0;
        if let (Stage::Refused(refusal, _), false) = (&ctx.stage, begun) {
            error_code = refusal.status();
            // Pingora will not use this connection again, whatever we say.
            session.set_keepalive(None);
            if let Err(error) = answer::refuse(session, ctx).await {
                debug!(%error, "A refused client did not take its answer");
            }
            ctx.total = ctx.arrived.as_ref().map(|a| a.arrival.started.elapsed());
            session.as_downstream_mut().shutdown().await;
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut RequestCtx) {
        if matches!(ctx.stage, Stage::HandedOver) {
            return;
        }
        self.give_back(ctx);
        if let Some(forwarding) = ctx.forwarding() {
            forwarding.finish_attempt(false);
        }
        let Some(Arrived { arrival, link, .. }) = &ctx.arrived else { return };
        let request = session.req_header();
        let status = session.response_written().map_or(0, |r| r.status.as_u16());
        let reason = match &ctx.stage {
            Stage::Refused(refusal, _) => Some(refusal.reason()),
            _ => ctx.broken,
        };
        let text = |name| request.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let authority = request.uri.authority().map(|a| a.as_str());
        let record = RequestRecord {
            at: arrival.at,
            request_id: &arrival.request_id,
            trace: arrival.trace,
            client: arrival.client,
            method: request.method.as_str(),
            host: authority.or(text(header::HOST)).unwrap_or_default(),
            target: std::str::from_utf8(request.raw_path()).unwrap_or_default(),
            version: request.version,
            status,
            bytes: session.body_bytes_sent() as u64,
            referer: text(header::REFERER),
            user_agent: text(header::USER_AGENT),
            forwarding: ctx.way().map(|way| &way.forwarding),
            first_byte: ctx.first_byte,
            total: ctx.total.unwrap_or_else(|| arrival.started.elapsed()),
            reason,
        };
        self.shared.finish(&record, &link.stats);
    }

    /// Our own words are in the access log.
    fn suppress_error_log(&self, _: &Session, _: &RequestCtx, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &RequestCtx, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

impl Gateway {
    pub fn live(&self) -> &Live {
        &self.shared.live
    }

    fn find_way(&self, session: &mut Session, ctx: &RequestCtx) -> Result<Stage, Refusal> {
        let Arrived { arrival, link, .. } = ctx.arrived.as_ref().ok_or(Refusal::Internal)?;
        let request = session.req_header();
        let raw = RawHead {
            method: &request.method,
            target: request.raw_path(),
            authority: request.uri.authority().map(|a| a.as_str()),
            version: request.version,
            fields: &request.headers,
            peer: arrival.peer,
            scheme: link.scheme(),
        };
        let head = RequestHead::check(raw, &self.shared.limits)?;
        let snapshot = self.live().load();
        challenge::answer(&snapshot.acme, &head, &link.stats.challenges)?;
        link.listening.admit(&head)?;
        let way = Way {
            forwarding: route(&snapshot, &head, arrival)?,
            origin: Origin::of(&head).into_owned(),
            target: head.rewritten.then(|| head.origin_form()),
            is_grpc: head.fields.get("content-type").is_some_and(|t| t.starts_with(b"application/grpc")),
        };
        Ok(Stage::Forwarding(Box::new(way)))
    }

    /// Whether its route takes the request now.
    fn admit(&self, session: &Session, ctx: &RequestCtx) -> Result<(), Refusal> {
        let (Some(Arrived { arrival, .. }), Some(way)) = (&ctx.arrived, ctx.way()) else { return Ok(()) };
        self.shared.rates.admit(&way.forwarding.route, &session.req_header().headers, arrival)
    }

    /// The peer of the next attempt, once it is the request's turn. An error: the client has left.
    async fn choose(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<Result<Box<HttpPeer>, Refusal>> {
        self.unless_gone(session, ctx, async |ctx| self.next_peer(ctx).await).await
    }

    /// Waits for something else than the client, for as long as the client is there.
    pub async fn unless_gone<T>(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        what: impl AsyncFnOnce(&mut RequestCtx) -> T,
    ) -> Result<T> {
        let link = ctx.arrived.as_ref().map(|arrived| arrived.link.clone());
        // A client of HTTP/1 that sends meanwhile is heard later: until then reading tells only whether it is there.
        let enter = |phase| link.iter().for_each(|link| link.enter(phase));
        enter(Phase::Answer);
        let done = tokio::select! {
            biased;
            done = what(ctx) => Some(done),
            _ = session.as_downstream_mut().read_body_or_idle(true) => None,
        };
        enter(Phase::Body);
        done.ok_or_else(|| {
            ctx.broken = Some(CLIENT_GONE);
            Error::explain(ErrorType::ConnectionClosed, "the client has left").into_down()
        })
    }

    async fn next_peer(&self, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>, Refusal> {
        let forwarding = ctx.forwarding().ok_or(Refusal::Internal)?;
        let attempt = forwarding.next_attempt(&mut fastrand::Rng::new()).await?;
        let (instance, fresh) = (attempt.instance().clone(), attempt.wants_fresh);
        let policy = forwarding.policy().ok_or(Refusal::NoInstances)?.clone();
        let first = ctx.arrived.as_ref().map(|Arrived { arrival, link, .. }| for_instance(&policy, arrival, link));
        let claimed = self.peers.claim(&instance, &policy, fresh, first.unwrap_or_default());
        let (peer, claim) = claimed.ok_or(Refusal::NoneHealthy)?;
        ctx.claim = Some(claim);
        ctx.due = None;
        Ok(peer)
    }

    /// Ends a failed attempt and marks the error with what follows.
    fn after(&self, failed: Failure, session: &mut Session, ctx: &mut RequestCtx, mut error: Box<Error>) -> Box<Error> {
        let progress = progress(session);
        self.give_back(ctx);
        match ctx.forwarding().map(|f| f.fail_attempt(failed, progress, &mut fastrand::Rng::new())) {
            Some(Next::Retry { pause }) => {
                ctx.pause = pause;
                error.set_retry(true);
                return error;
            }
            Some(Next::GiveUp(_)) if progress.answered => ctx.broken = Some(failed.reason()),
            Some(Next::GiveUp(refusal)) => ctx.refuse(refusal),
            None => {}
        }
        error.set_retry(false);
        error
    }

    /// The instance has said everything. Pingora goes on reading what is left of the request: that takes nobody's place, and has an
    /// end.
    fn answered(&self, session: &mut Session, ctx: &mut RequestCtx) {
        if session.as_downstream_mut().is_body_done() {
            return;
        }
        ctx.answered = true;
        self.give_back(ctx);
        if let Some(forwarding) = ctx.forwarding() {
            forwarding.leave();
        }
        if let Some(Arrived { link, running, .. }) = &mut ctx.arrived {
            link.enter(Phase::Rest);
            *running = None;
        }
    }

    /// Gives the connection back. Its instance may have left while the request ran.
    pub fn give_back(&self, ctx: &mut RequestCtx) {
        let Some(claim) = ctx.claim.take() else { return };
        let line = claim.line().clone();
        drop(claim);
        let Some(forwarding) = ctx.forwarding() else { return };
        let snapshot = self.live().load();
        if snapshot.sequence == forwarding.sequence {
            return;
        }
        if forwarding.current().is_some_and(|attempt| !is_current(&snapshot, attempt.instance())) {
            line.leave(Instant::now());
        }
    }

    /// Watches what has to come next, until the response begins.
    fn wait(&self, ctx: &mut RequestCtx, body_done: bool) {
        let (Some(way), None) = (ctx.way(), ctx.first_byte) else { return };
        let Some(policy) = way.forwarding.policy() else { return };
        let now = Instant::now();
        let (due, at) = if body_done {
            let at = now + policy.head_within();
            (Due::Head(at), at)
        } else {
            // HTTP/2 has no timeout of its own for a client that stops sending.
            let at = now + if way.is_grpc { policy.timeouts.idle } else { self.shared.limits.body_progress };
            (Due::Body(at), at)
        };
        ctx.due = Some(due);
        if let Some(claim) = &mut ctx.claim {
            claim.wait(at);
        }
    }
}

/// The instance's connection is closed, and the client gets our 502.
fn invalid<T>(why: &'static str) -> Result<T> {
    Error::e_explain(ErrorType::InvalidHTTPHeader, why)
}

fn note_no_tls(ctx: &RequestCtx, error: &Error) {
    let instance = ctx.way().and_then(|way| way.forwarding.current()).map(Attempt::instance);
    if let (Some(instance), Some(reason)) = (instance, failure::of_tls(error)) {
        upstream::note_no_tls(instance, &reason);
    }
}

pub fn progress(session: &Session) -> Progress<'_> {
    let downstream = session.as_downstream();
    Progress {
        method: &session.req_header().method,
        body_read: downstream.body_bytes_read() as u64,
        body_lost: downstream.retry_buffer_truncated(),
        answered: downstream.response_written().is_some_and(|r| !r.status.is_informational()),
    }
}

const NO_HTTP_2: &str = "it does not offer HTTP/2 in its handshake (ALPN h2), though its record says protocol \"h2\"";
