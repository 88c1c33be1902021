//! Which request goes to which service.

use crate::world::{Ask, World};

/// Each route goes to a service of its own name.
const ROUTES: &[(&str, &str)] = &[
    ("any", r#"{"service":"any"}"#),
    ("host", r#"{"hosts":["shop.example"],"service":"host"}"#),
    ("wild", r#"{"hosts":["*.shop.example"],"service":"wild"}"#),
    ("prefix", r#"{"path_prefix":"/v1","service":"prefix"}"#),
    ("longer", r#"{"path_prefix":"/v1/users","service":"longer"}"#),
    ("exact", r#"{"path":"/v1/users/me","service":"exact"}"#),
    ("regex", r#"{"path_regex":"^/img/[0-9]+$","service":"regex"}"#),
    ("method", r#"{"path_prefix":"/v1","methods":["DELETE"],"service":"method"}"#),
    ("header", r#"{"path_prefix":"/v1","headers":{"x-beta":"yes"},"service":"header"}"#),
    ("query", r#"{"path_prefix":"/v1","query":{"debug":{"present":true}},"service":"query"}"#),
    ("urgent", r#"{"path_prefix":"/v1/now","priority":10,"service":"urgent"}"#),
    ("now", r#"{"path":"/v1/now","service":"now"}"#),
];

#[test]
fn the_most_specific_route_wins() {
    let world = World::new();
    let mut upstreams = Vec::new();
    let mut records = Vec::new();
    for (name, route) in ROUTES {
        let upstream = world.upstream(name);
        records.push((format!("/routes/{name}"), Some((*route).to_owned())));
        records.push((format!("/instances/{name}/1"), Some(upstream.address.to_string())));
        upstreams.push(upstream);
    }
    world.transact(&records);
    let requests = [
        ("any", Ask::get("/")),
        ("host", Ask::get("/v1/users").host("shop.example")),
        ("host", Ask::get("/").host("SHOP.example:8080")),
        ("wild", Ask::get("/").host("a.shop.example")),
        ("wild", Ask::get("/").host("a.b.shop.example")),
        ("any", Ask::get("/").host("notshop.example")),
        ("prefix", Ask::get("/v1")),
        ("prefix", Ask::get("/v1/orders")),
        ("any", Ask::get("/v10")),
        ("longer", Ask::get("/v1/users/7")),
        ("exact", Ask::get("/v1/users/me?x=1")),
        ("longer", Ask::get("/v1/users/me/too")),
        ("regex", Ask::get("/img/42")),
        ("any", Ask::get("/img/x")),
        ("method", Ask::new("DELETE", "/v1/orders")),
        ("header", Ask::get("/v1/orders").with("X-Beta", "yes")),
        ("prefix", Ask::get("/v1/orders").with("X-Beta", "no")),
        ("query", Ask::get("/v1/orders?debug=1")),
        ("urgent", Ask::get("/v1/now")),
    ];
    for (expected, ask) in requests {
        assert_eq!(world.get(ask.clone()).from(), expected, "{ask:?}");
        assert_eq!(world.get_h2(ask.clone()).from(), expected, "over HTTP/2: {ask:?}");
    }
}

#[test]
fn routes_come_change_and_go_live() {
    let (world, [_one]) = World::serving(["one"]);
    world.delete("/routes/app");
    assert_eq!(world.get("/").status, 404);
    world.put("/routes/app", r#"{"path_prefix":"/a","service":"app"}"#);
    assert_eq!((world.get("/a").status, world.get("/b").status), (200, 404));
    world.put("/routes/app", r#"{"path_prefix":"/b","service":"app"}"#);
    assert_eq!((world.get("/a").status, world.get("/b").status), (404, 200));
}

#[test]
fn a_route_to_a_service_that_does_not_exist_yet_is_no_404() {
    let world = World::new();
    world.put("/routes/app", r#"{"service":"app"}"#);
    let refused = world.get("/");
    assert_eq!((refused.status, refused.field("retry-after")), (503, "1"));
    assert_eq!(refused.json()["error"], "no_instances");
    let as_text = world.get(Ask::get("/").with("accept", "text/plain"));
    assert!(as_text.field("content-type").starts_with("text/plain") && as_text.text().contains("no_instances"), "{as_text:?}");
    assert!(!as_text.field("x-request-id").is_empty());
}
