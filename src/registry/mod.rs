//! FLOOR 4. etcd → `Event`. Never knows pools, health or HTTP.

mod applied;
mod audit;
mod connect;
mod etcd;
mod fault;
mod keeper;
mod key;
mod lineage;
mod merge;
mod paging;
mod pulse;
mod record;
mod reflector;
mod rotation;
mod run;
mod session;
mod snapshot;
mod status;
#[cfg(test)]
mod stories;

pub use connect::{ConnectError, connect, explain};
pub use key::{Key, KeyError, Prefix};
pub use record::Rejected;
pub use run::run;
pub use status::{REJECTED_LISTED_MAX, RegistryReport, RegistryStatus, RelistReason, Source};
