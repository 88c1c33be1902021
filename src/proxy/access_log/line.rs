//! A record as one line of text. Values of denied query parameters are masked, and nothing can break out of its line.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use http::Version;
use serde_json::{Value, json};

use super::super::record::RequestRecord;
use crate::model::ServiceName;

pub fn json(record: &RequestRecord<'_>, deny_query: &[String]) -> String {
    let (path, query) = record.target.split_once('?').map_or((record.target, None), |(p, q)| (p, Some(q)));
    let forwarding = record.forwarding;
    let attempts: Vec<Value> = record
        .attempts()
        .iter()
        .map(|a| json!({ "instance": a.instance.id.as_str(), "outcome": a.outcome.as_str(), "ms": ms(a.took) }))
        .collect();
    let last = record.attempts().last();
    let line = json!({
        "time": humantime::format_rfc3339_millis(record.at).to_string(),
        "request_id": record.request_id,
        "trace_id": format!("{:032x}", record.trace.trace_id),
        "client": record.client.to_string(),
        "method": known(record.method),
        "host": known(record.host),
        "path": known(path),
        "query": query.map(|q| mask(q, deny_query)),
        "protocol": protocol(record.version),
        "status": record.status,
        "bytes": record.bytes,
        "route": forwarding.map(|f| f.route.spec.name.as_str()),
        "service": forwarding.and_then(|f| f.route.spec.service()).map(ServiceName::as_str),
        "instance": last.map(|a| a.instance.id.as_str()),
        "attempts": attempts,
        "queue_ms": forwarding.map_or(0.0, |f| ms(f.queued)),
        "connect_ms": last.and_then(|a| a.connect).map(ms),
        "ttfb_ms": record.first_byte.map(ms),
        "total_ms": ms(record.total),
        "reason": record.reason,
        "revision": forwarding.map(|f| f.revision),
    });
    format!("{line}\n")
}

/// What was refused before it was read has no words.
fn known(word: &str) -> Option<&str> {
    (!word.is_empty()).then_some(word)
}

/// The format of Apache and nginx.
pub fn combined(record: &RequestRecord<'_>, deny_query: &[String]) -> String {
    let target = match record.target.split_once('?') {
        Some((path, query)) => Cow::Owned(format!("{path}?{}", mask(query, deny_query))),
        None => Cow::Borrowed(record.target),
    };
    let mut line = format!("{} - - [{}] \"", record.client, common_time(record.at));
    if record.method.is_empty() {
        line.push('-');
    } else {
        let _ = write!(line, "{} ", record.method);
        quote(&mut line, &target);
        let _ = write!(line, " {}", protocol(record.version));
    }
    let _ = write!(line, "\" {} {} \"", record.status, record.bytes);
    quote(&mut line, record.referer.unwrap_or("-"));
    line.push_str("\" \"");
    quote(&mut line, record.user_agent.unwrap_or("-"));
    line.push_str("\"\n");
    line
}

fn mask<'a>(query: &'a str, deny_query: &[String]) -> Cow<'a, str> {
    let denied = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
        deny_query.contains(&name)
    };
    if deny_query.is_empty() || !query.split('&').any(denied) {
        return Cow::Borrowed(query);
    }
    let masked = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if denied(pair) => Cow::Owned(format!("{name}=***")),
        _ => Cow::Borrowed(pair),
    });
    Cow::Owned(masked.collect::<Vec<_>>().join("&"))
}

fn quote(line: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                line.push('\\');
                line.push(c);
            }
            c if c.is_control() => {
                let _ = write!(line, "\\x{:02x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/3.0",
    }
}

/// Milliseconds with three decimals.
fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// `23/Nov/2026:03:15:00 +0000`
fn common_time(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    let (Some(year), Some(month), Some(day), Some(time)) = (text.get(..4), text.get(5..7), text.get(8..10), text.get(11..19))
    else {
        return text;
    };
    let month = month.parse::<usize>().ok().and_then(|m| MONTHS.get(m.wrapping_sub(1))).unwrap_or(&"Jan");
    format!("{day}/{month}/{year}:{time} +0000")
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::arrival::Trace;

    fn record(target: &str) -> RequestRecord<'_> {
        RequestRecord {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            request_id: "r1",
            trace: Trace { trace_id: 0xabc, span_id: 1, flags: 1, continued: false },
            client: [192, 0, 2, 1].into(),
            method: "GET",
            host: "shop.example",
            target,
            version: Version::HTTP_11,
            status: 404,
            bytes: 12,
            referer: None,
            user_agent: Some("curl \"8\"\n"),
            forwarding: None,
            first_byte: None,
            total: Duration::from_micros(1234),
            reason: Some("no_route"),
        }
    }

    #[test]
    fn json_holds_the_facts_and_hides_the_secrets() {
        let line = json(&record("/a?token=s3cret&x=1&TOKEN=other"), &["token".into()]);
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["path"], "/a");
        assert_eq!(value["query"], "token=***&x=1&TOKEN=***");
        assert_eq!((&value["status"], &value["reason"], &value["total_ms"]), (&json!(404), &json!("no_route"), &json!(1.234)));
        assert_eq!(value["trace_id"], "00000000000000000000000000000abc");
    }

    #[test]
    fn what_was_never_read_has_no_words() {
        let unread = RequestRecord { method: "", host: "", status: 408, reason: Some("slow_head"), ..record("") };
        let value: Value = serde_json::from_str(&json(&unread, &[])).unwrap();
        assert_eq!([&value["method"], &value["host"], &value["path"]], [&Value::Null; 3]);
        assert_eq!((&value["status"], &value["reason"]), (&json!(408), &json!("slow_head")));
        assert!(combined(&unread, &[]).contains("] \"-\" 408 12 \"-\""), "{}", combined(&unread, &[]));
    }

    #[test]
    fn combined_is_one_line_whatever_the_client_sends() {
        assert_eq!(
            combined(&record("/a?token=s3cret"), &["token".into()]),
            "192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] \"GET /a?token=*** HTTP/1.1\" 404 12 \"-\" \"curl \\\"8\\\"\\x0a\"\n"
        );
    }
}
