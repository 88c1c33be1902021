//! `pointsman status`: how a proxy, its registry and its services are; of one service, every instance.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value as Json, json};

use super::admin::{Admin, escaped};
use super::failure::Failure;
use super::global::{Global, block_on};
use super::print::{self, Cell, Table, Tone, is_coloured};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pointsman status
  pointsman status orders               every instance of one service
  pointsman status --admin 10.0.0.2:9900 --json")]
pub struct StatusArgs {
    /// Only this service
    service: Option<String>,
}

impl StatusArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        let admin = Admin::of(global)?;
        block_on(async {
            let answer = match &self.service {
                Some(service) => admin.ask(&format!("/api/v1/services/{}", escaped(service))).await?,
                None => json!({
                    "status": admin.ask("/api/v1/status").await?,
                    "services": admin.ask("/api/v1/services").await?["services"].take(),
                }),
            };
            if global.json {
                print::json(&answer);
            } else if self.service.is_some() {
                instances(&answer).print();
            } else {
                print::out(&headline(&answer["status"], &admin.address, is_coloured()));
                services(&answer["services"], None).print();
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn headline(status: &Json, address: &str, coloured: bool) -> String {
    let registry = &status["registry"];
    let ready = match status["ready"].as_bool() {
        Some(true) => Tone::Good.paint("ready", coloured),
        _ => Tone::Bad.paint(&format!("not ready: {}", words(&status["reasons"])), coloured),
    };
    let connected = match registry["connected"].as_bool() {
        Some(true) => Tone::Good.paint("connected", coloured),
        _ => Tone::Bad.paint(&format!("not connected: {}", word(&registry["trouble"])), coloured),
    };
    let mut text = format!(
        "pointsman {} at {address}, {ready}, up {}\nregistry {} {}, {connected}, revision {}, last event {} ago\n",
        word(&status["version"]),
        span(&status["uptime_s"]),
        word(&registry["kind"]),
        word(&registry["endpoint"]),
        word(&registry["applied_revision"]),
        span(&registry["last_event_age_s"]),
    );
    for rejected in registry["rejected"].as_array().into_iter().flatten() {
        let line = format!(
            "rejected {} (revision {}): {}",
            word(&rejected["key"]),
            word(&rejected["revision"]),
            word(&rejected["reason"])
        );
        text += &format!("{}\n", Tone::Bad.paint(&line, coloured));
    }
    text.push('\n');
    text
}

/// `rates`: requests a second, in the order of the services, if they were measured.
pub fn services(services: &Json, rates: Option<&[f64]>) -> Table {
    let mut headings =
        vec!["SERVICE", "INSTANCES", "ELIGIBLE", "DRAINING", "IN FLIGHT", "REQUESTS", "FAILURES", "P50 MS", "P99 MS"];
    if rates.is_some() {
        headings.push("REQUESTS/S");
    }
    let mut table = Table::new(&headings);
    for (n, service) in services.as_array().into_iter().flatten().enumerate() {
        let counts = &service["counts"];
        let tone = if counts["eligible"] == 0 { Tone::Bad } else { Tone::Good };
        let mut row = vec![
            word(&service["name"]).into(),
            word(&counts["total"]).into(),
            Cell::toned(word(&counts["eligible"]), tone),
            word(&counts["draining"]).into(),
        ];
        row.extend(traffic(service));
        row.extend(rates.and_then(|rates| rates.get(n)).map(|rate| format!("{rate:.0}").into()));
        table.row(row);
    }
    table
}

fn instances(service: &Json) -> Table {
    let mut table = Table::new(&[
        "INSTANCE",
        "ADDRESS",
        "WEIGHT",
        "STATE",
        "PROBE",
        "PASSIVE",
        "ELIGIBLE",
        "IN FLIGHT",
        "REQUESTS",
        "FAILURES",
        "P50 MS",
        "P99 MS",
    ]);
    for instance in service["instances"].as_array().into_iter().flatten() {
        let eligible = match (instance["eligible"].as_bool(), instance["reason"].as_str()) {
            (Some(true), Some(reason)) => Cell::toned(format!("yes, {reason}"), Tone::Good),
            (Some(true), None) => Cell::toned("yes", Tone::Good),
            (_, Some(reason)) => Cell::toned(format!("no: {reason}"), Tone::Bad),
            _ => Cell::toned("no", Tone::Bad),
        };
        let mut row = vec![format!("{}/{}", word(&service["name"]), word(&instance["id"])).into()];
        row.extend(["address", "weight", "state", "probe", "passive"].map(|field| word(&instance[field]).into()));
        row.push(eligible);
        row.extend(traffic(instance));
        table.row(row);
    }
    table
}

/// What instances and services tell alike.
fn traffic(of: &Json) -> [Cell; 5] {
    let latency = &of["latency_ms"];
    [&of["in_flight"], &of["requests"], &of["failures"], &latency["p50"], &latency["p99"]].map(|value| word(value).into())
}

/// A value in a table.
fn word(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::String(text) => text.clone(),
        Json::Number(number) if number.is_f64() => format!("{:.1}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

fn words(list: &Json) -> String {
    list.as_array().into_iter().flatten().map(word).collect::<Vec<_>>().join("; ")
}

/// Seconds, as people say them.
fn span(seconds: &Json) -> String {
    let span = seconds.as_f64().and_then(|s| Duration::try_from_secs_f64(s).ok());
    span.map_or_else(
        || "-".to_owned(),
        |span| match span.as_secs() {
            0 => format!("{} ms", span.as_millis()),
            whole => humantime::format_duration(Duration::from_secs(whole)).to_string(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(table: &Table) -> Vec<Vec<String>> {
        table.render(false).lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }

    #[test]
    fn an_instance_that_gets_no_traffic_says_why() {
        let service = json!({"name": "orders", "instances": [
            {"id": "a1", "address": "10.0.0.5:80", "weight": 100, "state": "ready", "probe": "up", "passive": "ok", "eligible": true,
             "reason": null, "in_flight": 2, "requests": 9, "failures": 0, "latency_ms": {"p50": 1.25, "p99": null}},
            {"id": "a2", "eligible": false, "reason": "draining"},
        ]});
        let rows = cells(&instances(&service));
        assert_eq!(rows[0], ["orders/a1", "10.0.0.5:80", "100", "ready", "up", "ok", "yes", "2", "9", "0", "1.2", "-"]);
        assert_eq!(rows[1][..8], ["orders/a2", "-", "-", "-", "-", "-", "no:", "draining"]);
    }

    #[test]
    fn services_show_their_rates_where_they_were_measured() {
        let said = json!([{"name": "orders", "counts": {"total": 3, "eligible": 2, "draining": 1}, "in_flight": 0, "requests": 7,
            "failures": 1, "latency_ms": {"p50": 0.5, "p99": 2.0}}]);
        assert_eq!(cells(&services(&said, None))[0], ["orders", "3", "2", "1", "0", "7", "1", "0.5", "2.0"]);
        assert_eq!(cells(&services(&said, Some(&[12.6])))[0].last().map(String::as_str), Some("13"));
    }

    #[test]
    fn the_headline_says_what_is_wrong() {
        let status = json!({"version": "0.1.0", "ready": false, "reasons": ["shutting down"], "uptime_s": 75.2,
            "registry": {"kind": "etcd", "endpoint": null, "connected": false, "trouble": "nothing listens there",
                "applied_revision": 812, "last_event_age_s": 0.25,
                "rejected": [{"key": "/p/routes/x", "revision": 3, "reason": "service is missing"}]}});
        let expected = "\
pointsman 0.1.0 at 127.0.0.1:9900, not ready: shutting down, up 1m 15s
registry etcd -, not connected: nothing listens there, revision 812, last event 250 ms ago
rejected /p/routes/x (revision 3): service is missing

";
        assert_eq!(headline(&status, "127.0.0.1:9900", false), expected);
    }
}
