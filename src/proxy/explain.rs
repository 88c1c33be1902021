//! `X-Pointsman-…`: what was decided about a request, for a trusted client that asks.

use super::attempt::Forwarding;
use super::reply::Refusal;

/// `forwarding`: of a request that met a route. `refusal`: of one that we answer ourselves.
pub fn explain(forwarding: Option<&Forwarding>, refusal: Option<&Refusal>) -> Vec<(&'static str, String)> {
    let mut said = Vec::new();
    if let Some(forwarding) = forwarding {
        said.push(("x-pointsman-route", forwarding.route.spec.name.to_string()));
        said.extend(forwarding.route.spec.service().map(|service| ("x-pointsman-service", service.to_string())));
        let running = forwarding.current().map(|a| a.instance());
        if let Some(instance) = running.or(forwarding.attempts.last().map(|a| &a.instance)) {
            said.push(("x-pointsman-instance", instance.id.to_string()));
        }
        if let Some(word) = forwarding.current().and_then(|attempt| attempt.why().word()) {
            said.push(("x-pointsman-reason", word.to_owned()));
        }
        said.push(("x-pointsman-attempts", (forwarding.attempts.len() + usize::from(running.is_some())).to_string()));
    }
    if let Some(refusal) = refusal {
        said.push(("x-pointsman-reason", refusal.reason().to_owned()));
    }
    said
}
