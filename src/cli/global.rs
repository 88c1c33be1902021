//! The flags that all commands share, and what they come to together with the file and the variables.

use std::future::Future;
use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::print;
use crate::config::{Config, EtcdConfig, Flags, Layers, Problems, load, load_registry};
use crate::registry::{Prefix, Store};
use crate::telemetry::init_tracing;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "POINTSMAN_CONFIG")]
    pub config: Option<PathBuf>,
    /// An etcd, with its scheme; several times for several members. Without one: the embedded registry, at
    /// http://127.0.0.1:2379 [env: POINTSMAN_REGISTRY_ENDPOINTS=]
    #[arg(long, global = true, value_name = "URL")]
    pub etcd: Vec<String>,
    /// What stands before every key [default: /pointsman] [env: POINTSMAN_REGISTRY_PREFIX=]
    #[arg(long, global = true, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Admin endpoint of the proxy [default: 127.0.0.1:9900] [env: POINTSMAN_ADMIN_ADDRESS=]. To ask one that speaks TLS:
    /// https://HOST:PORT
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub admin: Option<String>,
    /// PEM file with who vouches for an admin endpoint at https:// [default: whom the system trusts]
    #[arg(long, global = true, value_name = "FILE")]
    pub admin_ca: Option<PathBuf>,
    /// PEM file with the certificate that is shown to it, with --admin-key
    #[arg(long, global = true, value_name = "FILE", requires = "admin_key")]
    pub admin_certificate: Option<PathBuf>,
    /// PEM file with the key of that certificate
    #[arg(long, global = true, value_name = "FILE", requires = "admin_certificate")]
    pub admin_key: Option<PathBuf>,
    /// File with a token of the admin endpoint; `run` asks for one of those in it
    #[arg(long, global = true, value_name = "FILE", env = "POINTSMAN_ADMIN_TOKEN_FILE", hide_env_values = true)]
    pub token_file: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Form of the log [default: text] [env: POINTSMAN_LOG_FORMAT=]
    #[arg(long, global = true, value_name = "text|json")]
    pub log_format: Option<String>,
    /// What is logged, as in RUST_LOG [default: info] [env: POINTSMAN_LOG_FILTER=]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log_filter: Option<String>,
}

/// How the registry is reached.
pub struct Registry {
    pub etcd: EtcdConfig,
    pub prefix: Prefix,
}

impl Global {
    /// What `run` was told to listen on is its own flag.
    pub fn layers(&self, listen: &[String]) -> Layers {
        let flags = Flags {
            listen: listen.to_vec(),
            admin: self.admin.clone(),
            token_file: self.token_file.clone(),
            etcd: self.etcd.clone(),
            prefix: self.prefix.clone(),
            log_format: self.log_format.clone(),
            log_filter: self.log_filter.clone(),
            ..Flags::default()
        };
        Layers::of_process(self.config.clone(), flags)
    }

    /// Everything; what is odd about it is said on stderr.
    pub fn config(&self, listen: &[String]) -> Result<Config, Failure> {
        config_of(&self.layers(listen))
    }

    pub fn registry(&self) -> Result<Registry, Failure> {
        let registry = load_registry(&self.layers(&[])).map(said).map_err(Failure::Config)?;
        Ok(Registry { etcd: registry.client(), prefix: Prefix::new(&registry.prefix) })
    }

    pub async fn store(&self) -> Result<Store, Failure> {
        let Registry { etcd, prefix } = self.registry()?;
        Ok(Store::connect(&etcd, prefix).await?)
    }

    /// For a command that lives long but is no proxy: flags and variables say how it logs, not the proxy's file.
    pub fn init_log(&self) -> Result<(), Failure> {
        let layers = Layers { file: None, ..self.layers(&[]) };
        let log = match load(&layers) {
            Ok((config, _)) => config.log,
            Err(problems) => return Err(Failure::Config(problems)),
        };
        init_tracing(&log).map_err(|error| Failure::Usage(error.to_string()))
    }
}

/// The same, from layers that know more flags.
pub fn config_of(layers: &Layers) -> Result<Config, Failure> {
    load(layers).map(said).map_err(Failure::Config)
}

fn said<T>((value, warnings): (T, Problems)) -> T {
    warnings.lines().for_each(|line| print::note(&format!("warning: {line}")));
    value
}

/// One thread is enough for a command, and it is the main one: a child of `register` dies with the thread that starts it.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(work)
}
