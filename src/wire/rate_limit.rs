//! `rate_limit` of a route, both directions.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use crate::model::{RateKey, RateLimit};

use super::fields::{Fields, Read};
use super::node::{Node, Table, Value};
use super::scalar::{boolean, duration, header_name, number, show_duration, text};

pub(super) fn read_rate_limit(fields: &mut Fields<'_>) -> Option<RateLimit> {
    let requests = fields.required("requests", number(1..=REQUESTS_MAX));
    let per = fields.or("per", PER_DEFAULT, period);
    let burst = fields.optional("burst", number(1..=REQUESTS_MAX));
    let by = fields.or("by", RateKey::ClientAddress, key);
    let dry_run = fields.or("dry_run", false, boolean);
    let requests = requests?;
    let burst = burst.unwrap_or(requests);
    let fills = (per / requests).saturating_mul(burst);
    if fills > FILLS_MAX {
        let days = fills.as_secs() / DAY.as_secs();
        fields.wrong("burst", format!("{burst} at this rate come back only after {days} days; at most 365 are allowed"));
    }
    Some(RateLimit { requests, per, burst, by, dry_run })
}

pub(super) fn rate_limit_json(limit: &RateLimit) -> Json {
    let mut said = Map::from_iter([("requests".to_owned(), json!(limit.requests))]);
    let mut say = |key: &str, differs: bool, value: Json| {
        if differs {
            said.insert(key.to_owned(), value);
        }
    };
    say("per", limit.per != PER_DEFAULT, show_duration(limit.per).into());
    say("burst", limit.burst != limit.requests, limit.burst.into());
    match &limit.by {
        RateKey::ClientAddress => {}
        RateKey::Route => say("by", true, ROUTE.into()),
        RateKey::Header(name) => say("by", true, json!({ HEADER: name })),
    }
    say("dry_run", limit.dry_run, true.into());
    Json::Object(said)
}

fn period(node: &Node) -> Read<Duration> {
    match duration(node)? {
        per if (PER_MIN..=DAY).contains(&per) => Ok(per),
        _ => Err(format!("{} is not within 1ms and a day", node.shown())),
    }
}

fn key(node: &Node) -> Read<RateKey> {
    match &node.value {
        Value::Text(said) | Value::Word(said) if said == CLIENT_ADDRESS => Ok(RateKey::ClientAddress),
        Value::Text(said) | Value::Word(said) if said == ROUTE => Ok(RateKey::Route),
        Value::Table(Table { entries }) if matches!(&entries[..], [entry] if entry.key == HEADER) => {
            header_name(text(&entries[0].node)?).map(RateKey::Header)
        }
        _ => Err(format!("{} is not one of \"{CLIENT_ADDRESS}\", \"{ROUTE}\" and {{\"{HEADER}\":\"X-Api-Key\"}}", node.shown())),
    }
}

const CLIENT_ADDRESS: &str = "client_address";
const ROUTE: &str = "route";
const HEADER: &str = "header";
const PER_DEFAULT: Duration = Duration::from_secs(1);
/// What is rarer is a quota, which a process that starts anew would forget.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const PER_MIN: Duration = Duration::from_millis(1);
/// In each period, and at once. More than one proxy serves in a second, and coarse enough to be counted in nanoseconds.
const REQUESTS_MAX: u32 = 1_000_000;
/// Until a burst that was used up has come back.
const FILLS_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RouteName, RouteSpec};
    use crate::wire::{ParseResult, parse_route};

    fn parse(limit: &str) -> ParseResult<RouteSpec> {
        let record = format!(r#"{{"service":"a","rate_limit":{limit}}}"#);
        parse_route(&RouteName::parse("r").unwrap(), record.as_bytes())
    }

    #[test]
    fn a_rate_alone_is_by_address_and_lets_as_many_in_at_once() {
        let limit = parse(r#"{"requests":10}"#).unwrap().value.rate_limit.unwrap();
        let (requests, per, by) = (10, Duration::from_secs(1), RateKey::ClientAddress);
        assert_eq!(limit, RateLimit { requests, per, burst: 10, by, dry_run: false });
    }

    #[test]
    fn every_field_is_read() {
        let limit = r#"{"requests":5,"per":"1m","burst":21,"by":{"header":"X-Api-Key"},"dry_run":true}"#;
        let limit = parse(limit).unwrap().value.rate_limit.unwrap();
        assert_eq!((limit.requests, limit.per, limit.burst, limit.dry_run), (5, Duration::from_secs(60), 21, true));
        assert_eq!(limit.by, RateKey::Header("x-api-key".into()));
        assert_eq!(parse(r#"{"requests":5,"by":"route"}"#).unwrap().value.rate_limit.unwrap().by, RateKey::Route);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (limit, problem) in [
            (r#"{"per":"1s"}"#, "rate_limit.requests: is missing"),
            (r#"{"requests":0}"#, "rate_limit.requests: 0 is not in 1..=1000000"),
            (r#"{"requests":1,"per":1}"#, "rate_limit.per: 1 is not a duration such as \"250ms\", \"10s\" or \"5m\""),
            (r#"{"requests":1,"per":"2d"}"#, "rate_limit.per: \"2d\" is not within 1ms and a day"),
            (r#"{"requests":1,"burst":0}"#, "rate_limit.burst: 0 is not in 1..=1000000"),
            (
                r#"{"requests":1,"per":"1day","burst":400}"#,
                "rate_limit.burst: 400 at this rate come back only after 400 days; at most 365 are allowed",
            ),
            (
                r#"{"requests":1,"by":"client"}"#,
                "rate_limit.by: \"client\" is not one of \"client_address\", \"route\" and {\"header\":\"X-Api-Key\"}",
            ),
            (
                r#"{"requests":1,"by":{"cookie":"a"}}"#,
                "rate_limit.by: a table is not one of \"client_address\", \"route\" and {\"header\":\"X-Api-Key\"}",
            ),
            (r#"{"requests":1,"by":{"header":"a b"}}"#, "rate_limit.by: \"a b\" cannot be the name of a header"),
            ("10", "rate_limit: 10 is not a table of fields"),
        ] {
            let problems: Vec<String> = parse(limit).unwrap_err().iter().map(ToString::to_string).collect();
            assert_eq!(problems, [problem], "{limit}");
        }
    }
}
