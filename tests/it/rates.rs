//! Rate limits of routes: who asks too often is told when to come back, and nobody else notices.

use std::net::SocketAddr;

use http::Version;
use serde_json::Value;

use crate::world::client::Connection;
use crate::world::ports::free_address;
use crate::world::{Answer, Ask, World};

/// What is used up does not come back while a story lasts.
fn limited(more: &str) -> String {
    format!(r#"{{"service":"app","rate_limit":{{"requests":1,"per":"1h"{more}}}}}"#)
}

/// Asks for these on one connection from that address.
fn answers(world: &World, from: &str, version: Version, asks: &[Ask]) -> Vec<Answer> {
    let from = from.parse().expect("an address");
    world.handle().block_on(async {
        let mut connection = Connection::open_from(from, world.listen, version).await.expect("the proxy accepts");
        let mut answers = Vec::new();
        for ask in asks {
            answers.push(connection.ask(ask.clone()).await.expect("the connection goes on"));
        }
        answers
    })
}

fn statuses(world: &World, from: &str, version: Version, asks: &[Ask]) -> Vec<u16> {
    answers(world, from, version, asks).iter().map(|answer| answer.status).collect()
}

fn gets(n: usize) -> Vec<Ask> {
    vec![Ask::get("/"); n]
}

/// Requests over the rate of the route `app`.
fn over(world: &World, mode: &str) -> Option<f64> {
    world.metric("pointsman_rate_limited_total", &[("service", "app"), ("route", "app"), ("mode", mode)])
}

const H1: Version = Version::HTTP_11;
const H2: Version = Version::HTTP_2;

#[test]
fn each_client_has_what_the_route_allows_and_is_told_when_there_is_more() {
    let world = World::setup().embedded().start();
    let [one] = world.serve("app", ["one"]);
    world.put("/routes/app", &limited(r#","burst":3"#));
    let expected = [200, 200, 200, 429, 429];
    assert_eq!(statuses(&world, "127.0.0.2", H1, &gets(5)), expected);
    assert_eq!(statuses(&world, "127.0.0.3", H2, &gets(5)), expected);
    assert_eq!(statuses(&world, "127.0.0.2", H2, &gets(1)), [429], "it is the same client in another protocol");
    assert_eq!(statuses(&world, "127.0.0.4", H1, &gets(1)), [200], "others do not notice");
    let socket = Ask::get("/ws").with("connection", "upgrade").with("upgrade", "websocket");
    for (version, ask) in [(H1, Ask::get("/")), (H2, Ask::get("/")), (H1, socket)] {
        let refused = answers(&world, "127.0.0.2", version, &[ask]).pop().expect("an answer");
        let seconds: u64 = refused.field("retry-after").parse().expect("whole seconds");
        assert!(refused.status == 429 && (3000..=3600).contains(&seconds), "{refused:?}");
        assert_eq!(refused.json()["error"], "limited");
        assert_eq!(refused.json()["message"], "more requests than the route takes of a client", "no word of how many");
    }
    assert_eq!(one.requests(), 7, "those that were refused reached no instance");

    // An instance of another protocol takes the service to the other engine, which must not count what the first one did.
    world.put("/instances/app/h2c", &format!(r#"{{"address":"{}","protocol":"h2c","weight":0}}"#, free_address()));
    assert_eq!(statuses(&world, "127.0.0.5", H1, &gets(5)), expected);
    assert!(world.metric("pointsman_http1_requests_total", &[("engine", "general")]) >= Some(3.0));

    world.settles("each is counted", Some(10.0), || over(&world, "refused"));
    assert_eq!(world.metric("pointsman_limits_total", &[("limit", "rate")]), Some(10.0));
    let of_route = [("service", "app"), ("route", "app"), ("code_class", "4xx")];
    assert_eq!(world.metric("pointsman_http_requests_total", &of_route), Some(10.0), "as requests of their route");
    world.eventually("and logged", || {
        let out = world.proxy.out();
        let lines = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_limit = lines.filter(|line| line["reason"] == "limited" && line["status"] == 429 && line["route"] == "app");
        of_limit.filter(|line| line["client"] == "127.0.0.2").count() == 6
    });
}

#[test]
fn a_route_that_asks_no_instance_has_its_rate_too() {
    let world = World::setup().embedded().start();
    for (path, does) in [("/answer", r#""respond":{"body":"here"}"#), ("/away", r#""redirect":{"to":"/answer"}"#)] {
        let limit = r#""rate_limit":{"requests":1,"per":"1h"}"#;
        world.put(&format!("/routes{path}"), &format!(r#"{{"path":"{path}",{does},{limit}}}"#));
    }
    for (path, status) in [("/answer", 200), ("/away", 302)] {
        assert_eq!(statuses(&world, "127.0.0.2", H1, &vec![Ask::get(path); 2]), [status, 429], "{path}");
        assert_eq!(statuses(&world, "127.0.0.3", H2, &vec![Ask::get(path); 2]), [status, 429], "{path}");
        let labels = [("service", ""), ("route", &path[1..]), ("mode", "refused")];
        assert_eq!(world.metric("pointsman_rate_limited_total", &labels), Some(2.0), "{path}");
    }
}

#[test]
fn what_was_used_comes_back_with_time() {
    let world = World::setup().embedded().start();
    let [_one] = world.serve("app", ["one"]);
    world.put("/routes/app", r#"{"service":"app","rate_limit":{"requests":2,"per":"1s","burst":1}}"#);
    let n_refused = || statuses(&world, "127.0.0.2", H1, &gets(10)).iter().filter(|status| **status == 429).count();
    world.eventually("ten without a pause are more than two a second", || n_refused() > 0);
    world.eventually("there is another one", || world.get("/").status == 200);
    world.eventually("and another", || world.get("/").status == 429);
    world.eventually("with time", || world.get("/").status == 200);
}

#[test]
fn the_client_is_whom_a_trusted_proxy_names() {
    let config = "[[listener]]\naddress = 'LISTEN'\nproxy_protocol = true\n[proxy]\ntrusted_proxies = ['127.0.0.1']\n";
    let world = World::setup().embedded().config(config).start();
    let [_one] = world.serve("app", ["one"]);
    world.put("/routes/app", &limited(""));
    let status = |introduction: &str, forwarded: &str| {
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-forwarded-for: {forwarded}\r\n\r\n");
        let answer = world.say_to_the_end(format!("PROXY {introduction}\r\n{head}"));
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let itself = "UNKNOWN";
    for (introduction, forwarded, expected) in [
        (itself, "203.0.113.7", "200"),
        (itself, "203.0.113.7", "429"),
        (itself, "203.0.113.8", "200"),
        (itself, "203.0.113.9, 203.0.113.8", "429"),
        ("TCP4 203.0.113.10 192.0.2.1 1 2", "6.6.6.6", "200"),
        ("TCP4 203.0.113.10 192.0.2.1 1 2", "6.6.6.7", "429"),
        (itself, "203.0.113.10", "429"),
        (itself, "2001:db8::1", "200"),
        (itself, "2001:db8::2", "429"),
        (itself, "2001:db8:0:1::2", "200"),
    ] {
        assert_eq!(status(introduction, forwarded), expected, "{introduction}, {forwarded}");
    }
}

#[test]
fn a_rate_can_be_for_everybody_or_for_the_value_of_a_header() {
    let world = World::setup().embedded().start();
    let [_one] = world.serve("app", ["one"]);
    world.put("/routes/app", &limited(r#","burst":2,"by":"route""#));
    assert_eq!(statuses(&world, "127.0.0.2", H1, &gets(1)), [200]);
    assert_eq!(statuses(&world, "127.0.0.3", H2, &gets(2)), [200, 429]);
    assert_eq!(statuses(&world, "127.0.0.4", H1, &gets(1)), [429]);

    world.put("/routes/app", &limited(r#","by":{"header":"X-Api-Key"}"#));
    let with = |key: &str| Ask::get("/").with("x-api-key", key);
    assert_eq!(statuses(&world, "127.0.0.2", H1, &[with("ann"), with("bob"), with("ann")]), [200, 200, 429]);
    assert_eq!(statuses(&world, "127.0.0.3", H2, &[with("bob"), with("cid")]), [429, 200]);
    assert_eq!(statuses(&world, "127.0.0.2", H1, &gets(2)), [200, 429], "without a key the address counts");
    assert_eq!(statuses(&world, "127.0.0.3", H2, &gets(2)), [200, 429]);
}

#[test]
fn a_change_of_the_limit_is_in_force_at_once_and_any_other_leaves_what_was_used() {
    let world = World::setup().embedded().start();
    let [_one] = world.serve("app", ["one"]);
    world.put("/routes/app", &limited(""));
    assert_eq!(statuses(&world, "127.0.0.2", H1, &gets(2)), [200, 429]);
    world.put("/routes/other", r#"{"hosts":["other.example"],"service":"app"}"#);
    world.put("/services/app", r#"{"balance":"round_robin"}"#);
    let two = world.upstream("two");
    world.put("/instances/app/two", &two.address.to_string());
    world.put("/routes/app", &limited("").replacen('{', r#"{"priority":1,"#, 1));
    assert_eq!(statuses(&world, "127.0.0.2", H1, &gets(1)), [429], "nothing of that is about the limit");

    world.put("/routes/app", &limited(r#","burst":2"#));
    assert_eq!(statuses(&world, "127.0.0.2", H2, &gets(3)), [200, 200, 429], "another limit");
    world.put("/routes/app", r#"{"service":"app"}"#);
    assert_eq!(statuses(&world, "127.0.0.2", H1, &gets(9)), [200; 9], "none");
    assert_eq!(over(&world, "refused"), None, "and no series");
}

#[test]
fn a_dry_run_counts_and_refuses_nobody() {
    let route = "[[route]]\nname = 'app'\nservice = 'app'\n";
    let limit = |more: &str| format!("{route}rate_limit = {{ requests = 2, per = '1h'{more} }}\n");
    let world = World::setup().embedded().config(&limit(", dry_run = true")).start();
    let one = world.upstream("one");
    world.put("/instances/app/one", &one.address.to_string());
    assert_eq!(statuses(&world, "127.0.0.2", H1, &gets(3)), [200; 3]);
    assert_eq!(statuses(&world, "127.0.0.2", H2, &gets(2)), [200; 2]);
    assert_eq!((over(&world, "dry_run"), over(&world, "refused")), (Some(3.0), Some(0.0)));
    let said = world.admin("/api/v1/explain?url=http://a.example/").json();
    assert_eq!(said["rate"], "2 in 1h, 2 at once, of each client address; only counted");

    world.write_config(&limit(""));
    world.proxy.signal(nix::sys::signal::Signal::SIGHUP);
    world.eventually("it is in earnest", || statuses(&world, "127.0.0.2", H1, &gets(1)) == [429]);
    assert_eq!(statuses(&world, "127.0.0.3", H2, &gets(3)), [200, 200, 429]);
    assert_eq!(world.metric("pointsman_limits_total", &[("limit", "rate")]), over(&world, "refused"));
}

#[test]
fn a_flood_of_clients_takes_no_more_memory_and_refuses_nobody() {
    let world = World::setup().embedded().config("[proxy.limits]\nrate_clients = 1024\n").start();
    let [_one] = world.serve("app", ["one"]);
    world.put("/routes/app", &limited(r#","by":{"header":"x-key"}"#));
    let flood: Vec<Ask> = (0..3000).map(|n| Ask::get("/").with("x-key", &n.to_string())).collect();
    assert_eq!(statuses(&world, "127.0.0.2", H1, &flood), [200; 3000], "each of them comes for the first time");
    let displaced = world.metric("pointsman_rate_displaced_total", &[]);
    assert!(displaced >= Some(3000.0 - 1024.0) && displaced < Some(3000.0), "the others were forgotten: {displaced:?}");
}

/// What is over the rate for nginx is so for what was imported from it, request by request.
#[test]
fn what_is_imported_refuses_what_nginx_refuses() {
    let mut world = World::new();
    let one = world.upstream("one");
    let (listen, folder) = (free_address(), world.folder());
    let http = NGINX.replace("LISTEN", &listen.to_string()).replace("APP", &one.address.to_string());
    let _nginx = world.nginx(&folder, &http, listen);

    let imported = world.run(&["import", "nginx", "nginx.conf"]);
    assert_eq!(imported.status.code(), Some(0), "{}", String::from_utf8_lossy(&imported.stderr));
    let config = String::from_utf8_lossy(&imported.stdout).replace(&listen.to_string(), &world.listen.to_string());
    world.write_config(&config);
    world.start_proxy_again();
    world.is_ready();
    world.eventually("it serves", || world.get("/free").status == 200);
    let asks: Vec<Ask> =
        ["/burst", "/one", "/burst", "/burst", "/one", "/burst", "/burst", "/burst", "/free"].map(Ask::get).into();
    let keys = ["ann", "bob", "ann", "bob", "cid"].map(|key| Ask::get("/key").with("x-key", key));
    let asks = [asks, keys.into()].concat();
    let answers = |at: SocketAddr| {
        let asked = async {
            let mut connection = Connection::open(at, H1).await.expect("a connection");
            let mut statuses = Vec::new();
            for ask in &asks {
                statuses.push(connection.ask(ask.clone()).await.expect("an answer").status);
            }
            statuses
        };
        world.handle().block_on(asked)
    };
    let expected = [200, 200, 200, 200, 429, 200, 429, 429, 200, 200, 200, 429, 429, 200];
    assert_eq!((&answers(listen)[..], &answers(world.listen)[..]), (&expected[..], &expected[..]));
}

const NGINX: &str = "    limit_req_zone $binary_remote_addr zone=burst:1m rate=1r/m;
    limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;
    limit_req_zone $http_x_key zone=key:1m rate=1r/m;
    limit_req_status 429;
    proxy_set_header Host $host;
    server {
        listen LISTEN;
        location = /free { proxy_pass http://APP; }
        location = /burst { limit_req zone=burst burst=3 nodelay; proxy_pass http://APP; }
        location = /one { limit_req zone=one; proxy_pass http://APP; }
        location = /key { limit_req zone=key; proxy_pass http://APP; }
    }
";
