//! Pingora as the HTTP engine: this folder is the only place that names it.
//!
//! 1. `accept` takes connections off a worker's sockets; `serve` gives each an own stream (`io`), tells HTTP/2 from
//!    HTTP/1, and waits between requests without holding any of Pingora's memory.
//! 2. `Gateway` is what Pingora calls for a request. Its callbacks translate; what they ask decides in `proxy/`.
//! 3. `upstreams` and `line` own the connections to the instances; `tunnel` those that stop being HTTP.
//!
//! Deliberately absent: `pingora::server::Server`, whose shutdown is a sleep, and `pingora-load-balancing`.

mod accept;
mod answer;
mod ctx;
mod failure;
mod fields;
mod gateway;
mod input;
mod io;
mod line;
mod link;
mod relay;
mod serve;
mod tunnel;
mod upstreams;

pub use accept::{Running, Worker};
pub use upstreams::Upstreams;
