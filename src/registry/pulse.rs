//! Whether the connection is alive, known within 2.2 seconds of silence.
//!
//! 1. Every second the watch is asked for its progress; any response is a sign of life.
//! 2. After 1.5 seconds without one the member is asked directly, on the same connection: an etcd behind a gRPC proxy, and
//!    some versions while a watch is fresh, never answer the first question.
//! 3. No answer to that within 0.7 seconds: the connection is dead, whatever TCP says.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::etcd::Etcd;
use super::fault::Fault;

pub struct Pulse {
    heard: Instant,
    beats: Interval,
    question: Option<BoxFuture<'static, Result<(), Fault>>>,
}

pub enum Beat {
    /// Ask the watch for its progress.
    Ask,
    /// It has been silent: call `ask_directly`.
    Silence,
    /// What the member said when asked directly.
    Answer(Result<(), Fault>),
}

impl Pulse {
    pub fn new(now: Instant) -> Self {
        let mut beats = interval_at(now + BEAT, BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { heard: now, beats, question: None }
    }

    /// Waits for what is to be done next. Safe to drop and ask again.
    pub async fn next(&mut self) -> Beat {
        match &mut self.question {
            Some(question) => {
                let answer = question.await;
                self.question = None;
                Beat::Answer(answer)
            }
            None => tokio::select! {
                _ = self.beats.tick() => Beat::Ask,
                () = sleep_until(self.heard + SILENCE) => Beat::Silence,
            },
        }
    }

    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.question = None;
    }

    pub fn ask_directly(&mut self, etcd: &Etcd) {
        let etcd = etcd.clone();
        self.question = Some(Box::pin(async move { etcd.ping().await }));
    }
}

/// etcd answers these at once and without work.
const BEAT: Duration = Duration::from_secs(1);
/// One answer may be late by half a beat.
const SILENCE: Duration = Duration::from_millis(1500);
