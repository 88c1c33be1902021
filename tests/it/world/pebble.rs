//! Pebble, the ACME directory that Let's Encrypt tests clients with, and the DNS for it, in which every name is this machine.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::ports::free_address;
use super::program::Program;
use super::tls::Authority;

pub struct Pebble {
    /// Who vouches for the directory itself.
    pub ca: String,
    directory: SocketAddr,
    management: SocketAddr,
    program: Program,
    _names: Program,
    _dir: TempDir,
}

/// What is not as usual.
#[derive(Default)]
pub struct Habits {
    /// Seconds; `None` is five years.
    pub validity: Option<u64>,
    /// Accounts are only for who shows one of these keys, by id.
    pub external: Vec<(&'static str, &'static str)>,
}

impl Pebble {
    /// It looks for HTTP-01 at the port of `http`, for TLS-ALPN-01 at that of `tls`.
    pub fn start(http: SocketAddr, tls: SocketAddr, habits: &Habits) -> Self {
        let dir = tempfile::tempdir().expect("a folder for pebble");
        let [directory, management, names, names_management] = [(); 4].map(|()| free_address());
        let authority = Authority::new("Directory Root");
        authority.vouch(&["127.0.0.1"]).write(dir.path(), "pebble");
        let mut settings = json!({
            "listenAddress": directory.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": "pebble.pem",
            "privateKey": "pebble.key",
            "httpPort": http.port(),
            "tlsPort": tls.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": !habits.external.is_empty(),
            "externalAccountMACKeys": habits.external.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
        });
        if let Some(seconds) = habits.validity {
            settings["certificateValidityPeriod"] = seconds.into();
        }
        std::fs::write(dir.path().join("pebble.json"), json!({ "pebble": settings }).to_string()).expect("pebble's file");

        let mut command = Command::new("pebble-challtestsrv");
        command.args(["-dns01", &names.to_string(), "-management", &names_management.to_string()]);
        command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        let names_program = Program::start(&mut command, dir.path(), "names");
        let mut command = Command::new("pebble");
        command.args(["-config", "pebble.json", "-dnsserver", &names.to_string()]).current_dir(dir.path());
        // It looks at once, and every name is proved anew; that it refuses one nonce in twenty stays as it is.
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        let program = Program::start(&mut command, dir.path(), "pebble");
        let deadline = Instant::now() + STARTS_WITHIN;
        let answers = |address| TcpStream::connect(address).is_ok();
        while !(answers(directory) && answers(management) && UdpSocket::bind(names).is_err()) {
            assert!(Instant::now() < deadline, "pebble did not come up:\n{}", program.log_tail());
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { ca: authority.pem, directory, management, program, _names: names_program, _dir: dir }
    }

    pub fn url(&self) -> String {
        format!("https://{}/dir", self.directory)
    }

    /// Who vouches for the certificates that it issues.
    pub fn root(&self) -> String {
        let url = format!("https://{}/roots/0", self.management);
        let out = Command::new("curl").args(["--silent", "--insecure", "--max-time", "15", &url]).output().expect("curl runs");
        String::from_utf8(out.stdout).expect("PEM is text")
    }

    pub fn n_issued(&self) -> usize {
        self.program.out().matches("Issued certificate").count() + self.program.log().matches("Issued certificate").count()
    }
}

const STARTS_WITHIN: Duration = Duration::from_secs(20);
