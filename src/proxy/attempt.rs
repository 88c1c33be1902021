//! The way of one routed request: which instances it tries, how each attempt ended, and whether there is another.
//!
//! A further attempt is always at another instance, but for one case: a pooled connection that its instance closed while
//! we were taking it says nothing about the instance, so the request goes out again on a fresh connection, at no cost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};

use super::arrival::Arrival;
use super::edit::{Settled, settle};
use super::head::RequestHead;
use super::key::key;
use super::queue;
use super::reply::Refusal;
use super::sticky::Sticky;
use crate::catalog::Snapshot;
use crate::model::{Outcome, ServicePolicy};
use crate::pool::{Ask, InFlight, Instance, Key, Moment, PickError, Place, Service, Why};
use crate::routing::Route;

/// One request from its route on. It keeps the service it found, so all attempts see the same pool.
#[derive(Debug)]
pub struct Forwarding {
    pub route: Arc<Route>,
    /// `None`: the route names a service that does not exist.
    pub service: Option<Arc<Service>>,
    /// The target that instances are asked for, where the route rewrites it.
    pub target: Option<String>,
    /// What the client is told in place of an instance's answer.
    pub instead: Option<Refusal>,
    pub revision: u64,
    /// Which snapshot this was; another one now means that instances may have gone since.
    pub sequence: u64,
    pub attempts: Vec<AttemptRecord>,
    /// For services that pick by one.
    key: Option<Key>,
    /// For services with sticky sessions.
    sticky: Option<Sticky>,
    tried: Vec<u64>,
    current: Option<Attempt>,
    /// Among the service's running requests. Declared behind `current`, so that it is given back after the instance.
    place: Option<Place>,
    /// How long it waited for its turn.
    pub queued: Duration,
    resent: u8,
    /// Refused connections that nobody could foresee. They cost nothing, so they do not count as attempts.
    surprises: u8,
    last_failure: Option<Failure>,
    /// The request has been retried by a proxy before us, which knows better when to stop.
    retried_before: bool,
}

/// What is left of an attempt for the access log.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    pub instance: Arc<Instance>,
    pub outcome: Outcome,
    pub took: Duration,
    /// Until the connection stood; `None`: a pooled one, or none at all.
    pub connect: Option<Duration>,
    /// Until the head of the response.
    pub head: Option<Duration>,
}

/// The attempt that runs.
#[derive(Debug)]
pub struct Attempt {
    held: InFlight,
    started: Instant,
    connect: Option<Duration>,
    head: Option<Duration>,
    status: u16,
    /// The answer asks for less: `Retry-After`.
    pushes_back: bool,
    /// Its answer is thrown away, and the retry is paid for.
    retry_granted: bool,
    reused: bool,
    connected: bool,
    /// Its predecessor died with a pooled connection: take a new one.
    pub wants_fresh: bool,
}

/// How an attempt can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens, or no way there.
    Refused,
    ConnectTimeout,
    /// Somebody listens, but no TLS as the policy wants it came of that. Nothing of the request was sent, or looked at.
    Tls,
    /// The connection broke before the answer was whole.
    Reset,
    /// An HTTP/2 instance says that it has not looked at the request (REFUSED_STREAM, GOAWAY).
    NotProcessed,
    /// The answer did not begin in time, or stood still.
    Timeout,
    /// The answer is not HTTP, or not one to this request.
    Invalid,
    /// It answered 502, 503 or 504, and nothing of that has been passed on.
    Status(u16),
}

/// What the client sent and got so far.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    pub method: &'a Method,
    /// Bytes of the request body that have been read.
    pub body_read: u64,
    /// They are not all in the buffer any more.
    pub body_lost: bool,
    /// A byte of the response went to the client.
    pub answered: bool,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Retry { pause: Duration },
    GiveUp(Refusal),
}

impl Forwarding {
    pub fn new(
        snapshot: &Snapshot,
        route: Arc<Route>,
        service: Option<Arc<Service>>,
        head: &RequestHead<'_>,
        arrival: &Arrival,
    ) -> Self {
        let sticky = service.as_ref().and_then(|service| {
            let (policy, seal) = (service.policy.sticky.as_ref()?, snapshot.seal.as_ref()?);
            Some(Sticky::of(policy, &service.name, seal, head, arrival))
        });
        let Settled { target, instead } = settle(&route.spec, head, arrival);
        let earlier = head.fields.text(ATTEMPT_FIELD).and_then(|v| v.parse::<u32>().ok());
        Self {
            route,
            key: service.as_ref().and_then(|service| key(&service.policy, head, arrival)),
            sticky,
            service,
            target,
            instead,
            revision: snapshot.revision,
            sequence: snapshot.sequence,
            attempts: Vec::new(),
            tried: Vec::new(),
            current: None,
            place: None,
            queued: Duration::ZERO,
            resent: 0,
            surprises: 0,
            last_failure: None,
            retried_before: earlier.is_some_and(|n| n > 1),
        }
    }

    pub fn policy(&self) -> Option<&Arc<ServicePolicy>> {
        self.service.as_ref().map(|s| &s.policy)
    }

    pub fn current(&self) -> Option<&Attempt> {
        self.current.as_ref()
    }

    /// Counted from 1, as `x-pointsman-attempt` says it; what was sent again on a fresh connection is not a new attempt.
    pub fn number(&self) -> usize {
        self.attempts.len() + 1 - usize::from(self.resent)
    }

    /// Begins the first or a further attempt once it is the request's turn. An error may be the answer that the route wants.
    pub async fn next_attempt(&mut self, rng: &mut fastrand::Rng) -> Result<&Attempt, Refusal> {
        if let Some(refusal) = &self.instead {
            return Err(refusal.clone());
        }
        let service = self.service.clone().ok_or(Refusal::NoInstances)?;
        if self.place.is_none() {
            service.count_request(Moment::of(Instant::now()));
            self.place = match service.enter() {
                Some(place) => Some(place),
                None => {
                    let from = Instant::now();
                    let place = queue::enter(&service).await;
                    self.queued += from.elapsed();
                    Some(place?)
                }
            };
        }
        let mut begun = self.begin_attempt(rng);
        if begun == Err(Refusal::Overflow) {
            let from = Instant::now();
            let turn = queue::wait(&service, &service.stats.turnstile.room, || match self.begin_attempt(rng) {
                Err(Refusal::Overflow) => None,
                begun => Some(begun),
            });
            begun = turn.await.and_then(|begun| begun);
            self.queued += from.elapsed();
        }
        begun?;
        self.current.as_ref().ok_or(Refusal::Internal)
    }

    /// Chooses an instance and counts it as busy until the attempt ends.
    fn begin_attempt(&mut self, rng: &mut fastrand::Rng) -> Result<(), Refusal> {
        let service = self.service.as_ref().ok_or(Refusal::NoInstances)?;
        let started = Instant::now();
        let now = Moment::of(started);
        let again = self.attempts.last().filter(|last| !self.tried.contains(&last.instance.state.generation));
        let held = match again {
            Some(last) => InFlight::begin(last.instance.clone()),
            None => {
                let session = self.sticky.as_ref().and_then(Sticky::instance);
                let ask = Ask { tried: &self.tried, key: self.key, session, now };
                match (service.pick(ask, rng), self.last_failure) {
                    (Ok(held), _) => held,
                    (Err(_), Some(failure)) => return Err(Refusal::Upstream(failure)),
                    (Err(PickError::Full), None) => return Err(Refusal::Overflow),
                    (Err(error), None) => {
                        service.stats.refused.fetch_add(1, Ordering::Relaxed);
                        return Err(error.into());
                    }
                }
            }
        };
        let wants_fresh = again.is_some();
        self.current = Some(Attempt::begin(held, started, wants_fresh));
        Ok(())
    }

    pub fn connected(&mut self, reused: bool) {
        if let Some(attempt) = &mut self.current {
            attempt.connected = true;
            attempt.reused = reused;
            attempt.connect = (!reused).then(|| attempt.started.elapsed());
        }
    }

    /// The head of the final response has arrived. `pushes_back`: it says `Retry-After`.
    pub fn answered(&mut self, status: u16, pushes_back: bool) {
        if let (Some(attempt), Some(service)) = (&mut self.current, &self.service) {
            let now = Instant::now();
            let took = now - attempt.started;
            attempt.head = Some(took);
            attempt.status = status;
            attempt.pushes_back = pushes_back;
            service.answered(&mut attempt.held, Outcome::of_status(status, pushes_back), took, Moment::of(now));
        }
    }

    /// What the answer that is passed on adds as `Set-Cookie`: the client's session is at another instance from now on.
    pub fn set_cookie(&self) -> Option<HeaderValue> {
        self.sticky.as_ref()?.cookie(&self.current.as_ref()?.instance().id)
    }

    /// Whether a gateway's error is thrown away for another instance's answer. That takes a retry out of the budget at
    /// once: without one, the client gets this instance's own words and not ours.
    pub fn retries_status(&mut self, status: u16, pushes_back: bool, progress: Progress<'_>) -> bool {
        let failure = Failure::Status(status);
        let Some(attempt) = self.current.as_ref().filter(|_| failure.outcome() == Outcome::GatewayError) else { return false };
        let now = Instant::now();
        let granted = self.may_retry(attempt, failure, progress, now) && self.take_retry(Moment::of(now));
        if let Some(attempt) = &mut self.current {
            (attempt.retry_granted, attempt.pushes_back) = (granted, pushes_back);
        }
        granted
    }

    /// Ends the attempt that runs and says what follows. Its instance is free from here on.
    pub fn fail_attempt(&mut self, failure: Failure, progress: Progress<'_>, rng: &mut fastrand::Rng) -> Next {
        let Some(attempt) = self.current.take() else { return Next::GiveUp(Refusal::Upstream(failure)) };
        let generation = attempt.instance().state.generation;
        let stale = matches!(failure, Failure::Reset | Failure::NotProcessed)
            && attempt.reused
            && attempt.head.is_none()
            && !attempt.wants_fresh;
        let resend = stale && self.can_send_again(progress);
        let now = Instant::now();
        let began = Moment::of(attempt.started);
        let is_surprise =
            failure == Failure::Refused && self.surprises < SURPRISES_MAX && !attempt.instance().state.health.was_failing(began);
        self.surprises += u8::from(is_surprise);
        let is_paid = attempt.retry_granted || is_surprise;
        let may_retry = attempt.retry_granted || (!resend && self.may_retry(&attempt, failure, progress, now));
        self.last_failure = Some(failure);
        let outcome = match failure {
            Failure::Status(status) => Outcome::of_status(status, attempt.pushes_back),
            broken => broken.outcome(),
        };
        self.end(attempt, outcome, now);
        let retry = may_retry && (is_paid || self.take_retry(Moment::of(now)));
        if resend {
            self.resent += 1;
            return Next::Retry { pause: Duration::ZERO };
        }
        self.tried.push(generation);
        if !retry {
            return Next::GiveUp(Refusal::Upstream(failure));
        }
        if let Some(service) = &self.service {
            service.stats.count_retry(failure.retry_cause());
        }
        let connected = !matches!(failure, Failure::Refused | Failure::ConnectTimeout | Failure::Tls);
        let pause = if connected { PAUSE_MIN.max(PAUSE_MAX.mul_f64(rng.f64())) } else { Duration::ZERO };
        Next::Retry { pause }
    }

    /// Ends the attempt that runs as its status says, or as the client's leaving.
    pub fn finish_attempt(&mut self, client_left: bool) {
        if let Some(attempt) = self.current.take() {
            let outcome = match attempt.status {
                0 if client_left => Outcome::ClientGone,
                0 => Outcome::Reset,
                status => Outcome::of_status(status, attempt.pushes_back),
            };
            self.end(attempt, outcome, Instant::now());
        }
    }

    /// Ends the attempt, and the request's part in what its service may do at once, though the request itself may go on.
    pub fn leave(&mut self) {
        self.finish_attempt(false);
        self.place = None;
    }

    /// Whether the rules allow it and there is another instance; the budget is asked last.
    fn may_retry(&self, attempt: &Attempt, failure: Failure, progress: Progress<'_>, now: Instant) -> bool {
        let Some(service) = self.service.as_deref() else { return false };
        let policy = &service.policy;
        let safe = match failure {
            // Nothing has reached an instance.
            Failure::Refused | Failure::ConnectTimeout | Failure::Tls | Failure::NotProcessed => true,
            // It may have done what it was asked to do.
            Failure::Reset | Failure::Timeout | Failure::Status(_) => policy.retry.methods.contains(progress.method),
            Failure::Invalid => false,
        };
        let attempts = usize::from(policy.retry.attempts);
        let left = attempts > 0 && self.tried.len() < attempts + usize::from(self.surprises) && !self.retried_before;
        let generation = attempt.instance().state.generation;
        safe && left && self.can_send_again(progress) && service.has_another(&self.tried, generation, Moment::of(now))
    }

    /// Takes a retry out of the service's budget. Those after a surprise are free: a burst must not lose requests to
    /// instances that have just died.
    fn take_retry(&self, now: Moment) -> bool {
        let Some(service) = &self.service else { return false };
        let taken = service.take_retry(now);
        if !taken {
            service.stats.retries_denied.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn can_send_again(&self, progress: Progress<'_>) -> bool {
        let at_hand = self.policy().is_some_and(|p| progress.body_read <= p.retry.buffer) && !progress.body_lost;
        at_hand && !progress.answered
    }

    fn end(&mut self, mut attempt: Attempt, outcome: Outcome, now: Instant) {
        let took = now - attempt.started;
        if let Some(service) = &self.service {
            service.end_attempt(&mut attempt.held, outcome, attempt.head, Moment::of(now));
        }
        let Attempt { held, connect, head, .. } = attempt;
        self.attempts.push(AttemptRecord { instance: held.instance().clone(), outcome, took, connect, head });
    }
}

impl Drop for Forwarding {
    /// A request that is dropped half way was left by its client.
    fn drop(&mut self) {
        self.finish_attempt(true);
    }
}

impl Attempt {
    fn begin(held: InFlight, started: Instant, wants_fresh: bool) -> Self {
        Self {
            held,
            started,
            connect: None,
            head: None,
            status: 0,
            pushes_back: false,
            retry_granted: false,
            reused: false,
            connected: false,
            wants_fresh,
        }
    }

    pub fn instance(&self) -> &Arc<Instance> {
        self.held.instance()
    }

    pub fn why(&self) -> Why {
        self.held.why
    }

    pub fn is_connected(&self) -> bool {
        self.connected
    }

    pub fn is_answered(&self) -> bool {
        self.head.is_some()
    }
}

impl Failure {
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Refused | Self::Tls => Outcome::ConnectFailed,
            Self::ConnectTimeout => Outcome::ConnectTimeout,
            Self::Reset | Self::NotProcessed | Self::Invalid => Outcome::Reset,
            Self::Timeout => Outcome::Timeout,
            Self::Status(status) => Outcome::of_status(status, false),
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Self::Refused => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "upstream_tls",
            Self::Reset | Self::NotProcessed => "upstream_reset",
            Self::Timeout => "upstream_timeout",
            Self::Invalid => "upstream_invalid",
            Self::Status(_) => "upstream_status",
        }
    }

    /// An index into `pool::RETRY_CAUSES`.
    fn retry_cause(self) -> usize {
        match self {
            Self::Refused | Self::Tls => 0,
            Self::ConnectTimeout => 1,
            Self::Reset | Self::NotProcessed | Self::Timeout | Self::Invalid => 2,
            Self::Status(_) => 3,
        }
    }
}

/// Tells the next tier that somebody retries already.
pub const ATTEMPT_FIELD: &str = "x-pointsman-attempt";

/// However many instances die at once, a request ends after so many of them.
const SURPRISES_MAX: u8 = 2;
/// Before an instance that was reached is followed by another: full jitter, so that a crash is not echoed in step.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
