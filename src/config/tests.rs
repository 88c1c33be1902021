//! What is said in files, variables and flags, and what becomes of it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{Address, InstanceSpec, PathMatch, ServicePolicy};

use super::*;
use crate::tls::samples::Sample;

/// A file of this text, in a directory of its own that lives as long as this.
struct Told {
    _directory: tempfile::TempDir,
    layers: Layers,
}

fn told(text: &str) -> Told {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pointsman.toml");
    std::fs::write(&file, text).unwrap();
    let variables = vec![("HOME".to_owned(), "/home/me".to_owned())];
    Told { layers: Layers { file: Some(file), variables, flags: Flags::default() }, _directory: directory }
}

impl Told {
    fn variable(mut self, name: &str, value: &str) -> Self {
        self.layers.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn flags(mut self, flags: Flags) -> Self {
        self.layers.flags = flags;
        self
    }

    #[track_caller]
    fn config(&self) -> Config {
        let (config, warnings) = load(&self.layers).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(warnings.is_empty(), "{warnings}");
        config
    }

    /// Without the directory, which differs each time.
    fn shown(&self, problems: &Problems) -> Vec<String> {
        let directory = format!("{}/", self._directory.path().display());
        problems.lines().map(|line| line.replace(&directory, "")).collect()
    }

    #[track_caller]
    fn problems(&self) -> Vec<String> {
        self.shown(&load(&self.layers).expect_err("nothing was wrong"))
    }

    #[track_caller]
    fn warnings(&self) -> Vec<String> {
        self.shown(&load(&self.layers).unwrap_or_else(|problems| panic!("{problems}")).1)
    }
}

#[test]
fn nothing_said_means_the_defaults_of_the_contract() {
    let (config, warnings) = load(&Layers::default()).unwrap();
    assert_eq!(config.listeners, [Listener::plain("0.0.0.0:8080".parse().unwrap())]);
    assert_eq!(config.admin, AdminConfig { address: "127.0.0.1:9900".parse().unwrap(), ..AdminConfig::default() });
    assert_eq!((config.registry.prefix.as_str(), &config.registry.snapshot), ("/pointsman", &None));
    assert_eq!(config.registry.kind, RegistryKind::Embedded(EmbeddedConfig::default()));
    assert_eq!(
        (config.proxy.limits.clone(), config.proxy.shutdown.clone()),
        (ClientLimits::default(), ShutdownConfig::default())
    );
    assert!(config.proxy.workers >= 1);
    assert_eq!(config.log, LogConfig::default());
    // Without a home there is nowhere to keep anything, which is worth a word.
    assert_eq!(warnings.list.len(), 1);
    assert!(warnings.to_string().starts_with("registry.data: is not said"), "{warnings}");
}

#[test]
fn the_file_of_the_contract_reads() {
    let config = told(
        r#"
        [[listener]]
        address = "0.0.0.0:8080"
        [[listener]]
        address = "[::1]:8443"
        [registry]
        kind = "etcd"
        endpoints = ["http://127.0.0.1:2379/"]
        prefix = "/pointsman/"
        snapshot = "registry.snapshot"
        [admin]
        address = "127.0.0.1:9900"
        [proxy]
        trusted_proxies = ["10.0.0.0/8"]
        workers = 3
        limits = { head_timeout = "3s", head_size = "64KiB" }
        [[route]]
        hosts = ["shop.example"]
        path_prefix = "/api"
        service = "api"
        [[route]]
        name = "rest"
        service = "api"
        [[service]]
        name = "api"
        instances = ["127.0.0.1:3000", "[::1]:3000", { address = "a.example:80", weight = 5 }]
        [[service]]
        name = "slow"
        balance = "least_conn"
        [service.timeouts]
        idle = "1m"
        "#,
    );
    let directory = config._directory.path().to_owned();
    let config = config.config();
    assert_eq!(config.listeners.iter().map(|l| l.address.to_string()).collect::<Vec<_>>(), ["0.0.0.0:8080", "[::1]:8443"]);
    let RegistryKind::Etcd(etcd) = &config.registry.kind else { panic!("{:?}", config.registry) };
    assert_eq!(
        (etcd.endpoints.as_slice(), config.registry.prefix.as_str()),
        (&["http://127.0.0.1:2379".to_owned()][..], "/pointsman")
    );
    assert_eq!(config.registry.snapshot, Some(directory.join("registry.snapshot")));
    assert_eq!((config.proxy.workers, config.proxy.limits.head_timeout), (3, Duration::from_secs(3)));
    assert_eq!((config.proxy.limits.head_size, config.proxy.limits.fields), (64 * 1024, 100));
    let names: Vec<_> = config.routes.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["file-1", "rest"]);
    assert_eq!(config.routes[0].path, PathMatch::Prefix("/api".into()));

    let api = &config.services["api"];
    assert_eq!(api.policy, None);
    assert_eq!(api.instances.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["127.0.0.1:3000", "::1:3000", "a.example:80"]);
    assert_eq!(api.instances["::1:3000"], InstanceSpec::at(Address::parse("[::1]:3000").unwrap()));
    assert_eq!(api.instances["a.example:80"].weight, 5);
    let mut policy = ServicePolicy { balance: crate::model::Balance::LeastConn, ..Default::default() };
    policy.timeouts.idle = Duration::from_secs(60);
    assert_eq!((config.services["slow"].policy.as_ref(), config.services["slow"].instances.len()), (Some(&policy), 0));
}

#[test]
fn every_problem_is_named_at_once_with_its_line() {
    let told = told(
        "[[listener]]\naddress = ':8080'\ntsl = 1\n[proxy]\nworkers = 'four'\n[proxy.limits]\nhead_tiemout = '5s'\n\
         [[route]]\nservice = 'a b'\n[[route]]\nhosts = [\n  'ok.example',\n  'http://a',\n]\n[[service]]\nname = 'a'\n\
         [service.probe]\ninterval = '1s'\n[log]\nformat = 'jsn'\nfilter = 'a=b=c'\n",
    );
    assert_eq!(
        told.problems(),
        [
            "pointsman.toml:2: listener[0].address: \":8080\" is not an address to listen on: write \"0.0.0.0:8080\" for all of IPv4, \
             \"[::]:8080\" for all, or \"127.0.0.1:8080\"",
            "pointsman.toml:3: listener[0].tsl: unknown key; did you mean \"tls\"?",
            "pointsman.toml:5: proxy.workers: \"four\" is not a number in 0..=1024",
            "pointsman.toml:7: proxy.limits.head_tiemout: unknown key; did you mean \"head_timeout\"?",
            "pointsman.toml:9: route[0].service: \"a b\": the name has ' ' at position 1; only [A-Za-z0-9._:@+-] are allowed",
            "pointsman.toml:10: route[1].service: is missing; a route has exactly one of service, redirect and respond",
            "pointsman.toml:13: route[1].hosts[1]: \"http://a\": a host is a DNS name or an IP address, without scheme, port or path",
            "pointsman.toml:17: service[0].probe.timeout: 2s is not shorter than the interval, 1s",
            "pointsman.toml:20: log.format: \"jsn\" is not one of text, json; did you mean \"json\"?",
            "pointsman.toml:21: log.filter: \"a=b=c\" is not a filter such as \"info\" or \"warn,pointsman::registry=debug\": \
             error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a \
             number 0-5",
        ]
    );
}

#[test]
fn a_file_that_is_no_toml_or_is_not_there_says_so() {
    let wrong = told("[proxy\nworkers = 1\n").problems();
    assert!(wrong[0].starts_with("pointsman.toml:1: "), "{wrong:?}");
    let mut missing = told("");
    missing.layers.file = Some(PathBuf::from("/nowhere/pointsman.toml"));
    assert_eq!(missing.problems(), ["/nowhere/pointsman.toml: No such file or directory (os error 2)"]);
}

#[test]
fn the_later_layer_wins_and_is_named_when_it_is_wrong() {
    let file =
        "[[listener]]\naddress = '127.0.0.1:1'\n[proxy]\nworkers = 2\n[proxy.limits]\nfields = 50\n[log]\nformat = 'json'\n";
    let flags = Flags {
        listen: vec!["127.0.0.1:3".into(), "127.0.0.1:4".into()],
        admin: Some("127.0.0.1:5".into()),
        log_filter: Some("debug".into()),
        ..Flags::default()
    };
    let told_all = told(file)
        .variable("POINTSMAN_LISTEN", "127.0.0.1:2")
        .variable("POINTSMAN_PROXY_WORKERS", "4")
        .variable("POINTSMAN_PROXY_LIMITS_HEAD_TIMEOUT", "7s")
        .variable("POINTSMAN_PROXY_TRUSTED_PROXIES", "10.0.0.0/8, ::1,")
        .variable("POINTSMAN_LOG_ACCESS_ENABLED", "false")
        .variable("POINTSMAN_ADMIN_ADDRESS", "127.0.0.1:6");
    let config = told_all.config();
    assert_eq!(config.listeners[0].address.port(), 2);
    assert_eq!((config.proxy.workers, config.proxy.limits.fields), (4, 50));
    assert_eq!((config.proxy.limits.head_timeout, config.proxy.trusted_proxies.len()), (Duration::from_secs(7), 2));
    assert_eq!((config.log.format, config.log.access.is_none(), config.admin.address.port()), (LogFormat::Json, true, 6));

    let config = told_all.flags(flags).config();
    assert_eq!(config.listeners.iter().map(|l| l.address.port()).collect::<Vec<_>>(), [3, 4]);
    assert_eq!((config.admin.address.port(), config.log.filter.as_str()), (5, "debug"));

    let wrong =
        told("").variable("POINTSMAN_PROXY_WORKERS", "four").flags(Flags { listen: vec!["x".into()], ..Flags::default() });
    assert_eq!(
        wrong.problems(),
        [
            "--listen: \"x\" is not an address to listen on: it is IP:PORT, as in \"0.0.0.0:8080\" or \"[::]:8080\"",
            "POINTSMAN_PROXY_WORKERS: \"four\" is not a number in 0..=1024",
        ]
    );
}

#[test]
fn a_variable_that_sets_nothing_is_odd_but_those_of_others_are_not() {
    let told = told("")
        .variable("POINTSMAN_PROXY_WORKER", "4")
        .variable("POINTSMAN_REGISTY_ENDPOINTS", "http://a:1")
        .variable("POINTSMAN_COLOUR", "red")
        .variable("POINTSMAN_CONFIG", "x.toml")
        .variable("POINTSMAN_SERVICE_HOST", "10.0.0.1")
        .variable("POINTSMAN_PORT_8080_TCP", "tcp://10.0.0.1:8080");
    assert_eq!(
        told.warnings(),
        [
            "POINTSMAN_REGISTY_ENDPOINTS: no setting has this name; did you mean POINTSMAN_REGISTRY_ENDPOINTS?",
            "POINTSMAN_COLOUR: no setting has this name",
            "POINTSMAN_PROXY_WORKER: no setting has this name; did you mean POINTSMAN_PROXY_WORKERS?",
        ]
    );
}

#[test]
fn sources_are_patterns_of_keys_in_the_order_of_the_file() {
    let told = told(
        "[registry]\nprefix = '/p'\n[[registry.source]]\nkeys = '/services/{service}/{instance}'\n\
         [[registry.source]]\nkeys = 'greeter/{instance}'\nservice = 'greeter'\n",
    );
    let sources: Vec<String> = told.config().registry.sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["/services/{service}/{instance}", "greeter/{instance}"]);
    assert_eq!(told.config().registry.sources[1].find("greeter/10.0.0.1:80"), Some(("greeter", "10.0.0.1:80")));
}

#[test]
fn no_two_readers_share_a_key() {
    let source = |keys: &str| format!("[[registry.source]]\nkeys = '{keys}'\n");
    let told = told(
        &[
            source("/services/{service}/{instance}"),
            source("/services/web/{service}/{instance}"),
            source("/pointsman/instances/{service}/{instance}"),
            source("/{service}/{instance}"),
            source("/pointsmen/{service}/{instance}"),
            source("/hosts/{instance}"),
            source("/named/{service}/{instance}") + "service = 'named'\n",
            "[[registry.source]]\nkey = '/a/{service}/{instance}'\n".to_owned(),
        ]
        .concat(),
    );
    assert_eq!(
        told.problems(),
        [
            "pointsman.toml:4: registry.source[1].keys: reads all of \"/services/web/\", and registry.source[0] reads \"/services/\"",
            "pointsman.toml:6: registry.source[2].keys: reads all of \"/pointsman/instances/\", and registry.prefix reads \"/pointsman/\"",
            "pointsman.toml:8: registry.source[3].keys: reads all of \"/\", and registry.prefix reads \"/pointsman/\"",
            "pointsman.toml:10: registry.source[4].keys: reads all of \"/pointsmen/\", and registry.source[3] reads \"/\"",
            "pointsman.toml:12: registry.source[5].keys: has no {service}; then service has to say whose instances they are",
            "pointsman.toml:12: registry.source[5].keys: reads all of \"/hosts/\", and registry.source[3] reads \"/\"",
            "pointsman.toml:14: registry.source[6].keys: reads all of \"/named/\", and registry.source[3] reads \"/\"",
            "pointsman.toml:15: registry.source[6].service: stands beside keys that name the service themselves",
            "pointsman.toml:16: registry.source[7].keys: is missing",
            "pointsman.toml:17: registry.source[7].key: unknown key; did you mean \"keys\"?",
        ]
    );
}

#[test]
fn the_admin_endpoint_is_open_only_on_request() {
    let open = told("[admin]\naddress = '0.0.0.0:9900'\n");
    let problems = open.problems();
    assert!(
        problems[0].contains("write \"127.0.0.1:9900\", or name a token_file or tls.client_ca, or say insecure = true"),
        "{problems:?}"
    );
    assert!(told("[admin]\naddress = '0.0.0.0:9900'\ninsecure = true\n").config().admin.insecure);
}

#[test]
fn no_two_parts_listen_on_the_same_address() {
    let told = told(
        "[[listener]]\naddress = '0.0.0.0:9900'\n[[listener]]\naddress = '[::1]:80'\n[[listener]]\naddress = '[::1]:80'\n\
         [registry]\nlisten = '127.0.0.1:9900'\n",
    );
    assert_eq!(
        told.problems(),
        [
            "pointsman.toml:6: listener[2].address: [::1]:80 is the same as listener[1].address, [::1]:80",
            "pointsman.toml:8: registry.listen: 127.0.0.1:9900 is the same as listener[0].address, 0.0.0.0:9900",
            "admin.address: 127.0.0.1:9900 is the same as listener[0].address, 0.0.0.0:9900",
        ]
    );
}

#[test]
fn the_registry_is_embedded_until_an_etcd_is_named() {
    let kind = |told: Told| told.config().registry.kind;
    let embedded = |data: Option<&str>| {
        RegistryKind::Embedded(EmbeddedConfig { data: data.map(PathBuf::from), ..EmbeddedConfig::default() })
    };
    assert_eq!(kind(told("")), embedded(Some("/home/me/.local/state/pointsman/registry")));
    assert_eq!(kind(told("").variable("XDG_STATE_HOME", "/state")), embedded(Some("/state/pointsman/registry")));
    assert_eq!(kind(told("").variable("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")), embedded(Some("/var/lib/a/registry")));
    assert_eq!(kind(told("[registry]\ndata = ''\n")), embedded(None));
    assert_eq!(kind(told("[registry]\ndata = '/srv/r'\n")), embedded(Some("/srv/r")));

    let etcd = |flags: Flags, file: &str| match kind(told(file).flags(flags)) {
        RegistryKind::Etcd(etcd) => etcd.endpoints,
        other => panic!("{other:?}"),
    };
    let flags = Flags { etcd: vec!["http://a:1".into(), "http://b:2".into()], ..Flags::default() };
    assert_eq!(etcd(flags, "[registry]\nkind = 'embedded'\n"), ["http://a:1", "http://b:2"]);
    assert_eq!(etcd(Flags::default(), "[registry]\nendpoints = ['http://[::1]:2379']\n"), ["http://[::1]:2379"]);
    assert_eq!(
        told("[registry]\nkind = 'embedded'\nendpoints = ['http://a:1']\n").warnings(),
        ["pointsman.toml:3: registry.endpoints: is not used by a registry of kind \"embedded\""]
    );
}

#[test]
fn what_an_etcd_needs_is_checked_together() {
    let told = told(
        "[registry]\nkind = 'etcd'\nendpoints = ['127.0.0.1:2379', 'http://a', 'https://u:p@a:1', 'http://a:1/v3', 'http://ok:1']\n\
         prefix = 'pointsman'\npassword = 'SECRET'\nca = 'missing.pem'\ncertificate = 'pointsman.toml'\n",
    );
    let problems = told.problems();
    assert_eq!(
        problems,
        [
            "pointsman.toml:3: registry.endpoints[0]: \"127.0.0.1:2379\" is not the URL of an etcd: it begins with http:// or https://, \
             as in \"http://127.0.0.1:2379\"",
            "pointsman.toml:3: registry.endpoints[1]: \"http://a\" is not the URL of an etcd: it has no port; etcd's is usually 2379",
            "pointsman.toml:3: registry.endpoints[2]: \"https://u:p@a:1\" is not the URL of an etcd: it is a host and a port, user and \
             password are settings",
            "pointsman.toml:3: registry.endpoints[3]: \"http://a:1/v3\" is not the URL of an etcd: it is a scheme, a host and a port, \
             as in \"http://127.0.0.1:2379\"",
            "pointsman.toml:4: registry.prefix: \"pointsman\" is not a prefix such as \"/pointsman\"",
            "pointsman.toml:5: registry.password: needs user beside it",
            "pointsman.toml:6: registry.ca: missing.pem: No such file or directory (os error 2)",
            "pointsman.toml:6: registry.ca: is for https:// endpoints, and http://ok:1 is not one",
            "pointsman.toml:7: registry.certificate: needs key beside it",
            "pointsman.toml:7: registry.certificate: is for https:// endpoints, and http://ok:1 is not one",
        ]
    );
    assert_eq!(
        told_problem("[registry]\nkind = 'etcd'\n"),
        "pointsman.toml:1: registry.endpoints: is missing; a registry of kind \"etcd\" has at least one, as in [\"http://127.0.0.1:2379\"]"
    );
}

#[test]
fn the_password_comes_from_a_file_and_never_shows() {
    let told = told("[registry]\nendpoints = ['https://a:1']\nuser = 'root'\npassword_file = 'word'\n");
    let write = |text: &str| {
        std::fs::write(told._directory.path().join("word"), text).unwrap();
        std::fs::set_permissions(told._directory.path().join("word"), std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("SECRET\n");
    let config = told.config();
    let RegistryKind::Etcd(etcd) = &config.registry.kind else { panic!("{:?}", config.registry) };
    let credentials = etcd.credentials.as_ref().unwrap();
    assert_eq!((credentials.user.as_str(), credentials.password.read().unwrap().reveal()), ("root", "SECRET"));
    assert!(!format!("{config:?}").contains("SECRET"));

    write("NEXT");
    assert_eq!(credentials.password.read().unwrap().reveal(), "NEXT");
    for (text, why) in
        [("", "is empty"), ("SECRET\nSECRET", "has more than one line"), (&"SECRET".repeat(1000), "is longer than")]
    {
        write(text);
        let said = told.problems().concat();
        assert!(said.starts_with("pointsman.toml:4: registry.password_file: word: ") && said.contains(why), "{said}");
        assert!(!said.contains("SECRET"));
    }
}

#[test]
fn what_is_shown_to_an_etcd_is_judged() {
    let text = "[registry]\nendpoints = ['https://a:1']\ncertificate = 'a.pem'\nkey = 'a.key'\nserver_name = 'a name'\n";
    let told = told(text);
    let write = |name: &str, text: &str| {
        std::fs::write(told._directory.path().join(name), text).unwrap();
        std::fs::set_permissions(told._directory.path().join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let (one, other) = (Sample::of(&[]).subject("proxy").make(), Sample::of(&[]).valid(-9, -2).make());
    write("a.pem", &one.chain);
    write("a.key", &other.key);
    let problems = told.problems();
    assert_eq!(
        problems[1],
        "pointsman.toml:5: registry.server_name: \"a name\" is no name that a certificate can be for, such as \"etcd.example\""
    );
    assert!(problems[0].contains("registry.certificate: a.key does not belong to the certificate of CN=proxy"), "{problems:?}");

    write("pointsman.toml", &text.replace("a name", "etcd.example"));
    write("a.key", &one.key);
    assert!(told.warnings().is_empty(), "that it names no host is of no concern to an etcd");
    write("a.pem", &other.chain);
    write("a.key", &other.key);
    std::fs::set_permissions(told._directory.path().join("a.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = told.warnings();
    assert!(
        warnings[0].contains("a.pem was good until") && warnings[1].contains("a.key can be read by everybody"),
        "{warnings:?}"
    );
}

#[test]
fn a_password_on_an_open_wire_is_odd() {
    let to = |host: &str| {
        told(&format!("[registry]\nendpoints = ['http://{host}:1']\nuser = 'u'\npassword = 'SECRET'\n")).warnings().concat()
    };
    assert_eq!((to("127.0.0.1"), to("localhost"), to("[::1]")), Default::default());
    assert_eq!(
        to("10.0.0.1"),
        "pointsman.toml:3: registry.user: goes to http://10.0.0.1:1 with its password unencrypted: use https:// endpoints"
    );
}

#[test]
fn a_client_command_needs_only_the_registry() {
    let told =
        told("[registry]\nlisten = '0.0.0.0:2400'\n[proxy]\nworkers = 'four'\nunknown = 1\n").variable("POINTSMAN_COLOUR", "red");
    let (registry, warnings) = load_registry(&told.layers).unwrap();
    assert_eq!(registry.client().endpoints, ["http://127.0.0.1:2400"]);
    assert_eq!(warnings.lines().count(), 1, "{warnings}");
    assert!(warnings.to_string().contains("everyone who reaches it"), "{warnings}");
    let flags = Flags { prefix: Some("/other".into()), ..Flags::default() };
    assert_eq!(load_registry(&told.flags(flags).layers).unwrap().0.prefix, "/other");
}

#[test]
fn names_and_addresses_are_said_once() {
    let told = told(
        "[[route]]\nservice = 'a'\n[[route]]\nname = 'file-1'\nservice = 'a'\n[[service]]\nname = 'a'\n\
         instances = [\n'a:1',\n'A:1',\n'b',\n]\n[[service]]\nname = 'a'\n",
    );
    assert_eq!(
        told.problems(),
        [
            "pointsman.toml:4: route[1].name: \"file-1\" is the name of an earlier route",
            "pointsman.toml:10: service[0].instances[1]: a:1 is the address of an earlier instance",
            "pointsman.toml:11: service[0].instances[2]: \"b\" is not HOST:PORT: it has no port",
            "pointsman.toml:14: service[1].name: \"a\" is the name of an earlier service",
        ]
    );
}

#[track_caller]
fn told_problem(text: &str) -> String {
    let problems = told(text).problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}
