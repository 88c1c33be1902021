//! What `deploy/prometheus` and `deploy/grafana` say is true: of the metrics there are, to promtool, and to a Prometheus that
//! scrapes the built binary.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use serde_json::Value;

use crate::world::World;
use crate::world::prometheus::Prometheus;

#[test]
fn the_rules_say_what_their_tests_expect() {
    for args in [["check", "config", "prometheus.yml"], ["test", "rules", "pointsman.test.yml"]] {
        let out = Command::new("promtool").args(args).current_dir(deploy("prometheus")).output().expect("promtool");
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "promtool {args:?}\n{said}");
    }
}

#[test]
fn every_alert_is_tried_both_ways() {
    let tests = read(&deploy("prometheus").join("pointsman.test.yml"));
    for alert in alerts() {
        let quiet = format!("- {{ alertname: {alert}, eval_time: ");
        let loud = format!("- alertname: {alert}\n");
        assert!(tests.contains(&quiet) && tests.contains(&loud), "{alert} is not shown to fire, or not to be quiet before");
    }
}

#[test]
fn every_alert_has_its_paragraph_and_leads_to_it() {
    let document = read(&root().join("docs/operations.md"));
    let paragraphs = captures(&document, r"(?m)^### (Pointsman\w+)\n\n\S");
    assert_eq!(alerts(), paragraphs, "alerts of the rules, and paragraphs of docs/operations.md");
    let rules = rules();
    for alert in alerts() {
        let rule = rules.split("- alert: ").find(|rule| rule.starts_with(&format!("{alert}\n"))).expect("it is in the rules");
        let link = format!("runbook_url: docs/operations.md#{}\n", alert.to_lowercase());
        assert!(rule.contains(&link), "{alert}: {link}");
        assert!(rule.contains("severity: page") || rule.contains("severity: ticket"), "{alert}: how urgent is it?");
    }
}

#[test]
fn every_metric_that_is_asked_for_exists() {
    let reference = read(&root().join("docs/metrics.md"));
    let known = captures(&reference, r"(?m)^\| `(\w+)` \|");
    let histograms = captures(&reference, r"(?m)^\| `(\w+)` \| histogram");
    let asked = dashboard_expressions().join("\n") + &rules();
    // What the rules record is theirs.
    let asked = Regex::new(r"\bservice:pointsman_\w+").expect("a pattern").replace_all(&asked, "");
    let names = captures(&asked, r"\b((?:pointsman|process)_\w+)");
    assert!(names.len() > 30, "only {names:?}");
    let exists = |name: &String| known.contains(name) || histograms.iter().any(|h| *name == format!("{h}_bucket"));
    let unknown: Vec<_> = names.iter().filter(|name| !exists(name)).collect();
    assert!(unknown.is_empty(), "nowhere in docs/metrics.md: {unknown:?}");
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
        assert!(x + w <= 24, "{}: wider than the grid", panel["title"]);
        let cells = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
        assert!(cells.into_iter().all(|cell| taken.insert(cell)), "{} lies on another panel", panel["title"]);
        let is_explained = panel["type"] == "row" || panel["description"].as_str().is_some_and(|said| !said.is_empty());
        assert!(is_explained, "{} says what it shows", panel["title"]);
    }
    let provisioned = read(&deploy("grafana").join("provisioning/datasources/prometheus.yml"));
    assert!(provisioned.contains("type: prometheus"), "{provisioned}");
}

#[test]
fn a_prometheus_scrapes_us_and_alarms_when_the_instances_die() {
    let (world, upstreams) = World::serving(["one", "two"]);
    world.put("/services/app", r#"{"probe":{"interval":"200ms","timeout":"150ms","fall":1},"ejection":{"enabled":false}}"#);
    let prometheus = Prometheus::start(&world, &deploy("prometheus").join("prometheus.yml"), &rules());
    world.eventually("it scrapes us", || prometheus.value(r#"up{job="pointsman"}"#) == Some(1.0));
    assert_eq!(prometheus.n_rules("alerting"), alerts().len(), "its rules are ours");
    world.get_many("/", 20).all_served(20);
    world.eventually("it counts requests", || {
        prometheus.value(r#"sum(pointsman_http_requests_total{service="app", code_class="2xx"})"#) >= Some(20.0)
    });
    assert_eq!(prometheus.firing(), BTreeSet::new(), "all is well");

    drop(upstreams);
    for alert in ["PointsmanServiceWithoutInstances", "PointsmanInstancesDown"] {
        world.eventually(&format!("{alert} fires"), || prometheus.firing().contains(alert));
    }

    for expression in dashboard_expressions() {
        prometheus.ask(&as_asked(&expression));
    }
}

/// As Grafana would ask when everything is chosen.
fn as_asked(expression: &str) -> String {
    expression.replace("$__rate_interval", "1m").replace("$proxy", ".*").replace("$service", ".*")
}

fn alerts() -> BTreeSet<String> {
    captures(&rules(), r"(?m)^ +- alert: (\w+)$")
}

fn rules() -> String {
    read(&deploy("prometheus").join("pointsman.rules.yml"))
}

fn dashboard() -> Value {
    serde_json::from_str(&read(&deploy("grafana").join("dashboards/pointsman.json"))).expect("the dashboard is JSON")
}

/// Those of panels and annotations.
fn dashboard_expressions() -> Vec<String> {
    let dashboard = dashboard();
    let targets = dashboard["panels"].as_array().into_iter().flatten().flat_map(|p| p["targets"].as_array()).flatten();
    let annotations = dashboard["annotations"]["list"].as_array().into_iter().flatten();
    let found: Vec<String> = targets.chain(annotations).filter_map(|t| t["expr"].as_str()).map(str::to_owned).collect();
    assert!(found.len() > 30, "only {found:?}");
    found
}

fn captures(text: &str, pattern: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).expect("a pattern");
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn deploy(folder: &str) -> PathBuf {
    root().join("deploy").join(folder)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
