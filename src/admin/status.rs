//! `/readyz`: whether traffic may come; `/api/v1/status`: the process and its registry in one answer.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value as Json, json};

use super::Reply;
use super::reply::json_reply;
use super::services::moment;
use super::sources::{RegistryReading, Sources};
use crate::pool::Moment;

pub fn readiness(sources: &Sources) -> Reply {
    let reasons = reasons(sources, &(sources.registry)());
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_reply(status, &json!({ "ready": reasons.is_empty(), "reasons": reasons }))
}

/// Why no traffic should come. A registry that was heard of once and is away now is no reason: what it said stays in force.
fn reasons(sources: &Sources, registry: &RegistryReading) -> Vec<String> {
    let mut reasons = Vec::new();
    if !sources.live.load().registry_known {
        let why = |trouble: &Option<String>| trouble.clone().unwrap_or("its first answer has not come yet".to_owned());
        let silent = registry.sources.iter().find(|source| registry.source.is_some() && source.source.is_none());
        let (who, trouble) = match silent {
            Some(source) => (format!("the source {}", source.keys), why(&source.trouble)),
            None => (format!("the registry ({})", registry.kind), why(&registry.trouble)),
        };
        reasons.push(format!("routing is not known: {who} has not been heard of: {trouble}"));
    }
    if *sources.leaving.borrow() {
        reasons.push("shutting down".to_owned());
    }
    reasons
}

pub fn status(sources: &Sources) -> Json {
    let (snapshot, registry, proxy) = (sources.live.load_full(), (sources.registry)(), (sources.proxy)());
    let reasons = reasons(sources, &registry);
    let now = Moment::of(Instant::now());
    let listeners = proxy.connections.iter().map(|(listener, n)| json!({ "address": listener.to_string(), "connections": n }));
    json!({
        "version": sources.version,
        "revision": sources.revision,
        "started_at": moment(sources.started_at),
        "uptime_s": seconds(sources.started_at.elapsed().ok()),
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "counts": {
            "services": snapshot.services.len(),
            "instances": snapshot.services.iter().map(|(_, s)| s.pool.all().len()).sum::<usize>(),
            "eligible": snapshot.services.iter().map(|(_, s)| s.n_admitted(now)).sum::<usize>(),
            "routes": snapshot.routes.routes().len(),
        },
        "registry": registry_json(&registry, snapshot.revision),
        "proxy": {
            "listeners": listeners.collect::<Json>(),
            "received_bytes": proxy.received_bytes,
            "sent_bytes": proxy.sent_bytes,
            "drains_active": proxy.drains_active,
            "drain_forced_closes": proxy.drain_forced_closes,
        },
    })
}

fn registry_json(reading: &RegistryReading, applied_revision: u64) -> Json {
    json!({
        "kind": reading.kind,
        "connected": reading.connected,
        "endpoint": reading.endpoint,
        "trouble": reading.trouble,
        "source": reading.source,
        "stale": reading.stale,
        "applied_revision": applied_revision,
        "last_event_age_s": seconds(reading.last_event_age),
        "last_answer_age_s": seconds(reading.last_answer_age),
        "keys": reading.n_keys,
        "puts": reading.n_puts,
        "deletes": reading.n_deletes,
        "warnings": reading.n_warnings,
        "drifts": reading.n_drifts,
        "relists": reading.relists.iter().map(|(reason, n)| ((*reason).to_owned(), Json::from(*n))).collect::<serde_json::Map<_, _>>(),
        "n_rejected": reading.n_rejected,
        "rejected": reading.rejected,
        "sources": reading.sources,
    })
}

/// To the millisecond.
fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| (time.as_secs_f64() * 1e3).round() / 1e3)
}
