//! What a route does to a request beside sending it to an instance, and to its answer: one function for each phase, for both
//! engines.
//!
//! 1. [`settle`], once a request has its route: the target that instances are asked for, or the answer in place of theirs.
//! 2. [`request`], for each attempt, behind everything that `forward` changes.
//! 3. [`response`], for the answer of an instance, and for that of a route that asks none; not for refusals, nor for 1xx.
//!
//! Invariants:
//! - Routing, retries, `hash_on` and the access log know the request as the client asked for it.
//! - A field that is set stands there once, whatever the client called its own; `wire` lets nobody set what frames a message.
//! - A route that does nothing of this costs a look at three empty lists.

use std::borrow::Cow;

use http::{HeaderName, header};

use super::arrival::Arrival;
use super::forward::{FieldsMut, Origin};
use super::head::RequestHead;
use super::reply::Refusal;
use crate::model::{Action, FieldEdits, RouteSpec};
use crate::routing::{Words, filled, host_of, location, rewritten};

/// Fields whose names come from a route.
pub trait EditFields<'n>: FieldsMut {
    /// Replaces every field of that name.
    fn put(&mut self, name: &'n HeaderName, value: &[u8]);
    /// Beside others of that name.
    fn add(&mut self, name: &'n HeaderName, value: &[u8]);
}

/// What becomes of a request, as far as its route alone says it.
#[derive(Debug, Default)]
pub struct Settled {
    /// The target that instances are asked for, where it is not the client's.
    pub target: Option<String>,
    /// No instance is asked.
    pub instead: Option<Refusal>,
}

pub fn settle(spec: &RouteSpec, head: &RequestHead<'_>, arrival: &Arrival) -> Settled {
    let words = || Words {
        client: arrival.client,
        host: &head.host,
        scheme: head.scheme.as_str(),
        path: &head.path,
        query: head.query,
        request_id: &arrival.request_id,
    };
    let answer = |refusal| Settled { target: None, instead: Some(refusal) };
    match &spec.action {
        Action::Forward(_) => match rewritten(spec, &head.path, head.query) {
            Ok(target) => Settled { target, instead: None },
            Err(why) => answer(Refusal::Malformed(why)),
        },
        Action::Redirect(redirect) => answer(match location(redirect, spec, words()) {
            Ok(location) => Refusal::Redirect { status: redirect.status, location },
            Err(why) => Refusal::Malformed(why),
        }),
        Action::Respond(respond) => answer(Refusal::Respond(respond.clone())),
    }
}

/// A request as its client asked for it, for who has no head of it any more.
pub struct Asked<'a> {
    arrival: &'a Arrival,
    scheme: &'static str,
    host: Cow<'a, str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// `target`: in origin form.
    pub fn new(arrival: &'a Arrival, origin: &'a Origin<'_>, target: &'a [u8]) -> Self {
        // It was read as a text before it had a route.
        let target = std::str::from_utf8(target).unwrap_or_default();
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let host = host_of(&origin.authority).unwrap_or_default();
        Self { arrival, scheme: origin.scheme.as_str(), host, path, query }
    }

    fn words(&self) -> Words<'_> {
        Words {
            client: self.arrival.client,
            host: &self.host,
            scheme: self.scheme,
            path: self.path,
            query: self.query,
            request_id: &self.arrival.request_id,
        }
    }
}

/// The fields of a request on its way to an instance. `asked` is looked at only if the route changes any.
pub fn request<'n>(fields: &mut impl EditFields<'n>, spec: &'n RouteSpec, asked: impl FnOnce() -> Asked<'n>) {
    if let Some(host) = &spec.rewrite.host {
        fields.put(&header::HOST, host.as_bytes());
    }
    let edits = &spec.request_headers;
    if !edits.is_empty() {
        drop_twins(fields, edits);
        apply(fields, edits, spec, &asked());
    }
}

/// The fields of an answer on its way to the client.
pub fn response<'n>(fields: &mut impl EditFields<'n>, spec: &'n RouteSpec, asked: impl FnOnce() -> Asked<'n>) {
    if !spec.response_headers.is_empty() {
        apply(fields, &spec.response_headers, spec, &asked());
    }
}

fn apply<'n>(fields: &mut impl EditFields<'n>, edits: &'n FieldEdits, spec: &RouteSpec, asked: &Asked<'_>) {
    edits.remove.iter().for_each(|name| fields.remove(name.as_str()));
    for edit in &edits.set {
        match &*filled(&edit.value, spec, asked.words()) {
            "" => fields.remove(edit.name.as_str()),
            value => fields.put(&edit.name, value.as_bytes()),
        }
    }
    for edit in &edits.add {
        match &*filled(&edit.value, spec, asked.words()) {
            "" => {}
            value => fields.add(&edit.name, value.as_bytes()),
        }
    }
}

/// CGI and its heirs read `X_User` as the field with a dash: what a route sets or takes away, no client says like that.
fn drop_twins(fields: &mut impl FieldsMut, edits: &FieldEdits) {
    let mut twins: Vec<String> = Vec::new();
    let names = || edits.set.iter().map(|edit| &edit.name).chain(&edits.remove);
    fields.each(&mut |name, _| {
        if name.contains('_') && names().any(|ours| are_twins(ours.as_str(), name)) {
            twins.push(name.to_ascii_lowercase());
        }
    });
    twins.iter().for_each(|name| fields.remove(name));
}

fn are_twins(one: &str, other: &str) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    one.len() == other.len() && one.bytes().map(dashed).eq(other.bytes().map(dashed))
}
