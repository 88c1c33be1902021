//! FLOOR 1. The JSON and TOML forms of what is declared, both directions.
//!
//! 1. Bytes of the registry become text (`record`), then a tree of `Node`s (`node`); `config` makes the same of the file.
//! 2. One converter per record (`instance`, `policy`, `route`, `certificate`) takes its fields through `Fields`, which
//!    collects every problem with its path, so a writer learns all of them at once.
//! 3. What has no problem is a value of `model`; nobody behind this door checks it again.
//!
//! Instances that other programs registered for themselves are told apart by their value and read as they are (`foreign`).
//!
//! Unknown fields are warnings in a record (an old proxy must survive a new writer) and errors in the file (a typing
//! mistake must not be silently ignored). There is no serde derive here: what is absent has its default in `model` alone.

mod acme;
mod certificate;
#[cfg(test)]
pub(crate) mod documented;
mod edit;
pub(crate) mod fields;
mod foreign;
mod instance;
pub(crate) mod node;
pub(crate) mod pem;
mod policy;
mod policy_json;
mod presence;
mod rate_limit;
mod record;
#[cfg(test)]
mod round_trip;
mod route;
pub(crate) mod scalar;
mod suggest;
mod time;
mod upstream_tls;

use std::fmt;

pub(crate) use acme::domain;
pub use acme::{acme_order_json, challenge_json, parse_acme_order, parse_challenge};
pub use certificate::{certificate_json, parse_certificate};
pub use foreign::parse_foreign_instance;
pub(crate) use instance::read_instance;
pub use instance::{instance_json, override_json, parse_instance, parse_override};
pub use policy::parse_policy;
pub(crate) use policy::read_policy;
pub use policy_json::policy_json;
pub use presence::{Presence, parse_presence, presence_json};
pub(crate) use route::read_route;
pub use route::{parse_route, route_json};
pub(crate) use scalar::show_duration;
pub(crate) use suggest::closest;

/// One thing that is wrong, or odd, in a record or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which field, as in `retry.methods[1]`; empty for the value as a whole. Of a setting that did not come from the
    /// file it is the variable or the flag that said it.
    pub path: String,
    /// Counted from 1, in a file.
    pub line: Option<usize>,
    /// What was said and what would be right.
    pub message: String,
}

/// In one line, whatever names and values the record has.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.path.is_empty() { "" } else { ": " };
        for part in [&self.path, separator, &self.message] {
            for line in part.split_inclusive(char::is_control) {
                match line.chars().next_back().filter(|last| last.is_control()) {
                    Some(last) => write!(f, "{}{}", &line[..line.len() - last.len_utf8()], last.escape_debug())?,
                    None => f.write_str(line)?,
                }
            }
        }
        Ok(())
    }
}

/// A record that can be used, and what was odd about it (unknown fields: an old proxy must survive a new writer).
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed<T> {
    pub value: T,
    pub warnings: Vec<Problem>,
}

pub type ParseResult<T> = Result<Parsed<T>, Vec<Problem>>;
