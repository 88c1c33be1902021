//! `docs/configuration.md` and the example file against the code: every key that is read stands there, nothing else
//! does, and each default that is printed there is the code's.

use std::collections::BTreeSet;
use std::path::Path;

use crate::wire::documented::{STRANGER, known, rows};

use super::*;

fn layers_of(text: &str) -> (tempfile::TempDir, Layers) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pointsman.toml");
    std::fs::write(&file, text).unwrap();
    let variables = vec![("HOME".to_owned(), "/home/me".to_owned())];
    (directory, Layers { file: Some(file), variables, flags: Flags::default() })
}

/// The sections of the manual, with the headings it gives them.
const SECTIONS: [&str; 18] = [
    "[[listener]]",
    TLS,
    "[listener.tls.hsts]",
    "[registry]",
    "[[registry.source]]",
    "[admin]",
    "[admin.tls]",
    "[proxy]",
    "[proxy.limits]",
    "[proxy.shutdown]",
    "[log]",
    "[log.access]",
    "[process]",
    ACME,
    "[acme.external_account]",
    "[[acme.certificate]]",
    "[[route]]",
    "[[service]]",
];

#[test]
fn every_key_is_documented_and_no_other() {
    let mut file = String::new();
    for section in SECTIONS {
        let needed = match section {
            "[[listener]]" => "address = '127.0.0.1:0'\n",
            "[[registry.source]]" => "keys = '/services/{service}/{instance}'\n",
            "[listener.tls.hsts]" => "max_age = '1d'\n",
            "[[route]]" => "service = 'a'\n",
            "[[service]]" => "name = 'a'\n",
            _ => "",
        };
        file.push_str(&format!("{section}\n{needed}'{STRANGER}' = 1\n"));
    }
    let (_directory, layers) = layers_of(&file);
    // A route and a service have the fields of the registry too; those are documented there.
    let of_the_registry = |path: &str| {
        let below =
            path.strip_prefix("route.").map(|p| (p, "name")).or(path.strip_prefix("service.").map(|p| (p, "name instances")));
        below.is_some_and(|(key, own)| !own.split(' ').any(|o| o == key))
    };
    let found = known(&load(&layers).unwrap_err().list).into_iter().map(|path| path.replace("[0]", ""));
    let found: BTreeSet<String> = found.filter(|path| !of_the_registry(path)).collect();
    let path_of = |section: &str, key: &str| format!("{}.{key}", section.trim_matches(['[', ']']));
    let documented: BTreeSet<String> = rows(MANUAL).iter().map(|row| path_of(&row.section, &row.key)).collect();
    assert_eq!(found, documented);
}

#[test]
fn every_default_in_the_manual_is_the_one_of_the_code() {
    let mut file = String::new();
    let is_plain = |section: &&str| !section.starts_with("[listener.tls") && *section != ACME;
    for section in SECTIONS.into_iter().filter(is_plain) {
        let said: Vec<String> = rows(MANUAL)
            .into_iter()
            .filter(|row| row.section == section)
            .filter_map(|row| Some(format!("{} = {}\n", row.key, row.default?)))
            .collect();
        if !said.is_empty() {
            file.push_str(&format!("{section}\n{}", said.concat()));
        }
    }
    assert!(file.lines().count() > 25, "the manual's tables were read: {file}");
    let (_directory, layers) = layers_of(&file);
    let (config, warnings) = load(&layers).unwrap_or_else(|problems| panic!("{problems}\n{file}"));
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(config, load(&layers_of("").1).unwrap_or_else(|problems| panic!("{problems}")).0);
}

#[test]
fn every_default_of_tls_in_the_manual_is_the_one_of_the_code() {
    let said = rows(MANUAL).into_iter().filter(|row| row.section == TLS);
    let said: String = said.filter_map(|row| Some(format!("{} = {}\n", row.key, row.default?))).collect();
    assert!(said.lines().count() == 2, "{said}");
    let (_directory, layers) = layers_of(&format!("[[listener]]\naddress = '127.0.0.1:0'\n{TLS}\n{said}"));
    let (config, _) = load(&layers).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.listeners[0].tls, Some(TlsConfig::default()));
}

#[test]
fn every_default_of_acme_in_the_manual_is_the_one_of_the_code() {
    let of = |lines: &str| {
        let listeners = "[[listener]]\naddress = '127.0.0.1:0'\n[[listener]]\naddress = '127.0.0.1:0'\n[listener.tls]\n";
        let text = format!("{listeners}{ACME}\nterms_agreed = true\ndomains = ['a.example']\n{lines}");
        let (config, warnings) = load(&layers_of(&text).1).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(warnings.is_empty(), "{warnings}");
        config.acme
    };
    let said = rows(MANUAL).into_iter().filter(|row| row.section == ACME);
    let said: String = said.filter_map(|row| Some(format!("{} = {}\n", row.key, row.default?))).collect();
    assert!(said.lines().count() == 4 && of("").is_some(), "{said}");
    assert_eq!(of(&said), of(""));
}

#[test]
fn the_examples_load_without_a_word() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/pointsman.example.toml");
    let (config, warnings) =
        load(&Layers { file: Some(example), ..Layers::default() }).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!((config.listeners.len(), config.routes.len(), config.services.len()), (2, 2, 2));

    let blocks: Vec<&str> = MANUAL.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 5);
    let (_directory, layers) = layers_of(&blocks.concat());
    assert!(load(&layers).is_ok_and(|(_, warnings)| warnings.is_empty()));
}

const ACME: &str = "[acme]";
const TLS: &str = "[listener.tls]";
const MANUAL: &str = include_str!("../../docs/configuration.md");
