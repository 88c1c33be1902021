//! What ships beside the binary works with it: configurations, and the rotation of its log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

use crate::world::World;

#[test]
fn every_configuration_that_ships_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = read("deploy/kubernetes/pointsman.yaml");
    let token = folder.path().join("token");
    fs::write(&token, "0123456789abcdef0123456789abcdef").expect("a token");
    let (_, block) = manifest.split_once("  pointsman.toml: |\n").expect("a configuration in the manifest");
    let lines = block.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let in_kubernetes: String = lines.map(|line| line.trim().to_owned() + "\n").collect();
    let shipped = [
        ("kubernetes", in_kubernetes.replace("/etc/pointsman-admin/token", &token.display().to_string())),
        ("compose", read("deploy/compose/pointsman.toml")),
        ("debian", read("deploy/debian/pointsman.toml")),
    ];
    for (name, config) in shipped {
        let file = folder.path().join(format!("{name}.toml"));
        fs::write(&file, config).expect("a configuration file");
        let out = Command::new(env!("CARGO_BIN_EXE_pointsman")).arg("check").arg("--config").arg(&file).output();
        let out = out.expect("the built binary can be run");
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{name}: {said}");
    }
}

#[test]
fn logrotate_moves_the_access_log_and_no_line_is_lost() {
    let world = World::setup().config("[log.access]\nfile = \"access.log\"\n").start();
    let _upstreams = world.serve("app", ["one"]);
    let lines = |name: &str| fs::read_to_string(world.folder().join(name)).unwrap_or_default().lines().count();
    world.get_many("/before", 10).all_served(10);
    world.eventually("they are logged", || lines("access.log") == 10);

    let shipped = read("deploy/logrotate/pointsman");
    let hangup = Regex::new("systemctl kill .*").expect("a pattern");
    assert!(hangup.is_match(&shipped), "{shipped}");
    let config = hangup.replace(&shipped, format!("kill -HUP {}", world.proxy.pid()));
    let config = config.replace("/var/log/pointsman/*.log", &world.folder().join("access.log").display().to_string());
    let file = world.folder().join("logrotate.conf");
    fs::write(&file, config).expect("a configuration of logrotate");
    let mut rotate = Command::new("logrotate");
    rotate
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .arg("--force")
        .arg("--state")
        .arg(world.folder().join("state"))
        .arg(&file);
    let out = rotate.output().expect("logrotate");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));

    world.eventually("there is a new log", || world.folder().join("access.log").exists());
    world.get_many("/after", 10).all_served(10);
    world.eventually("every line is in one of the two", || lines("access.log") + lines("access.log.1") == 20);
    assert_eq!(lines("access.log"), 10, "what came after is in the new one");
}

fn read(file: &str) -> String {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
