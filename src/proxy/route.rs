//! Which route and service a request belongs to: asked once, of one snapshot.

use super::arrival::Arrival;
use super::attempt::Forwarding;
use super::head::RequestHead;
use super::reply::Refusal;
use crate::catalog::Snapshot;
use crate::routing::Question;

/// The way of a request through this proxy. A route to a service that does not exist (yet) is one without instances.
pub fn route(snapshot: &Snapshot, head: &RequestHead<'_>, arrival: &Arrival) -> Result<Forwarding, Refusal> {
    let question = Question {
        host: &head.host,
        path: &head.path,
        query: head.query.unwrap_or_default(),
        method: head.method,
        headers: head.fields,
    };
    // Before the registry is known, what is missing may exist.
    let unknown = if snapshot.registry_known { Refusal::NoRoute } else { Refusal::RegistryUnknown };
    let route = snapshot.routes.find(&question).ok_or(unknown)?;
    let service = route.spec.service().and_then(|service| snapshot.services.get(service)).cloned();
    Ok(Forwarding::new(snapshot, route.clone(), service, head, arrival))
}
