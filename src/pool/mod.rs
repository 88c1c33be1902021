//! FLOOR 2. The live nouns: a service, the pool of its instances, and what was learned of each.
//!
//! Invariants:
//! - `Service`, `Pool` and `Instance` never change; a change makes successors that share what stayed.
//! - What was learned (`InstanceState`) hangs on (service, instance id, address) and outlives every snapshot.
//! - Whoever holds an `InFlight` counts one, on every path; dropping it gives one back.
//! - Deliberately absent: sockets, clocks, metrics, logs. Whoever counts a time says how long it took.

mod instance;
mod least_conn;
mod p2c;
mod pick;
mod round_robin;
mod service;
mod stats;

pub use instance::{InFlight, Instance, InstanceState, Standing};
pub use pick::{PickError, Pool};
pub use service::Service;
pub use stats::{Histogram, HistogramReading, ServiceStats};
