//! Pingora as an HTTP engine: this folder is the only place that names it. It speaks HTTP/2 on either side, and does those
//! HTTP/1 requests that our own path leaves to it.
//!
//! 1. `engine` sets it up for a worker and hands it connections in the form it takes them (`io`);
//!    those of HTTP/2 with a `guard`.
//! 2. `Gateway` is what Pingora calls for a request. Its callbacks translate; what they ask decides in `proxy/`.
//! 3. `peers` says how instances are spoken to (`trust`: over TLS) and opens connections to them; `tunnel` owns those that stop being HTTP.
//!
//! Deliberately absent: `pingora::server::Server`, whose shutdown is a sleep, and `pingora-load-balancing`.

mod answer;
mod body;
mod ctx;
mod engine;
mod failure;
mod fields;
mod gateway;
mod guard;
mod io;
mod link;
mod peers;
mod relay;
mod trust;
mod tunnel;
mod websocket;

pub use engine::Pingora;
pub use peers::Peers;
