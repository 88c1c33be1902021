//! FLOOR 3. How the process tells of itself: the form of its numbers, and its log.
//!
//! Numbers are not registered anywhere. The request path adds to atomics that hang on the services, instances and routes
//! themselves; at a scrape the admin endpoint walks the snapshot in force and writes what it finds through [`Exposition`].
//! So a series costs nothing per request, and goes when its instance goes.
//!
//! Invariants: every metric there is stands in [`families`], and in `docs/metrics.md` (a test compares them); there is no
//! state of the process as a whole but the log's own subscriber.

mod exposition;
pub mod families;
mod journal;
mod log;
mod process;

pub use exposition::{Exposition, Format};
pub use families::{Family, Kind};
pub use log::{LogError, init_tracing};
pub use process::ProcessReading;
