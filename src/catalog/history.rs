//! The recent past in words: what `/api/v1/events` shows.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::SystemTime;

use tokio::sync::broadcast;
use tracing::{debug, info, warn};

use crate::model::{
    AcmeOrder, AcmeOrderState, Certificate, CertificateName, CertificateSource, Origin, RouteName, RouteSpec, ServiceName,
    Verdict,
};
use crate::pool::{Instance, Limbo, Service, Subject, Turn};
use crate::tls::fingerprint_text;

pub type RouteChange = (Origin, RouteName, Option<RouteSpec>);

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Counted from 1, without gaps.
    pub sequence: u64,
    pub at: SystemTime,
    pub revision: u64,
    /// A constant word: `instance_added`, `instance_changed`, `instance_gone`, `route_set`, `route_gone`, …
    pub kind: &'static str,
    /// `SERVICE/ID`, or the name of a route.
    pub subject: String,
    pub detail: String,
}

/// Keeps the last `KEPT_MAX` happenings and passes each on to those who follow.
#[derive(Debug)]
pub struct History {
    recent: Mutex<(u64, VecDeque<Happening>)>,
    followers: broadcast::Sender<Happening>,
}

impl Default for History {
    fn default() -> Self {
        Self { recent: Mutex::default(), followers: broadcast::channel(FOLLOWER_LAG_MAX).0 }
    }
}

impl History {
    pub fn recent(&self) -> Vec<Happening> {
        self.lock().1.iter().cloned().collect()
    }

    /// What happens from now on. Who lags behind by more than `FOLLOWER_LAG_MAX` is told so by the channel.
    pub fn follow(&self) -> broadcast::Receiver<Happening> {
        self.followers.subscribe()
    }

    pub fn add(&self, at: SystemTime, revision: u64, kind: &'static str, subject: String, detail: String) {
        let mut recent = self.lock();
        recent.0 += 1;
        let happening = Happening { sequence: recent.0, at, revision, kind, subject, detail };
        if recent.1.len() == KEPT_MAX {
            recent.1.pop_front();
        }
        recent.1.push_back(happening.clone());
        drop(recent);
        // No followers is no error.
        let _ = self.followers.send(happening);
    }

    pub(super) fn routes(&self, changes: &[RouteChange], revision: u64, at: SystemTime) {
        for (_, name, spec) in last(changes) {
            let (kind, detail) = match spec {
                Some(spec) => ("route_set", format!("{} goes to {}", spec.path, spec.action)),
                None => ("route_gone", String::new()),
            };
            self.add(at, revision, kind, name.to_string(), detail);
        }
    }

    /// A certificate that handshakes from now on use, or use no more. `was`: there was one in its place.
    pub(super) fn certificate(&self, source: &CertificateSource, was: bool, is: Option<&Certificate>, revision: u64) {
        let (kind, detail) = match is {
            Some(is) => {
                let until = humantime::format_rfc3339_seconds(is.not_after);
                (
                    "certificate_set",
                    format!("for {}, until {until}, fingerprint {}", is.names.join(" "), fingerprint_text(&is.fingerprint)),
                )
            }
            None => ("certificate_gone", String::new()),
        };
        if was {
            info!(certificate = %source, kind, detail, "Certificate changed");
        } else {
            // A first list may bring thousands.
            debug!(certificate = %source, kind, detail, "Certificate is new");
        }
        self.add(SystemTime::now(), revision, kind, source.to_string(), detail);
    }

    /// What became of an order for a certificate. Who placed it has logged it.
    pub(super) fn acme_order(&self, name: &CertificateName, order: &AcmeOrder, revision: u64) {
        let domains = order.domains.join(" ");
        let next = order.next.map_or(String::new(), |at| format!("; next at {}", humantime::format_rfc3339_seconds(at)));
        let (kind, detail) = match order.state {
            AcmeOrderState::Pending => ("acme_ordered", format!("for {domains}, by {}", order.proxy)),
            AcmeOrderState::Issued => ("acme_issued", format!("for {domains}, by {}{next}", order.proxy)),
            AcmeOrderState::Failed => {
                let error = order.error.as_deref().unwrap_or_default();
                ("acme_failed", format!("for {domains}, by {}: {error}{next}", order.proxy))
            }
        };
        self.add(order.at, revision, kind, name.to_string(), detail);
    }

    /// `why`: in words, where it is not plain.
    pub(super) fn instance(
        &self,
        was: Option<&Instance>,
        is: Option<&Instance>,
        why: Option<&str>,
        revision: u64,
        at: SystemTime,
    ) {
        let in_limbo = |instance: &Instance| instance.standing.limbo.is_some();
        let (kind, instance, detail) = match (was, is) {
            (None, Some(is)) => ("instance_added", is, describe(is)),
            (Some(was), Some(is)) if in_limbo(is) && !in_limbo(was) => ("instance_limbo", is, describe(is)),
            (Some(was), Some(is)) if in_limbo(was) && !in_limbo(is) => ("instance_returned", is, describe(is)),
            (Some(_), Some(is)) => ("instance_changed", is, describe(is)),
            (Some(was), None) if in_limbo(was) => ("instance_dropped", was, why.unwrap_or_default().to_owned()),
            (Some(was), None) => ("instance_gone", was, format!("{} left", was.spec.address)),
            (None, None) => return,
        };
        self.add(at, revision, kind, format!("{}/{}", instance.service, instance.id), detail);
    }

    /// Removal protection begins to hold instances of a service, or holds none any more.
    pub(super) fn protection(&self, service: &ServiceName, n_held: usize, revision: u64, at: SystemTime) {
        let (kind, detail) = if n_held > 0 {
            warn!(%service, n_held, "Many instances vanished at once and nobody deleted them; they are used while their probes pass");
            ("protection_begun", format!("{n_held} instances vanished at once and are held in limbo"))
        } else {
            info!(%service, "No instance is held by removal protection any more");
            ("protection_ended", String::new())
        };
        self.add(at, revision, kind, service.to_string(), detail);
    }

    /// What became of the health of an instance or a service. Rare, so it is logged here, where the words are.
    pub(super) fn turn(&self, subject: Subject<'_>, turn: Turn) {
        match subject {
            Subject::Instance(instance) => self.instance_turn(instance, turn),
            Subject::Service(service) => self.service_turn(service, turn),
        }
    }

    fn service_turn(&self, service: &Service, turn: Turn) {
        let (kind, detail) = if turn == Turn::Panic(true) {
            warn!(service = %service.name, "Too few instances are well, so all are used that can be reached");
            ("panic_begun", "too few instances are well, so all are used that can be reached")
        } else {
            info!(service = %service.name, "Enough instances are well again");
            ("panic_ended", "enough instances are well again")
        };
        self.add(SystemTime::now(), 0, kind, service.name.to_string(), detail.to_owned());
    }

    fn instance_turn(&self, instance: &Instance, turn: Turn) {
        let (service, id) = (&instance.service, &instance.id);
        let (kind, detail) = match turn {
            Turn::Verdict(verdict) => {
                let said = instance.state.health.probe_said();
                match verdict {
                    Verdict::Down => warn!(%service, instance = %id, said, "Probes found an instance down"),
                    _ => info!(%service, instance = %id, "Probes found an instance up"),
                }
                (verdict_kind(verdict), said)
            }
            Turn::ProbeFailed => return,
            Turn::Ejected { cause, lasts } => {
                warn!(%service, instance = %id, cause = cause.as_str(), ?lasts, "Instance ejected");
                ("instance_ejected", format!("{} for {:.1} s", cause.words(), lasts.as_secs_f64()))
            }
            Turn::Panic(_) => return,
            Turn::SaysDraining(says) => {
                info!(%service, instance = %id, says, "Instance told a probe whether it drains");
                ("instance_draining", if says { "it says so to probes" } else { "no longer: it answers probes again" }.to_owned())
            }
            Turn::Slow(is_slow) => {
                info!(%service, instance = %id, is_slow, "Instance answers far more slowly than the others, or no longer");
                let kind = if is_slow { "instance_slow" } else { "instance_fast" };
                (
                    kind,
                    if is_slow { "it answers far more slowly than the others" } else { "it answers like the others" }.to_owned(),
                )
            }
            Turn::Readmitted => {
                info!(%service, instance = %id, "Instance readmitted after its trial");
                ("instance_readmitted", "one request was its trial and went well".to_owned())
            }
        };
        self.add(SystemTime::now(), instance.standing.revision, kind, format!("{service}/{id}"), detail);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, VecDeque<Happening>)> {
        self.recent.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn verdict_kind(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unknown => "instance_unknown",
        Verdict::Up => "instance_up",
        Verdict::Down => "instance_down",
    }
}

fn describe(instance: &Instance) -> String {
    let standing = instance.standing;
    let reason = instance.reason().or(standing.limbo.map(Limbo::words)).map(|r| format!(", {r}")).unwrap_or_default();
    format!("{} {}, weight {}{reason}", instance.spec.address, standing.word(), standing.weight)
}

/// A first list may bring more changes than are kept.
fn last(changes: &[RouteChange]) -> &[RouteChange] {
    &changes[changes.len().saturating_sub(TOLD_AT_ONCE_MAX)..]
}

const KEPT_MAX: usize = 1024;
/// Of one swap: a first list brings far more than anybody reads.
pub const TOLD_AT_ONCE_MAX: usize = 512;
const FOLLOWER_LAG_MAX: usize = 1024;
