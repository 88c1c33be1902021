//! Certificates made on the spot, and clients of TLS: curl, openssl, and one that speaks for itself.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Somebody who vouches for others.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// For these names, of which the first is the subject's; good for 90 days.
    pub fn vouch(&self, names: &[&str]) -> Pair {
        self.vouch_for(names, Duration::from_secs(90 * 86_400))
    }

    pub fn vouch_for(&self, names: &[&str], how_long: Duration) -> Pair {
        self.vouch_until(names, SystemTime::now() + how_long)
    }

    /// From two days ago on.
    pub fn vouch_until(&self, names: &[&str], end: SystemTime) -> Pair {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).expect("names");
        params.distinguished_name.push(DnType::CommonName, names[0]);
        let begin = SystemTime::now() - Duration::from_secs(2 * 86_400);
        (params.not_before, params.not_after) = (begin.into(), end.into());
        let key = KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { chain: made.pem(), key: key.serialize_pem() }
    }
}

impl Pair {
    /// As a record of the registry.
    pub fn record(&self) -> String {
        serde_json::json!({ "chain": self.chain, "key": self.key }).to_string()
    }

    /// Puts both files in place of those of that name, as programs that renew certificates do.
    pub fn write(&self, folder: &Path, name: &str) {
        for (ending, text) in [("pem", &self.chain), ("key", &self.key)] {
            let new = folder.join(format!("{name}.{ending}.new"));
            std::fs::write(&new, text).expect("a file");
            std::fs::rename(new, folder.join(format!("{name}.{ending}"))).expect("a file in its place");
        }
    }
}

/// What curl got.
#[derive(Debug)]
pub struct Curled {
    /// 0: there was no answer.
    pub status: u16,
    pub version: String,
    pub body: String,
    /// In lower case, and behind them what curl complained of.
    pub fields: String,
}

/// Asks `https://HOST:PORT/PATH` of this address; `ca.pem` in the folder vouches for it.
pub fn curl(folder: &Path, to: SocketAddr, host: &str, path: &str, args: &[&str]) -> Curled {
    let out = Command::new("curl")
        .current_dir(folder)
        .args(["--silent", "--show-error", "--max-time", "15", "--cacert", "ca.pem", "--dump-header", "-"])
        .args(["--write-out", "\n%{http_code} %{http_version}"])
        .args(["--resolve", &format!("{host}:{}:{}", to.port(), to.ip())])
        .args(args)
        .arg(format!("https://{host}:{}{path}", to.port()))
        .output()
        .expect("curl runs");
    let said = String::from_utf8_lossy(&out.stdout).replace("\r\n", "\n");
    let (said, written) = said.rsplit_once('\n').unwrap_or(("", ""));
    let (status, version) = written.split_once(' ').unwrap_or_default();
    let (fields, body) = said.split_once("\n\n").unwrap_or((said, ""));
    Curled {
        status: status.parse().unwrap_or_default(),
        version: version.to_owned(),
        body: body.to_owned(),
        fields: fields.to_ascii_lowercase() + &String::from_utf8_lossy(&out.stderr),
    }
}

/// What openssl's client saw of a handshake with one request behind it.
#[derive(Debug)]
pub struct Seen(pub String);

impl Seen {
    /// The certificate's subject, in short.
    pub fn subject(&self) -> &str {
        self.0.lines().find_map(|line| line.strip_prefix("subject=")).unwrap_or_default()
    }

    pub fn is_resumed(&self) -> bool {
        self.0.lines().any(|line| line.starts_with("Reused, "))
    }

    /// The first line of what was answered, wherever openssl wrote it among its own words.
    pub fn answer(&self) -> &str {
        let answer = self.0.find("HTTP/1.1 ").map_or("", |at| &self.0[at..]);
        answer.lines().next().unwrap_or_default().trim_end()
    }
}

pub fn s_client(folder: &Path, to: SocketAddr, name: &str, args: &[&str]) -> Seen {
    let mut child = Command::new("openssl")
        .current_dir(folder)
        .args(["s_client", "-connect", &to.to_string(), "-servername", name, "-CAfile", "ca.pem", "-ign_eof"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    // Where the handshake fails, nobody reads this.
    let _ = std::io::Write::write_all(&mut child.stdin.take().expect("its input"), request.as_bytes());
    let out = child.wait_with_output().expect("openssl ends");
    Seen(String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

/// A connection over TLS on which anything may be spoken.
pub async fn connect(to: SocketAddr, name: &str, ca: &str, protocols: &[&str]) -> Result<TlsStream<TcpStream>, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())
}
