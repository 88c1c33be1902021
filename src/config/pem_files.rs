//! `ca_file`, `certificate_file` and `key_file` of the `tls` of a `[[service]]`: a record has its texts in itself, a file
//! would rather name them. They are laid into the tree before it is read, so both are judged by one reader.

use crate::wire::fields::{Read, Report};
use crate::wire::node::{Node, Table, Value};

use super::Layers;
use super::file::open_to_all;
use super::registry::path_in;
use super::tls::contents;

pub(super) fn lay_in(root: &mut Node, layers: &Layers, report: &Report) {
    let Some(Value::List(services)) = below(root, "service").map(|node| &mut node.value) else { return };
    for (at, service) in services.iter_mut().enumerate() {
        let Some(Value::Table(tls)) = below(service, "tls").map(|node| &mut node.value) else { continue };
        for (file_key, key) in KEYS {
            lay(tls, (file_key, key), &format!("service[{at}].tls.{file_key}"), layers, report);
        }
    }
}

fn lay(tls: &mut Table, (file_key, key): (&str, &str), path: &str, layers: &Layers, report: &Report) {
    let Some(at) = tls.entries.iter().position(|entry| entry.key == file_key) else { return };
    let mut node = tls.entries.remove(at).node;
    if tls.has(key) {
        report.problem(path.to_owned(), &node.place, format!("stands beside {key}; one of them is enough"));
        return;
    }
    match read(&node, key == "key", layers) {
        Ok((text, odd)) => {
            if let Some(odd) = odd {
                report.warning(path.to_owned(), &node.place, odd);
            }
            node.value = Value::Text(text);
            tls.set(key, node);
        }
        Err(reason) => report.problem(path.to_owned(), &node.place, reason),
    }
}

/// The text, and what is odd about its file.
fn read(node: &Node, is_secret: bool, layers: &Layers) -> Read<(String, Option<String>)> {
    let path = path_in(layers)(node)?;
    let text = String::from_utf8(contents(&path)?).map_err(|_| format!("{} is not UTF-8", path.display()))?;
    Ok((text, is_secret.then(|| open_to_all(&path)).flatten()))
}

fn below<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    let Value::Table(table) = &mut node.value else { return None };
    table.entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node)
}

const KEYS: [(&str, &str); 3] = [("ca_file", "ca"), ("certificate_file", "certificate"), ("key_file", "key")];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use crate::config::{Config, Layers, Problems, load};

    /// `tls` of a service, beside files of `tests/certificates`.
    fn check(tls: &str) -> Result<(Config, Problems), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let certificates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
        for name in ["ca.pem", "instance.pem", "instance.key", "another.key"] {
            fs::copy(certificates.join(name), path(name)).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o640)).unwrap();
        }
        fs::set_permissions(path("another.key"), fs::Permissions::from_mode(0o644)).unwrap();
        let text = format!("[registry]\ndata = ''\n[[service]]\nname = 'a'\ntls = {{ {tls} }}\n");
        fs::write(path("p.toml"), text).unwrap();
        let loaded = load(&Layers { file: Some(path("p.toml")), ..Layers::default() });
        let shown = format!("{}/", folder.path().display());
        loaded.map_err(|problems| problems.to_string().replace(&shown, ""))
    }

    #[test]
    fn a_file_says_what_the_text_would() {
        let (config, warnings) =
            check("ca_file = 'ca.pem', certificate_file = 'instance.pem', key_file = 'instance.key'").unwrap();
        assert!(warnings.is_empty(), "{warnings}");
        let policy = config.services.values().next().and_then(|service| service.policy.clone()).unwrap();
        let tls = policy.tls.unwrap();
        assert_eq!(tls.ca.as_deref(), Some(include_str!("../../tests/certificates/ca.pem")));
        assert!(tls.identity.is_some());
    }

    #[test]
    fn what_is_wrong_is_told_with_the_file_or_the_line() {
        for (tls, words) in [
            ("ca_file = 'none.pem'", "p.toml:5: service[0].tls.ca_file: none.pem: No such file"),
            ("ca_file = 'ca.pem', ca = 'x'", "service[0].tls.ca_file: stands beside ca; one of them is enough"),
            ("ca_file = 'another.key'", "service[0].tls.ca: is not a PEM text"),
            ("certificate_file = 'instance.pem'", "service[0].tls.key: is missing"),
            ("certificate_file = 'instance.pem', key_file = 'another.key'", "is not the key of the certificate"),
        ] {
            let said = check(tls).map(|_| ()).unwrap_err();
            assert!(said.contains(words) && !said.contains("PRIVATE"), "{said}");
        }
    }
}
