//! File, variables and flags, laid over each other as one tree before anything is read.
//!
//! What a variable or flag says stands in the tree where the file would have said it, with its name as its place; so
//! one reader checks all three, and its messages name the one that spoke.

use std::path::PathBuf;

use crate::wire::Problem;
use crate::wire::node::{Entry, Node, Place, Table, Value};

use super::lines::tree_of;

/// What the process was told. The later of file, variables and flags wins.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    pub file: Option<PathBuf>,
    /// Those of the process; only `POINTSMAN_…` and the ones that name directories are looked at.
    pub variables: Vec<(String, String)>,
    pub flags: Flags,
}

/// The settings that have a flag of their own, as they were typed.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub listen: Vec<String>,
    pub admin: Option<String>,
    pub token_file: Option<PathBuf>,
    pub etcd: Vec<String>,
    pub prefix: Option<String>,
    pub log_format: Option<String>,
    pub log_filter: Option<String>,
    pub user: Option<String>,
    pub group: Option<String>,
}

/// The tree, and the variables that belong to no section of it.
pub(super) struct Tree {
    pub root: Node,
    pub strangers: Vec<String>,
}

impl Tree {
    /// Without the other sections, and without those who might have meant them.
    pub fn only(mut self, section: &str) -> Self {
        if let Value::Table(root) = &mut self.root.value {
            root.entries.retain(|e| e.key == section);
        }
        Self { root: self.root, strangers: Vec::new() }
    }
}

impl Layers {
    /// With the variables of this process.
    pub fn of_process(file: Option<PathBuf>, flags: Flags) -> Self {
        let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
        let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        Self { file, variables, flags }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// `Err` if the file cannot be read or is no TOML; then nothing else can be said about it.
    pub(super) fn tree(&self) -> Result<Tree, Vec<Problem>> {
        let mut root = match &self.file {
            None => Table::default(),
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|e| {
                    vec![Problem { path: String::new(), line: None, message: format!("{}: {e}", file.display()) }]
                })?;
                tree_of(&text)?
            }
        };
        let strangers = self.lay_variables(&mut root);
        self.flags.lay(&mut root);
        Ok(Tree { root: Node { value: Value::Table(root), place: Place::Record }, strangers })
    }

    fn lay_variables(&self, root: &mut Table) -> Vec<String> {
        let mut strangers = Vec::new();
        let mut kind_said = false;
        for (name, value) in &self.variables {
            let Some(rest) = name.strip_prefix("POINTSMAN_") else { continue };
            if OTHERS.contains(&rest) || OTHERS_BEGIN.iter().any(|begin| rest.starts_with(begin)) {
                continue;
            }
            if rest == "LISTEN" {
                let listeners = value.split(',').map(str::trim).filter(|v| !v.is_empty());
                root.set("listener", listeners_of(listeners, name));
                continue;
            }
            let section = SECTIONS.iter().find_map(|section| {
                let key = rest.strip_prefix(&section.to_ascii_uppercase().replace('.', "_"))?.strip_prefix('_')?;
                Some((*section, key.to_ascii_lowercase()))
            });
            match section {
                Some((section, key)) => {
                    kind_said |= (section, key.as_str()) == ("registry", "kind");
                    lay(root, section, &key, word(value, name));
                }
                None => strangers.push(name.clone()),
            }
        }
        if self.variable("POINTSMAN_REGISTRY_ENDPOINTS").is_some() && !kind_said {
            forget_kind(root);
        }
        strangers
    }
}

impl Flags {
    fn lay(&self, root: &mut Table) {
        if !self.listen.is_empty() {
            root.set("listener", listeners_of(self.listen.iter().map(String::as_str), "--listen"));
        }
        if !self.etcd.is_empty() {
            // Several URLs in one flag are as good as several flags.
            lay(root, "registry", "endpoints", word(&self.etcd.join(","), "--etcd"));
            forget_kind(root);
        }
        if let Some(file) = &self.token_file {
            lay(root, "admin", "token_file", word(&file.to_string_lossy(), "--token-file"));
        }
        let single = [
            ("admin", "address", "--admin", &self.admin),
            ("registry", "prefix", "--prefix", &self.prefix),
            ("log", "format", "--log-format", &self.log_format),
            ("log", "filter", "--log-filter", &self.log_filter),
            ("process", "user", "--user", &self.user),
            ("process", "group", "--group", &self.group),
        ];
        for (section, key, flag, value) in single {
            if let Some(value) = value {
                lay(root, section, key, word(value, flag));
            }
        }
    }
}

/// Where the file says something that is no section, the reader will say so.
fn lay(root: &mut Table, section: &str, key: &str, node: Node) {
    let table = section.split('.').try_fold(root, |table, part| table.section_mut(part));
    if let Some(table) = table {
        table.set(key, node);
    }
}

/// Whoever names an etcd over the head of an earlier layer means to use it.
fn forget_kind(root: &mut Table) {
    if let Some(registry) = root.section_mut("registry") {
        registry.remove("kind");
    }
}

fn word(value: &str, name: &str) -> Node {
    Node { value: Value::Word(value.to_owned()), place: Place::Named(name.into()) }
}

/// As many `[[listener]]` with an address.
fn listeners_of<'a>(addresses: impl Iterator<Item = &'a str>, name: &str) -> Node {
    let listener = |address: &str| {
        let node = word(address, name);
        let entry = Entry { key: "address".to_owned(), place: node.place.clone(), node };
        Node { place: entry.place.clone(), value: Value::Table(Table { entries: vec![entry] }) }
    };
    Node { value: Value::List(addresses.map(listener).collect()), place: Place::Named(name.into()) }
}

/// Sections whose keys have variables; the longer names first, because `POINTSMAN_PROXY_LIMITS_FIELDS` begins with both.
const SECTIONS: [&str; 8] = ["proxy.limits", "proxy.shutdown", "log.access", "registry", "admin", "process", "proxy", "log"];
/// Variables that commands read for themselves.
const OTHERS: [&str; 6] = ["CONFIG", "ADDRESS", "SERVICE", "INSTANCE", "TTL", "UPGRADE"];
/// What Kubernetes sets in every pod beside a Service of the name `pointsman`.
const OTHERS_BEGIN: [&str; 2] = ["SERVICE_", "PORT"];
