//! Answers of ours as Pingora writes them, and what trusted clients may see of our decisions.

use bytes::Bytes;
use http::{HeaderName, Method, header};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::ctx::{RequestCtx, Stage};
use crate::proxy::arrival::REQUEST_ID;
use crate::proxy::explain;
use crate::proxy::forward::{self, FieldsMut};

/// Writes the answer of a refused request.
pub async fn refuse(session: &mut Session, ctx: &RequestCtx) -> Result<()> {
    let (Stage::Refused(refusal, _), Some(arrived)) = (&ctx.stage, &ctx.arrived) else { return Ok(()) };
    let request = session.req_header();
    let is_head = request.method == Method::HEAD;
    let reply = refusal.reply(&request.headers, &arrived.arrival.request_id);
    let mut response = ResponseHeader::build(reply.status, Some(8))?;
    response.insert_header(header::CONTENT_TYPE, reply.content_type)?;
    response.insert_header(header::CONTENT_LENGTH, reply.body.len())?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    response.insert_header(HeaderName::from_static(REQUEST_ID), &*arrived.arrival.request_id)?;
    if let Some(seconds) = reply.retry_after {
        response.insert_header(header::RETRY_AFTER, seconds)?;
    }
    if let Some(location) = &reply.location {
        response.insert_header(header::LOCATION, location)?;
    }
    forward::stay_secure(&mut response, ctx.hsts());
    explain(&mut response, ctx);
    if !refusal.keeps_connection() || !session.as_downstream_mut().is_body_done() {
        session.set_keepalive(None);
    }
    session.as_downstream_mut().write_response_header(Box::new(response)).await?;
    if !is_head {
        session.as_downstream_mut().write_response_body(Bytes::from(reply.body), true).await?;
    }
    session.as_downstream_mut().finish_body().await
}

/// Remembers with the client which instance answered, where its service wants that.
pub fn stick(response: &mut ResponseHeader, ctx: &RequestCtx) {
    if let Some(cookie) = ctx.way().and_then(|way| way.forwarding.set_cookie()) {
        // Beside those of the instance.
        let _ = response.append_header(header::SET_COOKIE, cookie);
    }
}

/// For a trusted client that asked for it.
pub fn explain(response: &mut ResponseHeader, ctx: &RequestCtx) {
    if !ctx.arrived.as_ref().is_some_and(|a| a.arrival.debug) {
        return;
    }
    let refusal = match &ctx.stage {
        Stage::Refused(refusal, _) => Some(refusal),
        _ => None,
    };
    for (name, value) in explain::explain(ctx.way().map(|way| &way.forwarding), refusal) {
        response.set(name, value.as_bytes());
    }
}
