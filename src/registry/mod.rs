//! FLOOR 4. etcd → `Event`. Never knows pools, health or HTTP.

mod applied;
mod connect;
mod key;
mod merge;
mod record;
mod reflector;

pub use connect::{ConnectError, connect, explain};
pub use key::{Key, KeyError, Prefix};
