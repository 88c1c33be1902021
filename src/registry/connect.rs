//! One client for one endpoint, with every limit set.
//!
//! A client of several endpoints would go on giving calls to the dead ones (the library neither retries nor fails over),
//! so whoever has several endpoints takes them in turn with one client each. Certificates, keys and passwords are read for
//! each client, so what was renewed in place counts from the next connection on.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::explain::explain;
use crate::config::{CertificateFiles, EtcdConfig, read_authorities};
use crate::tls::system_authorities;

/// Connects, logs in if there is a user, and asks one question, because a client connects only when it is used.
/// Every call on the result still needs a time limit of its own: the client's does not cover the wait for a connection.
pub async fn connect(config: &EtcdConfig, endpoint: &str) -> Result<Client, ConnectError> {
    let (said, over_tls) = (config.clone(), endpoint.starts_with("https://"));
    let options = spawn_blocking(move || options(&said, over_tls)).await.unwrap_or_else(|error| Err(error.to_string()));
    let options = options.map_err(ConnectError::Settings)?;
    let attempt = async {
        let mut client = Client::connect([endpoint], Some(options)).await?;
        client.status().await.map(|_| client)
    };
    match timeout(ATTEMPT_TIMEOUT, attempt).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(source)) => Err(ConnectError::Etcd { endpoint: endpoint.to_owned(), source }),
        Err(_) => Err(ConnectError::Silent { endpoint: endpoint.to_owned() }),
    }
}

#[derive(Debug)]
pub enum ConnectError {
    /// A file that the configuration names is not what it should be; which, and why.
    Settings(String),
    Etcd {
        endpoint: String,
        source: Error,
    },
    /// No answer within the limit.
    Silent {
        endpoint: String,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(reason) => f.write_str(reason),
            Self::Etcd { endpoint, source } => write!(f, "{endpoint}: {}", explain(source)),
            Self::Silent { endpoint } => write!(f, "{endpoint}: no answer within {ATTEMPT_TIMEOUT:?}"),
        }
    }
}

impl std::error::Error for ConnectError {}

fn options(config: &EtcdConfig, over_tls: bool) -> Result<ConnectOptions, String> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(CALL_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some(credentials) = &config.credentials {
        let password = credentials.password.read().map_err(|reason| format!("registry.password_file: {reason}"))?;
        options = options.with_user(&credentials.user, password.reveal());
    }
    if over_tls {
        options = options.with_tls(tls(config)?);
    }
    Ok(options)
}

fn tls(config: &EtcdConfig) -> Result<TlsOptions, String> {
    let authorities = match &config.ca {
        Some(path) => read_authorities(path).map_err(|reason| format!("registry.ca: {reason}"))?,
        None => system_authorities().map_err(|reason| format!("{reason}; set registry.ca"))?,
    };
    // Without a limit of its own, a handshake with a stopped process never ends.
    let mut tls = TlsOptions::new().timeout(HANDSHAKE_TIMEOUT).trust_anchors(Arc::unwrap_or_clone(authorities).roots);
    if let Some(name) = &config.server_name {
        tls = tls.domain_name(name);
    }
    if let Some(CertificateFiles { chain, key }) = &config.identity {
        tls = tls.identity(Identity::from_pem(pem("certificate", chain)?, pem("key", key)?));
    }
    Ok(tls)
}

/// The library takes a file without any PEM in it for an empty list.
fn pem(field: &str, path: &Path) -> Result<Vec<u8>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("registry.{field}: {}: {error}", path.display()))?;
    if !bytes.windows(PEM_MARK.len()).any(|window| window == PEM_MARK) {
        return Err(format!("registry.{field}: {}: there is nothing in PEM form in it", path.display()));
    }
    Ok(bytes)
}

const PEM_MARK: &[u8] = b"-----BEGIN ";

/// For connecting, logging in and the first answer together.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Until the head of an answer; streams live on. Longer than an election takes.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// etcd cuts connections that ping more often than every 5 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Credentials, Password};

    fn at(endpoint: &str) -> EtcdConfig {
        EtcdConfig::plain(vec![endpoint.to_owned()])
    }

    async fn failure(config: &EtcdConfig) -> String {
        connect(config, &config.endpoints[0]).await.err().expect("nobody is there").to_string()
    }

    #[tokio::test]
    async fn a_dead_endpoint_is_named_with_its_reason() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let said = failure(&at(&format!("http://127.0.0.1:{port}"))).await;
        assert!(said.starts_with(&format!("http://127.0.0.1:{port}: nothing listens there")), "{said}");
    }

    #[tokio::test]
    async fn files_that_have_become_useless_are_named_with_their_field() {
        let (none, empty) = (PathBuf::from("/nowhere/file"), tempfile::NamedTempFile::new().unwrap());
        let password = |file: &Path| Credentials { user: "u".to_owned(), password: Password::File(file.to_owned()) };
        let identity = CertificateFiles { chain: empty.path().to_owned(), key: none.clone() };
        let config = || at("https://127.0.0.1:1");
        for (config, words) in [
            (EtcdConfig { ca: Some(none.clone()), ..config() }, "registry.ca: /nowhere/file: No such file"),
            (EtcdConfig { ca: Some(empty.path().to_owned()), ..config() }, "holds no certificate"),
            (EtcdConfig { identity: Some(identity), ..config() }, "nothing in PEM form in it"),
            (
                EtcdConfig { credentials: Some(password(&none)), ..config() },
                "registry.password_file: /nowhere/file: No such file",
            ),
            (EtcdConfig { credentials: Some(password(empty.path())), ..config() }, "is empty"),
        ] {
            let said = failure(&config).await;
            assert!(said.starts_with("registry.") && said.contains(words), "{said}");
        }
    }
}
