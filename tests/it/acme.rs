//! Certificates ordered from pebble, a real ACME directory, by proxies that share a registry.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::pebble::{Habits, Pebble};
use crate::world::ports::free_address;
use crate::world::program::Program;
use crate::world::tls::{curl, s_client};
use crate::world::{Setup, World};

/// `[acme]` for this directory, and these lines more.
fn acme(pebble: &Pebble, lines: &str) -> String {
    format!(
        "[acme]\ndirectory = '{}'\nca_file = 'directory.pem'\nterms_agreed = true\nemail = 'ops@shop.example'\n{lines}\n",
        pebble.url()
    )
}

/// A listener for plain HTTP that sends everybody to the one with TLS.
fn listeners(http: SocketAddr, tls: SocketAddr) -> String {
    format!(
        "[[listener]]\naddress = 'LISTEN'\n[[listener]]\naddress = '{http}'\nredirect_to_https = {}\n\
         [[listener]]\naddress = '{tls}'\n[listener.tls]\n",
        tls.port()
    )
}

fn files(setup: Setup, pebble: &Pebble) -> Setup {
    setup.file("directory.pem", &pebble.ca).file("ca.pem", &pebble.root())
}

/// Directories, proxies and leases take their time, and longer on a busy machine.
fn patiently<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, mut now: impl FnMut() -> T) {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let found = now();
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: still {found:?}, not {expected:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn orders(world: &World) -> Vec<Value> {
    world.admin("/api/v1/certificates").json()["acme"]["orders"].as_array().cloned().unwrap_or_default()
}

/// The states of all orders, in words.
fn states(world: &World) -> Vec<String> {
    orders(world).iter().map(|order| format!("{} {}", order["name"], order["state"]).replace('"', "")).collect()
}

/// What a client sees that asks for this name, and trusts nobody but pebble's root.
fn is_served(world: &World, tls: SocketAddr, name: &str) -> bool {
    curl(&world.folder(), tls, name, "/seen", &[]).status == 200
}

/// Another proxy of the same registry that orders certificates, too.
struct Other {
    program: Program,
    admin: SocketAddr,
}

impl Other {
    fn start(world: &World, pebble: &Pebble, lines: &str) -> Self {
        let [listen, tls, admin] = [(); 3].map(|()| free_address());
        let config = format!(
            "[[listener]]\naddress = '{listen}'\n[[listener]]\naddress = '{tls}'\n[listener.tls]\n{}",
            acme(pebble, lines)
        );
        let name = format!("other-{}", listen.port());
        std::fs::write(world.folder().join(format!("{name}.toml")), config).expect("its configuration");
        let args = ["run", "--config", &format!("{name}.toml"), "--admin", &admin.to_string()];
        let program = Program::start(&mut world.command(&args), &world.folder(), &name);
        Self { program, admin }
    }
}

#[test]
fn a_certificate_is_ordered_by_http_01_and_served_by_its_name() {
    let [http, tls] = [(); 2].map(|()| free_address());
    let pebble = Pebble::start(http, tls, &Habits::default());
    let lines = "domains = ['shop.example']\n[[acme.certificate]]\nname = 'blog'\ndomains = ['blog.example', 'www.blog.example']";
    let config = listeners(http, tls) + &acme(&pebble, lines);
    let world = files(World::setup().config(&config), &pebble).start();
    let _app = world.serve("app", ["one"]);
    patiently("both orders", vec!["blog issued".to_owned(), "shop.example issued".to_owned()], || states(&world));
    for name in ["shop.example", "blog.example", "www.blog.example"] {
        patiently(name, true, || is_served(&world, tls, name));
    }
    assert_eq!(world.metric("pointsman_acme_renewer", &[]), Some(1.0));
    assert_eq!(world.metric("pointsman_acme_orders_total", &[("result", "issued")]), Some(2.0));
    assert!(world.metric("pointsman_acme_challenges_total", &[("kind", "http-01")]) >= Some(3.0));
    assert_eq!(pebble.n_issued(), 2);
    // The order is over, and nothing is left of its challenges.
    let path = "/.well-known/acme-challenge/some-token";
    assert_eq!(world.get_at(http, path).map(|answer| answer.status), Ok(308));
    let events = world.admin("/api/v1/events").text().to_owned();
    assert!(events.contains("acme_issued") && events.contains("certificate_set"), "{events}");
    // What was made nobody sees.
    let shown = String::from_utf8(world.run(&["get", "certificate", "acme:blog"]).stdout).expect("text");
    assert!(shown.contains("BEGIN CERTIFICATE"), "{shown}");
    let checked = String::from_utf8(world.run(&["check", "--registry", "--config", "pointsman.toml"]).stdout).expect("text");
    assert!(!checked.contains("problem:"), "{checked}");
    let log = world.proxy.log();
    assert!(log.contains("Certificate issued") && log.contains("Registered with the ACME directory"), "{log}");
    for said in [shown, events, log, world.admin("/api/v1/certificates").text().to_owned()] {
        assert!(!said.contains("PRIVATE") && !said.contains("key_pkcs8"), "{said}");
    }
}

#[test]
fn tls_alpn_01_is_answered_where_clients_need_certificates_and_the_registry_is_inside() {
    let [http, tls, open] = [(); 3].map(|()| free_address());
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = Pebble::start(http, tls, &Habits { external: vec![("kid-1", key)], ..Habits::default() });
    let lines =
        "domains = ['shop.example']\nchallenge = 'tls-alpn-01'\nexternal_account = { id = 'kid-1', key_file = 'eab.key' }";
    let config = format!(
        "[[listener]]\naddress = 'LISTEN'\n[[listener]]\naddress = '{open}'\n[listener.tls]\n[[listener]]\naddress = '{tls}'\n\
         [listener.tls]\nclient_auth = 'require'\nclient_ca = 'directory.pem'\n{}",
        acme(&pebble, lines)
    );
    let world = files(World::setup().embedded().config(&config).file("eab.key", key), &pebble).start();
    let _app = world.serve("app", ["one"]);
    patiently("the order", vec!["shop.example issued".to_owned()], || states(&world));
    patiently("the certificate", true, || is_served(&world, open, "shop.example"));
    let n_answered = world.metric("pointsman_acme_challenges_total", &[("kind", "tls-alpn-01")]);
    assert!(n_answered >= Some(1.0));
    assert_eq!(world.metric("pointsman_tls_handshakes_total", &[("result", "proved")]), n_answered);
    // Without a challenge nobody speaks its protocol, and who has no certificate is still refused.
    let seen = s_client(&world.folder(), open, "shop.example", &["-alpn", "acme-tls/1"]);
    assert!(seen.0.contains("no application protocol"), "{}", seen.0);
    assert_ne!(curl(&world.folder(), tls, "shop.example", "/seen", &[]).status, 200);
}

#[test]
fn one_proxy_orders_for_all_and_another_one_goes_on_when_it_is_killed() {
    let [http, tls] = [(); 2].map(|()| free_address());
    let pebble = Pebble::start(http, tls, &Habits { validity: Some(120), ..Habits::default() });
    // The proxy that the directory meets orders nothing itself.
    let world = files(World::setup().config(&listeners(http, tls)), &pebble).start();
    let _app = world.serve("app", ["one"]);
    let lines = "domains = ['shop.example']\nrenew_after = 8";
    let mut others = [(); 2].map(|()| Other::start(&world, &pebble, lines));
    patiently("the certificate", true, || is_served(&world, tls, "shop.example"));
    let issued =
        |other: &Other| world.metric_at(other.admin, "pointsman_acme_orders_total", &[("result", "issued")]).unwrap_or_default();
    let is_renewer = |other: &Other| world.metric_at(other.admin, "pointsman_acme_renewer", &[]) == Some(1.0);
    // It is renewed while it is good, each time by one of them.
    patiently("a second order", true, || pebble.n_issued() >= 2);
    patiently("each order is one proxy's", true, || others.iter().map(issued).sum::<f64>() == pebble.n_issued() as f64);
    patiently("one renewer", true, || others.iter().filter(|other| is_renewer(other)).count() == 1);
    let (first, second) = if is_renewer(&others[0]) { (0, 1) } else { (1, 0) };
    let before = issued(&others[second]);
    others[first].program.kill();
    patiently("an order of the other one", true, || issued(&others[second]) > before);
    assert!(is_renewer(&others[second]) && is_served(&world, tls, "shop.example"));
    // The proxy that was asked ordered none.
    assert!(world.metric("pointsman_acme_challenges_total", &[("kind", "http-01")]) >= Some(3.0));
    assert_eq!(world.metric("pointsman_acme_orders_total", &[]), None);
    // Whoever orders does it as the account that the first one registered.
    let n_registered = |other: &Other| other.program.log().matches("Registered with the ACME directory").count();
    assert_eq!(others.iter().map(n_registered).sum::<usize>(), 1);
}

#[test]
fn a_refused_order_says_why_waits_longer_each_time_and_succeeds_in_the_end() {
    let [http, tls] = [(); 2].map(|()| free_address());
    let pebble = Pebble::start(http, tls, &Habits::default());
    // Nobody is where the directory looks.
    let config = format!(
        "[[listener]]\naddress = 'LISTEN'\n[[listener]]\naddress = '{tls}'\n[listener.tls]\n{}",
        acme(&pebble, "domains = ['shop.example']\nretry = '1s'")
    );
    let world = files(World::setup().config(&config), &pebble).start();
    let failures = || world.metric("pointsman_acme_failures", &[("name", "shop.example")]).unwrap_or_default();
    let mut order = Value::Null;
    patiently("two failures", true, || {
        order = orders(&world).into_iter().next().unwrap_or_default();
        order["state"] == "failed" && order["failed"].as_u64() >= Some(2)
    });
    let error = order["error"].as_str().unwrap_or_default();
    assert!(error.contains("shop.example: urn:ietf:params:acme:error:connection: "), "{order}");
    assert!(order["next"].as_str() > order["at"].as_str(), "{order}");
    assert!(world.proxy.log().contains("A certificate could not be ordered"), "{}", world.proxy.log_tail());
    assert!(world.admin("/api/v1/events").text().contains("acme_failed"));
    // Somebody is there now: any proxy of the registry will do.
    let [listen, admin] = [(); 2].map(|()| free_address());
    let args = ["run", "--listen", &listen.to_string(), "--listen", &http.to_string(), "--admin", &admin.to_string()];
    let _other = Program::start(&mut world.command(&args), &world.folder(), "other");
    patiently("the order", vec!["shop.example issued".to_owned()], || states(&world));
    assert_eq!(failures(), 0.0);
    assert!(world.metric("pointsman_acme_orders_total", &[("result", "failed")]) >= Some(2.0));
}
