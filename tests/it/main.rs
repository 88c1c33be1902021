//! The stories, told against real processes on loopback addresses.

/// The registry inside the process, beside a real etcd.
mod embedded;
mod world;
