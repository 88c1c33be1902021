//! The admin endpoint shows itself to who may see it, changes nothing, and gives no secret away.

use std::fs;
use std::time::{Duration, Instant};

use crate::world::ports::free_address;
use crate::world::program::Program;
use crate::world::tls::{Authority, curl};
use crate::world::vault::{LOGIN, PASSWORD, Vault};
use crate::world::{Ask, World};

const TOKEN: &str = "f4a1c0ffee5eed0f4a1c0ffee5eed0aa";

const PATHS: [&str; 8] = [
    "/metrics",
    "/api/v1/status",
    "/api/v1/services",
    "/api/v1/services/app",
    "/api/v1/routes",
    "/api/v1/certificates",
    "/api/v1/events",
    "/api/v1/explain?method=GET&url=http://shop.example/",
];

/// Whoever asks has to show `TOKEN`.
fn guarded(more: &str) -> World {
    let config = format!("[admin]\ntoken_file = \"token\"\n{more}");
    World::setup().embedded().config(&config).file("token", TOKEN).start()
}

fn shown(token: &str, path: &str) -> Ask {
    Ask::get(path).with("authorization", &format!("Bearer {token}"))
}

fn unauthorized(world: &World, token: &str, reason: &str) -> String {
    let text = world.admin(shown(token, "/metrics"));
    let start = format!("pointsman_admin_unauthorized_total{{reason=\"{reason}\"}} ");
    text.text().lines().find_map(|line| line.strip_prefix(&start)).unwrap_or("none").to_owned()
}

#[test]
fn an_address_that_others_reach_wants_to_know_who_asks() {
    let world = World::setup().embedded().file("token", TOKEN).file("short", "guess me").start();
    let out = world.command(&["run", "--admin", "0.0.0.0:9900"]).output().expect("the built binary can be run");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("--admin: 0.0.0.0:9900 can be reached from other machines"), "{said}");
    assert!(said.contains("name a token_file or tls.client_ca, or say insecure = true"), "{said}");

    let out = world.run(&["check", "--token-file", "short"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(!out.status.success() && said.contains("line 1 is shorter than 16 characters"), "{said}");
    assert!(!said.contains("guess me"), "{said}");

    let (listen, admin) = (free_address(), free_address());
    let everywhere = format!("0.0.0.0:{}", admin.port());
    let args = ["run", "--listen", &listen.to_string(), "--admin", &everywhere, "--token-file", "token"];
    let _far = Program::start(&mut world.command(&args), &world.folder(), "far");
    let status = |args: &[&str]| {
        let out = world.command(&[&["status", "--admin", &admin.to_string()], args].concat()).output();
        let out = out.expect("the built binary can be run");
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    world.eventually("it can be asked with its token", || status(&["--token-file", "token"]).0);
    let (ok, said) = status(&[]);
    assert!(!ok && said.contains("wants to be shown a token: name its file with --token-file"), "{said}");
    fs::write(world.folder().join("other"), "0123456789abcdef0123").expect("a file");
    let (ok, said) = status(&["--token-file", "other"]);
    assert!(!ok && said.contains("does not take this token"), "{said}");
}

#[test]
fn what_is_not_open_wants_a_token_and_wrong_ones_are_counted_and_slow() {
    let world = guarded("");
    for path in ["/", "/livez", "/readyz"] {
        assert_eq!(world.admin(path).status, 200, "{path} is open");
    }
    for path in PATHS {
        let answer = world.admin(path);
        assert_eq!((answer.status, answer.field("www-authenticate")), (401, "Bearer"), "{path}");
        assert_eq!(answer.json()["error"], "unauthorized");
        assert_ne!(world.admin(shown(TOKEN, path)).status, 401, "{path}");
    }
    assert_eq!(unauthorized(&world, TOKEN, "missing"), PATHS.len().to_string());
    let began = Instant::now();
    for wrong in ["f4a1c0ffee5eed0f4a1c0ffee5eed0ab", "", "f4a1"] {
        assert_eq!(world.admin(shown(wrong, "/api/v1/status")).status, 401);
    }
    assert!(began.elapsed() > Duration::from_secs(1), "three guesses took {:?}", began.elapsed());
    assert_eq!(unauthorized(&world, TOKEN, "wrong"), "3");
    assert!(world.proxy.log().contains("A wrong token was shown at the admin endpoint"));

    let next = "0123456789abcdef0123456789abcdef";
    fs::write(world.folder().join("token"), format!("{next}\n{TOKEN}\n")).expect("both tokens");
    for token in [next, TOKEN] {
        assert_eq!(world.admin(shown(token, "/api/v1/status")).status, 200, "one after the other, without a restart");
    }
    fs::write(world.folder().join("token"), next).expect("the new token");
    assert_eq!(world.admin(shown(TOKEN, "/api/v1/status")).status, 401);
    assert_eq!(world.admin(shown(next, "/api/v1/status")).status, 200);

    let open = guarded("open_metrics = true\n");
    assert_eq!((open.admin("/metrics").status, open.admin("/api/v1/status").status), (200, 401));
}

#[test]
fn a_client_certificate_does_what_a_token_does() {
    let world = World::setup().embedded().start();
    let (authority, stranger, admin) = (Authority::new("Ops"), Authority::new("Nobody"), free_address());
    let folder = world.folder();
    fs::write(folder.join("ca.pem"), &authority.pem).expect("a file");
    authority.vouch(&["localhost"]).write(&folder, "admin");
    authority.vouch(&["ops"]).write(&folder, "ops");
    stranger.vouch(&["ops"]).write(&folder, "stranger");
    let tls = r#"{ certificate = "admin.pem", key = "admin.key", client_ca = "ca.pem" }"#;
    fs::write(folder.join("far.toml"), format!("[admin]\ntls = {tls}\n")).expect("a file");
    let (listen, address) = (free_address().to_string(), admin.to_string());
    let args = ["run", "--config", "far.toml", "--listen", &listen, "--admin", &address];
    let _far = Program::start(&mut world.command(&args), &folder, "far");
    let ask = |path: &str, args: &[&str]| curl(&folder, admin, "localhost", path, args).status;
    world.settles("it is ready", 200, || ask("/readyz", &[]));
    assert_eq!(ask("/api/v1/status", &[]), 401);
    assert_eq!(ask("/api/v1/status", &["--cert", "ops.pem", "--key", "ops.key"]), 200);
    assert_eq!(ask("/livez", &["--cert", "stranger.pem", "--key", "stranger.key"]), 0, "no handshake");
    let told = |args: &[&str]| {
        let mut command = world.command(&[&["status"], args].concat());
        let out = command.env("POINTSMAN_ADMIN_ADDRESS", &address).output().expect("the built binary can be run");
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (url, ops) =
        (format!("https://localhost:{}", admin.port()), ["--admin-certificate", "ops.pem", "--admin-key", "ops.key"]);
    let named = ["--admin", &url, "--admin-ca", "ca.pem"];
    assert_eq!(told(&[&named[..], &ops].concat()), (true, String::new()));
    assert!(told(&named).1.contains("wants to be shown a token"), "nothing was shown: {:?}", told(&named));
    let (_, unknown) = told(&["--admin", &url]);
    assert!(unknown.contains("no TLS with it: invalid peer certificate: UnknownIssuer"), "{unknown}");
    assert!(told(&[&["--config", "far.toml"], &ops[..]].concat()).0, "the proxy's own file says which certificate it has");
    stranger.vouch(&["localhost"]).write(&folder, "admin");
    assert_eq!(ask("/livez", &[]), 0, "another certificate is served, which nobody here vouches for");
    authority.vouch(&["localhost"]).write(&folder, "admin");
    fs::write(folder.join("admin.key"), "no key").expect("a file");
    assert_eq!(ask("/livez", &[]), 0, "what was not good has changed nothing");
    authority.vouch(&["localhost"]).write(&folder, "admin");
    assert_eq!(ask("/livez", &[]), 200);
}

#[test]
fn nothing_can_be_changed_there() {
    let world = guarded("");
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        for path in PATHS {
            let ask = Ask::new(method, path).with("authorization", &format!("Bearer {TOKEN}"));
            assert_eq!(world.admin(ask).status, 405, "{method} {path}");
        }
    }
}

/// A secret of each sort, and every way to ask.
#[test]
fn no_answer_no_command_and_no_log_has_a_secret_in_it() {
    let (sticky, key) = ("sticky-5eed-0000-0000", "S2V5T2ZUaGVDZXJ0aWZpY2F0ZQ==");
    let config = format!(
        "[admin]\ntoken_file = \"token\"\n[proxy]\nsticky_secret = \"{sticky}\"\n[log]\nfilter = \"debug\"\n\
         [[service]]\nname = \"file\"\ninstances = [\"127.0.0.1:1\"]\nsticky = {{ cookie = \"at\" }}\n"
    );
    let world = World::setup().config(&config).file("token", TOKEN).start();
    let one = world.upstream("one");
    let pem = |kind: &str, body: &str| format!("-----BEGIN {kind}-----\\n{body}\\n-----END {kind}-----\\n");
    let (chain, private) = (pem("CERTIFICATE", "AAAA"), pem("PRIVATE KEY", key));
    let certificate = format!(r#"{{"chain":"{chain}","key":"{private}"}}"#);
    let broken = format!(r#"{{"chain":"{private}","key":7,"kye":"{private}"}}"#);
    world.tell(&[
        ("/certificates/shop".to_owned(), Some(certificate)),
        ("/certificates/broken".to_owned(), Some(broken)),
        ("/instances/app/one".to_owned(), Some(one.address.to_string())),
        ("/services/app".to_owned(), Some(r#"{"sticky":{"cookie":"at"}}"#.to_owned())),
        ("/routes/app".to_owned(), Some(r#"{"service":"app"}"#.to_owned())),
    ]);
    world.eventually("it is served", || world.get("/").status == 200);
    assert_eq!(world.admin(shown("0123-a-wrong-token-4567", "/api/v1/status")).status, 401);

    let mut said = vec![("the log", world.proxy.log()), ("the access log", world.proxy.out())];
    for path in PATHS.into_iter().chain(["/", "/livez", "/readyz", "/api/v1/services/file", "/nothing"]) {
        said.push((path, world.admin(shown(TOKEN, path)).text().to_owned()));
    }
    for args in [
        &["get", "certificate"][..],
        &["get", "certificate", "shop"],
        &["get", "certificate", "shop", "--json"],
        &["get", "certificate", "broken"],
        &["get", "certificate", "--json"],
        &["check", "--registry"],
        &["check", "--registry", "--json"],
        &["status", "--token-file", "token"],
        &["explain", "GET", "http://shop.example/", "--token-file", "token"],
    ] {
        let out = world.command(args).arg("--config").arg(world.config_file()).output().expect("the built binary can be run");
        let text = [out.stdout, out.stderr].concat();
        said.push((args[0], String::from_utf8_lossy(&text).into_owned()));
    }

    // The registry's own: a password, with the user logged in and refused, and the key of a client certificate.
    let vault = Vault::new();
    let etcd = vault.etcd_with_users(&[]);
    let login = [&LOGIN[..], &[("certificate", "root.pem"), ("key", "root.key")]].concat();
    let config = format!("[log]\nfilter = \"trace\"\n{}", vault.section(&login));
    let mut world = World::setup().config(&config).etcd(etcd).start();
    let client_key = fs::read_to_string(vault.path("root.key")).expect("a key");
    let client_key = client_key.lines().nth(1).expect("a line of it").to_owned();
    for args in [&["get", "route"][..], &["check", "--registry"], &["check", "--registry", "--json"]] {
        said.push((args[0], vault.said(&world, args, &login).1));
    }
    vault.administer(&world.etcd().url(), &[&["user", "delete", "proxy"]]);
    world.etcd_mut().kill();
    world.etcd_mut().start_again();
    world.eventually("it is refused", || world.proxy.log().contains("the user or the password is wrong"));
    said.push(("the command refused", vault.said(&world, &["get", "route"], &login).1));
    said.push(("the log", world.proxy.log()));
    said.push(("the status", world.admin("/api/v1/status").text().to_owned()));
    for (from, text) in said {
        assert!(!text.is_empty() || from == "the access log", "{from} said nothing");
        for secret in [TOKEN, sticky, PASSWORD, &client_key, key, "0123-a-wrong-token-4567"] {
            assert!(!text.contains(secret), "{secret} stands in {from}:\n{text}");
        }
    }
}
