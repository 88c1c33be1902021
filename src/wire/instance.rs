//! `/instances/SERVICE/ID` and `/overrides/SERVICE/ID`, both directions.

use std::num::NonZeroU16;

use serde_json::{Map, Value as Json, json};

use crate::model::{Address, InstanceSpec, Lifecycle, Override, ProbeTarget, Protocol};

use super::fields::{Fields, Read, Report};
use super::node::{Node, Value};
use super::record::{VERSION, read_json, text_of, whole};
use super::scalar::{number, one_of, parsed, text, word};
use super::time::{moment, show_moment};
use super::{ParseResult, Parsed};

/// `HOST:PORT`, or a JSON object of which only `address` is needed.
pub fn parse_instance(value: &[u8]) -> ParseResult<InstanceSpec> {
    let plain = text_of(value, BYTES_MAX)?.trim();
    if plain.starts_with('{') {
        return read_json(value, BYTES_MAX, instance);
    }
    match Address::parse(plain) {
        Ok(address) => Ok(Parsed { value: InstanceSpec::at(address), warnings: Vec::new() }),
        Err(e) => Err(whole(e.to_string())),
    }
}

/// An instance of the file: `"HOST:PORT"`, or a table with the fields of the record.
pub(crate) fn read_instance(node: &Node, path: String, report: &Report) -> Option<InstanceSpec> {
    if let Value::Text(plain) = &node.value {
        let address = Address::parse(plain).map_err(|e| report.problem(path, &node.place, e.to_string())).ok()?;
        return Some(InstanceSpec::at(address));
    }
    instance(&mut Fields::of(node, path, report)?)
}

/// `{"state":"draining","weight":0,"until":"2030-01-31T12:00:00Z"}`, each optional.
pub fn parse_override(value: &[u8]) -> ParseResult<Override> {
    read_json(value, BYTES_MAX, |fields| {
        Some(Override {
            lifecycle: fields.optional("state", lifecycle),
            weight: fields.optional("weight", number(0..=u16::MAX)),
            until: fields.optional("until", moment),
        })
    })
}

/// The record with what operators look for, and whatever else is not the default; `parse_instance` reads the same
/// spec back.
pub fn instance_json(spec: &InstanceSpec) -> Json {
    let plain = InstanceSpec::at(spec.address.clone());
    let mut record = Map::new();
    let mut say = |key: &str, differs: bool, value: Json| {
        if differs {
            record.insert(key.to_owned(), value);
        }
    };
    say("v", true, VERSION.into());
    say("address", true, spec.address.to_string().into());
    say("weight", true, spec.weight.into());
    say("state", true, spec.lifecycle.as_str().into());
    say("tier", spec.tier != plain.tier, spec.tier.into());
    say("zone", spec.zone.is_some(), json!(spec.zone.as_deref()));
    say("protocol", spec.protocol != plain.protocol, spec.protocol.as_str().into());
    say("max_requests", spec.max_requests != plain.max_requests, spec.max_requests.into());
    say("probe", spec.probe != plain.probe, probe_json(&spec.probe));
    say("metadata", !spec.metadata.is_empty(), json!(spec.metadata));
    Json::Object(record)
}

pub fn override_json(value: &Override) -> Json {
    let mut record = Map::from_iter([("v".to_owned(), VERSION.into())]);
    if let Some(lifecycle) = value.lifecycle {
        record.insert("state".to_owned(), lifecycle.as_str().into());
    }
    if let Some(weight) = value.weight {
        record.insert("weight".to_owned(), weight.into());
    }
    if let Some(until) = value.until {
        record.insert("until".to_owned(), show_moment(until).into());
    }
    Json::Object(record)
}

fn instance(fields: &mut Fields<'_>) -> Option<InstanceSpec> {
    let address = fields.required("address", parsed(Address::parse));
    let weight = fields.or("weight", InstanceSpec::WEIGHT_DEFAULT, number(0..=u16::MAX));
    let lifecycle = fields.or("state", Lifecycle::default(), lifecycle);
    let tier = fields.or("tier", 0, number(0..=u8::MAX));
    let zone = fields.optional("zone", word).map(Into::into);
    let protocol = fields.or("protocol", Protocol::default(), one_of(&Protocol::ALL, Protocol::as_str));
    let max_requests = fields.or("max_requests", 0, number(0..=u32::MAX));
    let probe = fields.section("probe").map(|mut probe| probe_target(&mut probe)).unwrap_or_default();
    let pairs = fields.entries("metadata", |entry| Ok((entry.key.clone(), text(&entry.node)?.to_owned())));
    let metadata = pairs.into_iter().collect();
    Some(InstanceSpec { address: address?, weight, lifecycle, tier, zone, protocol, max_requests, probe, metadata })
}

fn probe_target(fields: &mut Fields<'_>) -> ProbeTarget {
    ProbeTarget {
        path: fields.optional("path", path),
        port: fields.optional("port", number(1..=u16::MAX)).and_then(NonZeroU16::new),
    }
}

fn probe_json(probe: &ProbeTarget) -> Json {
    let mut record = Map::new();
    if let Some(path) = &probe.path {
        record.insert("path".to_owned(), path.as_str().into());
    }
    if let Some(port) = probe.port {
        record.insert("port".to_owned(), port.get().into());
    }
    Json::Object(record)
}

/// The path of a request: a probe's, with its query if it has one.
pub(super) fn path(node: &Node) -> Read<String> {
    let said = text(node)?;
    let sendable = said.starts_with('/') && said.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if sendable { Ok(said.to_owned()) } else { Err(format!("{} is not a path such as \"/healthz\"", node.shown())) }
}

fn lifecycle(node: &Node) -> Read<Lifecycle> {
    one_of(&Lifecycle::ALL, Lifecycle::as_str)(node)
}

const BYTES_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(value: &str) -> Vec<String> {
        parse_instance(value.as_bytes()).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_plain_address_and_a_record_with_only_an_address_are_the_same() {
        let plain = parse_instance(b" 10.0.0.5:8080\n").unwrap();
        let record = parse_instance(br#"{"address":"10.0.0.5:8080"}"#).unwrap();
        assert_eq!(plain, record);
        assert_eq!(plain.value, InstanceSpec::at(Address::parse("10.0.0.5:8080").unwrap()));
    }

    #[test]
    fn the_record_of_the_contract_reads_whole() {
        let record = br#"{"v":1,"address":"10.0.0.5:8080","weight":0,"state":"draining","tier":1,"zone":"a",
            "protocol":"h2c","max_requests":7,"probe":{"path":"/healthz","port":8081},"metadata":{"version":"2"}}"#;
        let Parsed { value, warnings } = parse_instance(record).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!((value.weight, value.lifecycle, value.tier), (0, Lifecycle::Draining, 1));
        assert_eq!((value.zone.as_deref(), value.protocol, value.max_requests), (Some("a"), Protocol::H2c, 7));
        assert_eq!((value.probe.path.as_deref(), value.probe.port.map(NonZeroU16::get)), (Some("/healthz"), Some(8081)));
        assert_eq!(value.metadata["version"], "2");
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let record =
            r#"{"v":2,"weight":70000,"state":"drainig","probe":{"port":0,"path":"healthz"},"metadata":{"a":1},"zone":""}"#;
        assert_eq!(
            problems(record),
            [
                "v: 2 is newer than 1, the newest that this version understands",
                "address: is missing",
                "weight: 70000 is not in 0..=65535",
                "state: \"drainig\" is not one of ready, draining, maintenance; did you mean \"draining\"?",
                "zone: is empty; leave it out to have none",
                "probe.path: \"healthz\" is not a path such as \"/healthz\"",
                "probe.port: 0 is not in 1..=65535",
                "metadata.a: 1 is not a text",
            ]
        );
    }

    #[test]
    fn unknown_fields_are_kept_out_with_a_warning() {
        let Parsed { warnings, .. } = parse_instance(br#"{"address":"a:1","wieght":5,"probe":{"interval":"1s"}}"#).unwrap();
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "probe.interval: unknown field, ignored; known here: path, port",
                "wieght: unknown field, ignored; did you mean \"weight\"?",
            ]
        );
    }

    #[test]
    fn what_is_no_record_at_all_says_why() {
        for (value, reason) in [
            ("", "the value is empty"),
            ("10.0.0.5", "\"10.0.0.5\" is not HOST:PORT: it has no port"),
            ("{\"address\":", "the value is not JSON: EOF while parsing a value at line 1 column 11"),
        ] {
            assert_eq!(problems(value), [reason]);
        }
        assert_eq!(parse_instance(b"a:1\xff").unwrap_err()[0].message, "the value is not UTF-8 from byte 3 on");
        assert!(problems(&"x".repeat(8193))[0].contains("8193 bytes; at most 8192"));
        assert_eq!(parse_override(b"[]").unwrap_err()[0].message, "a list is not a table of fields");
    }

    #[test]
    fn an_override_says_only_what_it_says() {
        assert_eq!(parse_override(b"{}").unwrap().value, Override::default());
        let value = parse_override(br#"{"state":"draining","weight":0,"until":"2030-01-01T00:00:00Z"}"#).unwrap().value;
        assert_eq!((value.lifecycle, value.weight), (Some(Lifecycle::Draining), Some(0)));
        assert!(value.until.is_some());
        let wrong = parse_override(br#"{"until":"tomorrow"}"#).unwrap_err();
        assert!(wrong[0].to_string().starts_with("until: \"tomorrow\" is not a moment such as"), "{wrong:?}");
    }
}
