//! Every instance is asked how it is, and what it says decides whether it gets requests.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::ports::free_address;
use crate::world::sidecar::Sidecar;
use crate::world::tls::Authority;
use crate::world::upstream::{Health, Upstream};
use crate::world::{World, transact};

#[test]
fn an_instance_that_crashes_is_down_in_three_seconds_and_used_again_once_it_is_back() {
    let (world, [_one, two]) = World::serving(["one", "two"]);
    world.put("/services/app", r#"{"probe":{"interval":"2s","timeout":"1s"},"slow_start":"0s"}"#);
    world.proven("app", 2);
    let (crashed, address) = (Instant::now(), two.address);
    drop(two);
    world.settles("it is found down", "down".into(), || world.seen("app", "two")["probe"].clone());
    assert!(crashed.elapsed() < Duration::from_secs(6), "found down after {:?}", crashed.elapsed());
    let reason = world.seen("app", "two")["reason"].clone();
    assert!(reason.as_str().is_some_and(|r| r.contains("probes found it down") && r.contains("connection refused")), "{reason}");
    assert_eq!(world.get_many("/", 50).from("one"), 50);
    assert!(world.metric("pointsman_probes_total", &[("service", "app"), ("result", "connect_failed")]) >= Some(3.0));
    let n_probes = world.metric("pointsman_probes_total", &[("service", "app")]);
    assert!(world.metric("pointsman_probe_seconds_count", &[("service", "app")]) >= n_probes, "each of them was timed");
    assert!(world.metric("pointsman_probe_lateness_seconds_count", &[]) >= n_probes);

    let back = world.upstream_at("two", address);
    world.settles("it is found up", "up".into(), || world.seen("app", "two")["probe"].clone());
    assert!(world.get_many("/", 50).from("two") > 0);
    assert!(back.probes() >= 2, "it rose after {} probes", back.probes());
    let events = world.admin("/api/v1/events").text().to_owned();
    assert!(events.contains("instance_down") && events.contains("instance_up"), "{events}");
}

#[test]
fn what_an_answer_has_to_be_is_the_policys_to_say() {
    let (world, [one, two]) = World::serving(["one", "two"]);
    let asks = |probe: &str| {
        world.put("/services/app", &format!(r#"{{"probe":{{"interval":"300ms","timeout":"200ms","fall":2,{probe}}}}}"#));
    };
    // Two's answer, and as what it is counted.
    for (probe, bad, result, said) in [
        (r#""path":"/healthz""#, Health { status: 503, ..Health::GOOD }, "status", "answered 503; 200-399 would pass"),
        (r#""path":"/healthz","expect":"204,301""#, Health::GOOD, "status", "answered 200; 204,301 would pass"),
        (r#""path":"/healthz","body":"is well""#, Health { body: "on fire", ..Health::GOOD }, "body", "does not contain"),
        (r#""path":"/healthz""#, Health { hangs: true, ..Health::GOOD }, "timeout", "no whole answer within 200ms"),
    ] {
        let good = if probe.contains("204") { Health { status: 204, body: "", ..Health::GOOD } } else { Health::GOOD };
        one.is_now(good);
        two.is_now(good);
        asks(probe);
        world.proven("app", 2);
        two.is_now(bad);
        world.settles(&format!("{probe} {bad:?}"), "down".into(), || world.seen("app", "two")["probe"].clone());
        let detail = world.seen("app", "two")["probe_detail"].clone();
        assert!(detail.as_str().is_some_and(|d| d.contains(said)), "{detail}");
        assert!(world.seen("app", "two")["probed_at"].is_string());
        assert_eq!(world.get_many("/", 20).from("one"), 20);
        assert!(world.metric("pointsman_probes_total", &[("service", "app"), ("result", result)]) >= Some(2.0), "{result}");
        two.is_now(good);
        world.settles("it is well again", "up".into(), || world.seen("app", "two")["probe"].clone());
    }
}

#[test]
fn grpc_health_is_asked_over_http_2() {
    let world = World::new();
    let [one, two] = ["one", "two"].map(|name| world.upstream(name));
    let record = |u: &Upstream| Some(json!({"address": u.address.to_string(), "protocol": "h2c"}).to_string());
    world.transact(&[
        ("/services/app".into(), Some(r#"{"probe":{"kind":"grpc","interval":"300ms","timeout":"200ms"}}"#.into())),
        ("/instances/app/one".into(), record(&one)),
        ("/instances/app/two".into(), record(&two)),
        ("/routes/app".into(), Some(r#"{"service":"app"}"#.into())),
    ]);
    world.proven("app", 2);
    two.is_now(Health { status: 503, ..Health::GOOD });
    world.settles("it does not serve", "down".into(), || world.seen("app", "two")["probe"].clone());
    assert_eq!(world.seen("app", "two")["probe_detail"], "gRPC health says NOT_SERVING");
    assert_eq!(world.get_many("/", 20).from("one"), 20);
    assert!(world.metric("pointsman_probes_total", &[("result", "not_serving")]) >= Some(3.0));
}

#[test]
fn a_probe_says_the_headers_of_its_policy_and_shares_no_other_services_answer() {
    let world = World::new();
    let [open, grpc] = ["open", "grpc"].map(|name| world.upstream(name));
    for upstream in [&open, &grpc] {
        upstream.is_now(Health { wants: Some("Bearer s3cret"), ..Health::GOOD });
    }
    let policy = |more: &str| Some(format!(r#"{{"probe":{{"interval":"300ms","timeout":"200ms",{more}}}}}"#));
    let secret = r#""headers":{"Authorization":"Bearer s3cret"}"#;
    let record = |u: &Upstream, protocol: &str| Some(json!({"address": u.address.to_string(), "protocol": protocol}).to_string());
    world.transact(&[
        ("/services/told".into(), policy(&format!(r#""path":"/healthz",{secret}"#))),
        ("/services/untold".into(), policy(r#""path":"/healthz""#)),
        ("/services/called".into(), policy(&format!(r#""kind":"grpc",{secret}"#))),
        ("/instances/told/one".into(), record(&open, "http")),
        ("/instances/untold/one".into(), record(&open, "http")),
        ("/instances/called/one".into(), record(&grpc, "h2c")),
    ]);
    for service in ["told", "called"] {
        world.proven(service, 1);
    }
    world.settles("one that says nothing is not let in", "down".into(), || world.seen("untold", "one")["probe"].clone());
    assert_eq!(world.seen("untold", "one")["probe_detail"], "GET /healthz was answered 401; 200-399 would pass");
    assert_eq!(world.seen("told", "one")["probe"], "up");
    assert!(world.metric("pointsman_probes_total", &[("service", "untold"), ("result", "status")]) >= Some(3.0));
    let said = world.admin("/api/v1/services/told").text().to_owned();
    assert!(said.contains("authorization") && !said.contains("s3cret"), "{said}");

    world.put("/services/told", r#"{"probe":{"path":"/healthz","headers":{"Host":"a","x-key":"s3cret\n"}}}"#);
    let rejected = world.status()["registry"]["rejected"].to_string();
    assert!(rejected.contains("probe.headers.Host: is said by probe.host"), "{rejected}");
    assert!(rejected.contains("probe.headers.x-key: its value is not one of visible ASCII"), "{rejected}");
    assert!(!rejected.contains("s3cret"), "{rejected}");
    assert_eq!(world.seen("told", "one")["probe"], "up", "the policy before it stays in force");
}

#[test]
fn probes_of_every_kind_go_over_tls_and_want_a_good_certificate() {
    let world = World::new();
    let (authority, one) = (Authority::new("a story's own"), world.upstream("one"));
    let sidecar = Sidecar::start(world.handle(), &authority.vouch(&["instance.test"]), one.address);
    let known = json!({"ca": authority.pem, "server_name": "instance.test"});
    let foreign = json!({"ca": authority.pem, "server_name": "another.test"});
    for (service, protocol, probe, tls) in [
        ("over-http", "https", json!({"path": "/healthz"}), &known),
        ("over-http-2", "h2", json!({"path": "/healthz"}), &known),
        ("over-grpc", "h2", json!({"kind": "grpc"}), &known),
        ("over-tcp", "https", json!({"kind": "tcp"}), &known),
        ("of-another", "https", json!({"path": "/healthz"}), &foreign),
        ("of-nobody", "https", json!({"kind": "tcp"}), &Value::Null),
    ] {
        let mut probe = probe;
        (probe["interval"], probe["timeout"]) = ("500ms".into(), "400ms".into());
        world.put(&format!("/services/{service}"), &json!({"probe": probe, "tls": tls}).to_string());
        let record = json!({"address": sidecar.address.to_string(), "protocol": protocol}).to_string();
        world.put(&format!("/instances/{service}/one"), &record);
    }
    let probe = |service: &str| world.seen(service, "one")["probe"].clone();
    for service in ["over-http", "over-http-2", "over-grpc", "over-tcp"] {
        world.settles(service, "up".into(), || probe(service));
    }
    for (service, said) in [("of-another", "another.test"), ("of-nobody", "UnknownIssuer")] {
        world.settles(service, "down".into(), || probe(service));
        let detail = world.seen(service, "one")["probe_detail"].clone();
        assert!(detail.as_str().is_some_and(|d| d.starts_with("TLS: ") && d.contains(said)), "{detail}");
        assert!(world.metric("pointsman_probes_total", &[("service", service), ("result", "tls")]) >= Some(3.0));
    }
    one.is_now(Health { status: 503, ..Health::GOOD });
    for service in ["over-http", "over-http-2", "over-grpc"] {
        world.settles(service, "down".into(), || probe(service));
    }
    assert_eq!(probe("over-tcp"), "up", "a handshake is all it wants");
}

#[test]
fn an_instance_that_tells_probes_it_drains_gets_nothing_new_and_is_not_down() {
    let (world, [_one, two]) = World::serving(["one", "two"]);
    world.put("/services/app", r#"{"probe":{"path":"/healthz","interval":"300ms","timeout":"200ms"}}"#);
    world.proven("app", 2);
    world.eventually("it has idle connections", || {
        world.get_many("/", 8).all_served(8);
        two.connections() > 0
    });
    two.is_now(Health { status: 503, says_draining: true, ..Health::GOOD });
    world.settles("it is heard", "draining: it says so to probes".into(), || world.seen("app", "two")["reason"].clone());
    world.settles("its connections are closed, as those of one that is declared draining", 0, || two.connections());
    assert_eq!(world.get_many("/", 50).from("one"), 50);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((&world.seen("app", "two")["probe"], &world.seen("app", "two")["eligible"]), (&json!("up"), &json!(false)));
    assert!(world.metric("pointsman_probes_total", &[("result", "draining")]) >= Some(2.0));
    two.is_now(Health::GOOD);
    world.settles("it is used at once", Value::Null, || world.seen("app", "two")["reason"].clone());
}

#[test]
fn an_instance_that_turns_up_and_down_is_held_down_and_says_so() {
    let (world, [_one, two]) = World::serving(["one", "two"]);
    let probe = r#"{"path":"/healthz","interval":"700ms","timeout":"600ms","rise":1,"fall":1}"#;
    world.put("/services/app", &format!(r#"{{"slow_start":"0s","probe":{probe}}}"#));
    world.proven("app", 2);
    let n_holds = || world.metric("pointsman_probe_holds_total", &[("service", "app")]);
    for (status, verdict) in [(500, "down"), (200, "up"), (500, "down"), (200, "up")] {
        two.is_now(Health { status, ..Health::GOOD });
        world.settles("it turns", verdict.into(), || world.seen("app", "two")["probe"].clone());
    }
    assert_eq!(n_holds(), Some(0.0));
    two.is_now(Health { status: 500, ..Health::GOOD });
    world.settles("it is down for the third time", "down".into(), || world.seen("app", "two")["probe"].clone());
    let held = Instant::now();
    assert_eq!(n_holds(), Some(1.0));
    two.is_now(Health::GOOD);
    let text = |field: &str| world.seen("app", "two")[field].as_str().unwrap_or_default().to_owned();
    world.eventually("its probes pass", || {
        text("probe_detail").starts_with("GET /healthz was answered 200; it turned up and down")
    });
    let reason = text("reason");
    let held_down = "it turned up and down too often, and stays down for another 10 s";
    assert!(reason.starts_with("probes found it down") && reason.ends_with(held_down), "{reason}");
    assert_eq!((text("probe"), world.get_many("/", 20).from("one")), ("down".to_owned(), 20));
    std::thread::sleep(Duration::from_secs(5).saturating_sub(held.elapsed()));
    assert_eq!(text("probe"), "down", "though more probes than it takes have passed");
    world.settles("its time is over", "up".to_owned(), || text("probe"));
    assert_eq!(n_holds(), Some(1.0));
}

#[test]
fn a_service_may_be_left_alone_and_an_instance_probed_elsewhere() {
    let (world, [one]) = World::serving(["one"]);
    world.put("/services/app", r#"{"probe":{"kind":"none"}}"#);
    let before = one.probes();
    let elsewhere = world.upstream("elsewhere");
    world.put("/services/left", r#"{"probe":{"kind":"none"}}"#);
    world.put("/instances/left/nobody", &free_address().to_string());
    let own = json!({"address": one.address.to_string(), "probe": {"path": "/healthz", "port": elsewhere.address.port()}});
    world.put("/instances/own/one", &own.to_string());
    world.settles("its own port is asked", "up".into(), || world.seen("own", "one")["probe"].clone());
    assert_eq!(elsewhere.probes(), 1);
    elsewhere.is_now(Health { status: 500, ..Health::GOOD });
    world.put("/services/own", r#"{"probe":{"interval":"300ms","timeout":"200ms"}}"#);
    world.settles("and answers for it", "down".into(), || world.seen("own", "one")["probe"].clone());
    assert_eq!((one.probes(), world.seen("left", "nobody")["probe"].clone()), (before, "unknown".into()));
    assert_eq!((world.seen("left", "nobody")["eligible"].clone(), world.get("/").from()), (true.into(), "one"));
}

#[test]
fn a_probe_that_cannot_connect_closes_what_is_idle_since_nobody_may_be_there() {
    let world = World::new();
    let [one, elsewhere] = ["one", "elsewhere"].map(|name| world.upstream(name));
    world.put("/services/app", r#"{"probe":{"interval":"300ms","timeout":"200ms","fall":1000}}"#);
    let at = |port: u16| json!({"address": one.address.to_string(), "probe": {"port": port}}).to_string();
    world.put("/instances/app/one", &at(elsewhere.address.port()));
    world.put("/routes/app", r#"{"service":"app"}"#);
    world.proven("app", 1);
    world.eventually("it has idle connections", || {
        world.get_many("/", 8).all_served(8);
        one.connections() > 0
    });
    let passes = || world.metric("pointsman_probes_total", &[("service", "app"), ("result", "pass")]).unwrap_or_default();
    let before = passes();
    world.eventually("it is probed twice more", || passes() >= before + 2.0);
    assert!(one.connections() > 0, "probes that pass close nothing");
    world.put("/instances/app/one", &at(free_address().port()));
    world.settles("they are closed", 0, || one.connections());
    assert!(world.metric("pointsman_probes_total", &[("result", "connect_failed")]) >= Some(1.0));
    assert_eq!((&world.seen("app", "one")["probe"], world.get("/").from()), (&json!("up"), "one"));
}

#[test]
fn services_that_share_an_address_share_its_probes() {
    let world = World::new();
    let one = world.upstream("one");
    let names: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    let instances = names.iter().map(|s| (format!("/instances/{s}/one"), Some(one.address.to_string())));
    world.transact(&instances.collect::<Vec<_>>());
    for name in &names {
        world.proven(name, 1);
    }
    assert_eq!(one.probes(), 1, "one for all of them");
    world.put("/services/s0", r#"{"probe":{"interval":"9s"}}"#);
    world.settles("another pace is another check", 2, || one.probes());
}

#[test]
fn a_newcomer_is_admitted_by_its_first_pass_and_not_before() {
    let (world, [one]) = World::serving(["one"]);
    world.put("/services/app", r#"{"probe":{"path":"/healthz"},"slow_start":"0s"}"#);
    world.proven("app", 1);
    let two = world.upstream("two");
    two.is_now(Health { status: 500, ..Health::GOOD });
    world.put("/instances/app/two", &two.address.to_string());
    world.settles("it is probed", 1, || two.probes());
    assert_eq!(world.get_many("/", 50).from("one"), 50);
    let reason = world.seen("app", "two")["reason"].clone();
    assert!(reason.as_str().is_some_and(|r| r.starts_with("new, and no probe has passed yet")), "{reason}");
    two.is_now(Health::GOOD);
    world.eventually("it has passed", || world.get_many("/", 20).from("two") > 0);
    let three = world.upstream("three");
    let put = Instant::now();
    world.put("/instances/app/three", &three.address.to_string());
    world.eventually("the next is admitted", || world.get_many("/", 20).from("three") > 0);
    assert!(put.elapsed() < Duration::from_secs(1), "after {:?}", put.elapsed());
    assert_eq!((three.probes(), one.requests() > 0), (1, true));
}

#[test]
fn a_verdict_outlives_a_new_weight_and_a_new_registration() {
    let (world, [_one, two]) = World::serving(["one", "two"]);
    world.put("/services/app", r#"{"probe":{"path":"/healthz","interval":"300ms","timeout":"200ms"}}"#);
    world.proven("app", 2);
    two.is_now(Health { status: 500, ..Health::GOOD });
    let verdict = || world.seen("app", "two")["probe"].clone();
    world.settles("it is down", "down".into(), verdict);
    let probes = two.probes();
    world.put("/instances/app/two", &json!({"address": two.address.to_string(), "weight": 7}).to_string());
    assert_eq!(verdict(), "down");
    world.delete("/instances/app/two");
    world.put("/instances/app/two", &two.address.to_string());
    assert_eq!(verdict(), "down");
    assert_eq!(world.get_many("/", 50).from("two"), 0);
    world.eventually("it is probed on", || two.probes() > probes + 1);
}

#[test]
fn maintenance_and_removal_end_the_probing_at_once() {
    let (world, [one]) = World::serving(["one"]);
    world.put("/services/app", r#"{"probe":{"path":"/healthz","interval":"100ms","timeout":"50ms"}}"#);
    world.eventually("it is probed", || one.probes() > 2);
    for away in [Some(json!({"address": one.address.to_string(), "state": "maintenance"}).to_string()), None] {
        world.transact(&[("/instances/app/one".into(), away)]);
        std::thread::sleep(Duration::from_millis(100));
        let probes = one.probes();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(one.probes(), probes);
        world.put("/instances/app/one", &one.address.to_string());
        world.eventually("it is probed again", || one.probes() > probes);
    }
}

/// Three hundred that accept and say nothing take all of their time, which is more than there is room for.
#[test]
fn black_holes_delay_no_other_probe() {
    let world = World::new();
    let hole = TcpListener::bind(free_address()).expect("a free address");
    let port = hole.local_addr().expect("the address of our own listener").port();
    std::thread::spawn(move || hole.incoming().flatten().collect::<Vec<_>>());
    world.put("/services/holes", r#"{"probe":{"path":"/healthz","interval":"1s","timeout":"500ms"}}"#);
    let [one] = world.serve("app", ["one"]);
    // Each is a check of its own, by its path.
    let hole = |n: u32| json!({"address": format!("127.0.0.1:{port}"), "probe": {"path": format!("/{n}")}}).to_string();
    let records: Vec<_> = (0..300).map(|n| (format!("/instances/holes/{n}"), Some(hole(n)))).collect();
    records.chunks(100).for_each(|some| {
        world.handle().block_on(transact(&world.registry_url(), some));
    });
    world.eventually("all have hung once", || {
        world.metric("pointsman_probes_total", &[("service", "holes"), ("result", "timeout")]) >= Some(300.0)
    });
    world.put("/services/app", r#"{"probe":{"path":"/healthz","interval":"200ms","timeout":"100ms"}}"#);
    let (began, before) = (Instant::now(), one.probes());
    world.eventually("the other is probed as often as ever", || one.probes() >= before + 10);
    assert!(began.elapsed() < Duration::from_millis(3500), "ten probes took {:?}", began.elapsed());
    world.settles("and comes back as fast", Value::Null, || world.seen("app", "one")["reason"].clone());
}

#[test]
fn steady_good_requests_stand_in_for_three_of_four_probes() {
    let (world, [one, two]) = World::serving(["one", "two"]);
    world.put("/services/app", r#"{"probe":{"path":"/healthz","interval":"400ms","timeout":"200ms"}}"#);
    world.put("/instances/idle/two", &two.address.to_string());
    world.put("/services/idle", r#"{"probe":{"path":"/healthz","interval":"400ms","timeout":"200ms"}}"#);
    world.delete("/instances/app/two");
    world.proven("app", 1);
    let load = world.load("/");
    std::thread::sleep(Duration::from_secs(1));
    let before = (one.probes(), two.probes());
    std::thread::sleep(Duration::from_secs(5));
    let (busy, idle) = (one.probes() - before.0, two.probes() - before.1);
    load.ends().all_served(one.requests());
    assert!((10..=15).contains(&idle) && (2..=5).contains(&busy), "{busy} probes of the busy one, {idle} of the idle one");
}
