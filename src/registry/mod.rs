//! FLOOR 4. etcd → `Event`. Never knows pools, health or HTTP.

mod connect;
mod key;

pub use connect::{ConnectError, connect, explain};
pub use key::{Key, KeyError, Prefix};
