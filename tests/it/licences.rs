//! Every dependency has a licence that `deny.toml` allows, and none that it bans.
//!
//! This says what `cargo deny check licenses bans` would say, without needing the tool; it reads the same file.
//! Advisories are not checked here: their database has to be fetched, and tests run offline.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

#[test]
fn every_dependency_has_an_allowed_licence() {
    let rules = rules();
    let allowed: BTreeSet<&str> = strings(&rules["licenses"]["allow"]).collect();
    let mut wrong = Vec::new();
    for package in dependencies() {
        let said = package["license"].as_str().unwrap_or_default();
        if !Expression::of(said).is_allowed(&allowed) {
            wrong.push(format!("{} {}: {said:?}", package["name"], package["version"]));
        }
    }
    assert!(wrong.is_empty(), "not in deny.toml's licenses.allow:\n{}", wrong.join("\n"));
}

#[test]
fn no_banned_crate_and_no_second_version_of_what_must_be_one() {
    let rules = rules();
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in dependencies() {
        let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();
        versions.entry(text("name")).or_default().insert(text("version"));
    }
    let mut wrong = Vec::new();
    for ban in rules["bans"]["deny"].as_array().expect("bans.deny is a list") {
        let name = ban["crate"].as_str().expect("each ban names a crate");
        let only_twice = ban.get("deny-multiple-versions").and_then(toml::Value::as_bool).unwrap_or_default();
        match versions.get(name) {
            Some(found) if only_twice && found.len() > 1 => wrong.push(format!("{name} is there in versions {found:?}")),
            Some(_) if !only_twice => wrong.push(format!("{name} is banned")),
            None if only_twice => wrong.push(format!("{name} is no dependency any more; drop its line")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "deny.toml, bans.deny:\n{}", wrong.join("\n"));
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]);
    let check = |said: &str, expected| assert_eq!(Expression::of(said).is_allowed(&allowed), expected, "{said}");
    check("MIT", true);
    check("GPL-3.0", false);
    check("GPL-3.0 OR MIT", true);
    check("MIT/GPL-3.0", true);
    check("MIT AND GPL-3.0", false);
    check("(MIT OR Apache-2.0) AND Unicode-3.0", false);
    check("GPL-3.0 AND MIT OR Apache-2.0", true);
    check("Apache-2.0 WITH LLVM-exception", true);
    check("GPL-2.0 WITH Classpath-exception-2.0", false);
    check("", false);
}

/// What this platform's build is made of, from the lock file.
fn dependencies() -> Vec<Value> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", &host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo can be run");
    assert!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("cargo prints JSON");
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let used: BTreeSet<String> = array(&metadata["resolve"]["nodes"]).iter().map(|node| node["id"].to_string()).collect();
    let packages: Vec<Value> = array(&metadata["packages"]).into_iter().filter(|p| used.contains(&p["id"].to_string())).collect();
    assert!(packages.len() > 100, "only {} packages: cargo metadata was misread", packages.len());
    packages
}

fn rules() -> toml::Table {
    include_str!("../../deny.toml").parse().expect("deny.toml is TOML")
}

fn strings(list: &toml::Value) -> impl Iterator<Item = &str> {
    list.as_array().expect("a list").iter().filter_map(toml::Value::as_str)
}

/// An SPDX expression: AND binds closer than OR, and the old `/` means OR.
enum Expression {
    Licence(String),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

impl Expression {
    fn of(said: &str) -> Self {
        let spaced = said.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").replace(" WITH ", "\u{0}");
        let mut words = spaced.split_whitespace().peekable();
        Self::any(&mut words)
    }

    fn any<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Self {
        let mut choices = vec![Self::all(words)];
        while words.next_if_eq(&"OR").is_some() {
            choices.push(Self::all(words));
        }
        Self::Any(choices)
    }

    fn all<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Self {
        let mut parts = vec![Self::one(words)];
        while words.next_if_eq(&"AND").is_some() {
            parts.push(Self::one(words));
        }
        Self::All(parts)
    }

    fn one<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Self {
        match words.next() {
            Some("(") => {
                let inner = Self::any(words);
                words.next_if_eq(&")");
                inner
            }
            word => Self::Licence(word.unwrap_or_default().replace('\u{0}', " WITH ")),
        }
    }

    fn is_allowed(&self, allowed: &BTreeSet<&str>) -> bool {
        match self {
            Self::Licence(name) => allowed.contains(name.as_str()),
            Self::All(parts) => parts.iter().all(|part| part.is_allowed(allowed)),
            Self::Any(choices) => choices.iter().any(|choice| choice.is_allowed(allowed)),
        }
    }
}
