//! From the layers to a checked `Config`, or to everything that is wrong with them.

use crate::wire::Problem;
use crate::wire::closest;
use crate::wire::fields::{Fields, Notes, Report, Unknown};
use crate::wire::node::Place;
#[cfg(any(test, fuzzing))]
use crate::wire::node::{Node, Value};

use super::address::{Taken, check_distinct};
use super::layers::Tree;
use super::pem_files;
use super::{Config, Layers, Listener, Problems, RegistryConfig, RegistryKind, acme, declared, process, registry};

/// Everything `pointsman run` and `check` need. Beside it what is odd but can be lived with.
pub fn load(layers: &Layers) -> Result<(Config, Problems), Problems> {
    read(layers, layers.tree(), |root| config(root, layers))
}

/// Only `[registry]`, which is all that the client commands need: what is wrong elsewhere does not keep them from working.
pub fn load_registry(layers: &Layers) -> Result<(RegistryConfig, Problems), Problems> {
    let tree = layers.tree().map(|tree| tree.only("registry"));
    read(layers, tree, |root| registry::registry(&mut root.section_or_empty("registry"), layers))
}

/// The same of a file's text.
#[cfg(any(test, fuzzing))]
pub(super) fn load_text(text: &str, layers: &Layers) -> Result<(Config, Problems), Problems> {
    let root = super::lines::tree_of(text).map(|root| Node { value: Value::Table(root), place: Place::Record });
    read(layers, root.map(|root| Tree { root, strangers: Vec::new() }), |root| config(root, layers))
}

fn read<T>(
    layers: &Layers,
    tree: Result<Tree, Vec<Problem>>,
    read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
) -> Result<(T, Problems), Problems> {
    let located = |list| Problems::sorted(layers.file.clone(), list);
    let Tree { mut root, mut strangers } = tree.map_err(located)?;
    let report = Report::new(Unknown::Error);
    pem_files::lay_in(&mut root, layers, &report);
    let value = Fields::of(&root, String::new(), &report).and_then(|mut root| read(&mut root));
    let Notes { problems, mut warnings, known, strangers: misspelt } = report.into_notes();
    strangers.extend(misspelt.iter().map(ToString::to_string));
    warnings.extend(strangers.iter().map(|name| stranger(name, &known)));
    match value {
        Some(value) if problems.is_empty() => Ok((value, located(warnings))),
        _ => Err(located(problems)),
    }
}

fn config(root: &mut Fields<'_>, layers: &Layers) -> Option<Config> {
    let listeners = listeners(root, layers);
    let registry = {
        let mut section = root.section_or_empty("registry");
        let registry = registry::registry(&mut section, layers);
        registry.map(|registry| (registry, section.place_of("listen")))
    };
    let (admin, admin_place) = {
        let mut section = root.section_or_empty("admin");
        (process::admin(&mut section, layers), section.place_of("address"))
    };
    let proxy = process::proxy(&mut root.section_or_empty("proxy"));
    for (at, (_, place)) in listeners.iter().enumerate().filter(|(_, (listener, _))| listener.proxy_protocol) {
        if proxy.trusted_proxies.is_empty() {
            let message = "is true, but proxy.trusted_proxies is empty, so every connection would be refused";
            root.report().problem(format!("listener[{at}].proxy_protocol"), place, message.to_owned());
        }
    }
    let log = process::log(&mut root.section_or_empty("log"), layers);
    let process = process::process(&mut root.section_or_empty("process"));
    let acme = root.section("acme").and_then(|mut section| {
        let kind = registry.as_ref().map(|(registry, _)| &registry.kind);
        acme::fits(&section, listeners.iter().map(|(listener, _)| listener), kind);
        acme::acme(&mut section, layers)
    });
    let routes = declared::routes(root);
    let services = declared::services(root);

    let mut taken: Vec<Taken<'_>> = Vec::new();
    for (at, (listener, place)) in listeners.iter().enumerate() {
        taken.push(Taken { path: format!("listener[{at}].address"), place, address: listener.address });
    }
    taken.push(Taken { path: "admin.address".to_owned(), place: admin_place, address: admin.address });
    if let Some((RegistryConfig { kind: RegistryKind::Embedded(embedded), .. }, place)) = &registry {
        taken.push(Taken { path: "registry.listen".to_owned(), place, address: embedded.listen });
    }
    check_distinct(&taken, root.report());

    let listeners = listeners.into_iter().map(|(listener, _)| listener).collect();
    Some(Config { listeners, registry: registry?.0, admin, proxy, log, process, acme, routes, services })
}

/// With the places where they were said; the default if there are none.
fn listeners<'a>(root: &mut Fields<'a>, layers: &Layers) -> Vec<(Listener, &'a Place)> {
    let sections = root.sections("listener");
    if sections.is_empty() {
        return vec![(Listener::default(), root.place_of("listener"))];
    }
    sections.into_iter().filter_map(|mut f| process::listener(&mut f, layers).map(|l| (l, f.place_of("address")))).collect()
}

/// A variable that sets nothing: not an error, because others may use our prefix for their own ends.
fn stranger(name: &str, known: &[String]) -> Problem {
    let is_section =
        |path: &String| known.iter().any(|k| k.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('.')));
    let settings = known.iter().filter(|path| !path.contains('[') && !is_section(path));
    let mut variables: Vec<String> = settings.map(|path| path.to_ascii_uppercase().replace('.', "_")).collect();
    variables.push("LISTEN".to_owned());
    let said = name.strip_prefix("POINTSMAN_").unwrap_or(name);
    let message = match closest(said, variables.iter().map(String::as_str)) {
        Some(meant) => format!("no setting has this name; did you mean POINTSMAN_{meant}?"),
        None => "no setting has this name".to_owned(),
    };
    Problem { path: name.to_owned(), line: None, message }
}
