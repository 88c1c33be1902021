//! A policy as its record: whole, with every default, so that whoever reads it sees what is in force.

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value as Json, json};

use crate::model::{HashOn, Panic, ProxyProtocol, ServicePolicy};

use super::policy::probe_kind;
use super::record::VERSION;
use super::scalar::{show_duration, show_size};

/// `parse_policy` reads the same policy back, if it has no key.
pub fn policy_json(policy: &ServicePolicy) -> Json {
    let ServicePolicy { probe, ejection, retry, timeouts, limits, protection, .. } = policy;
    json!({
        "v": VERSION,
        "balance": policy.balance.as_str(),
        "hash_on": policy.hash_on.as_ref().map(show_hash_on),
        "hash_bound": policy.hash_bound,
        "probe": {
            "kind": probe.kind.map(probe_kind),
            "path": probe.path,
            "interval": show_duration(probe.interval),
            "timeout": show_duration(probe.timeout),
            "rise": probe.rise,
            "fall": probe.fall,
            "expect": probe.expect.to_string(),
            "body": probe.body,
            "host": probe.host,
            "headers": probe.headers.iter().map(show_header).collect::<Map<_, _>>(),
        },
        "ejection": {
            "enabled": ejection.enabled,
            "consecutive": ejection.consecutive,
            "connect_failures": ejection.connect_failures,
            "ratio_percent": ejection.ratio_percent,
            "base": show_duration(ejection.base),
            "max": show_duration(ejection.max),
            "max_percent": ejection.max_percent,
        },
        "retry": {
            "attempts": retry.attempts,
            "budget_percent": retry.budget_percent,
            "budget_floor": retry.budget_floor,
            "per_try_timeout": retry.per_try_timeout.map(show_duration),
            "buffer": show_size(retry.buffer),
            "methods": retry.methods.iter().map(|m| m.as_str()).collect::<Vec<_>>(),
        },
        "timeouts": {
            "connect": show_duration(timeouts.connect),
            "response_head": show_duration(timeouts.response_head),
            "idle": show_duration(timeouts.idle),
            "upgraded_idle": show_duration(timeouts.upgraded_idle),
            "drain": show_duration(timeouts.drain),
        },
        "slow_start": show_duration(policy.slow_start),
        "latency_outliers": policy.latency_outliers.as_ref().map(|outliers| {
            json!({
                "times": outliers.times,
                "above": show_duration(outliers.above),
                "requests": outliers.requests,
                "weight_percent": outliers.weight_percent,
            })
        }),
        "panic": match policy.panic {
            Panic::Below(percent) => json!(percent),
            Panic::Fail => json!("fail"),
        },
        "limits": {
            "in_flight": limits.in_flight,
            "queue": limits.queue,
            "queue_wait": show_duration(limits.queue_wait),
        },
        "sticky": policy.sticky.as_ref().map(|s| json!({"cookie": s.cookie, "ttl": s.ttl.map(show_duration)})),
        "protection": {
            "percent": protection.percent,
            "window": show_duration(protection.window),
            "limbo": show_duration(protection.limbo),
        },
        "zone_aware": policy.zone_aware,
        // Never the key, so a policy with one cannot be read back.
        "tls": policy.tls.as_ref().map(|t| json!({
            "verify": t.verify,
            "server_name": t.server_name,
            "ca": t.ca,
            "certificate": t.identity.as_ref().map(|identity| &identity.chain),
        })),
        "proxy_protocol": policy.proxy_protocol.map(ProxyProtocol::as_str),
    })
}

/// With its value, as the record has it: whoever shows a policy to others hides it.
fn show_header((name, value): &(HeaderName, HeaderValue)) -> (String, Json) {
    (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())
}

fn show_hash_on(hash_on: &HashOn) -> String {
    match hash_on {
        HashOn::Header(name) => format!("header:{name}"),
        HashOn::Cookie(name) => format!("cookie:{name}"),
        HashOn::Query(name) => format!("query:{name}"),
        HashOn::Path => "path".to_owned(),
        HashOn::Client => "client".to_owned(),
    }
}
