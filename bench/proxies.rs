//! Starts the proxies: ours from a configuration file, nginx from one that asks the same of it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::sleep;

use crate::Outcome;
use crate::load::{Connection, Request};
use crate::process::{Process, free_address, pinned};

/// The program built along with this one.
pub const POINTSMAN: &str = env!("CARGO_BIN_EXE_pointsman");

/// A pair that both take.
pub struct TlsFiles {
    pub chain: PathBuf,
    pub key: PathBuf,
}

pub struct Proxy {
    pub process: Process,
    pub address: SocketAddr,
    pub admin: Option<SocketAddr>,
    /// Configuration and logs; kept as long as the proxy runs.
    directory: TempDir,
}

impl Proxy {
    /// nginx with one worker on one core.
    pub fn nginx(upstream: SocketAddr, core: u32, tls: Option<&TlsFiles>) -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let address = free_address()?;
        let config = directory.path().join("nginx.conf");
        fs::write(&config, nginx_config(directory.path(), address, upstream, tls))?;
        let mut command = pinned(core, "nginx");
        command.arg("-p").arg(directory.path()).arg("-c").arg(&config);
        let process = Process::start(&mut command, &directory.path().join("log"))?;
        Ok(Self { process, address, admin: None, directory })
    }

    /// Ours, with one fixed upstream, one worker, on one core.
    pub fn pointsman_on(program: &Path, upstream: SocketAddr, core: u32, tls: Option<&TlsFiles>) -> Outcome<Self> {
        let service = format!(
            r#"
[proxy]
workers = 1

[[route]]
path_prefix = "/"
service = "upstream"

[[service]]
name = "upstream"
instances = ["{upstream}"]
probe = {{ kind = "none" }}
"#
        );
        Self::pointsman(pinned(core, whole(program)?), tls, &service)
    }

    /// Ours, with everything it routes to in etcd, and whatever else its configuration is to say.
    pub fn pointsman_with(program: &Path, etcd: &str, more: &str) -> Outcome<Self> {
        let registry = format!(
            r#"
[registry]
kind = "etcd"
endpoints = ["{etcd}"]
{more}"#
        );
        Self::pointsman(Command::new(whole(program)?), None, &registry)
    }

    fn pointsman(mut command: Command, tls: Option<&TlsFiles>, rest: &str) -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let (address, admin) = (free_address()?, free_address()?);
        let config = directory.path().join("pointsman.toml");
        let tls = tls.map_or_else(String::new, |TlsFiles { chain, key }| {
            format!("[listener.tls]\ncertificates = [{{ chain = {chain:?}, key = {key:?} }}]\n")
        });
        let listeners = format!(
            r#"
[[listener]]
address = "{address}"
{tls}
[admin]
address = "{admin}"

[log.access]
enabled = false
"#
        );
        fs::write(&config, listeners + rest)?;
        // What it writes beside its configuration stays in our directory.
        command.arg("run").arg("--config").arg(&config).current_dir(&directory).env("HOME", directory.path());
        let process = Process::start(&mut command, &directory.path().join("log"))?;
        Ok(Self { process, address, admin: Some(admin), directory })
    }

    /// Waits until a GET of `path` at `address` is answered with `status`; the body.
    pub async fn answers(&mut self, address: SocketAddr, path: &str, status: u16) -> Outcome<Vec<u8>> {
        let deadline = Instant::now() + START_MAX;
        let request = Request::get("localhost", path);
        loop {
            let last = match Connection::open(address).await {
                Ok(mut connection) => {
                    let mut body = Vec::new();
                    let answer = connection.exchange_into(&request, |piece| body.extend_from_slice(piece)).await;
                    match answer {
                        Ok(answer) if answer.status == status => return Ok(body),
                        Ok(answer) => format!("status {}", answer.status),
                        Err(failure) => failure.to_string(),
                    }
                }
                Err(failure) => failure.to_string(),
            };
            if self.process.has_ended() || Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                return Err(format!("{path} never gave {status} ({last}). The program said:\n{log}").into());
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Waits until ours has applied what the registry held at `revision`.
    pub async fn has_applied(&mut self, revision: i64) -> Outcome<()> {
        let admin = self.admin.ok_or("only ours has an admin address")?;
        self.answers(admin, "/readyz", 200).await?;
        let deadline = Instant::now() + START_MAX;
        loop {
            let status: serde_json::Value = serde_json::from_slice(&self.answers(admin, "/api/v1/status", 200).await?)?;
            if status["registry"]["applied_revision"].as_i64().is_some_and(|applied| applied >= revision) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("revision {revision} was never applied: {status}").into());
            }
            sleep(ASK_AGAIN).await;
        }
    }
}

/// The program to measure, if it is not the one built along.
#[derive(clap::Args)]
pub struct Program {
    /// Another build of the proxy
    #[arg(long, default_value = POINTSMAN)]
    pub pointsman: PathBuf,
}

/// The program's path from the root, since it starts in another directory.
fn whole(program: &Path) -> Outcome<PathBuf> {
    program.canonicalize().map_err(|error| format!("{}: {error}", program.display()).into())
}

fn nginx_config(directory: &Path, address: SocketAddr, upstream: SocketAddr, tls: Option<&TlsFiles>) -> String {
    let directory = directory.display();
    let (ssl, certificate) = tls.map_or_else(Default::default, |TlsFiles { chain, key }| {
        let (chain, key) = (chain.display(), key.display());
        (" ssl", format!("ssl_certificate {chain};\nssl_certificate_key {key};\nssl_protocols TLSv1.2 TLSv1.3;"))
    });
    // Its own limit of 1,000 requests on a connection would measure connecting as well, and large answers would be
    // written to files.
    format!(
        "daemon off;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream upstream {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen {address}{ssl};
        {certificate}
        location / {{
            proxy_pass http://upstream;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"
    )
}

const START_MAX: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(2);
