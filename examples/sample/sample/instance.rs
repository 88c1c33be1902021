//! What one running instance knows about itself: its name, how it misbehaves, its health and how far it is on
//! its way out. Every connection shares it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::behaviour::Behaviour;

/// The way out, in order. Only `Draining` can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Ready,
    /// Says so in the registry and to probes, and serves on.
    Draining,
    /// Gives its lease back, and serves on.
    Leaving,
    /// Takes no new connection.
    Stopping,
}

pub struct Instance {
    pub name: String,
    pub latency: Duration,
    pub fail_percent: u8,
    /// gRPC's view of the same health.
    pub reporter: HealthReporter,
    health: AtomicU16,
    n_requests: AtomicU64,
    stage: watch::Sender<Stage>,
    behaviour: watch::Sender<Told>,
    born: Instant,
}

/// What the instance was told to do, if anything. Told the same twice, it was told two things.
pub type Told = Option<Arc<Behaviour>>;

impl Instance {
    pub fn new(name: String, latency: Duration, fail_percent: u8, behaviour: Option<Behaviour>) -> Self {
        Self {
            name,
            latency,
            fail_percent,
            reporter: HealthReporter::new(),
            health: AtomicU16::new(StatusCode::OK.as_u16()),
            n_requests: AtomicU64::new(0),
            stage: watch::Sender::new(Stage::Ready),
            behaviour: watch::Sender::new(behaviour.map(Arc::new)),
            born: Instant::now(),
        }
    }

    pub fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Goes on to `next`, and never back: whoever stops the instance has the last word.
    pub async fn advance(&self, next: Stage) {
        self.stage.send_if_modified(|stage| {
            let goes_on = next > *stage;
            *stage = next.max(*stage);
            goes_on
        });
        self.set_health(StatusCode::SERVICE_UNAVAILABLE).await;
    }

    /// Takes `Draining` back; an instance that is leaving leaves.
    pub async fn undrain(&self) {
        let taken_back = self.stage.send_if_modified(|stage| {
            let is_draining = *stage == Stage::Draining;
            if is_draining {
                *stage = Stage::Ready;
            }
            is_draining
        });
        if taken_back {
            self.set_health(StatusCode::OK).await;
        }
    }

    /// What `/healthz` answers.
    pub fn health(&self) -> StatusCode {
        StatusCode::from_u16(self.health.load(Ordering::Relaxed)).unwrap_or(StatusCode::OK)
    }

    pub async fn set_health(&self, health: StatusCode) {
        self.health.store(health.as_u16(), Ordering::Relaxed);
        let healthy = health.is_success() || health.is_redirection();
        let serving = if healthy { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status("", serving).await;
    }

    pub fn behaviour(&self) -> Told {
        self.behaviour.borrow().clone()
    }

    pub fn behaviours(&self) -> watch::Receiver<Told> {
        self.behaviour.subscribe()
    }

    pub fn behave(&self, behaviour: Option<Behaviour>) -> Told {
        let told = behaviour.map(Arc::new);
        self.behaviour.send_replace(told.clone());
        told
    }

    /// Takes `told` back, unless it was told something else since.
    pub fn behaves_again(&self, told: Option<&Arc<Behaviour>>) {
        self.behaviour.send_if_modified(|now| {
            let is_that = is_same(now.as_ref(), told);
            if is_that {
                *now = None;
            }
            is_that
        });
    }

    /// Ready once it was told something else than `told`, or takes nothing new any more.
    pub async fn is_told_otherwise(&self, told: Option<&Arc<Behaviour>>) {
        let (mut behaviours, mut stage) = (self.behaviours(), self.stage());
        tokio::select! {
            _ = behaviours.wait_for(|now| !is_same(now.as_ref(), told)) => {}
            _ = stage.wait_for(|stage| *stage == Stage::Stopping) => {}
        }
    }

    /// Its life is cut in periods; whether this is the second of two.
    pub fn is_in_odd(&self, period: Duration) -> bool {
        !(self.born.elapsed().as_millis() / period.as_millis().max(1)).is_multiple_of(2)
    }

    /// Counts a request; the first one is 1. Those about the instance itself do not count.
    pub fn count_request(&self) -> u64 {
        self.n_requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn n_requests(&self) -> u64 {
        self.n_requests.load(Ordering::Relaxed)
    }
}

fn is_same(a: Option<&Arc<Behaviour>>, b: Option<&Arc<Behaviour>>) -> bool {
    a.map(Arc::as_ptr) == b.map(Arc::as_ptr)
}
