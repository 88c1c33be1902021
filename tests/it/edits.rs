//! What a route does to a request and to its answer, over HTTP/1.1 and HTTP/2, and to instances that speak either.

use http::Version;
use serde_json::json;

use crate::world::client::Connection;
use crate::world::{Answer, Ask, Seen, World};

/// A world whose service `app` has an instance of each protocol's, with `route` for `/api` beside a plain one.
fn editing(route: serde_json::Value) -> World {
    let world = World::new();
    put(&world, "edited", route);
    world
}

fn put(world: &World, name: &str, route: serde_json::Value) {
    world.put(&format!("/routes/{name}"), &route.to_string());
}

/// The same over both protocols.
fn both(world: &World, ask: Ask) -> [Answer; 2] {
    [world.get(ask.clone()), world.get_h2(ask)]
}

#[test]
fn a_path_is_rewritten_and_the_client_is_logged_as_it_asked() {
    let world = World::setup().config("[log.access]\nenabled = true\nfile = \"access.log\"\n").start();
    let [one] = world.serve("app", ["one"]);
    let [two] = [world.upstream("two")];
    world.put("/instances/h2/two", &json!({"address": two.address.to_string(), "protocol": "h2c"}).to_string());
    for (service, prefix) in [("app", "/api"), ("h2", "/h2")] {
        put(&world, service, json!({"path_prefix": prefix, "service": service, "rewrite": {"prefix": "/v2"}}));
        for answer in both(&world, Ask::get(&format!("{prefix}/a%20b/seen?x=1")).host("shop.example:8080")) {
            let seen = Seen::of(&answer);
            assert_eq!((seen.text("path"), seen.text("query")), ("/v2/a%20b/seen", "x=1"), "{service}");
            assert_eq!(seen.one("x-forwarded-host"), "shop.example:8080");
        }
        // What the client says otherwise is rewritten, too.
        for answer in both(&world, Ask::get(&format!("/x/..{prefix}//seen"))) {
            assert_eq!(Seen::of(&answer).text("path"), "/v2//seen", "{service}");
        }
    }
    assert_eq!((one.requests(), two.requests()), (4, 4));
    let host = json!({"path": "/exact", "service": "app", "rewrite": {"path": "/other/seen", "host": "api.internal:81"}});
    put(&world, "host", host);
    for answer in both(&world, Ask::get("/exact").host("shop.example")) {
        let seen = Seen::of(&answer);
        assert_eq!(
            (seen.text("path"), seen.one("host"), seen.one("x-forwarded-host")),
            ("/other/seen", "api.internal:81", "shop.example")
        );
    }
    put(
        &world,
        "users",
        json!({"path_prefix": "/users", "service": "h2", "rewrite": {"regex": "^/users/(\\d+)$", "to": "/$1/seen?by=id", "host": "x.internal"}}),
    );
    for answer in both(&world, Ask::get("/users/7?a=b")) {
        let seen = Seen::of(&answer);
        assert_eq!((seen.text("path"), seen.text("query"), seen.text("authority")), ("/7/seen", "by=id&a=b", "x.internal"));
    }
    world.eventually("the access log has the clients' paths", || {
        let log = std::fs::read_to_string(world.folder().join("access.log")).unwrap_or_default();
        log.contains("\"path\":\"/api/a%20b/seen\"") && log.contains("\"path\":\"/users/7\"") && !log.contains("/v2")
    });
}

#[test]
fn a_rewritten_path_leads_nowhere_that_a_client_could_not_ask_for() {
    let world = editing(json!({"service": "app", "rewrite": {"regex": "^/f(.*)$", "to": "/$1"}}));
    let one = world.upstream("one");
    world.put("/instances/app/one", &one.address.to_string());
    for answer in both(&world, Ask::get("/f//evil.example/seen")) {
        assert_eq!(Seen::of(&answer).text("path"), "/evil.example/seen");
    }
    let asked = one.requests();
    for path in ["/f../admin/seen", "/f%2e%2e/admin/seen", "/f./seen"] {
        for answer in both(&world, Ask::get(path)) {
            assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("malformed")), "{path}");
        }
    }
    assert_eq!(one.requests(), asked);
    assert_eq!(world.metric("pointsman_http_requests_total", &[("route", "edited"), ("code_class", "4xx")]), Some(6.0));
}

#[test]
fn fields_are_set_added_and_taken_away() {
    let world = editing(json!({
        "service": "app",
        "request_headers": {
            "set": {"X-Real-IP": "{client_address}", "X-Asked": "{scheme} {host} {path}{?query} {route} {service}", "X-Id": "{request_id}",
                    "X-Query": "{query}", "X-Token": "s3cret"},
            "add": {"X-List": "ours"},
            "remove": ["Authorization"],
        },
        "response_headers": {"set": {"X-Frame-Options": "DENY", "X-Instance-Of": "{service}"}, "add": {"X-Kept": "{{2}"}, "remove": ["X-Instance"]},
    }));
    let (one, two) = (world.upstream("one"), world.upstream("two"));
    let ask = Ask::get("/seen?a=%20b")
        .host("Shop.example:80")
        .with("x-real-ip", "6.6.6.6")
        .with("X-Token", "mine")
        .with("x_token", "mine");
    let ask = ask.with("x-list", "theirs").with("authorization", "Basic x").with("x-kept", "1");
    for instance in [json!({"address": one.address.to_string()}), json!({"address": two.address.to_string(), "protocol": "h2c"})]
    {
        world.put("/instances/app/one", &instance.to_string());
        for answer in both(&world, ask.clone()) {
            let seen = Seen::of(&answer);
            assert_eq!((seen.one("x-real-ip"), seen.one("x-token"), seen.all("x_token").len()), ("127.0.0.1", "s3cret", 0));
            assert_eq!(seen.one("x-asked"), "http shop.example /seen?a=%20b edited app");
            assert_eq!((seen.one("x-id"), seen.one("x-query")), (seen.one("x-request-id"), "a=%20b"));
            assert_eq!((seen.all("x-list"), seen.all("authorization").len()), (vec!["theirs", "ours"], 0));
            assert_eq!(
                (answer.field("x-frame-options"), answer.field("x-instance-of"), answer.field("x-instance")),
                ("DENY", "app", "")
            );
            assert_eq!(answer.field("x-kept"), "{2}");
        }
        // Nothing to say is not said.
        for answer in both(&world, Ask::get("/seen").with("x-query", "6")) {
            assert_eq!(Seen::of(&answer).all("x-query").len(), 0);
        }
        for answer in both(&world, Ask::get("/own-fields")) {
            assert_eq!(answer.fields.get_all("x-kept").iter().collect::<Vec<_>>(), ["1", "{2}"]);
        }
    }
    assert!(!world.admin("/api/v1/routes").text().contains("s3cret"), "what instances are told may be a password");
    // Not for what we refuse.
    world.delete("/instances/app/one");
    assert_eq!(world.get("/").field("x-frame-options"), "");
}

#[test]
fn an_upgrade_is_asked_for_where_its_route_says() {
    let world = editing(
        json!({"path_prefix": "/live", "service": "app", "rewrite": {"prefix": "/"}, "request_headers": {"set": {"x-a": "1"}}}),
    );
    let one = world.upstream("one");
    world.put("/instances/app/one", &one.address.to_string());
    let mut socket = world.websocket("/live/ws");
    assert_eq!(world.echo(&mut socket, "hello").as_deref(), Ok("hello"));
    put(&world, "moved", json!({"path": "/moved", "redirect": {"to": "/live/ws"}}));
    assert_eq!(world.websocket_refused("/moved"), 302);
}

#[test]
fn a_redirect_and_an_answer_need_no_instance() {
    let world = World::new();
    put(&world, "https", json!({"hosts": ["shop.example"], "redirect": {"status": 301, "to": "https://{host}{path}{?query}"}}));
    put(
        &world,
        "moved",
        json!({"path_prefix": "/old", "rewrite": {"prefix": "/new"}, "redirect": {"to": "{path}{?query}"}, "response_headers": {"set": {"x-a": "{route}"}}}),
    );
    put(
        &world,
        "robots",
        json!({"path": "/robots.txt", "respond": {"body": "User-agent: *\n", "content_type": "text/x-robots"}}),
    );
    put(&world, "gone", json!({"path": "/gone", "respond": {"status": 204}}));
    for answer in both(&world, Ask::get("/a%2f?b=c").host("shop.example:8080")) {
        assert_eq!((answer.status, answer.field("location")), (301, "https://shop.example/a%2f?b=c"));
        assert_eq!(answer.field("cache-control"), "", "it may be remembered");
        assert!(answer.field("x-request-id").len() >= 16);
    }
    for answer in both(&world, Ask::get("/old/x?y")) {
        assert_eq!((answer.status, answer.field("location"), answer.field("x-a")), (302, "/new/x?y", "moved"));
    }
    for answer in both(&world, Ask::get("/old//evil.example")) {
        assert_eq!(answer.field("location"), "/new//evil.example");
    }
    for answer in both(&world, Ask::get("/robots.txt")) {
        assert_eq!((answer.status, answer.field("content-type"), answer.text()), (200, "text/x-robots", "User-agent: *\n"));
    }
    for answer in both(&world, Ask::new("HEAD", "/robots.txt")) {
        assert_eq!((answer.status, answer.field("content-length"), answer.text()), (200, "14", ""));
    }
    for answer in both(&world, Ask::get("/gone")) {
        assert_eq!(
            (answer.status, answer.text(), answer.field("content-length"), answer.field("content-type")),
            (204, "", "", "")
        );
    }
    let expecting = "POST /robots.txt HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    assert!(world.say_to_the_end(expecting).starts_with("HTTP/1.1 200"), "nobody is told to send what nobody reads");
    // A connection is kept.
    world.handle().block_on(async {
        let mut connection = Connection::open(world.listen, Version::HTTP_11).await.expect("the proxy accepts");
        for _ in 0..3 {
            assert_eq!(connection.ask("/gone").await.expect("an answer").status, 204);
        }
        let posted = connection.ask(Ask::post("/robots.txt", "some body")).await.expect("an answer");
        assert_eq!((posted.status, connection.is_closed()), (200, false));
    });
    let count =
        |route, class| world.metric("pointsman_http_requests_total", &[("service", ""), ("route", route), ("code_class", class)]);
    assert_eq!((count("https", "3xx"), count("moved", "3xx"), count("gone", "2xx")), (Some(2.0), Some(4.0), Some(5.0)));
    let listed = world.admin("/api/v1/routes").json();
    assert_eq!(listed["routes"].as_array().expect("a list").len(), 4);
}

#[test]
fn a_route_changes_under_load_and_nobody_notices() {
    let (world, [_one]) = World::serving(["one"]);
    let load = world.load("/api/count");
    for n in 0..20 {
        let prefix = format!("/v{n}");
        put(
            &world,
            "api",
            json!({"path_prefix": "/api", "service": "app", "rewrite": {"prefix": prefix}, "request_headers": {"set": {"x-n": prefix}}}),
        );
        let seen = Seen::of(&world.get("/api/seen"));
        assert_eq!((seen.text("path"), seen.one("x-n")), (&*format!("/v{n}/seen"), &*prefix));
    }
    let tally = load.ends();
    tally.all_served(tally.served());
    assert!(tally.served() > 20 && tally.reconnected == 0, "{tally:?}");
}

#[test]
fn a_bad_route_is_rejected_alone_and_the_one_before_it_stays() {
    let (world, [_one]) = World::serving(["one"]);
    let good = json!({"path_prefix": "/api", "service": "app", "rewrite": {"prefix": "/good"}});
    put(&world, "api", good);
    for (bad, why) in [
        (
            json!({"service": "app", "redirect": {"to": "/"}}),
            "redirect: stands beside service; a route has exactly one of service, redirect and respond",
        ),
        (
            json!({"service": "app", "rewrite": {"path": "/a/../b"}}),
            "rewrite.path: \"/a/../b\" is not a path that can be asked for",
        ),
        (
            json!({"service": "app", "request_headers": {"set": {"Content-Length": "1"}}}),
            "request_headers.set.Content-Length: belongs to the connection",
        ),
        (
            json!({"service": "app", "request_headers": {"set": {"x-a": "{who}"}}}),
            "{who} is no placeholder; there are {client_address}",
        ),
        (json!({"redirect": {"to": "https://{path}"}}), "redirect.to: \"https://{path}\" is neither a URL"),
    ] {
        put(&world, "api", bad);
        let rejected = world.status()["registry"]["rejected"].to_string();
        let rejected = rejected.replace("\\\"", "\"");
        assert!(rejected.contains(why) && rejected.contains("/routes/api"), "{why}: {rejected}");
        assert_eq!(Seen::of(&world.get("/api/seen")).text("path"), "/good/seen");
    }
    let refused = world.run(&["put", "route", "api", "--help"]);
    assert!(refused.status.success());
    put(&world, "api", json!({"path_prefix": "/api", "service": "app"}));
    assert_eq!(Seen::of(&world.get("/api/seen")).text("path"), "/api/seen");
}

#[test]
fn explain_says_what_a_route_does() {
    let (world, [_one]) = World::serving(["one"]);
    put(&world, "api", json!({"path_prefix": "/api", "service": "app", "rewrite": {"prefix": "/"}}));
    put(&world, "old", json!({"path_prefix": "/old", "redirect": {"status": 308, "to": "https://{host}/new{?query}"}}));
    put(&world, "ok", json!({"path": "/ok", "respond": {"body": "fine"}}));
    let explain = |url: &str| {
        let out = world.run(&["explain", "GET", url, "--json"]);
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap_or_else(|error| panic!("{error}: {out:?}"))
    };
    let api = explain("http://shop.example/api/x?y=1");
    assert_eq!((&api["outcome"], &api["rewritten"], &api["service"]), (&json!("forward"), &json!("/x?y=1"), &json!("app")));
    let old = explain("http://shop.example/old/x?y=1");
    assert_eq!(old["outcome"], "redirect");
    assert_eq!(old["answer"], json!({"status": 308, "location": "https://shop.example/new?y=1"}));
    let ok = explain("http://shop.example/ok");
    assert_eq!((&ok["outcome"], &ok["answer"]), (&json!("respond"), &json!({"status": 200})));
    let listed = world.run(&["get", "route"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("308 https://{host}/new{?query}") && listed.contains("200 of our own"), "{listed}");
}
