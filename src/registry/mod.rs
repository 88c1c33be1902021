//! FLOOR 4. etcd → `Event`. Never knows pools, health or HTTP.

mod connect;

pub use connect::{ConnectError, connect, explain};
