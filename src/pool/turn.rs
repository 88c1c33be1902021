//! What became of an instance's health, told at once to whoever keeps the history.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{EjectionCause, Instance};
use crate::model::Verdict;

/// A turn for the better or worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Verdict(Verdict),
    Ejected {
        cause: EjectionCause,
        lasts: Duration,
    },
    /// Its trial went well.
    Readmitted,
}

/// Handed to every service; says nothing unless somebody listens.
#[derive(Clone, Default)]
pub struct Teller(Option<Arc<Listener>>);

type Listener = dyn Fn(&Instance, Turn) + Send + Sync;

impl Teller {
    /// `listener` must not wait: requests call it.
    pub fn new(listener: impl Fn(&Instance, Turn) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(super) fn tell(&self, instance: &Instance, turn: Turn) {
        if let Some(listener) = &self.0 {
            listener(instance, turn);
        }
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}
