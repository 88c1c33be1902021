//! FLOOR 2. The live nouns: a service, the pool of its instances, and what was learned of each.
//!
//! Invariants:
//! - `Service`, `Pool` and `Instance` never change; a change makes successors that share what stayed.
//! - What was learned (`InstanceState`) hangs on (service, instance id, address) and outlives every snapshot.
//! - Whoever holds an `InFlight` counts one, on every path; dropping it gives one back.
//! - One gate (`gate`) decides who is eligible; ejection and slow start are inside it.
//! - Deliberately absent: sockets, clocks, metrics, logs. Whoever calls says what time it is.

mod budget;
mod gate;
mod health;
mod instance;
mod key;
mod keyed;
mod latency;
mod latency_outlier;
#[cfg(test)]
mod laws;
mod least_conn;
mod maglev;
mod moment;
mod outlier;
mod p2c;
mod peak_ewma;
mod pick;
mod rendezvous;
mod round_robin;
mod service;
mod slowness;
mod spread;
mod stats;
mod turn;
mod turnstile;
mod warmth;
mod window;

pub use gate::{Out, View};
pub use health::{Health, Passive, Strain};
pub use instance::{InFlight, Instance, InstanceState, Limbo, Standing, Why};
pub use key::Key;
pub use moment::Moment;
pub use outlier::EjectionCause;
pub use pick::{PickError, Pool};
pub use service::{Ask, Service};
pub use stats::{Histogram, HistogramReading, ServiceStats};
pub use turn::{Subject, Teller, Turn};
pub use turnstile::{Place, Turnstile, Waiting};
pub use window::{Counted, Window};
