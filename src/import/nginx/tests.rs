//! Configurations in, routes and findings out.

use std::collections::BTreeMap;

use super::nginx;
use crate::import::{Files, Import, Source, Weight};

struct Texts(BTreeMap<&'static str, String>);

impl Files for Texts {
    fn read(&self, path: &str) -> Result<String, String> {
        self.0.get(path).cloned().ok_or_else(|| "there is no such file".to_owned())
    }

    fn fitting(&self, pattern: &str) -> Result<Vec<String>, String> {
        let start = pattern.split('*').next().unwrap_or_default();
        Ok(self.0.keys().filter(|path| path.starts_with(start)).map(|path| (*path).to_owned()).collect())
    }
}

fn import(servers: &str) -> Import {
    let files = Texts(BTreeMap::from([("/n/nginx.conf", format!("http {{ {servers} }}"))]));
    nginx(&files, "/n/nginx.conf", &[]).unwrap()
}

/// `HOST,HOST PATH SERVICE PRIORITY`, what is not said left out.
fn routes(servers: &str) -> Vec<String> {
    let show = |record: &serde_json::Value| {
        let hosts =
            record["hosts"].as_array().into_iter().flatten().filter_map(|host| host.as_str()).collect::<Vec<_>>().join(",");
        let path = ["path", "path_prefix", "path_regex"].iter().find_map(|key| Some(format!("{key}:{}", record[key].as_str()?)));
        let priority = record["priority"].as_i64().map(|n| n.to_string());
        let parts = [Some(hosts), path, record["service"].as_str().map(str::to_owned), priority];
        parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    };
    import(servers).records().iter().filter(|(noun, ..)| *noun == "route").map(|(_, _, record)| show(record)).collect()
}

fn lost(servers: &str) -> Vec<String> {
    let lost = import(servers).findings().into_iter().filter(|finding| finding.weight == Weight::Lost);
    lost.map(|finding| finding.to_string()).collect()
}

const HOST: &str = "proxy_set_header Host $host;";
const A: &str = "proxy_pass http://a:1;";

#[test]
fn what_is_plain_is_carried_over_whole() {
    let servers =
        format!("server {{ server_name a.example; {HOST} location / {{ {A} }} location = /x {{ proxy_pass http://b:1; }} }}");
    assert_eq!(routes(&servers), ["a:1", "path:/x b:1"]);
    assert_eq!(import(&servers).findings(), []);
}

#[test]
fn patterns_go_before_prefixes_and_after_those_that_stop_them() {
    let server = format!(
        "server {{ server_name a.example; location / {{ {A} }} location /p {{ {A} }} location ~ x$ {{ {A} }} location ~* y {{ {A} }}
         location ^~ /s {{ {A} }} location = /e {{ {A} }} }}
         server {{ server_name b.example; location / {{ {A} }} }}"
    );
    let expected = [
        "a:1",
        "path_prefix:/p a:1",
        "path_regex:x$ a:1 2",
        "path_regex:(?i)y a:1 1",
        "path_prefix:/s a:1 3",
        "path:/e a:1 3",
        "b.example a:1 4",
    ];
    assert_eq!(routes(&server), expected, "a narrower host stands above all of a broader one");
}

/// nginx does not go on to another server, whatever that has.
#[test]
fn a_server_without_location_for_all_lets_nobody_fall_through() {
    let servers = format!(
        "server {{ listen 80 default_server; location / {{ {A} }} }} server {{ server_name b.example; location /b {{ {A} }} }}"
    );
    assert_eq!(routes(&servers), ["a:1", "b.example path_prefix:/b a:1", "b.example held-by-import"]);
}

#[test]
fn what_keeps_out_rewrites_or_answers_is_held_shut() {
    for inside in [
        "deny all;",
        "auth_basic x;",
        "internal;",
        "auth_request /auth;",
        "limit_except GET { deny all; }",
        "if ($http_x) { return 403; }",
        "rewrite ^/x/(.*) /$1 last;",
        "rewrite ^/x/(.*) /$arg_a/$1 break;",
        "rewrite ^/x/a /b break; rewrite ^/x/(.*) /$1 break;",
        "return 200 $http_x;",
        "return 444;",
        "access_by_lua_block { ngx.exit(403) }",
        "location ~ secret { deny all; }",
    ] {
        let server = format!("server {{ location / {{ {A} }} location /x {{ {inside} {A} }} }}");
        let found = routes(&server);
        assert_eq!(found[..2], ["a:1", "path_prefix:/x held-by-import"], "{inside}");
        assert!(!lost(&server).is_empty(), "{inside}");
    }
    // Said for all, it holds for all that do not say otherwise.
    let server = format!("server {{ auth_basic x; location / {{ {A} }} location /x {{ auth_basic off; {A} }} }}");
    assert_eq!(routes(&server)[..2], ["held-by-import", "path_prefix:/x a:1"]);
    // What is said twice is not lifted by lifting one.
    let server = format!(
        "server {{ deny all; location / {{ {A} }} location /x {{ auth_basic x; location /x/y {{ auth_basic off; {A} }} }} }}"
    );
    assert!(routes(&server).iter().all(|route| !route.contains("a:1")), "{:?}", routes(&server));
    // What no route can say would be open to a broader one.
    let server = format!("server {{ location / {{ {A} }} location ~ ^/(?!public) {{ deny all; }} }}");
    assert!(routes(&server).is_empty(), "nothing of it is open: {:?}", routes(&server));
}

/// nginx decodes and merges before it looks, and takes prefixes by characters.
#[test]
fn no_other_spelling_leads_to_what_is_held_shut() {
    let server = format!(
        "server {{ location / {{ {A} }} location /admin {{ deny all; }} location /adm {{ {A} }} location /admins {{ {A} }} }}"
    );
    let spellings = "path_regex://|%(?i:2[def]|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae]) held-by-import 1";
    let expected = [
        "a:1",
        "path_prefix:/admin held-by-import",
        "path_prefix:/adm a:1",
        "path_prefix:/admins held-by-import",
        "path_regex:^/admin[^/] held-by-import 1",
        spellings,
    ];
    assert_eq!(routes(&server), expected);
    let files = format!("server {{ location / {{ {A} }} location /static/ {{ root /x; }} }}");
    assert_eq!(routes(&files).len(), 2, "files keep nobody out");
}

/// What the route of a location does, beside others, and all that was not carried over.
fn does(location: &str, inside: &str) -> (String, Vec<String>) {
    let server = format!("server {{ {HOST} location {location} {{ {inside} }} location /else {{ {A} }} }}");
    let import = import(&server);
    let (.., mut record) = import.records().into_iter().find(|(noun, ..)| *noun == "route").unwrap();
    let fields = record.as_object_mut().unwrap();
    fields.retain(|key, _| !key.starts_with("path") && key != "priority");
    (record.to_string().replace("\"service\":\"a:1\"", "a"), lost(&server))
}

#[test]
fn a_path_is_rewritten_as_nginx_does_or_not_forwarded() {
    for (location, pass, expected) in [
        ("/a/", "http://a:1/a/", "{a}"),
        ("/a/", "http://a:1$request_uri", "{a}"),
        ("= /a", "http://a:1/a", "{a}"),
        ("/a/", "http://a:1/", r#"{"rewrite":{"prefix":"/"},a}"#),
        ("/a", "http://a:1/b", r#"{"rewrite":{"prefix":"/b"},a}"#),
        ("/a/", "http://a:1/b", r#"{"rewrite":{"regex":"^/a/?","to":"/b"},a}"#),
        ("= /a", "http://a:1/b", r#"{"rewrite":{"path":"/b"},a}"#),
        ("~ ^/a/(.*)$", "http://a:1/b/$1", r#"{"rewrite":{"regex":"^/a/(.*)$","to":"/b/$1?"},a}"#),
        ("~ ^/a/(.*)$", "http://a:1/b/$1$is_args$args", r#"{"rewrite":{"regex":"^/a/(.*)$","to":"/b/$1"},a}"#),
        ("/a/", "http://$a", HELD),
        ("/a/", "http://a$x", HELD),
        ("/a/", "http://unix:/x", HELD),
        ("/a/", "http://a:1/$http_x", HELD),
        ("/a/", "http://a:1/../", HELD),
    ] {
        let (does, lost) = does(location, &format!("proxy_pass {pass};"));
        assert_eq!((&*does, lost.is_empty()), (expected, expected != HELD), "{location} {pass}: {lost:?}");
    }
    for (rewrite, expected) in [
        ("rewrite ^/a/(.*)$ /$1 break;", r#"{"rewrite":{"regex":"^/a/?(.*)$","to":"/$1"},a}"#),
        ("rewrite /x/ /y? break;", r#"{"rewrite":{"regex":"^(?s:.*?)(?:/x/)(?s:.*)$","to":"/y?"},a}"#),
        (
            "rewrite ^/a/(.*)$ /b/$1 permanent;",
            r#"{"redirect":{"status":301,"to":"{path}{?query}"},"rewrite":{"regex":"^/a/?(.*)$","to":"/b/$1"}}"#,
        ),
        (
            "rewrite ^ https://b.example$request_uri? redirect;",
            r#"{"redirect":{"status":302,"to":"https://b.example{path}{?query}"}}"#,
        ),
        ("rewrite ^ https://b.example/ permanent;", r#"{"redirect":{"status":301,"to":"https://b.example/{?query}"}}"#),
    ] {
        assert_eq!(does("/a/", &format!("{rewrite} {A}")), (expected.to_owned(), vec![]), "{rewrite}");
    }
}

const HELD: &str = r#"{"service":"held-by-import"}"#;

#[test]
fn what_a_server_rewrites_goes_before_its_locations() {
    let server = format!(
        "server {{ rewrite ^/old/(.*)$ /new/$1 permanent; rewrite ^/u/(.*)$ /users/$1 last; rewrite ^/x /y$1 last;
         location / {{ {A} }} location = /e {{ {A} }} location /users/ {{ proxy_pass http://b:1; }} location ~ z {{ {A} }} }}"
    );
    assert_eq!(
        routes(&server)[..3],
        ["path_regex:^/old/(.*)$ 5", "path_regex:^/u/(.*)$ held-by-import 4", "path_regex:^/x held-by-import 3"]
    );
    assert_eq!(lost(&server).len(), 2, "a pattern may take what they make: {:?}", lost(&server));
    let server = server.replace("location ~ z", "location /z");
    assert_eq!(
        routes(&server)[..3],
        ["path_regex:^/old/(.*)$ 3", "path_regex:^/u/(.*)$ b:1 2", "path_regex:^/x held-by-import 1"]
    );
    let records = import(&server).records();
    let (.., led) = records.iter().filter(|(noun, ..)| *noun == "route").nth(1).unwrap();
    assert_eq!(led["rewrite"].to_string(), r#"{"regex":"^/u/(.*)$","to":"/users/$1"}"#);
}

#[test]
fn fields_are_carried_over() {
    let proxy_params = "proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;";
    for (inside, expected) in [
        (proxy_params, r#"{"request_headers":{"set":{"X-Real-IP":"{client_address}"}},a}"#),
        ("proxy_set_header Host $proxy_host;", r#"{"rewrite":{"host":"a:1"},a}"#),
        ("proxy_set_header Host b.example;", r#"{"rewrite":{"host":"b.example"},a}"#),
        ("proxy_set_header Connection ''; proxy_set_header Upgrade $http_upgrade;", "{a}"),
        ("proxy_set_header Accept-Encoding '';", r#"{"request_headers":{"remove":["Accept-Encoding"]},a}"#),
        (
            "proxy_set_header X-Uri $request_uri; proxy_set_header x-uri '{b}';",
            r#"{"request_headers":{"set":{"x-uri":"{{b}"}},a}"#,
        ),
        ("proxy_set_header X-Custom $http_x_custom;", "{a}"),
        ("add_header X-Frame-Options DENY always;", r#"{"response_headers":{"add":{"X-Frame-Options":"DENY"}},a}"#),
        ("proxy_hide_header X-Powered-By;", r#"{"response_headers":{"remove":["X-Powered-By"]},a}"#),
    ] {
        assert_eq!(does("/", &format!("{inside} {A}")), (expected.to_owned(), vec![]), "{inside}");
    }
    for inside in [
        "proxy_set_header X-User $arg_user;",
        "proxy_set_header Host $arg_host;",
        "proxy_set_header Content-Length 5;",
        "add_header X-Cache $upstream_cache_status;",
        "add_header Via x;",
        "add_header Link a; add_header Link b;",
    ] {
        let (_, lost) = does("/", &format!("{inside} {A}"));
        assert_eq!(lost.len(), 1, "{inside}: {lost:?}");
    }
    // Fields of an outer block are for those that set none.
    let server =
        format!("proxy_set_header X-A 1; server {{ location / {{ {A} }} location /b {{ proxy_set_header X-B 2; {A} }} }}");
    let records = import(&server).records();
    let sets: Vec<String> =
        records.iter().filter(|(noun, ..)| *noun == "route").map(|(.., r)| r["request_headers"]["set"].to_string()).collect();
    assert_eq!(sets, [r#"{"X-A":"1"}"#, r#"{"X-B":"2"}"#]);
}

#[test]
fn answers_are_carried_over() {
    for (inside, expected) in [
        ("return 301 https://$host/new$is_args$args;", r#"{"redirect":{"status":301,"to":"https://{host}/new{?query}"}}"#),
        ("return 302 /login;", r#"{"redirect":{"status":302,"to":"/login"}}"#),
        ("return http://b.example/;", r#"{"redirect":{"status":302,"to":"http://b.example/"}}"#),
        ("return 204;", r#"{"respond":{"status":204}}"#),
        (
            "default_type application/json; return 200 '{\"ok\":1}';",
            r#"{"respond":{"body":"{\"ok\":1}","content_type":"application/json","status":200}}"#,
        ),
        (
            "add_header X-A b always; return 200 ok;",
            r#"{"respond":{"body":"ok","content_type":"text/plain","status":200},"response_headers":{"add":{"X-A":"b"}}}"#,
        ),
        ("return 404;", r#"{"respond":{"status":404}}"#),
    ] {
        assert_eq!(does("/x", inside), (expected.to_owned(), vec![]), "{inside}");
    }
    // What is refused has no other spelling, whoever says so.
    let server = format!("server {{ location / {{ {A} }} location /x {{ return 403; }} }}");
    assert_eq!(routes(&server)[1..3], ["path_prefix:/x", "path_regex:^/x[^/] held-by-import 1"]);
    // Every listener would redirect to itself.
    assert_eq!(does("/x", "return 301 https://$host$request_uri;").0, HELD);
    let away = format!(
        "server {{ server_name a.example; return 301 https://www.a.example$request_uri; }}
         server {{ server_name www.a.example; location / {{ {A} }} }} server {{ listen 81; server_name www.a.example; return 302 /; }}"
    );
    assert_eq!(routes(&away), ["", "www.a.example a:1"], "who forwards goes before who redirects the same host");
}

/// Routes hold for all listeners, so what one address alone led to would be open to everybody.
#[test]
fn what_only_this_machine_could_reach_stays_shut() {
    let servers = format!(
        "server {{ location / {{ {A} }} }} server {{ listen 127.0.0.1:81; server_name in.example; location / {{ proxy_pass http://b:1; }} }}"
    );
    assert_eq!(routes(&servers), ["a:1", "in.example held-by-import"]);
    assert!(lost(&servers).iter().any(|said| said.contains("127.0.0.1:81") && said.contains("a second process")));
    assert!(!import(&servers).file(true).contains("address = \"127.0.0.1:81\""), "its listener would lead to the other's routes");
}

#[test]
fn redirects_to_https_are_a_listeners() {
    for redirecting in [
        "return 301 https://$host$request_uri;",
        "location / { return 301 https://$host$request_uri; }",
        "if ($host = a.example) { return 301 https://$host$request_uri; } return 404;",
        "rewrite ^ https://$server_name$request_uri? permanent;",
    ] {
        let servers = format!(
            "server {{ listen 80; server_name a.example; {redirecting} }}
             server {{ listen 443 ssl; server_name a.example; ssl_certificate a.pem; ssl_certificate_key a.key; {HOST} location / {{ {A} }} }}"
        );
        let file = import(&servers).file(true);
        assert!(file.contains("redirect_to_https = 443") && file.contains("chain = \"/n/a.pem\""), "{redirecting}: {file}");
        assert_eq!((routes(&servers), lost(&servers)), (vec!["a:1".to_owned()], Vec::new()), "{redirecting}");
    }
    let elsewhere = "server { listen 80; server_name a.example b.example; return 301 https://www.a.example$request_uri; }";
    assert!(!import(elsewhere).file(true).contains("redirect_to_https"), "another host is another redirect");
}

#[test]
fn upstreams_become_services() {
    let import = import(&format!(
        "upstream a {{ hash $cookie_id; server 10.0.0.1 weight=2; server 10.0.0.2:81 backup; server 10.0.0.3 down; }}
         server {{ location / {{ proxy_pass http://a; proxy_read_timeout 5s; {HOST} }} }}"
    ));
    let records: Vec<String> = import.records().iter().map(|(noun, name, record)| format!("{noun} {name} {record}")).collect();
    assert_eq!(
        records,
        [
            r#"service a {"balance":"hash","hash_on":"cookie:id","timeouts":{"idle":"1m","response_head":"5s","upgraded_idle":"1m"}}"#,
            r#"instance a/10.0.0.1:80 {"address":"10.0.0.1:80","weight":200}"#,
            r#"instance a/10.0.0.2:81 {"address":"10.0.0.2:81","tier":1,"weight":100}"#,
            r#"instance a/10.0.0.3:80 {"address":"10.0.0.3:80","state":"maintenance","weight":100}"#,
            r#"route any-1 {"service":"a"}"#,
        ]
    );
    assert!(import.commands().contains("pointsman put instance 'a/10.0.0.2:81' -"));
}

#[test]
fn rates_become_limits_of_routes() {
    let zones = "limit_req_zone $binary_remote_addr zone=ip:10m rate=10r/s; limit_req_zone $http_x_key zone=key:1m rate=30r/m;
        limit_req_zone $request_uri zone=uri:1m rate=1r/s; limit_req_status 429;";
    let server = format!(
        "{zones} server {{ {HOST} limit_req zone=ip burst=20 nodelay; limit_req zone=key; location / {{ {A} }}
         location /key {{ limit_req zone=key; limit_req_dry_run on; {A} }} location /uri {{ limit_req zone=uri; {A} }}
         location /no {{ deny all; {A} }} }}"
    );
    let import = import(&server);
    let limits: Vec<String> = import.records().iter().map(|(.., record)| record["rate_limit"].to_string()).collect();
    let by_address = r#"{"burst":21,"by":"client_address","per":"1s","requests":10}"#;
    let by_key = r#"{"burst":1,"by":{"header":"x-key"},"dry_run":true,"per":"1m","requests":30}"#;
    let of_routes: Vec<&str> = limits.iter().map(String::as_str).filter(|limit| *limit != "null").collect();
    assert_eq!(of_routes, [by_address, by_key], "what is held shut needs none");
    let said = |weight| import.findings().into_iter().filter(|f| f.weight == weight && f.said.starts_with("limit")).count();
    assert_eq!(said(Weight::Lost), 3, "the second limit, the zone by a URI, and its use: {:?}", import.findings());
    assert_eq!(said(Weight::Differs), 4, "two zones and two limits: {:?}", import.findings());
}

#[test]
fn upstreams_that_confd_renders_keep_no_instances() {
    let nginx_conf = "http { include conf.d/*; server { location / { proxy_pass http://app; } } }".to_owned();
    let rendered = "upstream app { server 10.0.0.1:1; }".to_owned();
    let files = Texts(BTreeMap::from([("/n/nginx.conf", nginx_conf), ("/n/conf.d/app.conf", rendered)]));
    let source = Source { keys: "/s/app/{instance}".into(), service: Some("app".into()), dest: "/n/conf.d/app.conf".into() };
    let nouns = |import: Import| import.records().into_iter().map(|(noun, ..)| noun).collect::<Vec<_>>();
    assert_eq!(nouns(nginx(&files, "/n/nginx.conf", std::slice::from_ref(&source)).unwrap()), ["service", "route"]);
    assert_eq!(nouns(nginx(&files, "/n/nginx.conf", &[]).unwrap()), ["service", "instance", "route"]);
}

#[test]
fn findings_say_where_and_what_to_do() {
    let said = lost("server {\n location / {\n gzip on;\n proxy_pass http://a:1;\n frobnicate; } }");
    assert_eq!(
        said,
        [
            "/n/nginx.conf:3: not carried over: gzip on: Pointsman compresses nothing; instead: let the service compress, or whoever stands before the proxy",
            "/n/nginx.conf:5: not carried over: frobnicate: this directive is not known to the import; instead: see what it did, above all whether it kept anybody out",
        ]
    );
    let missing = nginx(&Texts(BTreeMap::new()), "/n/nginx.conf", &[]).unwrap_err();
    assert_eq!(missing.to_string(), "/n/nginx.conf: there is no such file");
}
