//! FLOOR 7. What must hold for whatever bytes come in, written down once and asked by two: the fuzz targets of `fuzz/`, and
//! the tests below, which ask it of every kept seed and of what property tests make of them.
//!
//! 1. A law takes bytes, hands them to one reader, and panics where something does not hold: what was accepted is written
//!    and read again, what must be unambiguous is read a second time by rules too simple to be wrong.
//! 2. Laws of what only one room can see stand in that room (`config::laws`, `proxy::laws`); [`LAWS`] lists them all.
//!
//! No part of the normal build: it is compiled for tests, and for cargo-fuzz, which sets `cfg(fuzzing)`.

mod import;
mod keys;
mod proxy_protocol;
mod records;
mod routing;
#[cfg(test)]
mod tests;

pub use crate::config::laws::config;
pub use crate::proxy::laws::{chunks, forwarding, path_and_host, request_head, response_head};
pub use import::import;
pub use keys::keys;
pub use proxy_protocol::proxy_protocol;
pub use records::records;
pub use routing::routing;

/// Panics where something does not hold.
pub type Law = fn(&[u8]);

/// Every law, by the name of its fuzz target.
pub const LAWS: [(&str, Law); 11] = [
    ("chunks", chunks),
    ("config", config),
    ("forwarding", forwarding),
    ("import", import),
    ("keys", keys),
    ("path_and_host", path_and_host),
    ("proxy_protocol", proxy_protocol),
    ("records", records),
    ("request_head", request_head),
    ("response_head", response_head),
    ("routing", routing),
];
