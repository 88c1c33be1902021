//! Whoever may write to the registry cannot turn the proxy against its own host.

use serde_json::Value;

use crate::world::World;

#[test]
fn the_registry_cannot_lead_requests_into_the_host_of_the_proxy() {
    let (world, [one]) = World::serving(["one"]);
    world.put("/routes/spy", r#"{"path_prefix":"/spy","service":"spy"}"#);
    let revision = world.put("/instances/app/one", "169.254.169.254:80");
    assert_eq!(world.get_many("/", 20).from("one"), 20, "the value before it stays in force");
    let admin_mapped = format!("[::ffff:127.0.0.1]:{}", world.admin.port());
    let probed = format!(r#"{{"address":"127.0.0.1:1","probe":{{"port":{}}}}}"#, world.listen.port());
    let refused = [
        ("metadata", "[fd00:ec2::254]:80", "metadata service"),
        ("nobody", "0.0.0.0:80", "unspecified"),
        ("admin", &world.admin.to_string(), "this proxy's own admin endpoint"),
        ("mapped", &admin_mapped, "this proxy's own admin endpoint"),
        ("registry", &world.etcd().address().to_string(), "the registry of this proxy"),
        ("circle", &world.listen.to_string(), "requests would go in circles"),
    ];
    for (id, address, _) in refused {
        world.put(&format!("/instances/spy/{id}"), address);
    }
    world.put("/instances/spy/probed", &probed);
    assert_eq!(world.get("/spy/api/v1/status").status, 503);

    let rejected = world.status()["registry"]["rejected"].clone();
    let reason = |key: &str| {
        let records = rejected.as_array().expect("a list").iter();
        let found: Vec<&Value> = records.filter(|record| record["key"] == format!("/pointsman/instances/{key}")).collect();
        found[0]["reason"].as_str().unwrap_or_default().to_owned()
    };
    assert!(reason("app/one").starts_with("address: 169.254.169.254:80 is link-local"), "{rejected}");
    for (id, _, why) in refused {
        assert!(reason(&format!("spy/{id}")).contains(why), "{id}: {rejected}");
    }
    assert_eq!(world.metric("pointsman_registry_addresses_refused_total", &[("source", "record")]), Some(8.0));
    let log = world.proxy.log();
    assert!(log.contains(&format!("/pointsman/instances/app/one (revision {revision}): address: 169.254.169.254:80")), "{log}");

    world.put("/instances/app/one", &one.address.to_string());
    let [two] = [world.upstream("two")];
    world.put("/instances/spy/admin", &two.address.to_string());
    world.settles("a good value after a bad one", "two".to_owned(), || world.get("/spy").from().to_owned());
}

#[test]
fn a_name_is_judged_by_what_it_resolves_to_and_by_the_port() {
    let world = World::new();
    world.put("/routes/spy", r#"{"service":"spy"}"#);
    world.put("/instances/spy/admin", &format!("localhost:{}", world.admin.port()));
    let instance = || world.admin("/api/v1/services/spy").json()["instances"][0].clone();
    world.eventually("it was looked up", || instance()["reason"].as_str().is_some_and(|why| why.contains("own admin endpoint")));
    assert_eq!((world.get("/").status, &instance()["eligible"]), (503, &Value::Bool(false)));
    assert_eq!(world.metric("pointsman_registry_addresses_refused_total", &[("source", "name")]), Some(1.0));
    let one = world.upstream("one");
    world.put("/instances/spy/one", &format!("localhost:{}", one.address.port()));
    world.settles("another port", "one".to_owned(), || world.get("/").from().to_owned());
}

#[test]
fn only_listed_networks_are_allowed_and_the_file_may_name_any() {
    let config = "[registry]\nallow_addresses = [\"127.0.0.2\"]\n[[service]]\nname = \"own\"\ninstances = [\"127.0.0.1:1\"]\n";
    let world = World::setup().config(config).start();
    world.put("/instances/app/a", "127.0.0.1:1");
    world.put("/instances/app/b", "127.0.0.2:1");
    let ids = |service: &str| {
        let found = world.admin(format!("/api/v1/services/{service}").as_str()).json();
        let instances = found["instances"].as_array().expect("instances").iter();
        instances.map(|i| i["id"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((ids("app"), ids("own")), (vec!["b".to_owned()], vec!["127.0.0.1:1".to_owned()]));

    let config = world.config_file();
    let out = world.run(&["check", "--registry", "--config", config.to_str().expect("a path of text")]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(!out.status.success(), "{said}");
    assert!(said.contains("/pointsman/instances/app/a (revision") && said.contains("in no network of registry.allow_addresses"));
    assert!(!said.contains("instances/app/b"), "{said}");
}
