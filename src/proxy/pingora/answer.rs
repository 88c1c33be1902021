//! Answers of ours as Pingora writes them, and what trusted clients may see of our decisions.

use bytes::Bytes;
use http::{Method, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::ctx::{RequestCtx, Stage};
use crate::proxy::forward::{self, FieldsMut};
use crate::proxy::{edit, explain};

/// Writes the answer of a refused request.
pub async fn refuse(session: &mut Session, ctx: &RequestCtx) -> Result<()> {
    let (Stage::Refused(refusal, _), Some(arrived)) = (&ctx.stage, &ctx.arrived) else { return Ok(()) };
    let request = session.req_header();
    let is_head = request.method == Method::HEAD;
    let reply = refusal.reply(&request.headers, &arrived.arrival.request_id);
    let mut response = ResponseHeader::build(reply.status, Some(8))?;
    reply.write_fields(&mut response, &arrived.arrival.request_id);
    if refusal.is_of_route() {
        edit_response(&mut response, request, ctx);
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

/// What the route changes in an answer to this request.
pub fn edit_response(response: &mut ResponseHeader, request: &RequestHeader, ctx: &RequestCtx) {
    if let (Some(way), Some(arrived)) = (ctx.way(), &ctx.arrived) {
        edit::response(response, &way.forwarding.route.spec, || way.asked(&arrived.arrival, request));
    }
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
