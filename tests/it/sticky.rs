//! A client comes back to the instance it has been at.

use crate::world::upstream::Upstream;
use crate::world::{Answer, Ask, World};

fn world() -> (World, [Upstream; 4]) {
    let (world, upstreams) = World::serving(["one", "two", "three", "four"]);
    world.put("/services/app", r#"{"sticky":{"cookie":"at","ttl":"1h"}}"#);
    (world, upstreams)
}

/// `at=…`, as a browser would send it back.
fn cookie(answer: &Answer) -> String {
    let (pair, attributes) = answer.field("set-cookie").split_once("; ").expect("a cookie with attributes");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Max-Age=3600");
    pair.to_owned()
}

fn with(cookie: &str) -> Ask {
    Ask::get("/").with("cookie", &format!("theme=dark; {cookie}; lang=en"))
}

/// A session that has begun: its cookie, and where it is.
fn begin<'a>(world: &World, upstreams: &'a [Upstream]) -> (String, &'a Upstream) {
    let first = world.get("/");
    let upstream = upstreams.iter().find(|u| u.name == first.from()).expect("one of ours answered");
    (cookie(&first), upstream)
}

#[test]
fn a_session_stays_where_it_began_on_every_proxy() {
    let (world, upstreams) = world();
    let (cookie, at) = begin(&world, &upstreams);
    assert_eq!(world.get_many(with(&cookie), 50).from(&at.name), 50);
    assert_eq!(world.get(with(&cookie)).field("set-cookie"), "", "it is set only when it changes");
    let shown = cookie.trim_start_matches("at=");
    assert!(!shown.contains(&at.name) && !shown.contains(&at.address.port().to_string()), "{shown}");

    let second = World::setup().endpoints(&[world.registry_url()]).start();
    assert_eq!(second.get_many(with(&cookie), 20).from(&at.name), 20);
}

#[test]
fn a_cookie_that_was_made_up_or_altered_counts_as_none() {
    let (world, upstreams) = world();
    let (cookie, _) = begin(&world, &upstreams);
    let last = if cookie.ends_with('0') { '1' } else { '0' };
    let altered = format!("{}{last}", &cookie[..cookie.len() - 1]);
    for odd in [altered.as_str(), "at=one", "at=", "at=00", &format!("at={}", "f".repeat(1000))] {
        let answer = world.get(with(odd));
        assert!(answer.status == 200 && answer.field("set-cookie").starts_with("at="), "{odd}: {answer:?}");
    }
}

#[test]
fn a_draining_instance_keeps_its_sessions_until_its_connections_are_closed() {
    let (world, upstreams) = world();
    world.put("/services/app", r#"{"sticky":{"cookie":"at","ttl":"1h"},"timeouts":{"drain":"1m"}}"#);
    let (mine, at) = begin(&world, &upstreams);
    world.put(&format!("/instances/app/{}", at.name), &format!(r#"{{"address":"{}","state":"draining"}}"#, at.address));
    assert_eq!(world.get_many(with(&mine), 20).from(&at.name), 20);
    let strangers = world.get_many("/", 40);
    assert_eq!((strangers.served(), strangers.from(&at.name)), (40, 0), "nobody new is sent there");

    world.put("/services/app", r#"{"sticky":{"cookie":"at","ttl":"1h"},"timeouts":{"drain":"1s"}}"#);
    world.eventually("the session moves", || world.get(with(&mine)).from() != at.name);
    let moved = world.get(with(&mine));
    let next = cookie(&moved);
    assert_ne!(next, mine);
    assert_eq!(world.get_many(with(&next), 20).from(moved.from()), 20);
}

#[test]
fn a_session_whose_instance_is_gone_goes_on_elsewhere_without_an_error() {
    let (world, upstreams) = world();
    let (mine, at) = begin(&world, &upstreams);
    world.delete(&format!("/instances/app/{}", at.name));
    let moved = world.get(with(&mine));
    assert!(moved.status == 200 && moved.from() != at.name);
    assert_eq!(world.get_many(with(&cookie(&moved)), 20).from(moved.from()), 20);
}

#[test]
fn a_session_whose_instance_refuses_connections_goes_on_elsewhere() {
    let (world, upstreams) = world();
    let (mine, _) = begin(&world, &upstreams);
    let at = world.get(with(&mine)).from().to_owned();
    let rest: Vec<Upstream> = upstreams.into_iter().filter(|u| u.name != at).collect();
    let moved = world.get(with(&mine));
    assert!(moved.status == 200 && rest.iter().any(|u| u.name == moved.from()), "{moved:?}");
    assert_ne!(cookie(&moved), mine);
}

#[test]
fn with_a_secret_of_their_own_proxies_need_no_common_registry() {
    let config = "[proxy]\nsticky_secret = \"correct horse battery staple\"\n";
    let worlds = [(); 2].map(|()| World::setup().config(config).start());
    let [upstream_a, upstream_b, _] = worlds[0].serve("app", ["one", "two", "three"]);
    for (name, upstream) in [("one", &upstream_a), ("two", &upstream_b)] {
        worlds[1].put(&format!("/instances/app/{name}"), &upstream.address.to_string());
    }
    worlds[1].put("/routes/app", r#"{"service":"app"}"#);
    worlds.iter().for_each(|world| {
        world.put("/services/app", r#"{"sticky":{"cookie":"at","ttl":"1h"}}"#);
    });
    let first = worlds[1].get("/");
    assert_eq!(worlds[0].get_many(with(&cookie(&first)), 20).from(first.from()), 20);
}
