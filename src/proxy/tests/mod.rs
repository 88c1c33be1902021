//! The engine at work: real sockets, small instances, raw bytes where the point is what stands on the wire.

mod deadlines;
mod draining;
mod forwarding;
mod hardening;
mod http2;
mod retries;
mod upgrades;
mod world;
