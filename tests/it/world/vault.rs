//! The files of an etcd that is not for everybody, and of those who speak with it: certificates, users, passwords.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::etcd::Etcd;
use super::tls::{Authority, Pair};
use super::upstream::Upstream;
use super::{Setup, World};

/// A folder with the files of one etcd and of those who speak with it.
pub struct Vault {
    pub dir: TempDir,
    pub authority: Authority,
}

impl Vault {
    /// With `ca.pem`, a pair `etcd` for 127.0.0.1, and a pair `root` for a client.
    pub fn new() -> Self {
        let vault = Self { dir: tempfile::tempdir().expect("a folder"), authority: Authority::new("etcd authority") };
        vault.file("ca.pem", &vault.authority.pem);
        vault.pair("etcd", &vault.authority.vouch(&["127.0.0.1"]));
        vault.pair("root", &vault.authority.vouch(&["root"]));
        vault
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    pub fn pair(&self, name: &str, pair: &Pair) {
        pair.write(self.dir.path(), name);
    }

    pub fn etcd(&self, flags: &[&str]) -> Etcd {
        Etcd::with(
            self.dir.path(),
            &[&["--cert-file", "etcd.pem", "--key-file", "etcd.key", "--bcrypt-cost", "4"], flags].concat(),
        )
    }

    /// Of `proxy`, and for nobody else to read.
    pub fn password(&self, text: &str) {
        self.file("proxy.password", text);
        fs::set_permissions(self.path("proxy.password"), fs::Permissions::from_mode(0o600)).expect("a file of our own");
    }

    /// An etcd with `root` and with `proxy`, who may do anything under the prefix.
    pub fn etcd_with_users(&self, flags: &[&str]) -> Etcd {
        let etcd = self.etcd(flags);
        self.password(PASSWORD);
        self.administer(
            &etcd.url(),
            &[
                &["user", "add", &format!("root:{PASSWORD}")],
                &["user", "grant-role", "root", "root"],
                &["role", "add", "whole"],
                &["role", "grant-permission", "whole", "readwrite", "--prefix", "/pointsman/"],
                &["user", "add", &format!("proxy:{PASSWORD}")],
                &["user", "grant-role", "proxy", "whole"],
                &["auth", "enable"],
            ],
        );
        self.file("root.password", PASSWORD);
        etcd
    }

    /// The section of a configuration, with the files of this folder.
    pub fn section(&self, settings: &[(&str, &str)]) -> String {
        let value = |key: &str, value: &str| match key {
            "user" | "password" | "server_name" => value.to_owned(),
            _ => self.path(value).display().to_string(),
        };
        let lines = settings.iter().map(|(key, said)| format!("{key} = \"{}\"\n", value(key, said)));
        format!("[registry]\n{}", lines.collect::<String>())
    }

    pub fn setup(&self, etcd: Etcd, settings: &[(&str, &str)]) -> Setup {
        World::setup().etcd(etcd).config(&self.section(settings))
    }

    /// A command that reads the registry with these settings.
    pub fn command(&self, world: &World, args: &[&str], settings: &[(&str, &str)]) -> Command {
        let file = self.path(&format!("{}.toml", settings.iter().map(|(key, _)| *key).collect::<String>()));
        fs::write(&file, self.section(settings)).expect("a file");
        let mut command = world.command(args);
        command.arg("--config").arg(file);
        command
    }

    pub fn said(&self, world: &World, args: &[&str], settings: &[(&str, &str)]) -> (bool, String) {
        said(self.command(world, args, settings).output().expect("the built binary can be run"))
    }

    /// Debian's `etcdctl`, as `root` with a certificate, and with its password once there is one. It succeeds.
    pub fn administer(&self, url: &str, all: &[&[&str]]) {
        for args in all {
            let mut command = Command::new("etcdctl");
            command.args(*args).current_dir(self.dir.path()).env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", url);
            command.envs([("ETCDCTL_CACERT", "ca.pem"), ("ETCDCTL_CERT", "root.pem"), ("ETCDCTL_KEY", "root.key")]);
            if let Ok(password) = fs::read_to_string(self.path("root.password")) {
                command.env("ETCDCTL_USER", format!("root:{password}"));
            }
            // A new password is read from there.
            let input = fs::File::open(self.path("next.password")).map_or_else(|_| Stdio::null(), Stdio::from);
            let (ok, said) = said(command.stdin(input).output().expect("etcdctl runs (Debian: etcd-client)"));
            assert!(ok, "etcdctl {args:?}: {said}");
        }
    }

    pub fn put(&self, world: &World, key: &str, value: &str) {
        self.administer(&world.etcd().url(), &[&["put", &format!("/pointsman{key}"), value]]);
    }

    /// A route for everything to this one, which is new in the registry; and it is used.
    pub fn serves(&self, world: &World, name: &str) -> Upstream {
        let upstream = world.upstream(name);
        self.put(world, "/routes/all", &format!(r#"{{"service":"{name}"}}"#));
        self.put(world, &format!("/instances/{name}/1"), &upstream.address.to_string());
        world.eventually(&format!("{name} is used"), || world.get("/").from() == name);
        upstream
    }
}

/// What a command that has ended wrote, and whether it did what it was asked.
pub fn said(out: Output) -> (bool, String) {
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

pub const PASSWORD: &str = "a-password-0f-the-pr0xy";
/// The settings of who logs in with it.
pub const LOGIN: [(&str, &str); 3] = [("ca", "ca.pem"), ("user", "proxy"), ("password_file", "proxy.password")];
