//! `/metrics`: that every family is told, that what is gone vanishes, and that both forms are well-formed.

use super::*;
use crate::telemetry::{Kind, families};

const OPENMETRICS: &[(&str, &str)] = &[("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")];

/// The values of the samples that begin so.
fn values<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(start)).filter_map(|line| line.rsplit(' ').next()).collect()
}

#[tokio::test]
async fn every_family_is_told_once_and_in_one_place() {
    let mut world = World::used().await;
    world.apply(vec![certificate("shop", &["shop.example"]), acme_order("shop")]);
    world.registry.lock().unwrap().last_event_age = Some(Duration::from_millis(1500));
    world.registry.lock().unwrap().relists = vec![("start", 1)];
    world.registry.lock().unwrap().addresses_refused = vec![("record", 0)];
    let text = world.get("/metrics").await.text;
    let mut seen = std::collections::BTreeSet::new();
    let mut current = "";
    for line in text.lines().filter(|line| !line.starts_with("# HELP")) {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            current = declared.split(' ').next().unwrap();
            assert!(seen.insert(current), "{current} begins a second time");
            continue;
        }
        let name = line.split(['{', ' ']).next().unwrap();
        let is_its = name == current || ["_bucket", "_sum", "_count"].iter().any(|s| name.strip_suffix(s) == Some(current));
        assert!(is_its, "{line} stands among the samples of {current}");
    }
    for family in families::ALL {
        let has_sample = text.lines().any(|line| line.starts_with(family.name));
        assert!(seen.contains(family.name) && has_sample, "{} is documented but not told", family.name);
    }
    assert_eq!(seen.len(), families::ALL.len());
}

#[tokio::test]
async fn the_numbers_are_those_that_were_counted() {
    let world = World::used().await;
    let _held = in_flight(&world.instance("orders", "a"));
    world.registry.lock().unwrap().n_rejected = 2;
    let text = world.get("/metrics").await.text;
    for (sample, value) in [
        (r#"pointsman_build_info{version="0.1.0",revision="abc"}"#, "1"),
        (r#"pointsman_http_requests_total{service="orders",route="shop",code_class="2xx"}"#, "1"),
        (r#"pointsman_http_requests_total{service="orders",route="shop",code_class="5xx"}"#, "0"),
        (r#"pointsman_http_requests_total{service="",route="",code_class="4xx"}"#, "5"),
        (r#"pointsman_rate_limited_total{service="idle",route="any",mode="dry_run"}"#, "0"),
        (r#"pointsman_http_request_seconds_count{service="orders"}"#, "1"),
        (r#"pointsman_upstream_requests_total{service="orders",instance="a",outcome="connect_failed"}"#, "1"),
        (r#"pointsman_upstream_requests_total{service="orders",instance="a",outcome="reset"}"#, "0"),
        (r#"pointsman_upstream_in_flight{service="orders",instance="a"}"#, "1"),
        (r#"pointsman_retries_total{service="orders",cause="connect_failed"}"#, "1"),
        (r#"pointsman_instances{service="orders",state="ready"}"#, "1"),
        (r#"pointsman_instances{service="orders",state="waiting"}"#, "1"),
        (r#"pointsman_instances{service="orders",state="draining"}"#, "1"),
        (r#"pointsman_instances{service="orders",state="limbo"}"#, "0"),
        (r#"pointsman_registry_protection_active{service="orders"}"#, "0"),
        (r#"pointsman_registry_limbo_instances{service="orders"}"#, "0"),
        (r#"pointsman_probes_total{service="orders",result="status"}"#, "1"),
        (r#"pointsman_probes_total{service="orders",result="pass"}"#, "0"),
        (r#"pointsman_probe_seconds_count{service="orders"}"#, "1"),
        ("pointsman_probe_lateness_seconds_count", "0"),
        (r#"pointsman_connections{listener="0.0.0.0:8080"}"#, "3"),
        (r#"pointsman_bytes_total{direction="out"}"#, "2000"),
        ("pointsman_drains_active", "1"),
        ("pointsman_http1_requests_total{engine=\"own\"}", "41"),
        ("pointsman_http1_requests_total{engine=\"general\"}", "3"),
        ("pointsman_rate_displaced_total", "4"),
        ("pointsman_drain_forced_closes_total", "2"),
        ("pointsman_upgrades_total{result=\"refused\"}", "3"),
        (r#"pointsman_tls_handshakes_total{version="1.3",result="full"}"#, "7"),
        ("pointsman_certificate_files_rejected", "1"),
        (r#"pointsman_limits_total{limit="head_timeout"}"#, "5"),
        (r#"pointsman_limits_total{limit="connections"}"#, "6"),
        ("pointsman_registry_connected", "0"),
        ("pointsman_registry_applied_revision", "1"),
        ("pointsman_registry_rejected_records", "2"),
        ("process_start_time_seconds", "1900000000"),
    ] {
        assert_eq!(values(&text, &format!("{sample} ")), [value], "{sample} in\n{text}");
    }
}

#[tokio::test]
async fn what_is_gone_vanishes_and_what_was_never_used_is_not_there() {
    let mut world = World::used().await;
    let used = r#"pointsman_upstream_requests_total{service="orders",instance="a""#;
    let text = world.get("/metrics").await.text;
    assert_eq!(values(&text, used).len(), Outcome::ALL.len());
    assert!(!text.contains(r#"instance="b""#) && !text.contains(r#"requests_total{service="idle""#), "{text}");

    world.apply(vec![gone("orders", "a"), Change::Route { name: RouteName::parse("shop").unwrap(), route: None }]);
    let text = world.get("/metrics").await.text;
    assert!(!text.contains(r#"instance="a""#) && !text.contains(r#"route="shop""#), "{text}");
    assert_eq!(values(&text, r#"pointsman_instances{service="orders",state="waiting"}"#), ["1"]);
}

#[tokio::test]
async fn openmetrics_has_its_own_rules() {
    let world = World::used().await;
    let answer = world.ask("GET", "/metrics", OPENMETRICS).await;
    assert_eq!(answer.fields["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(answer.text.ends_with("\n# EOF\n"));
    for family in families::ALL.iter().filter(|family| family.kind == Kind::Counter) {
        let name = family.name.strip_suffix("_total").unwrap();
        assert!(answer.text.contains(&format!("# TYPE {name} counter\n")), "{name}");
    }
    let plain = world.get("/metrics").await;
    assert_eq!(plain.fields["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(!plain.text.contains("# EOF"));
}

#[tokio::test]
async fn a_large_registry_leaves_in_pieces() {
    let mut world = World::new().await;
    world.apply((0..5000).map(|n| put("big", &format!("i{n}"), spec("10.0.0.1:80"))).collect());
    world.live.load().services.get("big").unwrap().pool.all().iter().for_each(|i| i.state.count(Outcome::Success, None));
    let mut body = world.open("GET", "/metrics", OPENMETRICS).await.into_body();
    let (mut text, mut n_frames) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        text.extend_from_slice(&frame.unwrap().into_data().unwrap());
        n_frames += 1;
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(values(&text, "pointsman_upstream_requests_total{").len(), 5000 * Outcome::ALL.len());
    assert!(text.ends_with("# EOF\n") && n_frames > 10, "{n_frames} pieces");
}
