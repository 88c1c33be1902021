//! The loop: takes in what changed, begins what is due, settles what has ended. It waits; what it calls never does.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::{error, info};

use super::Changes;
use super::probe::{Reading, probe};
use super::schedule::{Entry, Lane, Schedule};
use super::subjects::{Followings, Joined, SubjectId, Subjects};
use crate::catalog::Live;
use crate::model::{ProbeResult, Verdict};
use crate::pool::{Histogram, Instance, Moment, Service};

pub struct Run {
    live: Arc<Live>,
    changes: Arc<Changes>,
    lateness: Arc<Histogram>,
    /// The registry is known, and every instance that was there then has been probed.
    first_round_over: watch::Sender<bool>,
    subjects: Subjects,
    schedule: Schedule,
    probes: JoinSet<(Reading, Duration)>,
    /// Of each probe that runs.
    running: HashMap<Id, Running>,
    /// Subjects that have never been probed.
    n_unprobed: usize,
}

struct Running {
    subject: SubjectId,
    lane: Lane,
    began: Moment,
    task: AbortHandle,
}

impl Run {
    pub fn new(
        live: Arc<Live>,
        subjects: Subjects,
        changes: Arc<Changes>,
        lateness: Arc<Histogram>,
        first_round_over: watch::Sender<bool>,
    ) -> Self {
        Self {
            live,
            changes,
            lateness,
            first_round_over,
            subjects,
            schedule: Schedule::default(),
            probes: JoinSet::new(),
            running: HashMap::new(),
            n_unprobed: 0,
        }
    }

    /// What still runs when it ends is dropped with it.
    pub async fn until(mut self, mut shutdown: watch::Receiver<bool>) {
        let changes = self.changes.clone();
        loop {
            let now = Instant::now();
            self.begin_due(Moment::of(now));
            let next = self.schedule.next_due().map_or(FAR, |due| due.since(Moment::of(now)));
            tokio::select! {
                () = changes.rung.notified() => self.follow(Moment::of(Instant::now())),
                Some(ended) = self.probes.join_next_with_id() => {
                    self.take(ended, Moment::of(Instant::now()));
                    // As many as have ended by now: each turn of the loop costs a timer.
                    while let Some(ended) = self.probes.try_join_next_with_id() {
                        self.take(ended, Moment::of(Instant::now()));
                    }
                }
                () = tokio::time::sleep(next) => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
            self.note_first_round();
        }
    }

    /// Compares the services that changed with how they were followed before.
    fn follow(&mut self, now: Moment) {
        let names = self.changes.take();
        let snapshot = self.live.load_full();
        let (mut begun, mut joined) = (Vec::new(), Vec::new());
        for name in &names {
            let Followings { begun: more, ended, joined: told } =
                self.subjects.follow(name, snapshot.services.get(name).cloned());
            self.n_unprobed += more.len();
            begun.extend(more);
            joined.extend(told);
            for (subject, was_probed) in ended {
                self.n_unprobed -= usize::from(!was_probed);
                self.forget(subject);
            }
        }
        // One that is new is probed at once; thousands are spread a little.
        let spread_ms = (begun.len() as u64).min(FIRST_SPREAD_MAX_MS);
        for subject in begun {
            self.schedule.add(now + Duration::from_millis(fastrand::u64(0..spread_ms)), subject);
        }
        for Joined { instance, verdict, is_reachable } in joined {
            self.with_current(&instance, |service, current| {
                service.settle(current, verdict, is_reachable, "as another service's probe of the same address found", now);
            });
        }
    }

    /// Its probe, if one runs, is cut off at once.
    fn forget(&mut self, subject: SubjectId) {
        if let Some(running) = self.running.values().find(|running| running.subject == subject) {
            running.task.abort();
        }
    }

    fn begin_due(&mut self, now: Moment) {
        while let Some((Entry { due, subject: id }, lane)) = self.schedule.begin(now, |id| self.subjects.get(id).map(|s| s.lane))
        {
            let Some(subject) = self.subjects.get_mut(id) else { continue };
            let check = subject.check.clone();
            if subject.may_rest() {
                self.schedule.ended(lane);
                self.schedule.add(now + jittered(check.pace.interval), id);
                continue;
            }
            self.lateness.record(now.since(due));
            let address = subject.address;
            let task = self.probes.spawn(async move { probe(address, &check).await });
            self.running.insert(task.id(), Running { subject: id, lane, began: now, task });
        }
    }

    fn take(&mut self, ended: Result<(Id, (Reading, Duration)), JoinError>, now: Moment) {
        let (task, ended) = match ended {
            Ok((task, ended)) => (task, ended),
            Err(failed) => {
                if failed.is_panic() {
                    error!(%failed, "A probe ended in a fault of our own");
                }
                (failed.id(), (Reading::new(ProbeResult::Broken, "the probe itself failed"), Duration::ZERO))
            }
        };
        let Some(Running { subject, lane, began, .. }) = self.running.remove(&task) else { return };
        self.schedule.ended(lane);
        self.settle(subject, began, &ended.0, ended.1, now);
    }

    /// Tells everyone who follows the subject how its probe ended, and puts the next one down.
    fn settle(&mut self, id: SubjectId, began: Moment, reading: &Reading, took: Duration, now: Moment) {
        let Some(subject) = self.subjects.get_mut(id) else { return };
        let pace = subject.check.pace;
        let was_held = !subject.judge.held_for(now).is_zero();
        let verdict = subject.judge.observe(reading.seen(), pace, now);
        let held_for = subject.judge.held_for(now);
        let said = told(reading, held_for);
        let mut pause = jittered(subject.judge.pause(pace, now));
        if !std::mem::replace(&mut subject.is_probed, true) {
            self.n_unprobed -= 1;
            if pause >= pace.interval.mul_f64(1.0 - JITTER) {
                // Those that began together do not go on together.
                pause = pace.interval.mul_f64(fastrand::f64());
            }
        }
        subject.is_reachable = reading.result.is_reachable();
        subject.lane = if reading.result.is_hang() { Lane::Hanging } else { Lane::Prompt };
        self.schedule.add((began + pause).max(now), id);
        let Some(subject) = self.subjects.get(id) else { return };
        for follower in &subject.followers {
            self.with_current(&follower.instance, |service, current| {
                service.count_probe(reading.result, took);
                if !was_held && !held_for.is_zero() {
                    service.stats.probe_holds.fetch_add(1, Ordering::Relaxed);
                }
                service.says_draining(current, reading.result == ProbeResult::Draining, now);
                let verdict = if verdict == Verdict::Unknown { current.state.health.verdict() } else { verdict };
                service.settle(current, verdict, reading.result.is_reachable(), &said, now);
                if current.standing.limbo.is_some() && reading.result.is_failure() {
                    service.probe_failed(current);
                }
            });
        }
    }

    /// The instance as it is by now, if this life of it goes on.
    fn with_current(&self, instance: &Instance, tell: impl FnOnce(&Service, &Instance)) {
        let snapshot = self.live.load();
        let Some(service) = snapshot.services.get(&instance.service) else { return };
        if let Some(current) = service.pool.get(&instance.id)
            && current.state.generation == instance.state.generation
        {
            tell(service, current);
        }
    }

    fn note_first_round(&mut self) {
        if !*self.first_round_over.borrow()
            && self.n_unprobed == 0
            && self.live.load().registry_known
            && self.changes.lock().is_empty()
        {
            info!(probed = self.subjects.len(), "Every instance has been probed once");
            self.first_round_over.send_replace(true);
        }
    }
}

/// What a probe said, and why that changes nothing where it does not.
fn told(reading: &Reading, held_for: Duration) -> Cow<'_, str> {
    if held_for.is_zero() {
        return Cow::Borrowed(&reading.said);
    }
    let seconds = held_for.as_secs_f64().ceil();
    format!("{}; it turned up and down too often, and stays down for another {seconds} s", reading.said).into()
}

/// Give or take a tenth, so that proxies that started together do not probe together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}

const JITTER: f64 = 0.1;
/// Within this a thousand instances that come together get their first probe.
const FIRST_SPREAD_MAX_MS: u64 = 100;
/// Nothing to do until somebody rings.
const FAR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_by_a_tenth_at_most_and_use_all_of_it() {
        let pause = Duration::from_secs(5);
        let (mut least, mut most) = (pause, pause);
        for _ in 0..10_000 {
            let drawn = jittered(pause);
            (least, most) = (least.min(drawn), most.max(drawn));
        }
        let is_within = |found: Duration, from: u64, to: u64| (from..=to).contains(&(found.as_millis() as u64));
        assert!(is_within(least, 4500, 4510) && is_within(most, 5490, 5500), "{least:?} to {most:?}");
    }
}
