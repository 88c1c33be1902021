//! `limit_req_zone` and `limit_req` as the `rate_limit` of routes.
//!
//! nginx lets the request that is due through, and `burst` besides; here a burst is all that comes at once, so it is one more.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::import::findings::Ledger;
use crate::import::grammar::Directive;

/// What a block says of rates, with what those around it say.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    zones: BTreeMap<String, Zone>,
    /// Of the zone, and as many at once as nginx takes besides.
    limit: Option<(Zone, u32)>,
    dry_run: bool,
    /// nginx answers as we do.
    answers_429: bool,
}

#[derive(Debug, Clone)]
struct Zone {
    requests: u32,
    per: &'static str,
    by: Json,
}

impl Rates {
    pub fn reads(name: &str) -> bool {
        name.starts_with("limit_req")
    }

    /// What holds inside `block`. A `limit_req` there goes before those around it, as nginx has it.
    pub fn inside(&self, block: &[Directive], ledger: &mut Ledger) -> Self {
        let mut rates = self.clone();
        let said = |name: &'static str| block.iter().filter(move |directive| directive.name == name);
        for directive in said("limit_req_zone") {
            rates.zone(directive, ledger);
        }
        for directive in said("limit_req_status") {
            rates.answers_429 = directive.arg(0) == "429";
            if rates.answers_429 { ledger.carried(directive) } else { ledger.differs(directive, ANSWER) }
        }
        for directive in said("limit_req_dry_run") {
            rates.dry_run = directive.arg(0) == "on";
            ledger.carried(directive);
        }
        for directive in said("limit_req_log_level") {
            ledger.note(directive, "each request that is refused has its line in the access log, with the reason limited");
        }
        let mut limits = said("limit_req");
        if let Some(first) = limits.next() {
            rates.limit = rates.limit(first, ledger);
        }
        for further in limits {
            ledger.lost(
                further,
                "a route has one limit, and this is another",
                "the rate that matters most, or routes of their own",
            );
        }
        rates
    }

    /// `rate_limit` of a route inside.
    pub fn record(&self) -> Option<Json> {
        let (Zone { requests, per, by }, besides) = self.limit.as_ref()?;
        let mut record = Map::from_iter([("requests".to_owned(), json!(requests)), ("per".to_owned(), json!(per))]);
        record.insert("burst".to_owned(), json!(besides + 1));
        record.insert("by".to_owned(), by.clone());
        if self.dry_run {
            record.insert("dry_run".to_owned(), json!(true));
        }
        Some(Json::Object(record))
    }

    fn zone(&mut self, directive: &Directive, ledger: &mut Ledger) {
        let name = directive.args.iter().find_map(|arg| arg.strip_prefix("zone=")?.split(':').next());
        let rate = directive.args.iter().find_map(|arg| rate(arg.strip_prefix("rate=")?));
        let by = key(directive.arg(0));
        match (name, rate, by) {
            (Some(name), Some((requests, per)), Some((by, difference))) => {
                self.zones.insert(name.to_owned(), Zone { requests, per, by });
                match difference {
                    Some(difference) => ledger.differs(directive, difference),
                    None => ledger.carried(directive),
                }
            }
            (_, _, None) => {
                let why = format!("{} is not a key that requests are counted by", directive.arg(0));
                ledger.lost(directive, why, "rate_limit by client_address, route or header");
            }
            _ => ledger.lost(directive, "has no rate such as 10r/s, or no name", "rate_limit of a route"),
        }
    }

    fn limit(&self, directive: &Directive, ledger: &mut Ledger) -> Option<(Zone, u32)> {
        let value = |key: &str| directive.args.iter().find_map(|arg| arg.strip_prefix(key));
        let Some(zone) = value("zone=").and_then(|name| self.zones.get(name)) else {
            ledger.lost(directive, "its zone is not carried over", "rate_limit of the route");
            return None;
        };
        let Ok(besides @ ..BURST_MAX) = value("burst=").unwrap_or("0").parse::<u32>() else {
            ledger.lost(directive, format!("its burst is not a number below {BURST_MAX}"), "rate_limit of the route");
            return None;
        };
        let mut why = vec!["each route counts for itself, where nginx counts all that share the zone"];
        if besides > 0 && !directive.args.iter().any(|arg| arg == "nodelay") {
            why.push("what is within the burst goes on at once, where nginx delays it");
        }
        if !self.answers_429 {
            why.push(ANSWER);
        }
        ledger.differs(directive, why.join("; "));
        Some((zone.clone(), besides))
    }
}

/// `10r/s` or `30r/m`.
fn rate(said: &str) -> Option<(u32, &'static str)> {
    let (n, per) = match (said.strip_suffix("r/s"), said.strip_suffix("r/m")) {
        (Some(n), _) => (n, "1s"),
        (_, Some(n)) => (n, "1m"),
        _ => return None,
    };
    n.parse().ok().filter(|n| (1..=BURST_MAX).contains(n)).map(|n| (n, per))
}

/// `by` of a rate limit, and what of it is not as in nginx.
fn key(said: &str) -> Option<(Json, Option<&'static str>)> {
    let header = || said.strip_prefix("$http_").filter(|name| !name.is_empty() && !name.contains('$'));
    match said {
        "$binary_remote_addr" | "$remote_addr" => Some((
            json!("client_address"),
            Some("of an IPv6 client its network of 64 bits counts, where nginx counts each address"),
        )),
        "$server_name" => Some((json!("route"), None)),
        _ => header().map(|name| {
            let difference = "a request without this field is counted by its client's address, where nginx lets it through";
            (json!({ "header": name.replace('_', "-") }), Some(difference))
        }),
    }
}

const ANSWER: &str = "who is over the rate is answered 429, with Retry-After";
/// What a rate limit of ours may have at once, and in a period.
const BURST_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_keys_are_nginxs() {
        assert_eq!([rate("10r/s"), rate("30r/m")], [Some((10, "1s")), Some((30, "1m"))]);
        assert_eq!([rate("10"), rate("0r/s"), rate("10r/h"), rate("1.5r/s")], [None; 4]);
        let by = |said| key(said).map(|(by, _)| by);
        assert_eq!(by("$binary_remote_addr"), Some(json!("client_address")));
        assert_eq!(by("$http_x_api_key"), Some(json!({"header": "x-api-key"})));
        assert_eq!([by("$request_uri"), by("$http_"), by("$http_a$uri"), by("$binary_remote_addr$uri")], [const { None }; 4]);
    }
}
