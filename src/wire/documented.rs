//! `docs/registry.md` against the code: every field that is read stands there, nothing else does, and each default that
//! is printed there is the code's.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::model::*;

use super::*;

/// A row of one of the manual's tables of fields.
pub(crate) struct Row {
    /// The last heading above.
    pub section: String,
    pub key: String,
    /// As it is printed, if it is a value rather than a sentence.
    pub default: Option<String>,
}

/// The rows of every table whose third column is `default`.
pub(crate) fn rows(manual: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let (mut section, mut in_fields) = (String::new(), false);
    for line in manual.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.trim_matches('`').to_owned();
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        match cells[..] {
            _ if !line.starts_with('|') => in_fields = false,
            [_, _, "default", _] => in_fields = true,
            [key, _, default, ..] if in_fields => {
                let code = |cell: &str| Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned());
                rows.push(Row {
                    section: section.clone(),
                    key: code(key).expect("a key in a code span"),
                    default: code(default),
                });
            }
            _ => {}
        }
    }
    rows
}

/// Every path that a reader knows, from what it answers to a field it does not know. Tables of fields are left out.
pub(crate) fn known(answers: &[Problem]) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for answer in answers {
        let Some((_, list)) = answer.message.split_once("known here: ") else { continue };
        let table = answer.path.strip_suffix(STRANGER).expect("an answer to the stranger");
        known.extend(list.split(", ").map(|key| format!("{table}{key}")));
    }
    let tables: Vec<String> = known.iter().map(|path| format!("{path}.")).collect();
    let is_table =
        |path: &String| tables.iter().any(|t| t.trim_end_matches('.') == path && known.iter().any(|k| k.starts_with(t)));
    known.iter().filter(|path| !is_table(path)).cloned().collect()
}

/// No key of ours is near it, so the answer lists those there are.
pub(crate) const STRANGER: &str = "????????????????";

fn documented(section: &str) -> BTreeSet<String> {
    rows(MANUAL).into_iter().filter(|row| row.section == section).map(|row| row.key).collect()
}

/// A record that says for each field what the manual calls its default; `also` is what it needs besides.
fn defaults(section: &str, also: Json) -> Vec<u8> {
    let mut record = Json::Object(Map::new());
    for row in rows(MANUAL).into_iter().filter(|row| row.section == section) {
        let Some(default) = &row.default else { continue };
        let value: Json = serde_json::from_str(default).unwrap_or_else(|e| panic!("{}: {default}: {e}", row.key));
        if row.key.starts_with("sticky.") || row.key.starts_with("rate_limit.") {
            continue; // They only are if the whole is.
        }
        let place = row.key.split('.').fold(&mut record, |table, key| &mut table[key]);
        *place = value;
    }
    for (key, value) in also.as_object().into_iter().flatten() {
        record[key] = value.clone();
    }
    record.to_string().into_bytes()
}

const MANUAL: &str = include_str!("../../docs/registry.md");

#[test]
fn every_field_of_a_record_is_documented_and_no_other() {
    let ask = |mut record: Json, tables: &[&str]| {
        record[STRANGER] = json!(1);
        for table in tables {
            record[table][STRANGER] = json!(1);
        }
        record.to_string().into_bytes()
    };
    let instance = parse_instance(&ask(json!({"address": "a:1"}), &["probe"])).unwrap().warnings;
    assert_eq!(known(&instance), documented("Instances"));
    assert_eq!(known(&parse_override(&ask(json!({}), &[])).unwrap().warnings), documented("Overrides"));
    let tables = ["probe", "ejection", "retry", "timeouts", "limits", "sticky", "protection", "latency_outliers", "tls"];
    let policy = parse_policy(&ask(json!({"sticky": {"cookie": "c"}}), &tables)).unwrap().warnings;
    assert_eq!(known(&policy), documented("Services"));
    let name = RouteName::parse("r").unwrap();
    let edits = ["rate_limit", "rewrite", "request_headers", "response_headers"];
    let forwarding = json!({"service": "s", "rate_limit": {"requests": 1}});
    let forwarding = parse_route(&name, &ask(forwarding, &edits)).unwrap().warnings;
    let redirecting = parse_route(&name, &ask(json!({"redirect": {"to": "/"}}), &["redirect"])).unwrap().warnings;
    let answering = parse_route(&name, &ask(json!({}), &["respond"])).unwrap().warnings;
    let route = [forwarding, redirecting, answering].into_iter().flat_map(|warnings| known(&warnings));
    let tables = edits.into_iter().chain(["redirect", "respond"]).map(str::to_owned).collect();
    assert_eq!(&route.collect::<BTreeSet<String>>() - &tables, documented("Routes"));
    let pem = json!({"chain": "-----BEGIN CERTIFICATE-----", "key": "-----BEGIN PRIVATE KEY-----"});
    let name = CertificateName::parse("c").unwrap();
    assert_eq!(known(&parse_certificate(&name, &ask(pem, &[])).unwrap().warnings), documented("Certificates"));
}

#[test]
fn every_default_in_the_manual_is_the_one_of_the_code() {
    let address = json!({"address": "a:1"});
    let instance = parse_instance(&defaults("Instances", address.clone())).unwrap().value;
    assert_eq!(instance, parse_instance(address.to_string().as_bytes()).unwrap().value);
    assert_eq!(parse_override(&defaults("Overrides", json!({}))).unwrap().value, Override::default());

    let policy = defaults("Services", json!({}));
    assert!(String::from_utf8_lossy(&policy).contains("\"timeouts\""), "the manual's tables were read");
    // A policy with a table that is off by default has the defaults of that; without one there is none.
    let tls = Some(UpstreamTls::default());
    let latency_outliers = Some(LatencyOutlierPolicy::default());
    let expected = ServicePolicy { tls, latency_outliers, ..ServicePolicy::default() };
    assert_eq!(parse_policy(&policy).unwrap().value, expected);

    let (name, service) = (RouteName::parse("r").unwrap(), json!({"service": "s"}));
    let route = parse_route(&name, &defaults("Routes", service.clone())).unwrap().value;
    assert_eq!(route, parse_route(&name, service.to_string().as_bytes()).unwrap().value);
}

/// The manual's examples of records, each in the language it says.
#[test]
fn the_examples_of_the_manual_are_records() {
    let blocks: Vec<&str> = MANUAL.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [instance, route, limited] = blocks[..] else { panic!("{} blocks", blocks.len()) };
    assert!(parse_instance(instance.as_bytes()).unwrap().warnings.is_empty());
    for route in [route, limited] {
        assert!(parse_route(&RouteName::parse("r").unwrap(), route.as_bytes()).unwrap().warnings.is_empty());
    }
    for row in MANUAL.split("## Instances that others registered").nth(1).unwrap().lines().filter(|l| l.starts_with("| `")) {
        for value in row.split(" | ").next().unwrap().trim_start_matches("| ").split("`, `") {
            let value = value.trim_matches('`');
            parse_foreign_instance(value.as_bytes()).unwrap_or_else(|problems| panic!("{value}: {problems:?}"));
        }
    }
}
