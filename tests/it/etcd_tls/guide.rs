//! `docs/etcd-security.md` word for word: its commands make certificates, users and roles, and each role allows what its
//! owner needs and nothing else.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{relists, trouble};
use crate::world::World;
use crate::world::etcd::Etcd;
use crate::world::program::Program;
use crate::world::vault::{Vault, said};

const GUIDE: &str = include_str!("../../../docs/etcd-security.md");

/// The blocks that begin with this, without it.
fn blocks(fence: &str) -> impl Iterator<Item = &str> {
    GUIDE.split("\n```").skip(1).step_by(2).filter_map(move |block| block.strip_prefix(fence))
}

/// With this machine in place of the guide's.
fn here(text: &str, etcd: Option<&Etcd>) -> String {
    match etcd {
        Some(etcd) => text.replace("https://10.0.0.1:2379", &etcd.url()),
        None => text.replace("IP:10.0.0.1", "IP:127.0.0.1"),
    }
}

fn shell(folder: &Path, script: &str) -> (bool, String) {
    let mut command = Command::new("bash");
    said(command.args(["-euc", script]).current_dir(folder).stdin(Stdio::null()).output().expect("bash runs"))
}

#[test]
fn each_role_of_the_guide_allows_what_is_needed_and_nothing_else() {
    let keys = tempfile::tempdir().expect("a folder");
    let folder = keys.path();
    let mut scripts = blocks("sh\n");
    let (ok, made) = shell(folder, &here(scripts.next().expect("certificates"), None));
    assert!(ok, "{made}");
    let flags = blocks("\netcd ").next().expect("the flags of etcd").split_whitespace().filter(|word| *word != "\\");
    let flags: Vec<&str> = flags.skip_while(|word| *word != "--cert-file").collect();
    let etcd = Etcd::with(folder, &flags);
    let users = here(scripts.next().expect("users and roles"), Some(&etcd));
    let (ok, made) = shell(folder, &users);
    assert!(ok && made.contains("Authentication Enabled"), "{made}");

    let config = here(blocks("\n[registry]").next().expect("a configuration"), Some(&etcd));
    let config =
        config.replace(" = \"", &format!(" = \"{}/", folder.display())).replace(&format!("{}/https", folder.display()), "https");
    let variables = here(blocks("\nexport ").next().expect("a registrar"), Some(&etcd));
    let world = World::setup().etcd(etcd).config(&format!("[registry]{config}")).start();
    assert!(!world.proxy.log().contains("Not registered"), "{}", world.proxy.log());

    let one = world.upstream("one");
    let orders = |command: &str| {
        let exports = variables.split("pointsman register").next().expect("variables");
        format!("export {exports}\nexec {} {command}", env!("CARGO_BIN_EXE_pointsman"))
    };
    let register = orders(&format!("register --service orders --id 1 --address {} --ttl 2s --drain 1s", one.address));
    let mut registrar = Program::start(Command::new("bash").args(["-euc", &register]).current_dir(folder), folder, "registrar");
    world.eventually("it is registered", || world.seen("orders", "1")["address"].is_string());

    let ops = |command: &str| {
        let exports = format!("POINTSMAN_REGISTRY_ENDPOINTS={} POINTSMAN_REGISTRY_CA=ca.pem", world.etcd().url());
        let login = "POINTSMAN_REGISTRY_USER=ops POINTSMAN_REGISTRY_PASSWORD_FILE=ops.password";
        // This etcd wants a certificate of everybody; by the password, it is `ops`.
        let shown = "POINTSMAN_REGISTRY_CERTIFICATE=orders.pem POINTSMAN_REGISTRY_KEY=orders.key";
        shell(folder, &format!("export {exports} {login} {shown}\n{} {command}", env!("CARGO_BIN_EXE_pointsman")))
    };
    fs::write(folder.join("route.json"), r#"{"service":"orders"}"#).expect("a file");
    let (ok, put) = ops("put route all route.json");
    assert!(ok, "{put}");
    world.eventually("it is used", || world.get("/").from() == "one");
    let (ok, checked) = ops("check --registry");
    assert!(ok && checked.contains("no problem"), "{checked}");

    for (command, words) in [
        ("get certificate", "ROLE read --prefix /pointsman/certificates/"),
        ("get instance cart/1", "ROLE read /pointsman/instances/cart/1"),
        ("put route other route.json", "ROLE write /pointsman/routes/other"),
        ("delete route all", "ROLE write /pointsman/routes/all"),
    ] {
        let (ok, denied) = shell(folder, &orders(command));
        assert!(!ok && denied.contains("no role of the etcd user allows this"), "{command}: {denied}");
        assert!(denied.contains(&format!("etcdctl role grant-permission {words}")), "{command}: {denied}");
    }
    let elsewhere = orders("register --service cart --id 1 --address 127.0.0.1:1 --ttl 2s");
    let cart = Program::start(Command::new("bash").args(["-euc", &elsewhere]).current_dir(folder), folder, "cart");
    world.eventually("a stranger is told", || cart.log().contains("Not registered: the key may not be read and written"));
    // As a proxy, which may read everything, write its own record and nothing else.
    for (key, is_allowed) in [("proxies/other", true), ("meta", true), ("routes/all", false), ("certificates/shop", false)] {
        let files = "--cacert ca.pem --cert proxy.pem --key proxy.key";
        let put = format!("ETCDCTL_API=3 etcdctl --endpoints {} {files} put /pointsman/{key} '{{}}'", world.etcd().url());
        assert_eq!(shell(folder, &put).0, is_allowed, "{key}");
    }

    registrar.signal(Signal::SIGTERM);
    registrar.exits_within(Duration::from_secs(10));
    world.eventually("its record goes with it", || world.seen("orders", "1").is_null());
    assert_eq!(relists(&world), 1.0);
}

#[test]
fn a_proxy_that_may_only_read_says_so_once_and_routes() {
    let vault = Vault::new();
    let etcd = vault.etcd(&["--client-cert-auth", "--trusted-ca-file", "ca.pem"]);
    vault.pair("reader", &vault.authority.vouch(&["reader"]));
    let add = [
        &["user", "add", "root", "--no-password"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "reads"],
        &["role", "grant-permission", "reads", "read", "--prefix", "/pointsman/"],
        &["user", "add", "reader", "--no-password"],
        &["user", "grant-role", "reader", "reads"],
        &["auth", "enable"],
    ];
    vault.administer(&etcd.url(), &add);
    let world = vault.setup(etcd, &[("ca", "ca.pem"), ("certificate", "reader.pem"), ("key", "reader.key")]).start();
    let _one = vault.serves(&world, "one");
    world.eventually("it says so", || world.proxy.log().contains("Not registered: the key may not be read and written"));
    let _two = vault.serves(&world, "two");
    assert_eq!(world.proxy.log().matches("Not registered").count(), 1);
    assert_eq!(trouble(&world), "");
}
