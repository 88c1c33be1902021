//! FLOOR 2. What others have configured, in our words: nginx, and confd's template resources.
//!
//! 1. Texts come from [`Files`]; nothing here opens a file or asks a registry.
//! 2. [`nginx`] reads a whole configuration, [`confd`] what of etcd its templates iterate over.
//! 3. The [`Import`] is printed by `print`: as a configuration file, as commands that fill the registry, or as JSON.
//!
//! Invariant: nothing is dropped without a word. Every directive is carried over, or there is a finding with its line; and
//! what is printed is accepted by `pointsman check`, but for files that it names and that cannot be read.

mod confd;
mod files;
mod findings;
mod grammar;
mod nginx;
mod print;

use serde_json::{Map, Value as Json};

pub use confd::{Source, confd};
pub use files::{Files, ImportError, fits};
use findings::Ledger;
pub use findings::{Finding, Place, Weight};
pub use nginx::nginx;

/// What came of it, and what did not.
#[derive(Debug)]
pub struct Import {
    /// `None`: this was about the registry alone.
    process: Option<Process>,
    services: Vec<Service>,
    routes: Vec<Route>,
    sources: Vec<Source>,
    registry: RegistryAt,
    ledger: Ledger,
}

/// Where confd looks for its keys.
#[derive(Debug, Default)]
struct RegistryAt {
    endpoints: Vec<String>,
    /// Before all keys of other programs.
    prefix: String,
}

/// What is no record: listeners, and what holds for the whole proxy.
#[derive(Debug)]
struct Process {
    listeners: Vec<nginx::Listener>,
    settings: nginx::Settings,
    /// Bytes.
    body_size: Option<u64>,
}

/// A service with its fixed instances, or the source of those it has in etcd.
#[derive(Debug)]
struct Service {
    name: String,
    instances: Vec<Map<String, Json>>,
    policy: Map<String, Json>,
    source: Option<Source>,
}

#[derive(Debug)]
struct Route {
    name: String,
    record: Map<String, Json>,
    /// Where it comes from, and why it is held shut, if it is.
    comment: String,
}

impl Import {
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Both together: confd's sources and findings are added to what nginx's configuration came to.
    pub fn with(mut self, confd: Self) -> Self {
        self.ledger.extend(confd.ledger);
        Self { sources: confd.sources, registry: confd.registry, ..self }
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.ledger.findings()
    }
}

/// The service of routes that are held shut. Nobody is to register under this name: it answers 503.
pub const HELD: &str = "held-by-import";
