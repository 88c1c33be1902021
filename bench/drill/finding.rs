//! What a drill found: its figures in the order they were noted, and whether the promise held.

use std::fmt;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::load::Tally;

pub struct Finding {
    pub drill: &'static str,
    pub promise: String,
    pub is_kept: bool,
    /// What is left to say where the figures were printed as they came.
    pub conclusion: Option<String>,
    figures: Vec<(String, Json)>,
}

impl Finding {
    pub fn new(drill: &'static str, promise: impl Into<String>) -> Self {
        Self { drill, promise: promise.into(), is_kept: true, conclusion: None, figures: Vec::new() }
    }

    pub fn note(&mut self, name: impl Into<String>, figure: impl Into<Json>) {
        self.figures.push((name.into(), figure.into()));
    }

    pub fn note_time(&mut self, name: impl Into<String>, time: Duration) {
        self.note(format!("{}_ms", name.into()), (time.as_secs_f64() * 1e5).round() / 1e2);
    }

    /// What became of the requests, `prefix` before each name.
    pub fn note_tally(&mut self, prefix: &str, tally: &Tally) {
        self.note(format!("{prefix}requests"), tally.n_answered() + tally.n_failed());
        self.note(format!("{prefix}failed"), tally.n_failed());
        for (failure, n) in tally.failures() {
            self.note(format!("{prefix}failed: {failure}"), n);
        }
        for (name, time) in [("p50", tally.latency(0.5)), ("p99", tally.latency(0.99)), ("worst", tally.slowest())] {
            self.note_time(format!("{prefix}{name}"), time);
        }
    }

    /// A part of the promise.
    pub fn expect(&mut self, holds: bool) {
        self.is_kept &= holds;
    }

    pub fn json(&self) -> Json {
        let figures: serde_json::Map<_, _> = self.figures.iter().cloned().collect();
        json!({ "drill": self.drill, "promise": self.promise, "kept": self.is_kept, "figures": figures })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(conclusion) = &self.conclusion {
            return f.write_str(conclusion);
        }
        writeln!(f, "drill {}: {}", self.drill, self.promise)?;
        let width = self.figures.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, figure) in &self.figures {
            writeln!(f, "  {name:width$}  {figure}")?;
        }
        f.write_str(if self.is_kept { "kept" } else { "BROKEN" })
    }
}
