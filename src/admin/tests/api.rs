//! The answers under `/api/v1`, and the probes.

use super::*;
use serde_json::json;

#[tokio::test]
async fn it_is_ready_from_the_first_list_until_it_leaves() {
    let mut world = World::new().await;
    assert_eq!((world.get("/livez").await.status, world.get("/readyz").await.status), (200, 503));
    world.registry.lock().unwrap().trouble = Some("connection refused".to_owned());
    let reasons: Json = serde_json::from_str(&world.get("/readyz").await.text).unwrap();
    let expected = "routing is not known: the registry (etcd) has not been heard of: connection refused";
    assert_eq!(reasons, json!({ "ready": false, "reasons": [expected] }));

    let trouble = Some("permission denied".to_owned());
    let silent = SourceReading { keys: "/a/{service}/{instance}".to_owned(), trouble, ..SourceReading::default() };
    let heard = SourceReading { source: Some("snapshot"), ..silent.clone() };
    let reading = RegistryReading { source: Some("registry"), sources: vec![heard, silent], ..RegistryReading::default() };
    *world.registry.lock().unwrap() = reading;
    let expected = "routing is not known: the source /a/{service}/{instance} has not been heard of: permission denied";
    assert!(world.get("/readyz").await.text.contains(expected));

    world.apply(vec![]);
    assert_eq!(world.json("/readyz").await, json!({ "ready": true, "reasons": [] }), "a registry that is away is no reason");

    world.leaving.send_replace(true);
    let answer = world.get("/readyz").await;
    assert_eq!((answer.status, answer.text.contains("shutting down")), (503, true));
    assert_eq!(world.get("/livez").await.status, 200);
}

#[tokio::test]
async fn the_status_tells_of_the_registry() {
    let world = World::used().await;
    *world.registry.lock().unwrap() = RegistryReading {
        kind: "etcd",
        connected: true,
        source: Some("registry"),
        last_event_age: Some(Duration::from_micros(1_234_567)),
        n_rejected: 1,
        rejected: vec![rejected()],
        relists: vec![("start", 1), ("compacted", 0)],
        ..RegistryReading::default()
    };
    let said = world.json("/api/v1/status").await;
    assert_eq!((&said["version"], &said["started_at"]), (&json!("0.1.0"), &json!("2030-03-17T17:46:40.000Z")));
    assert_eq!(said["counts"], json!({ "services": 2, "instances": 4, "eligible": 2, "routes": 3 }));
    let registry = &said["registry"];
    assert_eq!(registry["connected"], true);
    assert_eq!((&registry["applied_revision"], &registry["last_event_age_s"]), (&json!(1), &json!(1.235)));
    assert_eq!((&registry["source"], &registry["stale"]), (&json!("registry"), &json!(false)));
    let reason = "weight: 70000 is not in 0..=65535";
    let expected = json!([{ "key": "/pointsman/instances/orders/x", "revision": 812, "reason": reason, "keeping": 790 }]);
    assert_eq!(registry["rejected"], expected);
    assert_eq!(registry["relists"], json!({ "start": 1, "compacted": 0 }));
    assert_eq!(said["proxy"]["listeners"], json!([{ "address": "0.0.0.0:8080", "connections": 3 }]));
}

#[tokio::test]
async fn services_are_listed_by_name_and_one_has_its_instances() {
    let world = World::used().await;
    let _held = in_flight(&world.instance("orders", "a"));
    let said = world.json("/api/v1/services").await;
    let names: Vec<_> = said["services"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["idle", "orders"]);
    let orders = &said["services"][1];
    assert_eq!(orders["counts"], json!({ "total": 3, "eligible": 1, "ready": 2, "limbo": 0, "draining": 1, "maintenance": 0 }));
    assert_eq!((&orders["in_flight"], &orders["requests"], &orders["failures"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(said["services"][0]["latency_ms"], json!({ "p50": null, "p99": null }));

    let said = world.json("/api/v1/services/orders").await;
    assert_eq!((&said["name"], &said["revision"], &said["policy"]["balance"]), (&json!("orders"), &json!(1), &json!("p2c")));
    let [a, b, c] = &said["instances"].as_array().unwrap()[..] else { panic!("{said}") };
    for (field, value) in [
        ("id", json!("a")),
        ("address", json!("10.0.0.1:80")),
        ("weight", json!(100)),
        ("state", json!("ready")),
        ("probe", json!("unknown")),
        ("passive", json!("ok")),
        ("eligible", json!(true)),
        ("reason", Json::Null),
        ("in_flight", json!(1)),
        ("requests", json!(2)),
        ("failures", json!(1)),
        ("outcomes", json!({ "success": 1, "connect_failed": 1 })),
    ] {
        assert_eq!(a[field], value, "{field}");
    }
    let p50 = a["latency_ms"]["p50"].as_f64().unwrap();
    assert!((2.0..=4.0).contains(&p50) && a["since"].as_str().unwrap().ends_with('Z'), "{a}");
    assert_eq!((&b["eligible"], &b["reason"]), (&json!(false), &json!("its name has not been resolved")));
    assert_eq!((&c["state"], &c["reason"]), (&json!("draining"), &json!("draining: declared by the instance")));
}

#[tokio::test]
async fn names_may_be_escaped_and_an_unknown_one_is_named() {
    let mut world = World::new().await;
    world.apply(vec![put("a@b:c+d", "i", spec("10.0.0.1:80"))]);
    assert_eq!(world.json("/api/v1/services/a@b:c+d").await["name"], "a@b:c+d");
    assert_eq!(world.json("/api/v1/services/a%40b%3ac%2Bd/").await["name"], "a@b:c+d");
    let answer = world.get("/api/v1/services/%3Cb%3E").await;
    assert_eq!((answer.status, answer.text.contains(r#"there is no service \"<b>\""#)), (404, true), "{}", answer.text);
}

#[tokio::test]
async fn routes_are_told_as_they_are_written() {
    let world = World::used().await;
    let said = world.json("/api/v1/routes").await;
    let [any, lost, shop] = &said["routes"].as_array().unwrap()[..] else { panic!("{said}") };
    assert_eq!((&any["name"], &lost["service_exists"]), (&json!("any"), &json!(false)));
    assert_eq!(
        (&shop["hosts"], &shop["path_prefix"], &shop["requests"]["2xx"]),
        (&json!(["shop.example"]), &json!("/api"), &json!(1))
    );
}

#[tokio::test]
async fn explain_says_what_would_become_of_a_request() {
    let mut world = World::used().await;
    let said = world.json("/api/v1/explain?method=post&url=http://Shop.example:8080/api/x?y=1").await;
    assert_eq!(
        (&said["outcome"], &said["route"]["name"], &said["service"]),
        (&json!("forward"), &json!("shop"), &json!("orders"))
    );
    assert_eq!(said["why"], json!(["it names the host shop.example", "the path begins with /api"]));
    assert_eq!(
        said["candidates"][0],
        json!({ "id": "a", "address": "10.0.0.1:80", "weight": 100, "share_percent": 100.0, "in_flight": 0, "reason": null })
    );
    let reasons: Vec<_> = said["others"].as_array().unwrap().iter().map(|i| i["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["its name has not been resolved", "draining: declared by the instance"]);

    let said = world.json("/api/v1/explain?url=/api&header=Host:%20shop.example").await;
    assert_eq!((&said["route"]["name"], &said["request"]["method"]), (&json!("shop"), &json!("GET")));
    let said = world.json("/api/v1/explain?url=http://a.b.lost.example").await;
    assert_eq!((&said["outcome"], &said["why"][0]), (&json!("no_instances"), &json!("a.b.lost.example is below *.lost.example")));

    world.apply(vec![Change::Route { name: RouteName::parse("any").unwrap(), route: None }]);
    let said = world.json("/api/v1/explain?url=http://shop.example/other").await;
    assert_eq!(said["outcome"], "no_route");
    let said = said["why"].as_str().unwrap();
    assert!(said.starts_with("1 routes are for the host \"shop.example\""), "{said}");

    for (wrong, message) in [
        ("", "url is missing"),
        ("?url=http://h/a/..%252fb", "the proxy would answer 400: the path holds dot segments"),
        ("?url=/&header=Host:%20a/b", "the proxy would answer 400: Host is not"),
        ("?url=http://h&header=x", "is not `Name: value`"),
        ("?url=http://h&method=G%20T", "not a method"),
        ("?uri=/", "\\\"uri\\\" is not a parameter"),
    ] {
        let answer = world.get(&format!("/api/v1/explain{wrong}")).await;
        assert!(answer.status == 400 && answer.text.contains(message), "{wrong}: {}", answer.text);
    }
}

#[tokio::test]
async fn events_are_told_from_a_number_on() {
    let world = World::used().await;
    let all = world.json("/api/v1/events").await;
    let all = all["events"].as_array().unwrap();
    assert_eq!((all.len(), &all[0]["sequence"], &all[0]["kind"]), (7, &json!(1), &json!("route_set")));
    let later = world.json("/api/v1/events?since=5").await;
    assert_eq!(later["events"], json!(all[5..]));
    assert_eq!(world.json("/api/v1/events?since=900").await["events"], json!(all), "a number of the process before");
    assert_eq!(world.get("/api/v1/events?since=x").await.status, 400);
}

#[tokio::test]
async fn followers_hear_of_changes_until_the_end() {
    let mut world = World::used().await;
    let accept = ("accept", "text/event-stream");
    let reply = world.open("GET", "/api/v1/events", &[accept, ("last-event-id", "6")]).await;
    assert_eq!(reply.headers()["content-type"], "text/event-stream");
    let mut body = reply.into_body();
    let mut heard = String::new();
    while !heard.contains("id: 7\n") {
        let frame = body.frame().await.unwrap().unwrap();
        heard.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    assert!(!heard.contains("id: 6\n"), "{heard}");

    world.apply(vec![gone("orders", "a")]);
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let said = String::from_utf8(frame.to_vec()).unwrap();
    assert!(said.starts_with("id: 8\ndata: {") && said.ends_with("}\n\n") && said.contains("instance_gone"), "{said}");

    world.shutdown.send_replace(true);
    assert!(body.frame().await.is_none(), "the stream ends whole");
    tokio::time::timeout(Duration::from_secs(1), world.serving).await.expect("nothing holds it up").unwrap();
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let answer = World::new().await.get("/").await;
    let policy = answer.fields["content-security-policy"].to_str().unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(answer.text.matches("<script").count(), answer.text.matches(&format!("<script nonce=\"{nonce}\"")).count());
    assert_eq!(answer.text.matches("<style").count(), answer.text.matches(&format!("<style nonce=\"{nonce}\"")).count());
    for outside in ["src=", "href=\"http", "href=\"//", "url(", "@import", "innerHTML", "style=\"", "onclick="] {
        assert!(!answer.text.contains(outside), "the page has {outside}");
    }
}

#[tokio::test]
async fn certificates_are_told_with_their_names_and_never_with_a_key() {
    let mut world = World::new().await;
    world.apply(vec![certificate("shop", &["shop.example", "*.shop.example"]), certificate("default", &["shop.example"])]);
    let said = world.json("/api/v1/certificates").await;
    let told: Vec<_> =
        said["certificates"].as_array().unwrap().iter().map(|c| (c["name"].clone(), c["listeners"].clone())).collect();
    assert!(told.contains(&(json!("shop"), json!(["0.0.0.0:8443"]))), "{told:?}");
    let shop = said["certificates"].as_array().unwrap().iter().find(|c| c["name"] == "shop").unwrap();
    assert_eq!(shop["names"], json!(["shop.example", "*.shop.example"]));
    assert_eq!((&shop["in_use"], &shop["expired"], &shop["source"]), (&json!(true), &json!(false), &json!("registry")));
    assert_eq!(shop["fingerprint"].as_str().map(str::len), Some(64));
    assert_eq!(said["rejected"], json!([{ "file": "b.pem", "reason": "b.pem holds no certificate" }]));
    world.apply(vec![acme_order("shop")]);
    let acme = world.json("/api/v1/certificates").await["acme"].clone();
    assert_eq!(acme["renewer"], json!(true));
    let order = &acme["orders"][0];
    assert_eq!((&order["name"], &order["state"], &order["failed"]), (&json!("shop"), &json!("failed"), &json!(2)));
    assert_eq!(order["error"], json!("shop.example: no answer"));
    assert!(!said.to_string().contains("PRIVATE"));
    assert!(world.get("/metrics").await.text.contains("pointsman_certificate_expiry_timestamp_seconds{name=\"shop\"} "));
}
