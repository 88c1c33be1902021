//! `/metrics`: one walk over the snapshot in force per family, since a family may not be told in two parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue};

use super::body::{Body, Gone, Outlet, PIECE_SIZE};
use super::services::by_name;
use super::sources::{ProxyReading, RegistryReading, Sources};
use super::{Reply, acme, certificates, reply};
use crate::catalog::Snapshot;
use crate::model::ServiceName;
use crate::pool::{Histogram, Instance, Limbo, Moment, Out, Service};
use crate::routing::Route;
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
    certificates::metrics(sources, &proxy.handshakes, &mut text);
    acme::metrics(sources, &snapshot, &proxy.challenges, &mut text);
    text.family(&families::ADMIN_UNAUTHORIZED);
    for (reason, n) in sources.access.refused() {
        text.sample(&[reason], n);
    }
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
        classes(&[service_of(route), route.spec.name.as_str()], &route.stats.by_class(), text);
    }
    classes(&["", ""], &proxy.unrouted, text);
    text.family(&families::RATE_LIMITED);
    for route in snapshot.routes.routes().into_iter().filter(|route| route.spec.rate_limit.is_some()) {
        for (mode, n) in [("refused", &route.stats.limited), ("dry_run", &route.stats.limited_dry)] {
            text.sample(&[service_of(route), route.spec.name.as_str(), mode], count(n));
        }
    }
}

/// Empty for a route that asks none.
fn service_of(route: &Route) -> &str {
    route.spec.service().map_or("", ServiceName::as_str)
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
    let all = by_name(snapshot);
    // Most of a large registry is idle on any one proxy.
    let used: Vec<&Arc<Service>> = all.iter().copied().filter(|s| is_used(s)).collect();
    let probed: Vec<&Arc<Service>> = all.iter().copied().filter(|s| !s.stats.probe_times.is_empty()).collect();
    let now = Moment::of(Instant::now());
    per_service(&families::HTTP_REQUEST_SECONDS, &used, text, out, |s, text| durations(s, &s.stats.requests, text)).await?;
    per_service(&families::UPSTREAM_SECONDS, &used, text, out, |s, text| durations(s, &s.stats.attempts, text)).await?;
    per_tried_instance(&families::UPSTREAM_REQUESTS, &all, text, out, |[service, id], i, text| {
        i.state.outcomes().for_each(|(outcome, n)| text.sample(&[service, id, outcome.as_str()], n));
    })
    .await?;
    per_tried_instance(&families::UPSTREAM_IN_FLIGHT, &all, text, out, |labels, i, text| {
        text.sample(&labels, i.state.in_flight());
    })
    .await?;
    per_service(&families::RETRIES, &used, text, out, |s, text| by_label(s, s.stats.retries(), text)).await?;
    let retries_denied = |s: &Service| count(&s.stats.retries_denied);
    let ejections_skipped = |s: &Service| count(&s.stats.ejections_skipped);
    per_service(&families::RETRIES_DENIED, &used, text, out, one(retries_denied)).await?;
    per_service(&families::OVERFLOW, &used, text, out, one(|s| count(&s.stats.turnstile.overflowed))).await?;
    per_service(&families::QUEUE_DEPTH, &used, text, out, one(|s| s.stats.turnstile.waiting().into())).await?;
    per_service(&families::EJECTIONS_SKIPPED, &used, text, out, one(ejections_skipped)).await?;
    let ejections = |s: &Service, text: &mut Exposition| {
        by_label(s, s.stats.ejections().map(|(cause, n)| (cause.as_str(), n)), text);
    };
    per_service(&families::EJECTIONS, &used, text, out, ejections).await?;
    per_service(&families::PANIC_ACTIVE, &all, text, out, one(|s| s.view(now).panic.into())).await?;
    per_service(&families::SLOW_START_ACTIVE, &all, text, out, one(|s| s.view(now).n_warming as u64)).await?;
    per_service(&families::LATENCY_OUTLIERS, &used, text, out, one(|s| count(&s.stats.latency_outliers))).await?;
    per_service(&families::LATENCY_OUTLIERS_ACTIVE, &all, text, out, one(|s| s.view(now).n_slow as u64)).await?;
    per_service(&families::INSTANCES, &all, text, out, |s, text| by_label(s, states(s, now), text)).await?;
    let is_protected = |i: &Arc<Instance>| i.standing.limbo == Some(Limbo::Together);
    let protects = |s: &Service| s.pool.all().iter().any(is_protected).into();
    per_service(&families::REGISTRY_PROTECTION_ACTIVE, &all, text, out, one(protects)).await?;
    let n_limbo = |s: &Service| s.pool.all().iter().filter(|i| i.standing.limbo.is_some()).count() as u64;
    per_service(&families::REGISTRY_LIMBO_INSTANCES, &all, text, out, one(n_limbo)).await?;
    let probes = |s: &Service, text: &mut Exposition| {
        by_label(s, s.stats.probes().map(|(result, n)| (result.as_str(), n)), text);
    };
    per_service(&families::PROBES, &probed, text, out, probes).await?;
    per_service(&families::PROBE_SECONDS, &probed, text, out, |s, text| durations(s, &s.stats.probe_times, text)).await?;
    per_service(&families::PROBE_HOLDS, &probed, text, out, one(|s| count(&s.stats.probe_holds))).await
}

/// One family, service by service.
async fn per_service(
    family: &'static Family,
    services: &[&Arc<Service>],
    text: &mut Exposition,
    out: &Outlet,
    tell: impl Fn(&Service, &mut Exposition),
) -> Result<(), Gone> {
    text.family(family);
    for service in services {
        tell(service, text);
        pass(text, out).await?;
    }
    Ok(())
}

/// One family, instance by instance, but for those that were never asked. `tell` gets the labels `service` and `instance`.
async fn per_tried_instance(
    family: &'static Family,
    services: &[&Arc<Service>],
    text: &mut Exposition,
    out: &Outlet,
    tell: impl Fn([&str; 2], &Instance, &mut Exposition),
) -> Result<(), Gone> {
    text.family(family);
    for instance in services.iter().flat_map(|service| service.pool.all()) {
        if instance.state.in_flight() > 0 || instance.state.outcomes().any(|(_, n)| n > 0) {
            tell([instance.service.as_str(), instance.id.as_str()], instance, text);
        }
        pass(text, out).await?;
    }
    Ok(())
}

/// A service's one sample.
fn one(value: impl Fn(&Service) -> u64) -> impl Fn(&Service, &mut Exposition) {
    move |service, text| text.sample(&[service.name.as_str()], value(service))
}

/// A service's sample for each value of a second label.
fn by_label(service: &Service, values: impl IntoIterator<Item = (&'static str, u64)>, text: &mut Exposition) {
    for (label, value) in values {
        text.sample(&[service.name.as_str(), label], value);
    }
}

fn durations(service: &Service, histogram: &Histogram, text: &mut Exposition) {
    if !histogram.is_empty() {
        text.histogram(&[service.name.as_str()], &histogram.read());
    }
}

fn is_used(service: &Service) -> bool {
    !service.stats.requests.is_empty() || !service.stats.attempts.is_empty()
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// How many instances are in each state.
fn states(service: &Service, now: Moment) -> impl Iterator<Item = (&'static str, u64)> {
    let mut counts = [0; STATES.len()];
    service.pool.all().iter().for_each(|i| counts[state_of(i, service.admits(i, now))] += 1);
    STATES.into_iter().zip(counts)
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
        Err(Out::Weightless | Out::Unresolved | Out::Refused(_) | Out::Unproven) => 5,
    }
}

fn proxy_gauges(proxy: &ProxyReading, text: &mut Exposition) {
    text.family(&families::HTTP1_REQUESTS);
    text.sample(&["own"], proxy.http1_own);
    text.sample(&["general"], proxy.http1_general);
    text.family(&families::PROXY_HEADERS);
    for (result, n) in &proxy.proxy_headers {
        text.sample(&[result], n);
    }
    text.family(&families::HTTP2_CUTS);
    for (cause, n) in &proxy.http2_cuts {
        text.sample(&[cause], n);
    }
    text.family(&families::CONNECTIONS);
    for (listener, n) in &proxy.connections {
        text.sample(&[&listener.to_string()], n);
    }
    text.family(&families::LIMITS);
    for (limit, n) in &proxy.limits {
        text.sample(&[limit], n);
    }
    text.family(&families::RATE_DISPLACED);
    text.sample(&[], proxy.rate_displaced);
    text.family(&families::BYTES);
    text.sample(&["in"], proxy.received_bytes);
    text.sample(&["out"], proxy.sent_bytes);
    text.family(&families::DRAINS_ACTIVE);
    text.sample(&[], proxy.drains_active);
    text.family(&families::DRAIN_FORCED_CLOSES);
    text.sample(&[], proxy.drain_forced_closes);
    text.family(&families::UPGRADES);
    for (result, n) in &proxy.upgrades {
        text.sample(&[result], *n);
    }
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
    text.family(&families::REGISTRY_ADDRESSES_REFUSED);
    for (source, n) in &reading.addresses_refused {
        text.sample(&[source], n);
    }
    text.family(&families::REGISTRY_RELISTS);
    for (reason, n) in &reading.relists {
        text.sample(&[reason], n);
    }
}
