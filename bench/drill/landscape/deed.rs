//! What was done about what happened: the counters that show it, and how many answers may have broken off.

use std::fmt;

use serde_json::{Value as Json, json};

pub struct Deed {
    counts: Vec<(&'static str, u64)>,
    /// Those counts are what they have to be.
    is_done: bool,
    /// Requests whose answer may have broken off.
    pub may_break_off: u64,
}

impl Deed {
    /// All of this was counted.
    pub fn all(counts: impl Into<Vec<(&'static str, u64)>>) -> Self {
        let counts = counts.into();
        let is_done = counts.iter().all(|(_, n)| *n > 0);
        Self { counts, is_done, may_break_off: 0 }
    }

    /// At least one of these was counted.
    pub fn any(counts: impl Into<Vec<(&'static str, u64)>>) -> Self {
        let counts = counts.into();
        let is_done = counts.iter().any(|(_, n)| *n > 0);
        Self { counts, is_done, may_break_off: 0 }
    }

    /// Nothing of this was, for there was nothing to be done.
    pub fn nothing(counts: impl Into<Vec<(&'static str, u64)>>) -> Self {
        let counts = counts.into();
        let is_done = counts.iter().all(|(_, n)| *n == 0);
        Self { counts, is_done, may_break_off: 0 }
    }

    /// And this holds, too.
    pub fn provided(mut self, holds: bool) -> Self {
        self.is_done &= holds;
        self
    }

    pub fn with_broken_off(mut self, may_break_off: u64) -> Self {
        self.may_break_off = may_break_off;
        self
    }

    pub fn is_done(&self) -> bool {
        self.is_done
    }

    pub fn json(&self) -> Json {
        let counts: serde_json::Map<_, _> = self.counts.iter().map(|(name, n)| ((*name).to_owned(), json!(n))).collect();
        json!({ "counts": counts, "acted": self.is_done, "may_break_off": self.may_break_off })
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, count)) in self.counts.iter().enumerate() {
            write!(f, "{}{count} {name}", if n > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}
