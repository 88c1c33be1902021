//! One client for one endpoint, with every limit set; and what etcd's errors mean, in words.
//!
//! A client of several endpoints would go on giving calls to the dead ones (the library neither retries nor fails over),
//! so whoever has several endpoints takes them in turn with one client each.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::time::timeout;

use crate::config::EtcdConfig;

/// Connects, logs in if there is a user, and asks one question, because a client connects only when it is used.
/// Every call on the result still needs a time limit of its own: the client's does not cover the wait for a connection.
pub async fn connect(config: &EtcdConfig, endpoint: &str) -> Result<Client, ConnectError> {
    let options = options(config, endpoint).await?;
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
    /// A file the configuration names cannot be read.
    File {
        field: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A client certificate without its key, or the other way round.
    HalfIdentity,
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
            Self::File { field, path, source } => write!(f, "registry.{field}: {}: {source}", path.display()),
            Self::HalfIdentity => f.write_str("registry.certificate and registry.key belong together: one of them is missing"),
            Self::Etcd { endpoint, source } => write!(f, "{endpoint}: {}", explain(source)),
            Self::Silent { endpoint } => write!(f, "{endpoint}: no answer within {ATTEMPT_TIMEOUT:?}"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// What went wrong, as an operator would say it. The library's own texts hide the cause in a chain of sources.
pub fn explain(error: &Error) -> String {
    let Error::GRpcStatus(status) = error else {
        return error.to_string();
    };
    let mut said = status.message().to_owned();
    let mut source = status.source();
    while let Some(cause) = source {
        let cause_said = cause.to_string();
        // Most links of the chain repeat what the next one says, or say nothing.
        if !said.contains(&cause_said) && cause_said != "transport error" {
            said = format!("{said}: {cause_said}");
        }
        source = cause.source();
    }
    let hint = HINTS.iter().find(|(part, _)| said.contains(part)).map(|(_, hint)| *hint);
    match hint {
        Some(hint) => format!("{hint} ({said})"),
        None if said.is_empty() => format!("{:?}", status.code()),
        None => said,
    }
}

async fn options(config: &EtcdConfig, endpoint: &str) -> Result<ConnectOptions, ConnectError> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(CALL_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some(credentials) = &config.credentials {
        options = options.with_user(&credentials.user, &credentials.password);
    }
    if endpoint.starts_with("https://") {
        options = options.with_tls(tls(config).await?);
    }
    Ok(options)
}

async fn tls(config: &EtcdConfig) -> Result<TlsOptions, ConnectError> {
    // Without a limit of its own, a handshake with a stopped process never ends.
    let mut tls = TlsOptions::new().timeout(HANDSHAKE_TIMEOUT);
    match &config.ca {
        Some(path) => tls = tls.ca_certificate(Certificate::from_pem(pem("ca", path).await?)),
        None => {
            if let Some(bundle) = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists()) {
                tls = tls.ca_certificate(Certificate::from_pem(pem("ca", bundle).await?));
            }
        }
    }
    match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => {
            let identity = Identity::from_pem(pem("certificate", certificate).await?, pem("key", key).await?);
            Ok(tls.identity(identity))
        }
        (None, None) => Ok(tls),
        _ => Err(ConnectError::HalfIdentity),
    }
}

/// The library takes a file without any PEM in it for an empty list.
async fn pem(field: &'static str, path: &Path) -> Result<Vec<u8>, ConnectError> {
    let fail = |source| ConnectError::File { field, path: path.to_owned(), source };
    let bytes = tokio::fs::read(path).await.map_err(fail)?;
    if !bytes.windows(PEM_MARK.len()).any(|window| window == PEM_MARK) {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidData, "there is nothing in PEM form in it")));
    }
    Ok(bytes)
}

/// The first one found wins.
const HINTS: [(&str, &str); 13] = [
    ("Connection refused", "nothing listens there"),
    ("authentication failed", "the user or the password is wrong"),
    ("user name is empty", "this etcd wants registry.user and registry.password"),
    ("permission denied", "the etcd user may not do this; it needs a role for the whole prefix"),
    ("authentication is not enabled", "this etcd knows no users; leave out registry.user"),
    ("UnknownIssuer", "the certificate there was signed by an authority we do not know; set registry.ca"),
    ("operation was canceled", "the connection was closed at once; does this etcd want a client certificate?"),
    ("broken pipe", "it hung up; does it want https?"),
    ("Broken pipe", "it hung up; does it want https?"),
    ("tls handshake eof", "it does not speak TLS; http instead of https?"),
    ("InvalidContentType", "it does not speak TLS; http instead of https?"),
    ("no leader", "this etcd has no leader at the moment"),
    ("Timeout expired", "it did not answer in time"),
];

const PEM_MARK: &[u8] = b"-----BEGIN ";

/// Where systems keep the authorities they trust (Debian, Red Hat, Alpine); used when no `ca` is configured.
const SYSTEM_BUNDLES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

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
    use super::*;

    fn at(endpoint: &str) -> EtcdConfig {
        EtcdConfig { endpoints: vec![endpoint.to_owned()], credentials: None, ca: None, certificate: None, key: None }
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
    async fn files_that_are_missing_are_named_with_their_field() {
        let mut config = at("https://127.0.0.1:1");
        config.ca = Some("/nowhere/ca.pem".into());
        let said = failure(&config).await;
        assert!(said.starts_with("registry.ca: /nowhere/ca.pem: "), "{said}");

        let empty = tempfile::NamedTempFile::new().unwrap();
        config.ca = Some(empty.path().to_owned());
        assert!(failure(&config).await.ends_with("nothing in PEM form in it"));

        let mut config = at("https://127.0.0.1:1");
        config.key = Some("/nowhere/key.pem".into());
        assert!(failure(&config).await.contains("belong together"));
    }
}
