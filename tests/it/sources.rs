//! Instances that other programs registered, in the layouts they have.

use serde_json::{Value, json};

use crate::world::World;

#[test]
fn a_plain_layout_is_served_as_it_is() {
    let world = following(&[source("/myapp/upstream/{instance}", "service = \"myapp\"")]).start();
    world.put("/routes/all", r#"{"service":"myapp"}"#);
    let [one, two] = ["app1", "app2"].map(|name| world.upstream(name));
    world.elsewhere("/myapp/subdomain", Some("shop"));
    world.elsewhere("/myapp/upstream/notes/readme", Some("not an instance"));
    world.elsewhere("/myapp/upstream/app1", Some(&format!("{}\n", one.address)));
    world.settles("the first is served", "app1".to_owned(), || world.get("/").from().to_owned());
    world.elsewhere("/myapp/upstream/app2", Some(&format!("{} weight=300", two.address)));
    world.eventually("the second is served", || world.get_many("/", 20).from("app2") > 0);
    assert_eq!(instance(&world, "myapp", "app2")["weight"], 300);

    let load = world.load("/");
    world.elsewhere("/myapp/upstream/app1", None);
    world.settles("only the second is left", 20, || world.get_many("/", 20).from("app2"));
    let tally = load.ends();
    tally.all_served(tally.served());
    let registry = world.status()["registry"].clone();
    assert_eq!((&registry["rejected"], &registry["warnings"]), (&json!([]), &1.into()), "a key that does not fit is odd, once");
    assert_eq!(registry["sources"][0]["keys"], "/myapp/upstream/{instance}");
    let log = world.proxy.log();
    assert!(log.contains("/myapp/upstream/notes/readme") && !log.contains("/myapp/subdomain"), "{log}");
}

#[test]
fn formats_are_told_apart_by_their_values() {
    let world = following(&[usual(), source("/microservices/{service}/{instance}", "")]).start();
    world.put("/routes/all", r#"{"service":"shop"}"#);
    world.put("/routes/greeter", r#"{"path_prefix":"/greeter","service":"greeter"}"#);
    let [grpc, kratos] = ["grpc", "kratos"].map(|name| world.upstream(name));
    let (grpc_id, kratos_id) = (grpc.address.to_string(), "f0a1");
    let naming = format!(r#"{{"Op":0,"Addr":"{}","Metadata":null}}"#, grpc.address);
    world.elsewhere(&format!("/services/greeter/{grpc_id}"), Some(&naming));
    let endpoints = format!(r#"["grpc://127.0.0.1:1?isSecure=false","http://{}?isSecure=false"]"#, kratos.address);
    let registered = format!(r#"{{"id":"f0a1","name":"shop","version":"v1","metadata":{{}},"endpoints":{endpoints}}}"#);
    world.elsewhere(&format!("/microservices/shop/{kratos_id}"), Some(&registered));

    world.settles("the one of go-kratos", "kratos".to_owned(), || world.get("/").from().to_owned());
    world.settles("the one of gRPC naming", "grpc".to_owned(), || world.get("/greeter").from().to_owned());
    let of = |service: &str, id: &str| {
        let found = instance(&world, service, id);
        [&found["origin"], &found["protocol"]].map(|said| said.as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(of("greeter", &grpc_id), ["source-1", "h2c"]);
    assert_eq!(of("shop", kratos_id), ["source-2", "http"]);
}

#[test]
fn a_bad_one_is_rejected_alone_and_the_value_before_it_stays() {
    let world = following(&[usual()]).start();
    world.put("/routes/all", r#"{"service":"app"}"#);
    let one = world.upstream("one");
    let good = world.elsewhere("/services/app/one", Some(&one.address.to_string()));
    let bad = world.elsewhere("/services/app/one", Some(r#"{"Id":"host1","IP":"192.168.10.11"}"#));
    let unnamed = world.elsewhere("/services/app/two%2F", Some(&one.address.to_string()));
    world.settles("both are rejected", 2.into(), || world.status()["registry"]["n_rejected"].clone());
    assert_eq!(world.get_many("/", 10).from("one"), 10);
    let rejected = world.status()["registry"]["rejected"].clone();
    assert_eq!(
        rejected,
        json!([
            {"key": "/services/app/one", "revision": bad, "keeping": good,
             "reason": "no form of an instance that we know has the fields IP, Id"},
            {"key": "/services/app/two%2F", "revision": unnamed, "keeping": null,
             "reason": "the instance in the key: the name has '%' at position 3; only [A-Za-z0-9._:@+-] are allowed"},
        ])
    );
    assert_eq!(world.metric("pointsman_registry_rejected_records", &[]), Some(2.0));

    let checked = world.run(&["check", "--registry", "--config", "pointsman.toml"]);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert_eq!((checked.status.code(), said.lines().count()), (Some(1), 2), "a route to what others registered is none: {said}");

    world.elsewhere("/services/app/one", Some(&one.address.to_string()));
    world.elsewhere("/services/app/two%2F", None);
    world.settles("nothing is rejected any more", json!([]), || world.status()["registry"]["rejected"].clone());
}

#[test]
fn our_own_record_wins_and_uncovers_theirs_when_it_goes() {
    let world = following(&[source("/first/{service}/{instance}", ""), source("/second/{service}/{instance}", "")]).start();
    world.put("/routes/all", r#"{"service":"app"}"#);
    let [own, first, second] = ["own", "first", "second"].map(|name| world.upstream(name));
    world.elsewhere("/second/app/a", Some(&second.address.to_string()));
    world.settles("the only one", "second".to_owned(), || world.get("/").from().to_owned());
    let before = world.applied_revision();
    let written = world.elsewhere("/first/app/a", Some(&first.address.to_string()));
    world.settles("the earlier source wins", "first".to_owned(), || world.get("/").from().to_owned());
    assert!(before < written && world.applied_revision() == before, "the revision is that of our own prefix");

    world.put("/instances/app/a", &own.address.to_string());
    assert_eq!(world.get_many("/", 10).from("own"), 10, "our own wins over both");
    world.elsewhere("/second/app/a", None);
    world.elsewhere("/second/app/b", Some(&second.address.to_string()));
    world.eventually("the second has left its place", || world.get_many("/", 20).from("second") > 0);
    world.elsewhere("/second/app/b", None);
    world.delete("/instances/app/a");
    world.settles("the first is uncovered", 10, || world.get_many("/", 10).from("first"));
    world.elsewhere("/first/app/a", None);
    world.settles("nobody is left", 503, || world.get("/").status);
}

#[test]
fn what_was_read_last_survives_a_restart_without_the_registry() {
    let settings = "[registry]\nsnapshot = \"registry.snapshot\"\n[proxy.shutdown]\ngrace = \"0s\"\n";
    let mut world = World::setup().config(&format!("{settings}{}", usual())).start();
    world.put("/routes/all", r#"{"service":"app"}"#);
    let one = world.upstream("one");
    world.elsewhere("/services/app/one", Some(&one.address.to_string()));
    world.settles("it is served", "one".to_owned(), || world.get("/").from().to_owned());
    world.terminate();
    world.proxy_mut().exits_within(std::time::Duration::from_secs(10));
    world.etcd_mut().kill();

    world.start_proxy_again();
    world.is_ready();
    assert_eq!(world.get("/").from(), "one");
    let said = world.status()["registry"]["sources"][0].clone();
    assert_eq!((&said["source"], &said["connected"]), (&"snapshot".into(), &false.into()), "{said}");
}

#[test]
fn the_embedded_registry_has_sources_too() {
    let world = World::setup().embedded().config(&usual()).start();
    world.put("/routes/all", r#"{"service":"app"}"#);
    let one = world.upstream("one");
    world.elsewhere("/services/app/one", Some(&format!(r#"{{"URL":"http://{}"}}"#, one.address)));
    world.settles("it is served", "one".to_owned(), || world.get("/").from().to_owned());
    world.elsewhere("/services/app/one", None);
    world.settles("it is gone", 503, || world.get("/").status);
}

fn following(sources: &[String]) -> crate::world::Setup {
    World::setup().config(&sources.concat())
}

fn usual() -> String {
    source("/services/{service}/{instance}", "")
}

fn source(keys: &str, more: &str) -> String {
    format!("[[registry.source]]\nkeys = \"{keys}\"\n{more}\n")
}

fn instance(world: &World, service: &str, id: &str) -> Value {
    let service = world.admin(format!("/api/v1/services/{service}").as_str()).json();
    let found = service["instances"].as_array().and_then(|all| all.iter().find(|instance| instance["id"] == id));
    found.cloned().unwrap_or_else(|| panic!("no instance {id} in {service}"))
}
