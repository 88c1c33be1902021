//! An etcd as the configuration names it: where it is, who vouches for it, and who we say we are.
//!
//! Each file is read and judged here, so that a wrong one is told with its line. Whoever connects reads it again, so that
//! what is renewed counts from the next connection on.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::ServerName;

use crate::model::Secret;
use crate::wire::fields::{Fields, Read};
use crate::wire::node::{Node, Value, quoted};
use crate::wire::scalar::{text, word};

use super::Layers;
use super::file::open_to_all;
use super::registry::path_in;
use super::tls::{CertificateFiles, read_authorities};

/// How to reach an etcd. Also what the client commands (`get`, `register`, …) use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// At least one, each with its scheme.
    pub endpoints: Vec<String>,
    pub credentials: Option<Credentials>,
    /// PEM file with those who may vouch for an etcd; `None`: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// The name its certificate has to be for; `None`: the endpoint's host.
    pub server_name: Option<String>,
    /// What we show of ourselves.
    pub identity: Option<CertificateFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: Password,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    Said(Secret),
    File(PathBuf),
}

impl EtcdConfig {
    /// Nobody has to show who they are.
    pub fn plain(endpoints: Vec<String>) -> Self {
        Self { endpoints, credentials: None, ca: None, server_name: None, identity: None }
    }
}

impl Password {
    /// As it is now. `Err` says what is wrong with the file, never what stands in it.
    pub fn read(&self) -> Result<Secret, String> {
        match self {
            Self::Said(secret) => Ok(secret.clone()),
            Self::File(path) => read_password(path).map_err(|reason| format!("{}: {reason}", path.display())),
        }
    }
}

fn read_password(path: &Path) -> Result<Secret, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(PASSWORD_FILE_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > PASSWORD_FILE_MAX {
        return Err(format!("is longer than {PASSWORD_FILE_MAX} bytes"));
    }
    match std::str::from_utf8(&bytes).map(|text| text.trim_end_matches(['\r', '\n'])) {
        Ok("") => Err("is empty".to_owned()),
        Ok(password) if password.contains(['\r', '\n']) => Err("has more than one line".to_owned()),
        Ok(password) => Ok(Secret::new(password)),
        Err(_) => Err("is not UTF-8".to_owned()),
    }
}

/// `None` only with a note, or while no etcd is used.
pub(super) fn etcd(fields: &mut Fields<'_>, layers: &Layers, in_use: bool) -> Option<EtcdConfig> {
    let endpoints = fields.list("endpoints", endpoint).unwrap_or_default();
    let credentials = credentials(fields, layers);
    let ca = fields.optional("ca", |node| {
        let path = path_in(layers)(node)?;
        read_authorities(&path).map(|_| path)
    });
    let server_name = fields.optional("server_name", server_name);
    let identity = identity(fields, layers);
    if !in_use {
        return None;
    }
    if !fields.has("endpoints") {
        fields.wrong("endpoints", "is missing; a registry of kind \"etcd\" has at least one, as in [\"http://127.0.0.1:2379\"]");
        return None;
    }
    if endpoints.is_empty() {
        fields.wrong("endpoints", "has nothing usable in it; it has at least one URL, as in [\"http://127.0.0.1:2379\"]");
    }
    if let Some(plain) = endpoints.iter().find(|endpoint| endpoint.starts_with("http://")) {
        for key in ["ca", "server_name", "certificate"].iter().filter(|key| fields.has(key)) {
            fields.wrong(key, format!("is for https:// endpoints, and {plain} is not one"));
        }
    }
    if let Some(plain) = endpoints.iter().find(|endpoint| is_overheard(endpoint))
        && credentials.is_some()
    {
        fields.odd("user", format!("goes to {plain} with its password unencrypted: use https:// endpoints"));
    }
    Some(EtcdConfig { endpoints, credentials, ca, server_name, identity })
}

/// Others share the wire to it, and it is not encrypted.
fn is_overheard(endpoint: &str) -> bool {
    let is_near = |host: &str| ["127.", "[::1]", "localhost"].iter().any(|near| host.starts_with(near));
    endpoint.strip_prefix("http://").is_some_and(|host| !is_near(host))
}

fn credentials(fields: &mut Fields<'_>, layers: &Layers) -> Option<Credentials> {
    let user = fields.optional("user", word);
    let said = fields.optional("password", secret).map(Password::Said);
    let file = fields.optional("password_file", |node| {
        let password = Password::File(path_in(layers)(node)?);
        password.read().map(|_| password)
    });
    if fields.has("password") && fields.has("password_file") {
        fields.wrong("password", "stands beside password_file; one of them is enough");
    }
    for key in ["password", "password_file"] {
        if fields.has(key) && !fields.has("user") {
            fields.wrong(key, "needs user beside it");
        }
    }
    if fields.has("user") && !fields.has("password") && !fields.has("password_file") {
        fields.wrong("user", "needs password or password_file beside it");
    }
    if let Some(Password::File(path)) = &file
        && let Some(odd) = open_to_all(path)
    {
        fields.odd("password_file", odd);
    }
    Some(Credentials { user: user?, password: said.or(file)? })
}

fn identity(fields: &mut Fields<'_>, layers: &Layers) -> Option<CertificateFiles> {
    let [chain, key] = ["certificate", "key"].map(|key| fields.optional(key, path_in(layers)));
    for (one, other) in [("certificate", "key"), ("key", "certificate")] {
        if fields.has(one) && !fields.has(other) {
            fields.wrong(one, format!("needs {other} beside it"));
        }
    }
    let files = CertificateFiles { chain: chain?, key: key? };
    let now = SystemTime::now();
    match files.read(now) {
        Ok((certificate, _)) if certificate.not_after <= now => {
            let date = humantime::format_rfc3339_seconds(certificate.not_after);
            fields.odd("certificate", format!("{} was good until {date}; no etcd will take it", files.chain.display()));
        }
        // What else is odd about it matters to browsers.
        Ok(_) => {}
        Err(problems) => problems.into_iter().for_each(|problem| fields.wrong("certificate", problem)),
    }
    if let Some(odd) = open_to_all(&files.key) {
        fields.odd("key", odd);
    }
    Some(files)
}

/// Its messages never repeat what was said.
fn secret(node: &Node) -> Read<Secret> {
    match &node.value {
        Value::Text(text) | Value::Word(text) if !text.is_empty() => Ok(Secret::new(text)),
        _ => Err("is not a text, or is empty".to_owned()),
    }
}

fn server_name(node: &Node) -> Read<String> {
    let said = word(node)?;
    match ServerName::try_from(said.as_str()) {
        Ok(_) => Ok(said),
        Err(_) => Err(format!("{} is no name that a certificate can be for, such as \"etcd.example\"", quoted(&said))),
    }
}

/// With its scheme and its port, without anything behind.
fn endpoint(node: &Node) -> Read<String> {
    let said = text(node)?;
    let wrong = |right: &str| Err(format!("{} is not the URL of an etcd: {right}", quoted(said)));
    let Some((scheme @ ("http" | "https"), rest)) = said.split_once("://") else {
        return wrong("it begins with http:// or https://, as in \"http://127.0.0.1:2379\"");
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    match rest.parse::<http::uri::Authority>() {
        Ok(host) if rest.contains('@') || host.host().is_empty() => {
            wrong("it is a host and a port, user and password are settings")
        }
        Ok(host) if host.port_u16().is_none_or(|port| port == 0) => wrong("it has no port; etcd's is usually 2379"),
        Ok(host) => Ok(format!("{scheme}://{host}")),
        Err(_) => wrong("it is a scheme, a host and a port, as in \"http://127.0.0.1:2379\""),
    }
}

/// A password is a line.
const PASSWORD_FILE_MAX: u64 = 4096;
