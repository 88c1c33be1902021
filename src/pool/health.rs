//! What was learned of an instance's health, on three axes that never mix: what probes settled, what real requests
//! showed, and how warm it is. Atomics, because every worker and the prober write while every pick reads.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::{Moment, Window};
use crate::model::{Outcome, Verdict};

/// One instance's health; part of its `InstanceState`, so it outlives every snapshot.
#[derive(Debug)]
pub struct Health {
    pub born: Moment,
    verdict: AtomicU8,
    /// When the verdict became what it is.
    verdict_at: AtomicU64,
    /// The last that tried to connect, a probe or a request, found nobody.
    unreachable: AtomicBool,
    /// There are words about the last attempt to connect.
    has_connect_words: AtomicBool,
    pub(super) failures: AtomicU32,
    pub(super) connect_failures: AtomicU32,
    /// Since when it is known not to take connections; `NEVER` while it does.
    failing_since: AtomicU64,
    passive: AtomicU64,
    /// When it began to warm up; the lowest bit tells the short way back after an ejection.
    warm: AtomicU64,
    /// When it last asked for less and, in the low bits, how often it had shortly before.
    pushed_back: AtomicU64,
    failed_at: AtomicU64,
    recent: OnceLock<Box<Window>>,
    /// The end of its last probe; `NEVER` before the first.
    probed_at: AtomicU64,
    /// It told its last probe that it drains.
    says_draining: AtomicBool,
    ledger: Mutex<Ledger>,
}

/// What real requests showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passive {
    Ok,
    /// Out until then. Later than that, the next request is its trial.
    Ejected(Moment),
    /// One request is finding out whether it is well again.
    HalfOpen,
}

/// What the last seconds say about how much an instance can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strain {
    None,
    /// It asked for less so often: as many requests more seem to be in flight.
    Busy(u32),
    /// It failed: however fast, it is not taken for less busy than its peers. It goes on getting its share, which is what
    /// shows whether it has to be ejected.
    Failing,
    /// It should be out, and is only in because no more may be ejected.
    OutOfFavour,
}

/// What is only needed when something changes.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub n_ejections: u32,
    /// Up to when clean time has been counted towards forgiveness.
    pub forgiven_until: Moment,
    pub cause: &'static str,
    /// The last probe in words, and the one that settled the verdict.
    pub probe_said: String,
    pub verdict_said: String,
    /// Why a request's last attempt to connect failed; empty once one was answered.
    pub connect_said: String,
}

impl Health {
    pub fn new(born: Moment) -> Self {
        Self {
            born,
            verdict: AtomicU8::new(Verdict::Unknown as u8),
            verdict_at: AtomicU64::new(born.as_millis()),
            unreachable: AtomicBool::new(false),
            has_connect_words: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            connect_failures: AtomicU32::new(0),
            failing_since: AtomicU64::new(0),
            passive: AtomicU64::new(0),
            warm: AtomicU64::new(born.as_millis() << 1),
            pushed_back: AtomicU64::new(0),
            failed_at: AtomicU64::new(0),
            recent: OnceLock::new(),
            probed_at: AtomicU64::new(Moment::NEVER.as_millis()),
            says_draining: AtomicBool::new(false),
            ledger: Mutex::default(),
        }
    }

    pub fn verdict(&self) -> Verdict {
        Verdict::ALL[usize::from(self.verdict.load(Relaxed))]
    }

    pub fn verdict_at(&self) -> Moment {
        Moment::from_millis(self.verdict_at.load(Relaxed))
    }

    /// The last probe in words; empty before the first.
    pub fn probe_said(&self) -> String {
        self.ledger().probe_said.clone()
    }

    /// The probe that settled the verdict, in words.
    pub fn verdict_said(&self) -> String {
        self.ledger().verdict_said.clone()
    }

    pub fn probed_at(&self) -> Option<Moment> {
        Some(Moment::from_millis(self.probed_at.load(Relaxed))).filter(|at| *at != Moment::NEVER)
    }

    /// It asks for no new requests, by its answers to probes; its verdict is what it was before.
    pub fn says_draining(&self) -> bool {
        self.says_draining.load(Relaxed)
    }

    /// Whether that is news.
    pub(super) fn set_says_draining(&self, says: bool) -> bool {
        self.says_draining.swap(says, Relaxed) != says
    }

    /// Why a request could not connect, if none was answered since.
    pub fn connect_said(&self) -> Option<String> {
        self.has_connect_words.load(Relaxed).then(|| self.ledger().connect_said.clone())
    }

    /// A request could not connect. Whether the last one said something else.
    pub fn connect_failed(&self, said: &str) -> bool {
        let mut ledger = self.ledger();
        let is_news = ledger.connect_said != said;
        said.clone_into(&mut ledger.connect_said);
        self.has_connect_words.store(true, Relaxed);
        is_news
    }

    /// It has answered a request, so that is over. Only then: TLS may be refused after a connection seemed to stand.
    pub(super) fn connects(&self) {
        if self.has_connect_words.load(Relaxed) {
            self.has_connect_words.store(false, Relaxed);
            self.ledger().connect_said.clear();
        }
    }

    pub fn ejection_cause(&self) -> &'static str {
        self.ledger().cause
    }

    pub fn is_unreachable(&self) -> bool {
        self.unreachable.load(Relaxed)
    }

    /// A probe connected, or did not.
    pub(super) fn set_reachable(&self, reachable: bool) {
        self.unreachable.store(!reachable, Relaxed);
    }

    /// Whether that is another verdict than before. Only the prober calls this, so there is one writer.
    pub(super) fn settle(&self, verdict: Verdict, said: &str, now: Moment) -> bool {
        let was = self.verdict();
        {
            let mut ledger = self.ledger();
            said.clone_into(&mut ledger.probe_said);
            if was != verdict {
                said.clone_into(&mut ledger.verdict_said);
            }
        }
        self.probed_at.store(now.as_millis(), Relaxed);
        if was == verdict {
            return false;
        }
        if verdict == Verdict::Up {
            let out_for = now.since(self.verdict_at());
            if was == Verdict::Unknown || out_for >= COLD_AFTER {
                self.warm.store(now.as_millis() << 1, Relaxed);
            }
            self.failures.store(0, Relaxed);
            self.connect_failures.store(0, Relaxed);
            self.failing_since.store(0, Relaxed);
        }
        self.verdict_at.store(now.as_millis(), Relaxed);
        self.verdict.store(verdict as u8, Relaxed);
        true
    }

    pub fn passive(&self) -> Passive {
        match self.passive.load(Relaxed) {
            0 => Passive::Ok,
            HALF_OPEN => Passive::HalfOpen,
            until => Passive::Ejected(Moment::from_millis(until)),
        }
    }

    /// Claims the one trial that is due. Whoever gets it must conclude it or give it back.
    pub(super) fn take_trial(&self, now: Moment) -> bool {
        let until = self.passive.load(Relaxed);
        let due = until != 0 && until != HALF_OPEN && until <= now.as_millis();
        due && self.passive.compare_exchange(until, HALF_OPEN, Relaxed, Relaxed).is_ok()
    }

    /// The trial told nothing; the next request may be another. Any time that is past says that one is due.
    pub(super) fn give_trial_back(&self) {
        let _ = self.passive.compare_exchange(HALF_OPEN, self.born.as_millis(), Relaxed, Relaxed);
    }

    pub(super) fn eject(&self, until: Moment) {
        self.passive.store(until.as_millis(), Relaxed);
    }

    /// Its trial is due now, and not only when its time is over. Whether that changes anything.
    pub(super) fn cut_short(&self, now: Moment) -> bool {
        let until = self.passive.load(Relaxed);
        let is_out = until != 0 && until != HALF_OPEN && until > now.as_millis();
        is_out && self.passive.compare_exchange(until, now.as_millis(), Relaxed, Relaxed).is_ok()
    }

    /// Back in, warming up on the short way.
    pub(super) fn readmit(&self, now: Moment) {
        self.failures.store(0, Relaxed);
        self.connect_failures.store(0, Relaxed);
        self.failing_since.store(0, Relaxed);
        self.warm.store(now.as_millis() << 1 | 1, Relaxed);
        self.passive.store(0, Relaxed);
    }

    /// Notes how an attempt ended. A client that left says nothing.
    pub(super) fn observe(&self, outcome: Outcome, connect_failures_max: u32, now: Moment) {
        if outcome == Outcome::ClientGone {
            return;
        }
        self.recent.get_or_init(Box::default).add(now, 1, u64::from(outcome.is_failure()));
        if outcome.is_connect_failure() {
            self.unreachable.store(true, Relaxed);
            if self.connect_failures.fetch_add(1, Relaxed) + 1 >= connect_failures_max {
                let _ = self.failing_since.compare_exchange(0, now.as_millis(), Relaxed, Relaxed);
            }
        } else if self.unreachable.load(Relaxed) || self.connect_failures.load(Relaxed) > 0 {
            self.unreachable.store(false, Relaxed);
            self.connect_failures.store(0, Relaxed);
            self.failing_since.store(0, Relaxed);
        }
        if outcome.is_gateway_failure() {
            self.failures.fetch_add(1, Relaxed);
        } else if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
        }
        if outcome.is_failure() {
            self.failed_at.store(now.as_millis(), Relaxed);
        } else if outcome == Outcome::Overloaded {
            let _ = self.pushed_back.fetch_update(Relaxed, Relaxed, |was| {
                let (at, n) = (Moment::from_millis(was >> PUSHED_BITS), was & PUSHED_MAX);
                let n = if now.since(at) < STRAINED_FOR { (n + 1).min(PUSHED_MAX) } else { 1 };
                Some(now.as_millis() << PUSHED_BITS | n)
            });
        }
    }

    pub fn strain(&self, now: Moment) -> Strain {
        let is_recent = |at: Moment| at != Moment::NEVER && now.since(at) < STRAINED_FOR;
        if is_recent(Moment::from_millis(self.failed_at.load(Relaxed))) {
            return if self.failures.load(Relaxed) < OUT_OF_FAVOUR { Strain::Failing } else { Strain::OutOfFavour };
        }
        let pushed_back = self.pushed_back.load(Relaxed);
        if is_recent(Moment::from_millis(pushed_back >> PUSHED_BITS)) {
            return Strain::Busy((pushed_back & PUSHED_MAX) as u32);
        }
        Strain::None
    }

    pub(super) fn recent(&self) -> Option<&Window> {
        self.recent.get().map(|window| &**window)
    }

    /// It had been found not to take connections when an attempt began then.
    pub fn was_failing(&self, began: Moment) -> bool {
        let since = self.failing_since.load(Relaxed);
        since != 0 && since < began.as_millis()
    }

    /// When it began to warm up, and whether that is the short way back after an ejection.
    pub(super) fn warming(&self) -> (Moment, bool) {
        let warm = self.warm.load(Relaxed);
        (Moment::from_millis(warm >> 1), warm & 1 == 1)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passive {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Ejected(_) => "ejected",
            Self::HalfOpen => "half_open",
        }
    }
}

const HALF_OPEN: u64 = u64::MAX;
/// Caches and pools do not go cold in less.
const COLD_AFTER: Duration = Duration::from_secs(10);
/// How long a failure, or an answer that asks for less, counts as load.
const STRAINED_FOR: Duration = Duration::from_secs(5);
/// Failures in a row after which an instance is only picked where there is nobody else.
const OUT_OF_FAVOUR: u32 = 5;
const PUSHED_BITS: u32 = 10;
const PUSHED_MAX: u64 = (1 << PUSHED_BITS) - 1;
