//! The process has no right that it does not need: sockets that others open, another user, no capability, and a unit that
//! says so to systemd.

use std::fs::Permissions;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::world::World;
use crate::world::ports::free_address;
use crate::world::program::Program;

#[test]
fn sockets_of_the_service_manager_are_served_by_name_and_by_address() {
    let world = World::new();
    let [_one] = world.serve("app", ["one"]);
    let sockets = [free_address(), free_address()].map(|address| TcpListener::bind(address).expect("a free address"));
    let [listen, admin] = [&sockets[0], &sockets[1]].map(|socket| socket.local_addr().expect("an address"));
    let own = free_address();
    world.write_config(&format!("[[listener]]\nsocket = \"http\"\n[[listener]]\naddress = \"{own}\"\n"));
    let config = world.config_file().display().to_string();
    let mut command = world.command(&["run", "--config", &config, "--admin", &admin.to_string()]);
    command.env("POINTSMAN_PROXY_WORKERS", "3");
    let proxy = Program::start_passing(&command, &world.folder(), "activated", sockets, "http:pointsman.socket");

    world.eventually("it serves what was passed", || world.get_at(listen, "/").is_ok_and(|a| a.status == 200));
    for _ in 0..20 {
        assert_eq!(world.get_at(listen, "/").expect("whichever worker took it").status, 200);
    }
    world.eventually("and what it bound itself", || world.get_at(own, "/").is_ok_and(|a| a.status == 200));
    world.eventually("and shows itself where it was told to", || world.get_at(admin, "/readyz").is_ok_and(|a| a.status == 200));
    proxy.signal(Signal::SIGTERM);
}

#[test]
fn a_socket_too_many_and_one_too_few_are_both_named() {
    let world = World::new();
    let sockets = [free_address(), free_address()].map(|address| TcpListener::bind(address).expect("a free address"));
    world.write_config("[[listener]]\nsocket = \"https\"\n");
    let config = world.config_file().display().to_string();
    let command = world.command(&["run", "--config", &config, "--admin", &free_address().to_string()]);
    let mut proxy = Program::start_passing(&command, &world.folder(), "mistaken", sockets, "http:web");
    assert_eq!(proxy.exits_within(Duration::from_secs(10)).code(), Some(1));
    let said = proxy.log();
    assert!(
        said.contains("listener[0].socket: no socket of the name \"https\" was passed; these were: \"http\" at 127"),
        "{said}"
    );
    assert!(said.contains("the socket \"web\" at 127.") && said.contains("socket = \"web\" would"), "{said}");

    let out = world.run(&["run", "--config", &config, "--admin", &free_address().to_string()]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("none was; is this started by its .socket unit?"), "{said}");
}

#[test]
fn root_binds_a_low_port_and_is_nobody_from_then_on() {
    if !Uid::effective().is_root() {
        return eprintln!("skipped: only root can become somebody else");
    }
    let world = World::new();
    let [_one] = world.serve("app", ["one"]);
    let (listen, admin) = (low_address(), free_address().to_string());
    let config = world.config_file().display().to_string();
    let (at, listen_flag) = (world.folder(), listen.to_string());
    let args = ["run", "--config", &config, "--listen", &listen_flag, "--admin", &admin, "--user", "nobody"];

    std::fs::set_permissions(&at, Permissions::from_mode(0o700)).expect("our own folder");
    let out = world.run(&args);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("user nobody (process.user) could not read the configuration again"), "{said}");

    std::fs::set_permissions(&at, Permissions::from_mode(0o755)).expect("our own folder");
    let proxy = Program::start(&mut world.command(&args), &at, "nobody");
    world.eventually("it serves a port below 1024", || world.get_at(listen, "/").is_ok_and(|a| a.status == 200));
    has_no_rights(&proxy);
    let nobody = nix::unistd::User::from_name("nobody").expect("a user database").expect("it is there everywhere");
    let every = |id: u32| [id.to_string().as_str(); 4].join(" ");
    assert!(proxy.of_threads("Uid:").iter().all(|ids| *ids == every(nobody.uid.as_raw())), "{:?}", proxy.of_threads("Uid:"));
    assert!(proxy.of_threads("Gid:").iter().all(|ids| *ids == every(nobody.gid.as_raw())), "{:?}", proxy.of_threads("Gid:"));
    assert!(proxy.of_threads("Groups:").iter().all(|groups| !groups.split(' ').any(|g| g == "0")));
    // Also those it could only ask for.
    assert!(proxy.of_threads("CapBnd:").iter().all(|set| set.chars().all(|c| c == '0')), "{:?}", proxy.of_threads("CapBnd:"));

    std::fs::write(world.config_file(), "[[route]]\npath_prefix = \"/more\"\nservice = \"nobody-knows\"\n").expect("the file");
    proxy.signal(Signal::SIGHUP);
    world.eventually("it can read its file again", || world.get_at(listen, "/more").is_ok_and(|a| a.status == 503));
}

#[test]
fn who_is_not_root_needs_one_capability_and_gives_it_back() {
    if !Uid::effective().is_root() {
        return eprintln!("skipped: only root can start a process with a capability and no root");
    }
    let world = World::new();
    let [_one] = world.serve("app", ["one"]);
    let listen = low_address();
    let (listen_flag, admin) = (listen.to_string(), free_address().to_string());
    let own = world.command(&["run", "--listen", &listen_flag, "--admin", &admin]);
    let as_nobody = |capability: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).args(capability);
        command.arg("--").arg(own.get_program()).args(own.get_args());
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir("/");
        command
    };
    let out = as_nobody(&[]).output().expect("setpriv is part of every Linux");
    let said = String::from_utf8_lossy(&out.stderr);
    if !is_unprivileged_port(listen.port()) {
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("ports below 1024 need root, CAP_NET_BIND_SERVICE, or a socket that systemd passes"), "{said}");
    }
    let with = ["--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service"];
    let proxy = Program::start(&mut as_nobody(&with), &world.folder(), "ambient");
    world.eventually("it serves a port below 1024", || world.get_at(listen, "/").is_ok_and(|a| a.status == 200));
    has_no_rights(&proxy);
}

/// What systemd thinks of the unit, and how much of the machine it could reach.
#[test]
fn the_unit_is_accepted_and_exposes_little() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no systemd-analyze here");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    let copied = ["pointsman.service", "pointsman.socket"].map(|name| {
        let text = std::fs::read_to_string(units.join(name)).expect("the unit");
        let path: PathBuf = folder.path().join(name);
        std::fs::write(&path, text.replace("/usr/bin/pointsman", env!("CARGO_BIN_EXE_pointsman"))).expect("a copy");
        path
    });
    let analyze = |args: &[&str], units: &[PathBuf]| {
        let out = Command::new("systemd-analyze").args(args).args(units).output().expect("it is there");
        (out.status.success(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
    };
    let (is_good, said) = analyze(&["verify", "--man=no"], &copied);
    assert!(is_good && !said.contains("pointsman"), "{said}");

    let (_, said) = analyze(&["security", "--offline=true"], &copied[..1]);
    let figure = said.lines().find_map(|line| line.split_once("Overall exposure level for pointsman.service: ")).map(|(_, f)| f);
    let exposure: f64 = figure.and_then(|f| f.split(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    let documented = include_str!("../../docs/hardening.md").split_once("exposure level of **").map(|(_, rest)| rest);
    let documented: f64 = documented.and_then(|rest| rest.split("**").next()?.parse().ok()).expect("docs/hardening.md says it");
    assert!(exposure <= documented, "{exposure} is more than docs/hardening.md says:\n{said}");
}

/// Not one of its threads.
fn has_no_rights(proxy: &Program) {
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        let sets = proxy.of_threads(set);
        assert!(sets.len() > 3 && sets.iter().all(|set| set.chars().all(|c| c == '0')), "{set} {sets:?}");
    }
    assert!(proxy.of_threads("NoNewPrivs:").iter().all(|set| set == "1"));
}

/// Where nobody listens, below 1024. The range is that of services that hardly exist any more.
fn low_address() -> SocketAddr {
    let all = (600..1000).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    all.filter(|address| address.port() % 7 == std::process::id() as u16 % 7)
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a free port below 1024")
}

fn is_unprivileged_port(port: u16) -> bool {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    first.trim().parse().is_ok_and(|first: u16| port >= first)
}
