//! `/services/SERVICE` and the policy part of the file's `[[service]]`. The defaults are those of `model`.

use http::{HeaderName, HeaderValue};

use crate::model::{
    Balance, EjectionPolicy, HashOn, LatencyOutlierPolicy, LimitPolicy, Panic, ProbeKind, ProbePolicy, ProtectionPolicy,
    ProxyProtocol, RetryPolicy, ServicePolicy, StatusRanges, StickyPolicy, TimeoutPolicy,
};

use super::ParseResult;
use super::fields::{Fields, Read};
use super::instance::path;
use super::node::{Node, Value, quoted};
use super::record::read_json;
use super::scalar::{
    boolean, duration, duration_above_zero, header_name, host_field, method, number, one_of, percent, show_duration, size, text,
    word,
};
use super::upstream_tls::upstream_tls;

/// Every field is optional; what is absent or null has its default.
pub fn parse_policy(value: &[u8]) -> ParseResult<ServicePolicy> {
    read_json(value, BYTES_MAX, |fields| Some(read_policy(fields)))
}

/// Takes the fields of a policy. What is wrong has been noted, and the caller's report refuses the whole.
pub(crate) fn read_policy(fields: &mut Fields<'_>) -> ServicePolicy {
    let default = ServicePolicy::default();
    let balance = fields.or("balance", default.balance, one_of(&Balance::ALL, Balance::as_str));
    let hash_on = fields.optional("hash_on", hash_on);
    let hash_bound = fields.optional("hash_bound", number(BOUND_MIN..=BOUND_MAX));
    let by_key = matches!(balance, Balance::Maglev | Balance::Hash);
    for (key, said) in [("hash_on", hash_on.is_some()), ("hash_bound", hash_bound.is_some())] {
        if said && !by_key {
            fields.odd(key, format!("is not used by balance {:?}, only by \"maglev\" and \"hash\"", balance.as_str()));
        }
    }
    let zone_aware = fields.or("zone_aware", default.zone_aware, boolean);
    if zone_aware && by_key {
        fields.odd("zone_aware", "is not used by balance \"maglev\" and \"hash\": proxies of two zones would disagree");
    }
    let latency_outliers = fields.section("latency_outliers").map(|mut outliers| self::latency_outliers(&mut outliers));
    if latency_outliers.is_some() && by_key {
        fields.odd("latency_outliers", "is not used by balance \"maglev\" and \"hash\": proxies would disagree");
    }
    ServicePolicy {
        balance,
        hash_on,
        hash_bound,
        probe: probe(&mut fields.section_or_empty("probe")),
        ejection: ejection(&mut fields.section_or_empty("ejection")),
        retry: retry(&mut fields.section_or_empty("retry")),
        timeouts: timeouts(&mut fields.section_or_empty("timeouts")),
        slow_start: fields.or("slow_start", default.slow_start, duration),
        latency_outliers,
        panic: fields.or("panic", default.panic, panic),
        limits: limits(&mut fields.section_or_empty("limits")),
        sticky: fields.section("sticky").and_then(|mut sticky| self::sticky(&mut sticky)),
        protection: protection(&mut fields.section_or_empty("protection")),
        zone_aware,
        tls: fields.section("tls").map(|mut tls| upstream_tls(&mut tls)),
        proxy_protocol: fields.optional("proxy_protocol", one_of(&ProxyProtocol::ALL, ProxyProtocol::as_str)),
    }
}

fn probe(fields: &mut Fields<'_>) -> ProbePolicy {
    let default = ProbePolicy::default();
    let probe = ProbePolicy {
        kind: fields.optional("kind", one_of(&PROBE_KINDS, probe_kind)),
        path: fields.optional("path", path),
        interval: fields.or("interval", default.interval, duration_above_zero),
        timeout: fields.or("timeout", default.timeout, duration_above_zero),
        rise: fields.or("rise", default.rise, number(1..=COUNT_MAX)),
        fall: fields.or("fall", default.fall, number(1..=COUNT_MAX)),
        expect: fields.or("expect", default.expect, statuses),
        body: fields.optional("body", word),
        host: fields.optional("host", host_field),
        headers: probe_headers(fields),
    };
    if probe.timeout >= probe.interval {
        let (timeout, interval) = (show_duration(probe.timeout), show_duration(probe.interval));
        fields.wrong("timeout", format!("{timeout} is not shorter than the interval, {interval}"));
    }
    let over_http = matches!(probe.kind, None | Some(ProbeKind::Http));
    for (key, said) in [("path", probe.path.is_some()), ("body", probe.body.is_some())] {
        if said && !over_http {
            fields.odd(key, "is only used by probes of kind \"http\"");
        }
    }
    if !probe.headers.is_empty() && matches!(probe.kind, Some(ProbeKind::Tcp | ProbeKind::None)) {
        fields.odd("headers", "are only used by probes of kind \"http\" and \"grpc\"");
    }
    probe
}

fn ejection(fields: &mut Fields<'_>) -> EjectionPolicy {
    let default = EjectionPolicy::default();
    let ejection = EjectionPolicy {
        enabled: fields.or("enabled", default.enabled, boolean),
        consecutive: fields.or("consecutive", default.consecutive, number(1..=COUNT_MAX)),
        connect_failures: fields.or("connect_failures", default.connect_failures, number(1..=COUNT_MAX)),
        ratio_percent: fields.or("ratio_percent", default.ratio_percent, number(1..=100)),
        base: fields.or("base", default.base, duration_above_zero),
        max: fields.or("max", default.max, duration_above_zero),
        max_percent: fields.or("max_percent", default.max_percent, percent),
    };
    if ejection.base > ejection.max {
        let (base, max) = (show_duration(ejection.base), show_duration(ejection.max));
        fields.wrong("base", format!("{base} is longer than max, {max}"));
    }
    ejection
}

fn latency_outliers(fields: &mut Fields<'_>) -> LatencyOutlierPolicy {
    let default = LatencyOutlierPolicy::default();
    LatencyOutlierPolicy {
        times: fields.or("times", default.times, number(2..=100)),
        above: fields.or("above", default.above, duration),
        requests: fields.or("requests", default.requests, number(1..=COUNT_MAX)),
        weight_percent: fields.or("weight_percent", default.weight_percent, number(1..=99)),
    }
}

fn retry(fields: &mut Fields<'_>) -> RetryPolicy {
    let default = RetryPolicy::default();
    RetryPolicy {
        attempts: fields.or("attempts", default.attempts, number(0..=ATTEMPTS_MAX)),
        budget_percent: fields.or("budget_percent", default.budget_percent, percent),
        budget_floor: fields.or("budget_floor", default.budget_floor, number(0..=COUNT_MAX)),
        per_try_timeout: fields.optional("per_try_timeout", duration_above_zero),
        buffer: fields.or("buffer", default.buffer, size(0..=BUFFER_MAX)),
        methods: fields.list("methods", method).unwrap_or(default.methods),
    }
}

fn timeouts(fields: &mut Fields<'_>) -> TimeoutPolicy {
    let default = TimeoutPolicy::default();
    TimeoutPolicy {
        connect: fields.or("connect", default.connect, duration_above_zero),
        response_head: fields.or("response_head", default.response_head, duration_above_zero),
        idle: fields.or("idle", default.idle, duration_above_zero),
        upgraded_idle: fields.or("upgraded_idle", default.upgraded_idle, duration_above_zero),
        drain: fields.or("drain", default.drain, duration),
    }
}

fn limits(fields: &mut Fields<'_>) -> LimitPolicy {
    let default = LimitPolicy::default();
    LimitPolicy {
        in_flight: fields.or("in_flight", default.in_flight, number(1..=COUNT_MAX)),
        queue: fields.or("queue", default.queue, number(0..=COUNT_MAX)),
        queue_wait: fields.or("queue_wait", default.queue_wait, duration),
    }
}

fn sticky(fields: &mut Fields<'_>) -> Option<StickyPolicy> {
    let cookie = fields.required("cookie", cookie_name);
    let ttl = fields.optional("ttl", duration_above_zero);
    Some(StickyPolicy { cookie: cookie?, ttl })
}

fn protection(fields: &mut Fields<'_>) -> ProtectionPolicy {
    let default = ProtectionPolicy::default();
    ProtectionPolicy {
        percent: fields.or("percent", default.percent, percent),
        window: fields.or("window", default.window, duration_above_zero),
        limbo: fields.or("limbo", default.limbo, duration),
    }
}

pub(super) fn probe_kind(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Http => "http",
        ProbeKind::Tcp => "tcp",
        ProbeKind::Grpc => "grpc",
        ProbeKind::None => "none",
    }
}

fn hash_on(node: &Node) -> Read<HashOn> {
    let said = text(node)?;
    match said.split_once(':') {
        None if said == "path" => return Ok(HashOn::Path),
        None if said == "client" => return Ok(HashOn::Client),
        Some(("header", name)) => return header_name(name).map(HashOn::Header),
        Some(("cookie", name)) if is_token(name) => return Ok(HashOn::Cookie(name.to_owned())),
        Some(("query", name)) if !name.is_empty() => return Ok(HashOn::Query(name.to_owned())),
        _ => {}
    }
    Err(format!("{} is not one of \"header:NAME\", \"cookie:NAME\", \"query:NAME\", \"path\", \"client\"", quoted(said)))
}

fn panic(node: &Node) -> Read<Panic> {
    match &node.value {
        Value::Text(said) if said == "fail" => Ok(Panic::Fail),
        Value::Integer(n @ 0..=100) => Ok(Panic::Below(*n as u8)),
        _ => Err(format!("{} is not a percentage in 0..=100, nor \"fail\"", node.shown())),
    }
}

/// `"200-399"`, `"200,204,300-302"`.
fn statuses(node: &Node) -> Read<StatusRanges> {
    let said = text(node)?;
    let status = |t: &str| t.trim().parse::<u16>().ok().filter(|s| (100..=599).contains(s));
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((status(first)?, status(last)?)).filter(|(first, last)| first <= last)
    };
    match said.split(',').map(range).collect() {
        Some(ranges) => Ok(StatusRanges(ranges)),
        None => Err(format!("{} is not a set of statuses in 100..=599 such as \"200-399\" or \"200,204\"", quoted(said))),
    }
}

fn cookie_name(node: &Node) -> Read<String> {
    match text(node)? {
        name if is_token(name) => Ok(name.to_owned()),
        name => Err(format!("{} cannot be the name of a cookie", quoted(name))),
    }
}

/// In the order of their names, so that those who say the same share their probes.
fn probe_headers(fields: &mut Fields<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = fields.entries("headers", |entry| Ok((probe_header_name(&entry.key)?, header_value(&entry.node)?)));
    headers.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    if let Some(pair) = headers.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        fields.wrong("headers", format!("{:?} stands there twice, in capitals or not", pair[0].0.as_str()));
    }
    if headers.len() > HEADERS_MAX {
        fields.wrong("headers", format!("has {} headers; at most {HEADERS_MAX} are allowed", headers.len()));
    }
    headers
}

fn probe_header_name(said: &str) -> Read<HeaderName> {
    let name = header_name(said)?;
    if name == "host" {
        return Err("is said by probe.host".to_owned());
    }
    if RESERVED_HEADERS.contains(&name.as_str()) {
        return Err("belongs to the connection or the body, which are the probe's own".to_owned());
    }
    HeaderName::try_from(name).map_err(|_| format!("{} cannot be the name of a header", quoted(said)))
}

/// Never shown: it may be a password.
fn header_value(node: &Node) -> Read<HeaderValue> {
    let said = text(node).map_err(|_| "is not a text".to_owned())?;
    let is_plain = said.bytes().all(|b| b.is_ascii_graphic() || b == b' ') && said.trim() == said;
    let mut value = HeaderValue::from_str(said)
        .ok()
        .filter(|_| is_plain)
        .ok_or("its value is not one of visible ASCII characters, with spaces only between them")?;
    value.set_sensitive(true);
    Ok(value)
}

/// RFC 9110's `token`.
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

const PROBE_KINDS: [ProbeKind; 4] = [ProbeKind::Http, ProbeKind::Tcp, ProbeKind::Grpc, ProbeKind::None];
/// As many as conditions of a route; a small instance's head takes more, but not by much.
const HEADERS_MAX: usize = 32;
/// What frames a request, and what a probe says of its body.
const RESERVED_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// At 100 percent an instance would have to be empty before it may have its part.
const BOUND_MIN: u16 = 101;
const BOUND_MAX: u16 = 1000;
const BYTES_MAX: usize = 64 * 1024;
/// More attempts than this only multiply an outage.
const ATTEMPTS_MAX: u8 = 10;
/// Bytes of one request's body in memory; times the requests in flight this is what a service may cost.
const BUFFER_MAX: u64 = 1024 * 1024;
/// Of anything counted; beyond it a limit is none.
const COUNT_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UpstreamTls;
    use std::time::Duration;

    fn problems(value: &str) -> Vec<String> {
        parse_policy(value.as_bytes()).unwrap_err().iter().map(ToString::to_string).collect()
    }

    fn read(value: &str) -> ServicePolicy {
        let parsed = parse_policy(value.as_bytes()).unwrap();
        assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
        parsed.value
    }

    #[test]
    fn the_policy_of_the_contract_is_the_default_but_for_its_probe() {
        let contract = r#"{"v":1,"balance":"p2c","hash_on":null,
            "probe":{"kind":"http","path":"/healthz","interval":"5s","timeout":"2s","rise":2,"fall":3,"expect":"200-399","body":null,"host":null},
            "ejection":{"enabled":true,"consecutive":5,"connect_failures":3,"ratio_percent":50,"base":"10s","max":"300s","max_percent":30},
            "retry":{"attempts":1,"budget_percent":20,"budget_floor":3,"per_try_timeout":null,"buffer":"64KiB","methods":["GET","HEAD","OPTIONS","TRACE"]},
            "timeouts":{"connect":"1s","response_head":"15s","idle":"5m","upgraded_idle":"1h","drain":"30s"},
            "slow_start":"30s","panic":50,"limits":{"in_flight":4096,"queue":1024,"queue_wait":"1s"},
            "sticky":null,"protection":{"percent":30,"window":"10s","limbo":"10m"},"zone_aware":false,"tls":null}"#;
        let mut expected = ServicePolicy::default();
        expected.probe.kind = Some(ProbeKind::Http);
        expected.probe.path = Some("/healthz".into());
        assert_eq!(read(contract), expected);
        assert_eq!(read("{}"), ServicePolicy::default());
    }

    #[test]
    fn the_parts_that_are_off_by_default_read_too() {
        let policy = read(
            r#"{"balance":"maglev","hash_on":"header:X-User","panic":"fail","sticky":{"cookie":"s","ttl":"1h"},
                "tls":{"server_name":"api.internal"},"retry":{"per_try_timeout":"2s","methods":[]},
                "probe":{"expect":"200,204,300-302","host":"api:8080"}}"#,
        );
        assert_eq!((policy.balance, policy.hash_on), (Balance::Maglev, Some(HashOn::Header("x-user".into()))));
        assert_eq!(policy.panic, Panic::Fail);
        assert_eq!(policy.sticky, Some(StickyPolicy { cookie: "s".into(), ttl: Some(Duration::from_secs(3600)) }));
        assert_eq!(policy.tls, Some(UpstreamTls { server_name: Some("api.internal".into()), ..UpstreamTls::default() }));
        assert_eq!((policy.retry.per_try_timeout, policy.retry.methods), (Some(Duration::from_secs(2)), vec![]));
        assert_eq!(policy.probe.expect, StatusRanges(vec![(200, 200), (204, 204), (300, 302)]));
    }

    #[test]
    fn every_problem_is_named_at_once_with_its_path() {
        let policy = r#"{"balance":"p3c","hash_on":"cookie:","probe":{"rise":0,"interval":5,"expect":"399-200"},
            "retry":{"methods":["GET","get",1],"buffer":"64KB"},"panic":101,"sticky":{},"tls":{"ca":"none","server_name":"a b"},
            "limits":[]}"#;
        assert_eq!(
            problems(policy),
            [
                "balance: \"p3c\" is not one of p2c, peak_ewma, least_conn, round_robin, random, maglev, hash; did you mean \"p2c\"?",
                "hash_on: \"cookie:\" is not one of \"header:NAME\", \"cookie:NAME\", \"query:NAME\", \"path\", \"client\"",
                "probe.interval: 5 is not a duration such as \"250ms\", \"10s\" or \"5m\"",
                "probe.rise: 0 is not in 1..=1000000",
                "probe.expect: \"399-200\" is not a set of statuses in 100..=599 such as \"200-399\" or \"200,204\"",
                "retry.buffer: \"64KB\" is not a size such as \"512B\", \"64KiB\" or \"1MiB\"",
                "retry.methods[1]: \"get\" is not a method such as \"GET\"",
                "retry.methods[2]: 1 is not a text",
                "panic: 101 is not a percentage in 0..=100, nor \"fail\"",
                "limits: a list is not a table of fields",
                "sticky.cookie: is missing",
                "tls.server_name: \"a b\" is neither a DNS name nor an IP address",
                "tls.ca: is not a PEM text with a block of -----BEGIN CERTIFICATE-----",
            ]
        );
    }

    #[test]
    fn fields_that_contradict_each_other_are_problems() {
        assert_eq!(problems(r#"{"probe":{"interval":"2s"}}"#), ["probe.timeout: 2s is not shorter than the interval, 2s"]);
        assert_eq!(problems(r#"{"ejection":{"base":"10m"}}"#), ["ejection.base: 10m is longer than max, 5m"]);
    }

    #[test]
    fn headers_of_probes_are_those_a_request_may_have_and_no_value_is_repeated() {
        let policy = read(r#"{"probe":{"path":"/h","headers":{"X-Token":"a b","authorization":"Bearer s3cret"}}}"#);
        let names: Vec<&str> = policy.probe.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["authorization", "x-token"]);
        assert!(!format!("{policy:?}").contains("s3cret"));
        let value = "its value is not one of visible ASCII characters, with spaces only between them";
        assert_eq!(
            problems(
                r#"{"probe":{"headers":{"x y":"1","Host":"a","Content-Length":"1","x-a":7,"x-b":"s3cret\n","x-c":" s3cret","x-d":"ü"}}}"#
            ),
            [
                "probe.headers.Content-Length: belongs to the connection or the body, which are the probe's own",
                "probe.headers.Host: is said by probe.host",
                "probe.headers.x y: \"x y\" cannot be the name of a header",
                "probe.headers.x-a: is not a text",
                &format!("probe.headers.x-b: {value}"),
                &format!("probe.headers.x-c: {value}"),
                &format!("probe.headers.x-d: {value}"),
            ]
        );
        let twice = r#"{"probe":{"headers":{"X-A":"1","x-a":"2"}}}"#;
        assert_eq!(problems(twice), ["probe.headers: \"x-a\" stands there twice, in capitals or not"]);
        let table = r#"{"probe":{"headers":["x-a: 1"]}}"#;
        assert_eq!(problems(table), ["probe.headers: a list is not a table of names and values"]);
        let many: serde_json::Value = (0..33).map(|n| (format!("x-{n}"), "1".into())).collect::<serde_json::Map<_, _>>().into();
        let many = serde_json::json!({"probe": {"headers": many}}).to_string();
        assert_eq!(problems(&many), ["probe.headers: has 33 headers; at most 32 are allowed"]);
    }

    #[test]
    fn fields_without_effect_are_odd() {
        let warnings = parse_policy(br#"{"hash_on":"path","probe":{"kind":"tcp","path":"/x","headers":{"a":"b"}},"prob":1}"#)
            .unwrap()
            .warnings;
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "hash_on: is not used by balance \"p2c\", only by \"maglev\" and \"hash\"",
                "probe.path: is only used by probes of kind \"http\"",
                "probe.headers: are only used by probes of kind \"http\" and \"grpc\"",
                "prob: unknown field, ignored; did you mean \"probe\"?",
            ]
        );
    }
}
