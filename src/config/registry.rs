//! `[registry]`: an etcd somewhere, or the one inside this process, and what is read of it beside our own prefix.

use std::path::{Path, PathBuf};

use crate::model::ServiceName;
use crate::wire::fields::{Fields, Read};
use crate::wire::node::{Node, Place, quoted};
use crate::wire::scalar::{named, one_of, text, word};

use super::address::listen_address;
use super::etcd::etcd;
use super::{EmbeddedConfig, KeyPattern, Layers, Network, RegistryConfig, RegistryKind};

/// `None` only with a note.
pub(super) fn registry(fields: &mut Fields<'_>, layers: &Layers) -> Option<RegistryConfig> {
    let kind = fields.optional("kind", one_of(&Kind::ALL, Kind::as_str));
    let kind = kind.unwrap_or(if fields.has("endpoints") { Kind::Etcd } else { Kind::Embedded });
    let prefix = fields.or("prefix", RegistryConfig::PREFIX_DEFAULT.to_owned(), prefix);
    let snapshot = fields.optional("snapshot", path_in(layers));
    let sources = sources(fields, &prefix);
    let allow_addresses = fields.list("allow_addresses", named(Network::parse));
    let etcd = etcd(fields, layers, kind == Kind::Etcd);
    let embedded = embedded(fields, layers, kind == Kind::Embedded);
    let foreign: &[&str] = match kind {
        Kind::Etcd => &["listen", "data"],
        Kind::Embedded => &["endpoints", "user", "password", "password_file", "ca", "server_name", "certificate", "key"],
    };
    for key in foreign.iter().filter(|key| fields.has(key)) {
        fields.odd(key, format!("is not used by a registry of kind {:?}", kind.as_str()));
    }
    let kind = match kind {
        Kind::Etcd => RegistryKind::Etcd(etcd?),
        Kind::Embedded => RegistryKind::Embedded(embedded),
    };
    Some(RegistryConfig { kind, prefix, snapshot, sources, allow_addresses })
}

/// A path in the file is relative to the file; one in a variable, to where the process runs.
pub(super) fn path_in(layers: &Layers) -> impl Fn(&Node) -> Read<PathBuf> {
    let beside = layers.file.as_deref().and_then(Path::parent).map(Path::to_owned);
    move |node| {
        let path = PathBuf::from(word(node)?);
        Ok(match (&node.place, &beside) {
            (Place::Line(_), Some(directory)) => directory.join(path),
            _ => path,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Etcd,
    Embedded,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Etcd, Self::Embedded];

    fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Embedded => "embedded",
        }
    }
}

/// Two readers of one key would not know whose it is, so no folder may lie in another, or around our own.
fn sources(fields: &mut Fields<'_>, prefix: &str) -> Vec<KeyPattern> {
    let mut taken = vec![("registry.prefix".to_owned(), format!("{prefix}/"))];
    let mut sources = Vec::new();
    for (at, mut source) in fields.sections("source").into_iter().enumerate() {
        let service = source.optional("service", named(ServiceName::parse));
        let pattern = source.required("keys", |node| KeyPattern::parse(text(node)?));
        let Some(pattern) = pattern else { continue };
        match (pattern.names_service(), source.has("service")) {
            (true, true) => source.wrong("service", "stands beside keys that name the service themselves"),
            (false, false) => source.wrong("keys", "has no {service}; then service has to say whose instances they are"),
            _ => {}
        }
        let folder = pattern.folder().to_owned();
        let shares = |other: &str| folder.starts_with(other) || other.starts_with(&folder);
        if let Some((whose, other)) = taken.iter().find(|(_, other)| shares(other)) {
            source.wrong("keys", format!("reads all of {}, and {whose} reads {}", quoted(&folder), quoted(other)));
        }
        taken.push((format!("registry.source[{at}]"), folder));
        sources.push(pattern.of_service(service));
    }
    if sources.len() > SOURCES_MAX {
        fields.wrong("source", format!("there are {} of them; at most {SOURCES_MAX} are allowed", sources.len()));
    }
    sources
}

fn embedded(fields: &mut Fields<'_>, layers: &Layers, in_use: bool) -> EmbeddedConfig {
    let listen = fields.or("listen", EmbeddedConfig::default().listen, listen_address);
    if in_use && !listen.ip().is_loopback() {
        fields.odd("listen", format!("{listen} lets everyone who reaches it change where requests go"));
    }
    let in_memory = |node: &Node| Ok(text(node)?.is_empty());
    let data = match fields.optional("data", in_memory) {
        Some(true) => None,
        Some(false) => fields.optional("data", path_in(layers)),
        None => {
            let usual = data_default(layers);
            if in_use && usual.is_none() {
                fields
                    .odd("data", "is not said, and there is no home directory: the registry is forgotten when the process ends");
            }
            usual
        }
    };
    EmbeddedConfig { listen, data }
}

/// systemd's state directory, else the user's.
fn data_default(layers: &Layers) -> Option<PathBuf> {
    let absolute = |name: &str| layers.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // Several directories are separated by colons; the first is ours.
    let systemd = layers.variable("STATE_DIRECTORY").and_then(|all| all.split(':').next()).map(PathBuf::from);
    let user = || {
        let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        state.map(|state| state.join("pointsman"))
    };
    systemd.or_else(user).map(|directory| directory.join("registry"))
}

fn prefix(node: &Node) -> Read<String> {
    let said = text(node)?;
    let prefix = said.trim_end_matches('/');
    let segments =
        || prefix.split('/').skip(1).all(|s| !s.is_empty() && s.chars().all(|c| !c.is_whitespace() && !c.is_control()));
    if prefix.starts_with('/') && segments() {
        return Ok(prefix.to_owned());
    }
    Err(format!("{} is not a prefix such as \"/pointsman\"", quoted(said)))
}

/// Each has a connection of its own.
const SOURCES_MAX: usize = 16;
