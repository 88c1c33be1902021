//! From nginx and confd to Pointsman: what `docs/migrating-from-nginx-confd.md` tells, with a real nginx and a real etcd.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use http::Version;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::client::Connection;
use crate::world::ports::free_address;
use crate::world::program::Program;
use crate::world::tls::Authority;
use crate::world::{Ask, World};

/// nginx serves by what confd has rendered; Pointsman starts beside it from the very same files, answers the same, and follows
/// etcd from then on by itself.
#[test]
fn pointsman_takes_over_from_nginx_and_confd() {
    let mut world = World::new();
    let [u1, u2, o1, site] = ["u1", "u2", "o1", "site"].map(|name| world.upstream(name));
    world.elsewhere("/services/users/u1", Some(&u1.address.to_string()));
    world.elsewhere("/services/orders/o1", Some(&o1.address.to_string()));
    let old = Old::start(&world, site.address);
    let nginx = |ask: Ask| answer(&world, old.listen, ask);
    world.settles("nginx serves", "u1".to_owned(), || nginx(Ask::get("/users/x")).1);
    let before: Vec<_> = requests().into_iter().map(nginx).collect();

    let imported = world.run(&["import", "nginx", &old.file("nginx.conf"), "--confd", &old.file("confd")]);
    assert_eq!(imported.status.code(), Some(3), "one location keeps everybody out: {}", said(&imported));
    assert!(said(&imported).contains("nginx.conf:34: not carried over: deny all"), "{}", said(&imported));
    let config = heard(&imported);
    assert!(config.contains("keys = \"/services/users/{instance}\"") && !config.contains(&u1.address.to_string()), "{config}");

    // The one line that the guide changes: nginx still has its port.
    world.write_config(&config.replace(&old.listen.to_string(), &world.listen.to_string()));
    let checked = world.run(&["check", "--config", &world.config_file().to_string_lossy()]);
    assert_eq!(checked.status.code(), Some(0), "{}", heard(&checked));
    world.start_proxy_again();
    world.is_ready();
    for service in ["/users/x", "/orders/x", "/"] {
        world.settles("it is served", 200, || world.get(service).status);
    }
    let after: Vec<_> = requests().into_iter().map(|ask| answer(&world, world.listen, ask)).collect();
    for (ask, (old, new)) in requests().iter().zip(before.iter().zip(&after)) {
        assert_eq!(old, new, "{ask:?}");
    }
    // What nginx refuses reaches nobody here either.
    let asked = u1.requests();
    for spelling in ["/admin/x", "/%61dmin/x", "//admin//x", "/admin%2fx"] {
        let nginx = answer(&world, old.listen, Ask::get(spelling)).0;
        assert_eq!((nginx, world.get(spelling).status), (403, 503), "{spelling}");
    }
    assert_eq!(u1.requests(), asked);

    // Both follow the same keys: one when it is rendered and reloaded, the other by itself, without losing a request.
    let load = world.load("/users/x");
    world.elsewhere("/services/users/u2", Some(&u2.address.to_string()));
    world.eventually("the new instance is used", || u2.requests() > 0);
    assert_eq!(answer(&world, old.listen, Ask::get("/users/x")).1, "u1", "nobody has rendered anything yet");
    world.elsewhere("/services/users/u1", None);
    world.settles("the old one has left", 30, || world.get_many("/users/x", 30).from("u2"));
    old.render(&world);
    world.settles("nginx has reloaded", "u2".to_owned(), || answer(&world, old.listen, Ask::get("/users/x")).1);
    let tally = load.ends();
    tally.all_served(tally.served());
}

#[test]
fn every_sample_becomes_a_configuration_that_check_accepts() {
    for (name, confd, code) in [("debian", false, 3), ("gateway", false, 3), ("confd", true, 0)] {
        let folder = tempfile::tempdir().expect("a folder");
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/import").join(name), folder.path(), folder.path());
        let authority = Authority::new("Sample");
        for (file, host) in [("shop", "shop.example"), ("wild", "*.shop.example")] {
            let pair = authority.vouch(&[host]);
            fs::write(folder.path().join(format!("{file}.pem")), pair.chain).expect("a chain");
            fs::write(folder.path().join(format!("{file}.key")), pair.key).expect("a key");
        }
        let etc = folder.path().join("etc").to_string_lossy().into_owned();
        let conf = folder.path().join(if confd { "nginx/nginx.conf" } else { "nginx.conf" }).to_string_lossy().into_owned();
        let import = |more: &[&str]| {
            let from_confd: &[&str] = if confd { &["--confd", &etc] } else { &[] };
            pointsman(&[&["import", "nginx", &conf], from_confd, more].concat())
        };
        let imported = import(&[]);
        assert_eq!(imported.status.code(), Some(code), "{name}: {}", said(&imported));
        for print in ["file", "settings"] {
            let file = folder.path().join("pointsman.toml");
            fs::write(&file, import(&["--print", print]).stdout).expect("a configuration");
            let checked = pointsman(&["check", "--config", &file.to_string_lossy()]);
            assert_eq!(checked.status.code(), Some(0), "{name}: {}\n{}", heard(&checked), heard(&imported));
        }
        let strict = import(&["--strict"]);
        assert_eq!((strict.status.code(), heard(&strict).as_str()), (Some(3), ""), "{name} is not the same in all");
        let json: Value = serde_json::from_slice(&import(&["--json"]).stdout).expect("JSON for programs");
        let findings = json["findings"].as_array().expect("findings");
        let lost = findings.iter().filter(|finding| finding["weight"] == "not carried over");
        assert_eq!(lost.count() > 0, code == 3, "{name}");
        assert!(findings.iter().all(|f| f["line"].as_u64() > Some(0) && f["why"] != ""), "{findings:?}");
    }
}

/// The commands fill a registry by which the same requests are served.
#[test]
fn records_go_to_the_registry_and_are_served() {
    let world = World::new();
    let one = world.upstream("one");
    let conf = format!(
        r"http {{ upstream app {{ server {}; }} server {{ location ~ ^/a\.b {{ proxy_pass http://app; }} location = /it's {{ proxy_pass http://app; }} }} }}",
        one.address
    );
    fs::write(world.folder().join("nginx.conf"), conf).expect("a configuration of nginx");
    let records = world.run(&["import", "nginx", "nginx.conf", "--print", "records"]);
    assert_eq!(records.status.code(), Some(0), "{}", said(&records));
    let script = heard(&records).replace("pointsman put", &format!("{} put", env!("CARGO_BIN_EXE_pointsman")));
    fs::write(world.folder().join("records.sh"), script).expect("a script");
    let url = world.etcd().url();
    let filled = Command::new("sh").arg(world.folder().join("records.sh")).env("POINTSMAN_REGISTRY_ENDPOINTS", url).output();
    let filled = filled.expect("sh can be run");
    assert!(filled.status.success(), "{}", said(&filled));
    world.settles("they are served", [200, 200, 404], || ["/a.b", "/it's", "/axb"].map(|path| world.get(path).status));
}

#[test]
fn what_cannot_be_read_is_a_failure_that_says_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("nginx.conf");
    let path = file.to_string_lossy().into_owned();
    assert_eq!(pointsman(&["import", "nginx", &path]).status.code(), Some(1));
    fs::write(&file, "http {\n  include nowhere.conf;\n}\n").expect("a file");
    let missing = pointsman(&["import", "nginx", &path]);
    assert!(missing.status.code() == Some(1) && said(&missing).contains("nginx.conf:2:"), "{}", said(&missing));
    fs::write(&file, "http {\n  server {\n").expect("a file");
    let broken = pointsman(&["import", "nginx", &path]);
    assert!(said(&broken).contains("nginx.conf:2: this block is not closed"), "{}", said(&broken));
    assert_eq!(pointsman(&["import", "apache", &path]).status.code(), Some(2));
}

/// What there was: nginx, the files that it and confd have, and somebody who does what confd does.
struct Old {
    listen: SocketAddr,
    folder: tempfile::TempDir,
    nginx: Option<Program>,
}

impl Old {
    fn start(world: &World, site: SocketAddr) -> Self {
        let mut old = Self { listen: free_address(), folder: tempfile::tempdir().expect("a folder"), nginx: None };
        for folder in ["conf.d", "confd/conf.d", "confd/templates"] {
            fs::create_dir_all(old.folder.path().join(folder)).expect("a folder");
        }
        let etcd = world.etcd().address().to_string();
        let http = NGINX_CONF.replace("LISTEN", &old.listen.to_string()).replace("SITE", &site.to_string());
        for (name, text) in [
            ("confd/confd.toml", format!("backend = \"etcdv3\"\nnodes = [\"{etcd}\"]\n")),
            ("confd/conf.d/upstreams.toml", RESOURCE.replace("DEST", &old.file("conf.d/upstreams.conf"))),
            ("confd/templates/upstreams.tmpl", TEMPLATE.to_owned()),
        ] {
            fs::write(old.file(name), text).expect("a file of the old pair");
        }
        old.render(world);
        old.nginx = Some(world.nginx(old.folder.path(), &http, old.listen));
        old
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// As confd does: the values of the keys in place of each `range`, then a reload.
    fn render(&self, world: &World) {
        let range = regex::Regex::new(r#"(?s)\{\{range getvs "([^"]*)\*"\}\}(.*?)\{\{end\}\}"#).expect("a pattern");
        let values = |keys: &str| {
            let url = world.etcd().url();
            let out =
                Command::new("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", &url, "get", "--prefix", keys]).output();
            let out = heard(&out.expect("etcdctl can be run"));
            out.lines().skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
        };
        let rendered = range.replace_all(TEMPLATE, |found: &regex::Captures<'_>| {
            values(&found[1]).iter().map(|value| found[2].replace("{{.}}", value)).collect::<String>()
        });
        fs::write(self.file("conf.d/upstreams.conf"), &*rendered).expect("what is rendered");
        self.nginx.iter().for_each(|nginx| nginx.signal(Signal::SIGHUP));
    }
}

const NGINX_CONF: &str = r"    include conf.d/upstreams.conf;
    upstream site { server SITE; }
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Connection '';
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Asked $scheme://$host$request_uri;
    server {
        listen LISTEN default_server;
        server_name api.example;
        rewrite ^/gone-to/(.*)$ /users/$1 permanent;
        location / { proxy_pass http://site; }
        location /users/ { proxy_pass http://users; }
        location /orders/ { proxy_pass http://orders; }
        location /orders/deep/users/ { proxy_pass http://users/orders/deep/users/; }
        location = /users/exact { proxy_pass http://orders; }
        location ~ \.json$ { proxy_pass http://orders; }
        location ^~ /users/raw/ { proxy_pass http://users; }
        location /admin/ {
            deny all;
            proxy_pass http://users;
        }
        location /v2/ { proxy_pass http://orders/; }
        location = /me { proxy_pass http://users/users/seen; }
        location ~ ^/by-id/([0-9]+)$ { proxy_pass http://users/users/$1/seen; }
        location /legacy/ {
            rewrite ^/legacy/(.*)$ /orders/$1 break;
            proxy_pass http://orders;
            add_header X-Frame-Options DENY always;
            proxy_hide_header X-Instance;
        }
        location /hosted/ {
            proxy_set_header Host orders.internal;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_pass http://orders;
        }
        location = /robots.txt { return 200 'User-agent: *'; }
        location = /old { return 301 https://$host/new$is_args$args; }
        location /blocked/ { return 403; }
    }
    server {
        listen LISTEN;
        server_name shop.example *.shop.example;
        location / { proxy_pass http://orders; }
        location ~* ^/V[0-9]+/ { proxy_pass http://users; }
    }
";

const RESOURCE: &str = r#"[template]
src = "upstreams.tmpl"
dest = "DEST"
keys = ["/services/users", "/services/orders"]
reload_cmd = "nginx -s reload"
"#;

const TEMPLATE: &str = r#"upstream users {
{{range getvs "/services/users/*"}}    server {{.}};
{{end}}}
upstream orders {
{{range getvs "/services/orders/*"}}    server {{.}};
{{end}}}
"#;

/// Every kind of location and host, methods, bodies, queries and fields.
fn requests() -> Vec<Ask> {
    let paths = [
        "/",
        "/anything",
        "/users/x",
        "/users/exact",
        "/users/exact/not",
        "/users/a.json",
        "/users/raw/a.json",
        "/orders/x?y=1&z=%20",
        "/orders/deep/users/x",
        "/orders/deep/x",
        "/other.json",
        "/v1/x",
        "/users/seen?a=b",
        "/orders/status?code=404",
        "/orders/status?code=500",
        "/v2/seen?a=b",
        "/v2/a%20b/seen",
        "/me?x=1",
        "/by-id/7?x=1",
        "/by-id/x",
        "/legacy/deep/seen?q",
        "/hosted/seen",
        "/gone-to/seen?z=1",
        "/robots.txt",
        "/old?x",
        "/blocked/x",
    ];
    let hosts = ["api.example", "unknown.example", "shop.example", "www.shop.example"];
    let gets = hosts.iter().flat_map(|host| paths.iter().map(move |path| Ask::get(path).host(host)));
    let more = [
        Ask::post("/users/seen", "some body").host("api.example"),
        Ask::new("DELETE", "/orders/seen").host("api.example"),
        Ask::get("/users/seen").host("shop.example:8443").with("x-custom", "kept").with("cookie", "a=1; b=2"),
        Ask::get("/users/seen")
            .with("x-forwarded-for", "6.6.6.6")
            .with("x-forwarded-proto", "https")
            .with("x-real-ip", "6.6.6.6"),
    ];
    gets.chain(more).collect()
}

/// Status, instance, and what it said; of what an instance has seen, and of an answer's fields, what both proxies promise.
fn answer(world: &World, at: SocketAddr, ask: Ask) -> (u16, String, Value) {
    let asked = async { Connection::open(at, Version::HTTP_11).await?.ask(ask).await };
    let answer = world.handle().block_on(asked).unwrap_or_else(|error| panic!("{error}"));
    let mut said: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| answer.text().into());
    if answer.from().is_empty() && answer.status >= 300 {
        // Of their own bodies nobody promises anything.
        said = Value::Null;
    }
    if let Some(fields) = said.get_mut("fields").and_then(Value::as_array_mut) {
        let promised =
            ["host", "x-forwarded-for", "x-forwarded-proto", "x-real-ip", "x-asked", "x-custom", "cookie", "content-length"];
        fields.retain(|field| field[0].as_str().is_some_and(|name| promised.contains(&name)));
        fields.sort_by_key(ToString::to_string);
    }
    // nginx says its own address where ours is a path.
    let leads = answer.field("location");
    let leads = leads.strip_prefix("http://").and_then(|rest| rest.find('/').map(|path| &rest[path..])).unwrap_or(leads);
    let fields = [leads, answer.field("content-type"), answer.field("x-frame-options")];
    let fields = if said.is_null() { [leads, "", ""] } else { fields };
    (answer.status, answer.from().to_owned(), serde_json::json!([said, fields]))
}

/// All files, with `/etc/nginx` become the folder that they come to.
fn copy(from: &Path, to: &Path, root: &Path) {
    for entry in fs::read_dir(from).expect("a folder of the sample").flatten() {
        let (path, goal) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            fs::create_dir_all(&goal).expect("a folder");
            copy(&path, &goal, root);
        } else {
            let text = fs::read_to_string(&path).expect("a file of the sample");
            fs::write(&goal, text.replace("/etc/nginx", &root.join("nginx").to_string_lossy())).expect("a file");
        }
    }
}

fn pointsman(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pointsman")).args(args).output().expect("the built binary can be run")
}

fn heard(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}
