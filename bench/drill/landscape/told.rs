//! What there is to say of a chapter, and of all of them: a line each, or JSON.

use std::fmt;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::super::Finding;
use super::chapter::Chapter;
use super::deed::Deed;
use crate::Outcome;
use crate::load::{Failure, Tally};

pub struct Told {
    pub chapter: Chapter,
    pub tally: Tally,
    /// An error is one of the drill itself, after which nobody knows how things are.
    pub deed: Outcome<Deed>,
}

impl Told {
    /// Requests were asked, none failed that must not, and something was done about what happened.
    pub fn is_kept(&self) -> bool {
        let Ok(deed) = &self.deed else { return false };
        let n_broken_off = self.n_broken_off();
        let n_other = self.tally.n_failed() - n_broken_off;
        self.tally.n_answered() > 0 && n_other == 0 && n_broken_off <= deed.may_break_off && deed.is_done()
    }

    pub fn is_the_end(&self) -> bool {
        self.deed.is_err()
    }

    /// The connection ended amid the answer; none of ours ends like that.
    fn n_broken_off(&self) -> u64 {
        let broken_off = |failure: &Failure| matches!(failure, Failure::Closed | Failure::Reset);
        self.tally.failures().filter(|(failure, _)| broken_off(failure)).map(|(_, n)| n).sum()
    }

    fn json(&self) -> Json {
        let failures: serde_json::Map<_, _> = self.tally.failures().map(|(failure, n)| (failure.to_string(), json!(n))).collect();
        json!({
            "chapter": self.chapter.name(),
            "happens": self.chapter.story(),
            "requests": self.tally.n_answered() + self.tally.n_failed(),
            "failed": self.tally.n_failed(),
            "failures": failures,
            "p99_ms": millis(self.tally.latency(0.99)),
            "worst_ms": millis(self.tally.slowest()),
            "done_about_it": self.deed.as_ref().map_or(Json::Null, Deed::json),
            "trouble": self.deed.as_ref().err().map(ToString::to_string),
            "kept": self.is_kept(),
        })
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, self.is_kept(), &self.chapter.name(), &self.chapter.story(), &self.tally)?;
        match &self.deed {
            Ok(deed) => write!(f, "  {deed}{}", if deed.is_done() { "" } else { ": not what it should be" })?,
            Err(error) => write!(f, "  {error}")?,
        }
        if self.deed.as_ref().is_ok_and(|deed| deed.may_break_off > 0) {
            return write!(f, "; {} answers broke off", self.n_broken_off());
        }
        self.tally.failures().try_for_each(|(failure, n)| write!(f, "\n{:8}{n} × {failure}", ""))
    }
}

/// Of all chapters that were to be told.
pub struct Total {
    n_chapters: usize,
    n_kept: usize,
    chapters: Vec<Json>,
    tally: Tally,
}

impl Total {
    pub fn of(n_chapters: usize) -> Self {
        Self { n_chapters, n_kept: 0, chapters: Vec::new(), tally: Tally::default() }
    }

    pub fn add(&mut self, told: &Told) {
        self.n_kept += usize::from(told.is_kept());
        self.chapters.push(told.json());
        self.tally.add(&told.tally);
    }

    pub fn is_kept(&self) -> bool {
        self.n_kept == self.n_chapters
    }

    pub fn note(&self, finding: &mut Finding) {
        finding.note_tally("", &self.tally);
        finding.note("chapters", self.chapters.clone());
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let story = format!("{} of {} chapters kept", self.n_kept, self.n_chapters);
        line(f, self.is_kept(), "total", &story, &self.tally)
    }
}

fn line(f: &mut fmt::Formatter<'_>, is_kept: bool, name: &str, story: &str, tally: &Tally) -> fmt::Result {
    let (n, n_failed, worst) = (tally.n_answered() + tally.n_failed(), tally.n_failed(), millis(tally.slowest()));
    let mark = if is_kept { "kept  " } else { "BROKEN" };
    write!(f, "{mark}  {name:11}  {story:60}  {n:6} requests  {n_failed:3} failed  worst {worst:7.1} ms")
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 1e1
}
