//! What the proxy says about itself.

use serde_json::{Value, json};

use crate::world::ports::free_address;
use crate::world::upstream::Health;
use crate::world::{Ask, World};

#[test]
fn it_is_ready_once_it_knows_where_to_route() {
    let etcd = crate::world::etcd::Etcd::start();
    let nobody = format!("http://{}", crate::world::ports::free_address());
    let world = World::setup().etcd(etcd).endpoints(&[nobody]).unready().start();
    assert_eq!((world.admin_status("/livez"), world.admin_status("/readyz")), (Some(200), Some(503)));
    assert!(world.admin("/readyz").json().is_object());
    assert_eq!(world.metric("pointsman_registry_connected", &[]), Some(0.0));

    let (world, _upstreams) = World::serving(["one"]);
    assert_eq!((world.admin_status("/livez"), world.admin_status("/readyz")), (Some(200), Some(200)));
}

#[test]
fn status_says_what_is_applied() {
    let (world, _upstreams) = World::serving(["one"]);
    let revision = world.put("/services/app", r#"{"balance":"random"}"#);
    let status = world.status();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["started_at"].is_string(), "{status}");
    let registry = &status["registry"];
    assert_eq!(
        (&registry["kind"], &registry["connected"], &registry["source"]),
        (&"etcd".into(), &true.into(), &"registry".into())
    );
    assert!(registry["applied_revision"].as_i64() >= Some(revision), "{registry}");
    assert!(registry["last_event_age_s"].as_f64().is_some_and(|age| age < 60.0), "{registry}");
    assert_eq!((&registry["stale"], &registry["rejected"]), (&false.into(), &json!([])));
}

#[test]
fn services_show_every_instance_and_how_it_is() {
    let (world, [one, _two]) = World::serving(["one", "two"]);
    world.put("/instances/app/two", r#"{"address":"127.0.0.1:1","weight":7,"state":"draining"}"#);
    world.get_many("/", 10).all_served(10);
    let shown = || world.admin("/api/v1/services/app").json();
    let of = |id: &str| {
        let instances = shown()["instances"].clone();
        instances.as_array().and_then(|all| all.iter().find(|i| i["id"] == id)).cloned().unwrap_or(Value::Null)
    };
    world.settles("all are counted", (10.into(), 0.into(), 0.into()), || {
        let one = of("one");
        (one["requests"].clone(), one["failures"].clone(), one["in_flight"].clone())
    });
    assert_eq!((&of("one")["address"], &of("one")["eligible"]), (&one.address.to_string().into(), &true.into()), "{}", shown());
    let two = of("two");
    assert_eq!((&two["weight"], &two["state"], &two["eligible"]), (&7.into(), &"draining".into(), &false.into()), "{two}");
    for field in ["probe", "passive", "reason", "latency_ms", "since"] {
        assert!(two.get(field).is_some(), "{field} is missing: {two}");
    }
    let all = world.admin("/api/v1/services").json();
    assert!(all.to_string().contains("\"app\""), "{all}");
    assert_eq!(world.admin("/api/v1/services/none").status, 404);
}

#[test]
fn routes_and_explain_say_where_a_request_goes() {
    let (world, _upstreams) = World::serving(["one"]);
    world.put("/routes/beta", r#"{"hosts":["shop.example"],"headers":{"x-beta":"1"},"service":"beta"}"#);
    let routes = world.admin("/api/v1/routes").json().to_string();
    assert!(routes.contains("\"beta\"") && routes.contains("shop.example"), "{routes}");
    let explain = |header: &str| {
        let header = if header.is_empty() { String::new() } else { format!("&header={header}") };
        world.admin(format!("/api/v1/explain?method=GET&url=http://shop.example/x{header}").as_str()).json().to_string()
    };
    let explained = explain("x-beta:%201");
    assert!(explained.contains("\"beta\"") && explained.contains("no_instances"), "{explained}");
    let explained = explain("");
    assert!(explained.contains("\"app\"") && explained.contains("\"one\""), "{explained}");
}

#[test]
fn explain_names_the_candidates_and_why_each_of_the_others_is_none() {
    let (world, [one, _two, sick, failing]) = World::serving(["one", "two", "sick", "failing"]);
    // Its health is as good as the first one's, whatever it answers.
    let elsewhere = json!({"address": failing.address.to_string(), "probe": {"port": one.address.port()}});
    world.put("/instances/app/failing", &elsewhere.to_string());
    let policy = |fall: u32| json!({"probe": {"path": "/healthz", "interval": "300ms", "timeout": "200ms", "fall": fall}});
    world.put("/services/app", &policy(2).to_string());
    world.proven("app", 4);
    failing.answers_with(503);
    world.eventually("requests take it out", || {
        world.get_many("/", 20);
        world.seen("app", "failing")["passive"] == "ejected"
    });
    sick.is_now(Health { status: 500, ..Health::GOOD });
    world.settles("the sick one is found down", "down".into(), || world.seen("app", "sick")["probe"].clone());
    let address = free_address();
    let record = |more: &str| Some(format!(r#"{{"address":"{address}"{more}}}"#));
    world.transact(&[
        // From now on nobody is found down for long, so that a new one stays new.
        ("/services/app".into(), Some(policy(1000).to_string())),
        ("/instances/app/leaving".into(), record(r#","state":"draining""#)),
        ("/instances/app/light".into(), record(r#","weight":0"#)),
        ("/instances/app/kept-away".into(), record("")),
        ("/overrides/app/kept-away".into(), Some(r#"{"state":"maintenance"}"#.into())),
        ("/instances/app/new".into(), record("")),
        ("/instances/app/nameless".into(), Some("nobody.invalid:80".into())),
    ]);
    let said = world.admin("/api/v1/explain?url=http://app.example/").json();
    let ids = |key: &str| said[key].as_array().expect("a list").iter().map(|i| i["id"].clone()).collect::<Vec<_>>();
    assert_eq!((ids("candidates"), said["outcome"].clone()), (vec!["one".into(), "two".into()], "forward".into()), "{said}");
    assert_eq!(said["counts"], json!({"total": 9, "candidates": 2}));
    let others = said["others"].as_array().expect("a list");
    for (id, begins) in [
        ("failing", "ejected"),
        ("kept-away", "maintenance: an operator's override"),
        ("leaving", "draining: declared by the instance"),
        ("light", "weight 0: no new traffic"),
        ("nameless", "its name has not been resolved"),
        ("new", "new, and no"),
        ("sick", "probes found it down"),
    ] {
        let reason = others.iter().find(|other| other["id"] == id).map(|other| other["reason"].clone());
        assert!(reason.as_ref().and_then(Value::as_str).is_some_and(|r| r.starts_with(begins)), "{id}: {reason:?}");
    }
    let told = world.run(&["explain", "GET", "http://app.example/"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("weight 0: no new traffic") && told.contains("goes to app, by the route"), "{told}");
}

#[test]
fn events_tell_what_changed() {
    let (world, _upstreams) = World::serving(["one"]);
    let revision = world.delete("/instances/app/one");
    let events = world.admin("/api/v1/events").json().to_string();
    assert!(events.contains("\"app\"") && events.contains("one") && events.contains(&revision.to_string()), "{events}");
}

#[test]
fn metrics_move_and_those_of_an_instance_that_left_vanish() {
    let (world, [one, _two]) = World::serving(["one", "two"]);
    world.get_many("/", 40).all_served(40);
    world.get("/status?code=500");
    let metric = |name: &str, labels: &[(&str, &str)]| world.metric(name, labels);
    assert_eq!(metric("pointsman_http_requests_total", &[("service", "app"), ("code_class", "2xx")]), Some(40.0));
    assert_eq!(metric("pointsman_http_requests_total", &[("service", "app"), ("code_class", "5xx")]), Some(1.0));
    assert_eq!(metric("pointsman_upstream_requests_total", &[("service", "app")]), Some(41.0));
    assert_eq!(metric("pointsman_upstream_in_flight", &[("service", "app")]), Some(0.0));
    assert_eq!(metric("pointsman_http_request_seconds_count", &[("service", "app")]), Some(41.0));
    assert_eq!(metric("pointsman_instances", &[("service", "app"), ("state", "ready")]), Some(2.0));
    assert!(metric("pointsman_registry_applied_revision", &[]) > Some(1.0));
    assert!(metric("pointsman_bytes_total", &[]) > Some(1000.0) && metric("process_resident_memory_bytes", &[]) > Some(1e6));

    world.delete("/instances/app/two");
    let of_two = [("service", "app"), ("instance", "two")];
    world.settles("its series are gone", None, || metric("pointsman_upstream_requests_total", &of_two));
    assert!(metric("pointsman_upstream_requests_total", &[("instance", "one")]) > Some(0.0), "{} served", one.requests());
    assert_eq!(metric("pointsman_upstream_in_flight", &of_two), None);

    world.transact(&[
        ("/instances/app/one".to_owned(), None),
        ("/services/app".to_owned(), None),
        ("/routes/app".to_owned(), None),
    ]);
    world.settles("a service's series go with it", None, || metric("pointsman_upstream_requests_total", &[("service", "app")]));
}

#[test]
fn metrics_come_in_two_forms_and_there_is_a_page() {
    let world = World::new();
    let openmetrics = world.admin(Ask::get("/metrics").with("accept", "application/openmetrics-text; version=1.0.0"));
    assert!(openmetrics.field("content-type").starts_with("application/openmetrics-text"), "{:?}", openmetrics.fields);
    assert!(openmetrics.text().ends_with("# EOF\n"));
    assert!(world.admin("/metrics").field("content-type").starts_with("text/plain"));
    assert!(world.admin("/").field("content-type").starts_with("text/html"));
    assert_eq!(world.admin("/nothing").status, 404);
}

#[test]
fn each_request_is_one_line_of_the_access_log() {
    let (world, [_one]) = World::serving(["one"]);
    world.get(Ask::get("/orders/7?secret=x"));
    let mut line = Value::Null;
    world.eventually("its line is there", || {
        let found =
            world.proxy.out().lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()).find(|l| l["path"] == "/orders/7");
        found.map(|found| line = found).is_some()
    });
    assert_eq!(
        (&line["method"], &line["status"], &line["service"], &line["instance"]),
        (&"GET".into(), &200.into(), &"app".into(), &"one".into())
    );
    for field in
        ["time", "request_id", "trace_id", "client", "host", "protocol", "bytes", "route", "attempts", "total_ms", "revision"]
    {
        assert!(line.get(field).is_some(), "{field} is missing: {line}");
    }
}
