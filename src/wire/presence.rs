//! `/proxies/ID`: what each proxy says about itself, both directions.

use std::time::SystemTime;

use serde_json::{Value as Json, json};

use super::ParseResult;
use super::fields::Read;
use super::node::Node;
use super::record::{VERSION, read_json};
use super::scalar::{number, word};
use super::time::{moment, show_moment};

/// One living proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    pub version: String,
    pub started_at: SystemTime,
    /// Where it listens.
    pub addresses: Vec<String>,
    pub admin: Option<String>,
    /// What it routes by is the registry as of this revision.
    pub applied_revision: u64,
    /// `SERVICE/ID` of every instance that drains and has no request left here.
    pub drained: Vec<String>,
    /// And of those that drain, or have left, and still have requests here.
    pub busy: Vec<String>,
}

pub fn presence_json(presence: &Presence) -> Json {
    json!({
        "v": VERSION,
        "version": presence.version,
        "started_at": show_moment(presence.started_at),
        "addresses": presence.addresses,
        "admin": presence.admin,
        "applied_revision": presence.applied_revision,
        "drained": presence.drained,
        "busy": presence.busy,
    })
}

pub fn parse_presence(value: &[u8]) -> ParseResult<Presence> {
    read_json(value, BYTES_MAX, |fields| {
        let version = fields.required("version", word);
        let started_at = fields.required("started_at", moment);
        let addresses = fields.list("addresses", word).unwrap_or_default();
        let admin = fields.optional("admin", word);
        let applied_revision = fields.required("applied_revision", revision);
        let drained = fields.list("drained", word).unwrap_or_default();
        let busy = fields.list("busy", word).unwrap_or_default();
        Some(Presence {
            version: version?,
            started_at: started_at?,
            addresses,
            admin,
            applied_revision: applied_revision?,
            drained,
            busy,
        })
    })
}

fn revision(node: &Node) -> Read<u64> {
    number(0..=u64::MAX)(node)
}

/// About what etcd takes in one request; the list of drained instances may be long.
const BYTES_MAX: usize = 1536 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_presence_survives_a_round_trip() {
        let presence = Presence {
            version: "0.1.0".into(),
            started_at: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_900_000_000),
            addresses: vec!["0.0.0.0:8080".into()],
            admin: None,
            applied_revision: 812,
            drained: vec!["orders/a1".into()],
            busy: vec!["orders/a2".into()],
        };
        let parsed = parse_presence(presence_json(&presence).to_string().as_bytes()).unwrap();
        assert_eq!((parsed.value, parsed.warnings), (presence, Vec::new()));
    }

    #[test]
    fn what_cannot_be_relied_on_is_named() {
        let problems = parse_presence(br#"{"version":"0.1.0","started_at":"noon","drained":"a"}"#).unwrap_err();
        let said: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(said, ["started_at", "applied_revision", "drained"]);
    }
}
