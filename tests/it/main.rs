//! The stories: what Pointsman does, told against the built binary with a real etcd.

mod floors;
mod licences;
mod sample;
