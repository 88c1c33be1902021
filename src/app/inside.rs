//! The registry inside this process, where there is one: when it opens, and how it is reached.

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::StartError;
use crate::config::{Config, EtcdConfig, RegistryKind};
use crate::embedded;

/// An embedded registry that is not open yet: in an upgrade another process has it until then, at the same address.
pub struct Inside {
    listener: TcpListener,
    options: embedded::Options,
}

/// How to reach the registry, and the one that is to open here.
pub fn registry_of(config: &Config, listener: Option<std::net::TcpListener>) -> Result<(EtcdConfig, Option<Inside>), StartError> {
    let (embedded, listener) = match (&config.registry.kind, listener) {
        (RegistryKind::Etcd(etcd), _) => return Ok((etcd.clone(), None)),
        (RegistryKind::Embedded(embedded), Some(listener)) => (embedded, listener),
        (RegistryKind::Embedded(_), None) => unreachable!("its socket is opened with the others"),
    };
    let listener = TcpListener::from_std(listener).map_err(StartError::Runtime)?;
    let address = listener.local_addr().map_err(StartError::Runtime)?;
    let options = embedded::Options { data: embedded.data.clone(), ..embedded::Options::default() };
    let endpoints = vec![format!("http://{address}")];
    let etcd = EtcdConfig::plain(endpoints);
    Ok((etcd, Some(Inside { listener, options })))
}

impl Inside {
    /// Answers until `shutdown`.
    pub fn open(self, shutdown: watch::Receiver<bool>) -> Result<JoinHandle<()>, StartError> {
        let registry = embedded::Registry::open(self.options).map_err(StartError::Embedded)?;
        if let Ok(address) = self.listener.local_addr() {
            info!(%address, "Embedded registry listens: for one machine; a cluster uses etcd");
        }
        Ok(tokio::spawn(async move {
            if let Err(error) = registry.serve(self.listener, shutdown).await {
                warn!(%error, "The embedded registry ended");
            }
        }))
    }
}
