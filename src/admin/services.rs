//! `/api/v1/services`: a line for each service; `/api/v1/services/NAME`: one service with all of its instances.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use serde::Serialize;
use serde_json::Value as Json;

use super::Reply;
use super::body::{Body, Gone, Outlet};
use super::reply::{JSON, Refusal, reply};
use crate::catalog::Snapshot;
use crate::model::{Lifecycle, Origin};
use crate::pool::{Histogram, Instance, Moment, Service};
use crate::wire::policy_json;

pub fn list(snapshot: Arc<Snapshot>) -> Reply {
    reply(JSON, Body::in_pieces(|out| async move { tell_all(&snapshot, &out).await }))
}

pub fn one(snapshot: &Snapshot, name: &str) -> Result<Reply, Refusal> {
    let service = snapshot.services.get(name).cloned().ok_or_else(|| Refusal::NoService { name: name.to_owned() })?;
    let revision = snapshot.revision;
    Ok(reply(JSON, Body::in_pieces(move |out| async move { tell_one(revision, &service, &out).await })))
}

async fn tell_all(snapshot: &Snapshot, out: &Outlet) -> Result<(), Gone> {
    let now = Moment::of(Instant::now());
    let mut text = format!("{{\"revision\":{},\"services\":[", snapshot.revision);
    for (n, service) in by_name(snapshot).into_iter().enumerate() {
        text.push_str(if n == 0 { "\n" } else { ",\n" });
        text.push_str(&text_of(&Summary::of(service, now)));
        out.pass(&mut text).await?;
    }
    text.push_str("\n]}\n");
    out.send(text).await
}

async fn tell_one(revision: u64, service: &Service, out: &Outlet) -> Result<(), Gone> {
    let now = Moment::of(Instant::now());
    let summary = text_of(&Summary::of(service, now));
    // What follows stands inside the same object.
    let open = summary.strip_suffix('}').unwrap_or(&summary);
    let policy = without_secrets(policy_json(&service.policy));
    let mut text = format!("{open},\"revision\":{revision},\"policy\":{policy},\"instances\":[");
    for (n, instance) in service.pool.all().iter().enumerate() {
        text.push_str(if n == 0 { "\n" } else { ",\n" });
        text.push_str(&text_of(&InstanceView::of(service, instance, now)));
        out.pass(&mut text).await?;
    }
    text.push_str("\n]}\n");
    out.send(text).await
}

/// Headers of probes may hold a password.
fn without_secrets(mut policy: Json) -> Json {
    let headers = policy.pointer_mut("/probe/headers").and_then(Json::as_object_mut);
    headers.into_iter().flatten().for_each(|(_, value)| *value = "(hidden)".into());
    policy
}

pub fn by_name(snapshot: &Snapshot) -> Vec<&Arc<Service>> {
    let mut services: Vec<&Arc<Service>> = snapshot.services.iter().map(|(_, service)| service).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

/// What is the same in the list and in the service's own answer.
#[derive(Serialize)]
struct Summary<'a> {
    name: &'a str,
    balance: &'static str,
    counts: Counts,
    in_flight: u64,
    requests: u64,
    /// Attempts that failed.
    failures: u64,
    refused: u64,
    retries: u64,
    latency_ms: Latency,
    /// So few are well that all are used that can be reached.
    panic: bool,
    /// How many get less than their weight for now.
    slow_start: usize,
    latency_outliers: usize,
}

#[derive(Default, Serialize)]
struct Counts {
    total: usize,
    eligible: usize,
    ready: usize,
    /// Kept though the registry has them no more; not counted as ready.
    limbo: usize,
    draining: usize,
    maintenance: usize,
}

#[derive(Serialize)]
struct InstanceView<'a> {
    id: &'a str,
    address: String,
    resolved: Option<SocketAddr>,
    weight: u16,
    state: &'static str,
    probe: &'static str,
    /// The last probe in words, and when it ended; `null` before the first.
    probe_detail: Option<String>,
    probed_at: Option<String>,
    /// Why a request could not connect, if none was answered since.
    connect_detail: Option<String>,
    passive: &'static str,
    eligible: bool,
    reason: Option<String>,
    in_flight: u32,
    requests: u64,
    failures: u64,
    outcomes: BTreeMap<&'static str, u64>,
    latency_ms: Latency,
    since: String,
    origin: Cow<'static, str>,
    overridden: bool,
    revision: u64,
    protocol: &'static str,
    tier: u8,
    zone: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
}

/// `null` before anything was measured.
#[derive(Serialize)]
struct Latency {
    p50: Option<f64>,
    p99: Option<f64>,
}

impl<'a> Summary<'a> {
    fn of(service: &'a Service, now: Moment) -> Self {
        let (stats, view) = (&service.stats, service.view(now));
        let mut counts = Counts { total: service.pool.all().len(), ..Counts::default() };
        let (mut in_flight, mut failures) = (0, 0);
        // Once over all of them: there may be very many, each in a place of its own in memory.
        for instance in service.pool.all() {
            counts.eligible += usize::from(service.admits(instance, now).is_ok());
            match instance.standing.lifecycle {
                Lifecycle::Ready if instance.standing.limbo.is_some() => counts.limbo += 1,
                Lifecycle::Ready => counts.ready += 1,
                Lifecycle::Draining => counts.draining += 1,
                Lifecycle::Maintenance => counts.maintenance += 1,
            }
            in_flight += u64::from(instance.state.in_flight());
            failures += attempts(instance).1;
        }
        Self {
            name: service.name.as_str(),
            balance: service.policy.balance.as_str(),
            counts,
            in_flight,
            failures,
            requests: stats.requests.read().count(),
            refused: stats.refused.load(Ordering::Relaxed),
            retries: stats.retries().map(|(_, n)| n).sum(),
            latency_ms: Latency::of(Some(&stats.requests)),
            panic: view.panic,
            slow_start: view.n_warming,
            latency_outliers: view.n_slow,
        }
    }
}

impl<'a> InstanceView<'a> {
    fn of(service: &Service, instance: &'a Instance, now: Moment) -> Self {
        let Instance { id, origin, spec, standing, state, .. } = instance;
        let (requests, failures) = attempts(instance);
        let probed_at = state.health.probed_at();
        Self {
            id: id.as_str(),
            address: spec.address.to_string(),
            resolved: standing.addr,
            weight: standing.weight,
            state: standing.word(),
            probe: state.health.verdict().as_str(),
            probe_detail: probed_at.map(|_| state.health.probe_said()),
            probed_at: probed_at.map(|at| moment(SystemTime::now() - now.since(at))),
            connect_detail: state.health.connect_said(),
            passive: state.health.passive().as_str(),
            eligible: service.admits(instance, now).is_ok(),
            reason: service
                .reason(instance, now)
                .or_else(|| standing.limbo.map(|limbo| limbo.words().to_owned()))
                .or_else(|| service.why_less(instance, now)),
            in_flight: state.in_flight(),
            requests,
            failures,
            outcomes: state.outcomes().filter(|(_, n)| *n > 0).map(|(outcome, n)| (outcome.as_str(), n)).collect(),
            latency_ms: Latency::of(state.latency()),
            since: moment(state.since),
            origin: origin_word(*origin),
            overridden: standing.overridden,
            revision: standing.revision,
            protocol: spec.protocol.as_str(),
            tier: spec.tier,
            zone: spec.zone.as_deref(),
            metadata: &spec.metadata,
        }
    }
}

impl Latency {
    fn of(histogram: Option<&Histogram>) -> Self {
        let reading = histogram.map(Histogram::read);
        let quantile = |share| {
            let took = reading.as_ref()?.quantile(share)?;
            Some((took.as_secs_f64() * 1e6).round() / 1e3)
        };
        Self { p50: quantile(0.5), p99: quantile(0.99) }
    }
}

/// All that ended, and those of them that failed.
fn attempts(instance: &Instance) -> (u64, u64) {
    instance
        .state
        .outcomes()
        .fold((0, 0), |(all, failed), (outcome, n)| (all + n, failed + if outcome.is_failure() { n } else { 0 }))
}

/// Our own views have no maps with other keys than text, so this cannot fail.
fn text_of(view: &impl Serialize) -> String {
    serde_json::to_string(view).unwrap_or_default()
}

pub fn moment(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at.max(SystemTime::UNIX_EPOCH)).to_string()
}

pub fn origin_word(origin: Origin) -> Cow<'static, str> {
    match origin {
        Origin::File => "file".into(),
        Origin::Registry => "registry".into(),
        // As the snapshot's files count them: from 1.
        Origin::Source(number) => format!("source-{}", u16::from(number) + 1).into(),
    }
}
