//! `upstream` blocks: instances, and what their policy says of picking and ejection.

use serde_json::{Map, Value as Json, json};

use super::units;
use super::words::{Fate, fate};
use crate::import::findings::{Ledger, Weight};
use crate::import::grammar::Directive;
use crate::wire::scalar::show_duration;

#[derive(Debug, Clone)]
pub struct Upstream {
    pub name: String,
    /// The file it stands in: confd may have rendered it.
    pub file: String,
    /// Records of instances, without a protocol.
    pub instances: Vec<Map<String, Json>>,
    /// Fields of the policy.
    pub policy: Map<String, Json>,
}

pub fn upstream(directive: &Directive, ledger: &mut Ledger) -> Upstream {
    ledger.carried(directive);
    let mut policy = Map::new();
    let mut servers = Vec::new();
    for inner in directive.inner() {
        match inner.name.as_str() {
            "server" => match server(inner, ledger) {
                Some(new) if servers.iter().any(|known: &Server| known.record["address"] == new.record["address"]) => {
                    ledger.lost(inner, "an address is one instance", "give the one that stays the sum of the weights");
                }
                new => servers.extend(new),
            },
            "zone" => ledger.note(inner, "what is learned of instances is known to all threads anyway"),
            "keepalive" | "keepalive_requests" | "keepalive_time" | "keepalive_timeout" => {
                ledger.note(inner, "connections to instances are kept and bounded by Pointsman itself");
            }
            name => match (picking(inner), fate(name)) {
                (Some((fields, differs)), _) => {
                    policy.extend(fields);
                    match differs {
                        Some(why) => ledger.differs(inner, why),
                        None => ledger.carried(inner),
                    }
                }
                (None, Fate::Note(why)) => ledger.note(inner, why),
                _ => ledger.lost(inner, "this way to pick is not known here", "balance and hash_on of the service"),
            },
        }
    }
    if !policy.contains_key("balance") && servers.len() > 1 {
        policy.insert("balance".to_owned(), json!("round_robin"));
    }
    failures(directive, &servers, &mut policy, ledger);
    let file = directive.place.file.to_string();
    Upstream { name: directive.arg(0).to_owned(), file, instances: weighed(servers), policy }
}

/// One `server` line.
struct Server {
    record: Map<String, Json>,
    /// nginx's default is 1, ours 100.
    weight: u64,
    max_fails: Option<u32>,
    fail_timeout: Option<std::time::Duration>,
}

fn server(directive: &Directive, ledger: &mut Ledger) -> Option<Server> {
    let said = directive.arg(0);
    let Some(address) = address(said, 80) else {
        let why = format!("{said} is not HOST:PORT");
        ledger.lost(directive, why, "let the instance listen on an address of the network");
        return None;
    };
    let mut record = Map::from_iter([("address".to_owned(), json!(address))]);
    let mut server = Server { record: Map::new(), weight: 1, max_fails: None, fail_timeout: None };
    let (mut missing, mut differs) = (Vec::new(), None);
    for option in directive.args.iter().skip(1) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("weight", n) => match n.parse() {
                Ok(n) => server.weight = n,
                Err(_) => missing.push(option.as_str()),
            },
            ("max_conns", n) => match n.parse::<u32>() {
                Ok(n) => drop(record.insert("max_requests".to_owned(), json!(n))),
                Err(_) => missing.push(option.as_str()),
            },
            ("max_fails", n) => match n.parse() {
                Ok(n) => server.max_fails = Some(n),
                Err(_) => missing.push(option.as_str()),
            },
            ("fail_timeout", time) => match units::time(time).filter(|time| !time.is_zero()) {
                Some(time) => server.fail_timeout = Some(time),
                None => missing.push(option.as_str()),
            },
            ("backup", "") => {
                record.insert("tier".to_owned(), json!(1));
                differs =
                    Some("a tier takes part as soon as less than 72 % of the one before it is well, not only when it is gone");
            }
            ("down", "") => drop(record.insert("state".to_owned(), json!("maintenance"))),
            // Names are looked up again by themselves.
            ("resolve", "") => {}
            _ => missing.push(option.as_str()),
        }
    }
    if !missing.is_empty() {
        let why = format!("{} of this server is not carried over", missing.join(", "));
        ledger.lost(directive, why, "see the fields of an instance and of its service's policy");
    } else if let Some(why) = differs {
        ledger.differs(directive, why);
    } else {
        ledger.carried(directive);
    }
    Some(Server { record, ..server })
}

/// `HOST`, `HOST:PORT` or `[IPv6]:PORT`, with the port that is meant where none is said.
pub fn address(said: &str, port: u16) -> Option<String> {
    let with_port = |said: &str| crate::model::Address::parse(said).ok().map(|address| address.to_string());
    with_port(said).or_else(|| with_port(&format!("{said}:{port}")))
}

/// Weights as ours are written, if they are told apart at all: registered instances have 100.
fn weighed(servers: Vec<Server>) -> Vec<Map<String, Json>> {
    let heaviest = servers.iter().map(|server| server.weight).max().unwrap_or(1).max(1);
    let all_same = servers.iter().all(|server| server.weight == servers[0].weight);
    let weight = |weight: u64| match heaviest {
        0..=655 => weight * 100,
        656..=65_535 => weight,
        // Shares stay; what is less than the smallest share still counts.
        _ => (u128::from(weight) * 65_535 / u128::from(heaviest)).max(1) as u64,
    };
    let record = |server: Server| {
        let mut record = server.record;
        if !all_same {
            record.insert("weight".to_owned(), json!(weight(server.weight)));
        }
        record
    };
    servers.into_iter().map(record).collect()
}

/// `max_fails` and `fail_timeout` are a service's here, so they are carried over where all servers say the same.
fn failures(directive: &Directive, servers: &[Server], policy: &mut Map<String, Json>, ledger: &mut Ledger) {
    let said: Vec<_> = servers.iter().map(|server| (server.max_fails, server.fail_timeout)).collect();
    let Some((max_fails, fail_timeout)) = said.first().copied() else { return };
    if max_fails.is_none() && fail_timeout.is_none() && said.iter().all(|other| *other == (None, None)) {
        return;
    }
    let say = |ledger: &mut Ledger, weight, why: &str, instead: Option<&str>| {
        let said = format!("{directive}: max_fails, fail_timeout");
        ledger.say(weight, &directive.place, said, why.to_owned(), instead.map(str::to_owned));
    };
    if said.iter().any(|other| *other != (max_fails, fail_timeout)) {
        let why = "servers of one upstream say different things, and ejection is the service's";
        return say(ledger, Weight::Lost, why, Some("ejection in the service's policy"));
    }
    let mut ejection = Map::new();
    match max_fails {
        Some(0) => drop(ejection.insert("enabled".to_owned(), json!(false))),
        Some(n) => drop(ejection.insert("consecutive".to_owned(), json!(n.min(1_000_000)))),
        None => {}
    }
    if let Some(time) = fail_timeout {
        ejection.insert("base".to_owned(), json!(show_duration(time)));
        if time > std::time::Duration::from_secs(300) {
            ejection.insert("max".to_owned(), json!(show_duration(time)));
        }
    }
    policy.insert("ejection".to_owned(), Json::Object(ejection));
    if max_fails != Some(0) {
        let why = "failures in a row eject, and each further time for longer; connections that fail eject after three";
        say(ledger, Weight::Differs, why, None);
    }
}

type Picking = (Vec<(String, Json)>, Option<&'static str>);

fn picking(directive: &Directive) -> Option<Picking> {
    let field = |key: &str, value: &str| (key.to_owned(), json!(value));
    let by = |balance: &str| vec![field("balance", balance)];
    Some(match (directive.name.as_str(), directive.arg(0)) {
        ("least_conn", _) => (by("least_conn"), None),
        ("random", "two") => (by("p2c"), None),
        ("random", "") => (by("random"), None),
        ("ip_hash", _) => {
            let why = "the whole address counts, not an IPv4 network of 24 bits";
            (vec![field("balance", "hash"), field("hash_on", "client")], Some(why))
        }
        ("hash", key) => {
            let (on, differs) = hash_on(key)?;
            let moved = "the same key goes to another instance than with nginx";
            (vec![field("balance", "hash"), field("hash_on", &on)], Some(differs.unwrap_or(moved)))
        }
        ("sticky", "cookie") => {
            let mut sticky = Map::from_iter([("cookie".to_owned(), json!(directive.arg(1)))]);
            for option in directive.args.iter().skip(2) {
                match option.split_once('=').unwrap_or((option, "")) {
                    ("expires", "max") | ("path", "/") | ("httponly" | "secure", "") => {}
                    ("expires", time) => {
                        sticky
                            .insert("ttl".to_owned(), json!(show_duration(units::time(time).filter(|time| time.as_secs() > 0)?)));
                    }
                    _ => return None,
                }
            }
            (vec![("sticky".to_owned(), Json::Object(sticky))], Some("cookies that nginx has set are not understood"))
        }
        _ => return None,
    })
}

/// Variables of nginx that are a key of ours, and what is not the same.
fn hash_on(key: &str) -> Option<(String, Option<&'static str>)> {
    let named = |start: &str| key.strip_prefix(start).filter(|name| !name.is_empty() && !name.contains('$'));
    Some(match key {
        "$remote_addr" | "$binary_remote_addr" => ("client".to_owned(), None),
        "$uri" => ("path".to_owned(), None),
        "$request_uri" => ("path".to_owned(), Some("the path counts without its query")),
        "$host" | "$http_host" => ("header:host".to_owned(), None),
        _ => match (named("$http_"), named("$cookie_"), named("$arg_")) {
            (Some(name), _, _) => (format!("header:{}", name.replace('_', "-")), None),
            (_, Some(name), _) => (format!("cookie:{name}"), None),
            (_, _, Some(name)) => (format!("query:{name}"), None),
            _ => return None,
        },
    })
}
