//! What became of an instance's health, told at once to whoever keeps the history.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{EjectionCause, Instance, Service};
use crate::model::Verdict;

/// Whose turn it is.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    Instance(&'a Instance),
    Service(&'a Service),
}

/// A turn for the better or worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Verdict(Verdict),
    /// One probe failed, whether or not that settles anything.
    ProbeFailed,
    Ejected {
        cause: EjectionCause,
        lasts: Duration,
    },
    /// Its trial went well.
    Readmitted,
    /// It takes far longer to answer than the others; or no longer so.
    Slow(bool),
    /// So few instances of a service are well that all are used that can be reached; or no longer so.
    Panic(bool),
    /// It began, or ceased, to tell probes that it drains.
    SaysDraining(bool),
}

/// Handed to every service; says nothing unless somebody listens.
#[derive(Clone, Default)]
pub struct Teller(Option<Arc<Listener>>);

type Listener = dyn Fn(Subject<'_>, Turn) + Send + Sync;

impl Teller {
    /// `listener` must not wait: requests call it.
    pub fn new(listener: impl Fn(Subject<'_>, Turn) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(super) fn tell(&self, subject: Subject<'_>, turn: Turn) {
        if let Some(listener) = &self.0 {
            listener(subject, turn);
        }
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}
