//! How a world begins: which registry, what the file says, which flags.

use std::fs;
use std::process::Command;

use super::etcd::Etcd;
use super::ports::free_address;
use super::program::Program;
use super::{Registry, World};

#[derive(Default)]
pub struct Setup {
    config: String,
    embedded: bool,
    in_memory: bool,
    variables: Vec<(String, String)>,
    etcd: Option<Etcd>,
    endpoints: Vec<String>,
    unready: bool,
    files: Vec<(String, String)>,
}

impl Setup {
    /// TOML of the configuration file. It is named in every start, so it may also be written later. Where it has listeners,
    /// `LISTEN` stands for the address that the story's clients use.
    pub fn config(self, config: &str) -> Self {
        Self { config: config.to_owned(), ..self }
    }

    /// The registry inside the process, kept in the world's folder.
    pub fn embedded(self) -> Self {
        Self { embedded: true, ..self }
    }

    /// And forgotten with the process.
    pub fn in_memory(self) -> Self {
        Self { in_memory: true, ..self }
    }

    /// Of the proxy's environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A registry that was there before.
    pub fn etcd(self, etcd: Etcd) -> Self {
        Self { etcd: Some(etcd), ..self }
    }

    /// Where the proxy looks for the registry, in place of etcd's own address.
    pub fn endpoints(self, endpoints: &[String]) -> Self {
        Self { endpoints: endpoints.to_vec(), ..self }
    }

    /// A file beside the configuration.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Does not wait until the proxy is ready, but only until it lives.
    pub fn unready(self) -> Self {
        Self { unready: true, ..self }
    }

    pub fn start(self) -> World {
        let dir = tempfile::tempdir().expect("a folder for the world");
        let (listen, admin) = (free_address(), free_address());
        let mut config = self.config;
        let registry = if self.embedded {
            let address = free_address();
            let data = if self.in_memory { "" } else { "registry" };
            let section = format!("[registry]\nlisten = \"{address}\"\ndata = \"{data}\"\n");
            config = format!("{section}{config}");
            Registry::Embedded { address }
        } else {
            let etcd = self.etcd.unwrap_or_else(Etcd::start);
            let endpoints = if self.endpoints.is_empty() { etcd.urls() } else { self.endpoints };
            Registry::Etcd { etcd: Box::new(etcd), endpoints }
        };
        for (name, text) in self.files {
            fs::write(dir.path().join(name), text).expect("a file of the story");
        }
        let file = dir.path().join("pointsman.toml");
        config = config.replace("LISTEN", &listen.to_string());
        fs::write(&file, config).expect("the configuration file");
        let program = start_proxy(&file, listen, admin, &registry, &self.variables);
        let world = World::around(dir, program, listen, admin, registry);
        if self.unready {
            world.eventually("the proxy lives", || world.admin_status("/livez") == Some(200));
        } else {
            world.is_ready();
        }
        world
    }
}

pub(super) fn start_demo() -> World {
    let dir = tempfile::tempdir().expect("a folder for the world");
    let [listen, admin, address] = [(); 3].map(|()| free_address());
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    let at = [("--listen", listen), ("--admin", admin), ("--registry", address)];
    command.arg("demo").args(at.iter().flat_map(|(flag, address)| [(*flag).to_owned(), address.to_string()]));
    let program = Program::start(command.current_dir(dir.path()), dir.path(), "demo");
    World::around(dir, program, listen, admin, Registry::Embedded { address })
}

/// `pointsman run` with this world's file, addresses and registry.
pub(super) fn start_proxy(
    file: &std::path::Path,
    listen: std::net::SocketAddr,
    admin: std::net::SocketAddr,
    registry: &Registry,
    variables: &[(String, String)],
) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("run").arg("--config").arg(file).args(["--admin", &admin.to_string()]);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    if !fs::read_to_string(file).is_ok_and(|config| config.contains("[[listener]]")) {
        command.args(["--listen", &listen.to_string()]);
    }
    if let Registry::Etcd { endpoints, .. } = registry {
        endpoints.iter().for_each(|endpoint| {
            command.args(["--etcd", endpoint]);
        });
    }
    let folder = file.parent().expect("the file lies in the world's folder");
    Program::start(command.current_dir(folder), folder, "pointsman")
}
