//! confd's template resources: which keys of etcd its templates iterate over, as sources of instances.
//!
//! 1. A resource (TOML) names its template, the file that is rendered, and a prefix.
//! 2. `template` finds in the template what stands in an `upstream` and iterates over keys.
//! 3. Each is one [`Source`]: the keys stay where they are, and whoever writes them goes on doing so.

mod template;

use std::sync::Arc;

use super::files::{Files, ImportError, folder_of, path_from};
use super::findings::{Ledger, Place, Weight};
use super::nginx::name_of;
use super::{Import, RegistryAt};
use template::{Found, found};

/// One `[[registry.source]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// With `{service}` and `{instance}` for whole segments.
    pub keys: String,
    /// Whose instances they are, if the keys do not say it.
    pub service: Option<String>,
    /// The file that confd renders from them.
    pub dest: String,
}

impl Source {
    /// The source of an upstream that stands in `file`.
    pub fn of<'a>(sources: &'a [Self], file: &str, upstream: &str) -> Option<&'a Self> {
        let name = name_of(upstream);
        sources.iter().find(|source| source.dest == file && source.service.as_ref().is_none_or(|service| *service == name))
    }

    /// What every one of its keys begins with.
    fn folder(&self) -> &str {
        self.keys.split('{').next().unwrap_or_default()
    }

    /// A key has one reader.
    fn overlaps(&self, other: &str) -> bool {
        self.folder().starts_with(other) || other.starts_with(self.folder())
    }
}

/// The resources at `paths`, each in confd's `conf.d` beside its `templates`.
pub fn confd(files: &dyn Files, paths: &[String]) -> Result<Import, ImportError> {
    let mut reading = Reading { files, ledger: Ledger::default(), sources: Vec::new() };
    let mut registry = RegistryAt::default();
    let mut folders: Vec<String> = Vec::new();
    for path in paths {
        let folder = path_from(folder_of(path), "..");
        if !folders.contains(&folder) {
            reading.confd_toml(&path_from(&folder, "confd.toml"), &mut registry)?;
            folders.push(folder.clone());
        }
        reading.resource(path, &folder, &registry.prefix)?;
    }
    let Reading { ledger, sources, .. } = reading;
    Ok(Import { process: None, services: Vec::new(), routes: Vec::new(), sources, registry, ledger })
}

struct Reading<'a> {
    files: &'a dyn Files,
    ledger: Ledger,
    sources: Vec<Source>,
}

impl Reading<'_> {
    /// confd's own settings, if it has any: where etcd is, and what stands before all keys.
    fn confd_toml(&mut self, path: &str, registry: &mut RegistryAt) -> Result<(), ImportError> {
        let Ok(text) = self.files.read(path) else { return Ok(()) };
        for (key, value) in &toml_of(path, &text)? {
            let at = place(path, &text, key);
            match (key.as_str(), value) {
                ("prefix", toml::Value::String(prefix)) => registry.prefix = prefix.clone(),
                ("nodes", toml::Value::Array(nodes)) => {
                    for said in nodes {
                        match said.as_str().and_then(endpoint) {
                            Some(url) => registry.endpoints.push(url),
                            None => {
                                let instead = Some("registry.endpoints".to_owned());
                                self.say(Weight::Lost, &at, key, format!("{said} is not HOST:PORT"), instead);
                            }
                        }
                    }
                }
                ("backend", toml::Value::String(backend)) if backend == "etcdv3" => {}
                ("backend", _) => {
                    let instead = "copy the keys to an etcd v3, where its clients see them".to_owned();
                    self.say(Weight::Lost, &at, key, "instances are read from etcd v3 alone".to_owned(), Some(instead));
                }
                ("client_cert" | "client_key" | "client_cakeys" | "basic_auth" | "username" | "password" | "auth_token", _) => {
                    let instead = "user, password_file, ca, certificate and key of [registry]".to_owned();
                    self.say(Weight::Lost, &at, key, "who we are to etcd is not copied".to_owned(), Some(instead));
                }
                _ => self.say(Weight::Note, &at, key, "concerns confd alone; Pointsman watches etcd".to_owned(), None),
            }
        }
        Ok(())
    }

    fn resource(&mut self, path: &str, folder: &str, outer_prefix: &str) -> Result<(), ImportError> {
        let text = self.files.read(path).map_err(|reason| ImportError::Read { path: path.to_owned(), from: None, reason })?;
        let table = toml_of(path, &text)?;
        let said = table.get("template").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        let word = |key: &str| said.get(key).and_then(toml::Value::as_str);
        for key in said.keys().filter(|key| !["src", "dest", "keys", "prefix"].contains(&key.as_str())) {
            let why = "nothing is rendered or reloaded any more".to_owned();
            self.say(Weight::Note, &place(path, &text, key), key, why, None);
        }
        let (Some(src), Some(dest)) = (word("src"), word("dest")) else {
            let reason = "is no template resource: [template] has no src or no dest".to_owned();
            return Err(ImportError::Read { path: path.to_owned(), from: None, reason });
        };
        let prefix = joined(outer_prefix, word("prefix").unwrap_or_default());
        let template = path_from(folder, &format!("templates/{src}"));
        let from = Some(place(path, &text, "src"));
        let body = self.files.read(&template).map_err(|reason| ImportError::Read { path: template.clone(), from, reason })?;
        let file: Arc<str> = template.as_str().into();
        let mut covered: Vec<String> = Vec::new();
        for (line, action, found) in found(&body) {
            let at = Place { file: file.clone(), line };
            match found {
                Found::Instances { keys, service, values_json } => {
                    let keys = joined(&prefix, &keys);
                    covered.push(keys.clone());
                    let source = Source { keys, service: service.map(|name| name_of(&name)), dest: dest.to_owned() };
                    self.add(source, &at, &action);
                    if values_json {
                        let why =
                            "fields of a value are read by what they are called: docs/registry.md lists the forms".to_owned();
                        self.say(Weight::Differs, &at, &action, why, None);
                    }
                }
                Found::Else(why) => {
                    let instead = "a route or a policy in the registry, or the configuration file".to_owned();
                    self.say(Weight::Lost, &at, &action, why.to_owned(), Some(instead));
                }
            }
        }
        let watched = said.get("keys").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        for key in watched.iter().filter_map(toml::Value::as_str) {
            let whole = joined(&prefix, key);
            if !covered.iter().any(|keys| keys.starts_with(whole.trim_end_matches('/'))) {
                let why = format!("no upstream of the template iterates over {whole}");
                let instead = "a [[registry.source]], if instances are there".to_owned();
                self.say(Weight::Lost, &place(path, &text, "keys"), "keys", why, Some(instead));
            }
        }
        Ok(())
    }

    fn add(&mut self, source: Source, at: &Place, action: &str) {
        if self.sources.iter().any(|known| known.keys == source.keys && known.service == source.service) {
            return;
        }
        let taken = self.sources.iter().any(|known| known.overlaps(source.folder())) || source.overlaps(OURS);
        if source.folder() == "/" || !source.keys[1..].split('/').all(is_segment) {
            let why = format!("{} is no pattern of keys", source.keys);
            return self.say(Weight::Lost, at, action, why, Some("a [[registry.source]]".to_owned()));
        }
        if taken {
            let why =
                format!("{} shares keys with another source, or with Pointsman's own, and a key has one reader", source.keys);
            return self.say(Weight::Lost, at, action, why, Some("register these instances with pointsman register".to_owned()));
        }
        self.sources.push(source);
    }

    fn say(&mut self, weight: Weight, at: &Place, said: &str, why: String, instead: Option<String>) {
        self.ledger.say(weight, at, said.to_owned(), why, instead);
    }
}

fn toml_of(path: &str, text: &str) -> Result<toml::Table, ImportError> {
    let reason = |error: toml::de::Error| error.message().replace('\n', " ");
    text.parse().map_err(|error| ImportError::Read { path: path.to_owned(), from: None, reason: reason(error) })
}

/// `HOST:PORT`, with or without a scheme.
fn endpoint(said: &str) -> Option<String> {
    let (scheme, authority) = said.split_once("://").unwrap_or(("http", said));
    let is_whole = matches!(scheme, "http" | "https") && crate::model::Address::parse(authority).is_ok();
    is_whole.then(|| format!("{scheme}://{authority}"))
}

/// A plain one, or a placeholder.
fn is_segment(segment: &str) -> bool {
    let is_plain =
        !segment.is_empty() && !segment.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}'));
    is_plain || matches!(segment, "{service}" | "{instance}")
}

/// The line on which a key is set.
fn place(path: &str, text: &str, key: &str) -> Place {
    let sets = |line: &str| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
    Place { file: path.into(), line: text.lines().position(sets).map_or(1, |at| at + 1) }
}

fn joined(prefix: &str, key: &str) -> String {
    let parts = [prefix, key].map(|part| part.trim_matches('/'));
    format!("/{}", parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/"))
}

/// Where our own records are, unless somebody says otherwise.
const OURS: &str = "/pointsman/";
