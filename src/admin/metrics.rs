//! `/metrics`: one walk over the snapshot in force per family, since a family may not be told in two parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue};

use super::body::{Body, Gone, Outlet, PIECE_SIZE};
use super::services::by_name;
use super::sources::{ProxyReading, RegistryReading, Sources};
use super::{Reply, reply};
use crate::catalog::Snapshot;
use crate::pool::{Histogram, Instance, Limbo, Moment, Out, Service};
use crate::telemetry::{Exposition, Family, Format, ProcessReading, families};

pub fn metrics(sources: Arc<Sources>, fields: &HeaderMap) -> Reply {
    let accept = fields.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let body = Body::in_pieces(|out| async move { tell(&sources, format, &out).await });
    let mut reply = reply::reply(format.content_type(), body);
    reply.headers_mut().insert(http::header::VARY, HeaderValue::from_static("accept"));
    reply
}

async fn tell(sources: &Sources, format: Format, out: &Outlet) -> Result<(), Gone> {
    let snapshot = sources.live.load_full();
    let mut text = Exposition::new(format, &families::BUILD_INFO);
    text.sample(&[sources.version, sources.revision], 1);
    let proxy = (sources.proxy)();
    requests(&snapshot, &proxy, &mut text);
    pass(&mut text, out).await?;
    services(&snapshot, &mut text, out).await?;
    text.family(&families::PROBE_LATENESS);
    text.histogram(&[], &sources.probe_lateness.read());
    proxy_gauges(&proxy, &mut text);
    registry(sources, &snapshot, &(sources.registry)(), &mut text);
    // It reads a directory with an entry for each connection.
    if let Ok(process) = tokio::task::spawn_blocking(ProcessReading::take).await {
        process.tell(sources.started_at, &mut text);
    }
    text.end();
    out.send(text.take()).await
}

/// Sends what is enough for a piece, and gives way to others now and then.
async fn pass(text: &mut Exposition, out: &Outlet) -> Result<(), Gone> {
    tokio::task::coop::consume_budget().await;
    if text.len() < PIECE_SIZE { Ok(()) } else { out.send(text.take()).await }
}

fn requests(snapshot: &Snapshot, proxy: &ProxyReading, text: &mut Exposition) {
    text.family(&families::HTTP_REQUESTS);
    for route in snapshot.routes.routes() {
        classes(&[route.spec.service.as_str(), route.spec.name.as_str()], &route.stats.by_class(), text);
    }
    classes(&["", ""], &proxy.unrouted, text);
}

/// Nothing of what was never used. Once it was, the usual classes are all there, so that a rate sees their first one.
fn classes([service, route]: &[&str; 2], by_class: &[u64; 6], text: &mut Exposition) {
    if by_class.iter().all(|n| *n == 0) {
        return;
    }
    for (class, n) in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(by_class) {
        if *n > 0 || !matches!(class, "none" | "1xx") {
            text.sample(&[service, route, class], n);
        }
    }
}

async fn services(snapshot: &Snapshot, text: &mut Exposition, out: &Outlet) -> Result<(), Gone> {
    let services = by_name(snapshot);
    text.family(&families::HTTP_REQUEST_SECONDS);
    for service in &services {
        durations(service, &service.stats.requests, text);
        pass(text, out).await?;
    }
    text.family(&families::UPSTREAM_SECONDS);
    for service in &services {
        durations(service, &service.stats.attempts, text);
        pass(text, out).await?;
    }
    let instances = || services.iter().flat_map(|service| service.pool.all());
    text.family(&families::UPSTREAM_REQUESTS);
    for instance in instances() {
        if is_tried(instance) {
            for (outcome, n) in instance.state.outcomes() {
                text.sample(&[instance.service.as_str(), instance.id.as_str(), outcome.as_str()], n);
            }
        }
        pass(text, out).await?;
    }
    text.family(&families::UPSTREAM_IN_FLIGHT);
    for instance in instances() {
        if is_tried(instance) {
            text.sample(&[instance.service.as_str(), instance.id.as_str()], instance.state.in_flight());
        }
        pass(text, out).await?;
    }
    text.family(&families::RETRIES);
    for service in services.iter().filter(|s| is_used(s)) {
        for (cause, n) in service.stats.retries() {
            text.sample(&[service.name.as_str(), cause], n);
        }
        pass(text, out).await?;
    }
    per_used_service(&families::RETRIES_DENIED, &services, text, out, |s| count(&s.stats.retries_denied)).await?;
    per_used_service(&families::OVERFLOW, &services, text, out, |s| count(&s.stats.turnstile.overflowed)).await?;
    per_used_service(&families::QUEUE_DEPTH, &services, text, out, |s| u64::from(s.stats.turnstile.waiting())).await?;
    per_used_service(&families::EJECTIONS_SKIPPED, &services, text, out, |s| count(&s.stats.ejections_skipped)).await?;
    text.family(&families::EJECTIONS);
    for service in services.iter().filter(|s| is_used(s)) {
        for (cause, n) in service.stats.ejections() {
            text.sample(&[service.name.as_str(), cause.as_str()], n);
        }
        pass(text, out).await?;
    }
    let now = Moment::of(Instant::now());
    per_service(&families::PANIC_ACTIVE, &services, text, out, |s| u64::from(s.view(now).panic)).await?;
    per_service(&families::SLOW_START_ACTIVE, &services, text, out, |s| s.view(now).n_warming as u64).await?;
    text.family(&families::INSTANCES);
    for service in &services {
        let mut counts = [0u64; STATES.len()];
        service.pool.all().iter().for_each(|i| counts[state_of(i, service.admits(i, now))] += 1);
        for (state, n) in STATES.into_iter().zip(counts) {
            text.sample(&[service.name.as_str(), state], n);
        }
        pass(text, out).await?;
    }
    let is_protected = |i: &Arc<Instance>| i.standing.limbo == Some(Limbo::Together);
    let protects = |s: &Service| u64::from(s.pool.all().iter().any(is_protected));
    per_service(&families::REGISTRY_PROTECTION_ACTIVE, &services, text, out, protects).await?;
    let n_limbo = |s: &Service| s.pool.all().iter().filter(|i| i.standing.limbo.is_some()).count() as u64;
    per_service(&families::REGISTRY_LIMBO_INSTANCES, &services, text, out, n_limbo).await?;
    text.family(&families::PROBES);
    for service in services.iter().filter(|s| s.stats.probe_times.read().count() > 0) {
        for (result, n) in service.stats.probes() {
            text.sample(&[service.name.as_str(), result.as_str()], n);
        }
        pass(text, out).await?;
    }
    text.family(&families::PROBE_SECONDS);
    for service in &services {
        durations(service, &service.stats.probe_times, text);
        pass(text, out).await?;
    }
    Ok(())
}

/// What becomes of an instance, in one word each; an instance has exactly one.
const STATES: [&str; 7] = ["ready", "draining", "maintenance", "down", "ejected", "waiting", "limbo"];

/// An index into `STATES`.
fn state_of(instance: &Instance, admitted: Result<(), Out>) -> usize {
    match admitted {
        Ok(()) if instance.standing.limbo.is_none() => 0,
        Ok(()) | Err(Out::Limbo) => 6,
        Err(Out::Draining | Out::SaysDraining) => 1,
        Err(Out::Maintenance) => 2,
        Err(Out::Down) => 3,
        Err(Out::Ejected(_) | Out::HalfOpen) => 4,
        Err(Out::Weightless | Out::Unresolved | Out::Unproven) => 5,
    }
}

async fn per_service(
    family: &'static Family,
    services: &[&Arc<Service>],
    text: &mut Exposition,
    out: &Outlet,
    value: impl Fn(&Service) -> u64,
) -> Result<(), Gone> {
    text.family(family);
    for service in services {
        text.sample(&[service.name.as_str()], value(service));
        pass(text, out).await?;
    }
    Ok(())
}

/// Most of a large registry is idle on any one proxy.
async fn per_used_service(
    family: &'static Family,
    services: &[&Arc<Service>],
    text: &mut Exposition,
    out: &Outlet,
    value: impl Fn(&Service) -> u64,
) -> Result<(), Gone> {
    let used: Vec<&Arc<Service>> = services.iter().copied().filter(|s| is_used(s)).collect();
    per_service(family, &used, text, out, value).await
}

fn is_used(service: &Service) -> bool {
    service.stats.requests.read().count() > 0 || service.stats.attempts.read().count() > 0
}

fn durations(service: &Service, histogram: &Histogram, text: &mut Exposition) {
    let reading = histogram.read();
    if reading.count() > 0 {
        text.histogram(&[service.name.as_str()], &reading);
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Most of a large registry is idle on any one proxy.
fn is_tried(instance: &Instance) -> bool {
    instance.state.in_flight() > 0 || instance.state.outcomes().any(|(_, n)| n > 0)
}

fn proxy_gauges(proxy: &ProxyReading, text: &mut Exposition) {
    text.family(&families::HTTP1_REQUESTS);
    text.sample(&["own"], proxy.http1_own);
    text.sample(&["general"], proxy.http1_general);
    text.family(&families::CONNECTIONS);
    for (listener, n) in &proxy.connections {
        text.sample(&[&listener.to_string()], n);
    }
    text.family(&families::BYTES);
    text.sample(&["in"], proxy.received_bytes);
    text.sample(&["out"], proxy.sent_bytes);
    text.family(&families::DRAINS_ACTIVE);
    text.sample(&[], proxy.drains_active);
    text.family(&families::DRAIN_FORCED_CLOSES);
    text.sample(&[], proxy.drain_forced_closes);
}

fn registry(sources: &Sources, snapshot: &Snapshot, reading: &RegistryReading, text: &mut Exposition) {
    text.family(&families::REGISTRY_CONNECTED);
    text.sample(&[], u8::from(reading.connected));
    text.family(&families::REGISTRY_APPLIED_REVISION);
    text.sample(&[], snapshot.revision);
    if let Some(age) = reading.last_event_age {
        text.family(&families::REGISTRY_LAST_EVENT_AGE);
        text.sample(&[], age.as_secs_f64());
    }
    text.family(&families::REGISTRY_APPLY_SECONDS);
    text.histogram(&[], &sources.timings.apply.read());
    text.family(&families::REGISTRY_PROPAGATION_SECONDS);
    text.histogram(&[], &sources.timings.propagation.read());
    text.family(&families::REGISTRY_EVENTS);
    text.sample(&["put"], reading.n_puts);
    text.sample(&["delete"], reading.n_deletes);
    text.family(&families::REGISTRY_REJECTED_RECORDS);
    text.sample(&[], reading.n_rejected);
    text.family(&families::REGISTRY_RELISTS);
    for (reason, n) in &reading.relists {
        text.sample(&[reason], n);
    }
}
