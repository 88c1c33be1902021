//! Configurations of nginx and confd.

use crate::config::laws::file_is_accepted;
use crate::import::{Files, confd, nginx};
use crate::model::RouteName;
use crate::wire::{parse_instance, parse_policy, parse_route};

/// A configuration of nginx; behind a line `%%` a resource of confd, and behind another one its template. What is printed is
/// accepted, as a file and as records, and every finding is one line that says where.
pub fn import(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.splitn(3, "\n%%\n");
    let mut part = || parts.next().unwrap_or_default();
    let files = Texts { nginx: part(), resource: part(), template: part() };
    let from_confd = confd(&files, &["c/conf.d/a.toml".to_owned()]).ok();
    let sources = from_confd.as_ref().map(|import| import.sources()).unwrap_or_default();
    let Ok(import) = nginx(&files, "nginx.conf", sources) else { return };
    let import = match from_confd {
        Some(confd) => import.with(confd),
        None => import,
    };
    for finding in import.findings() {
        let said = finding.to_string();
        assert!(!said.contains('\n') && finding.place.line > 0 && !finding.why.is_empty(), "{said:?}");
    }
    for declared in [true, false] {
        let file = import.file(declared);
        if let Err(problems) = file_is_accepted(&file) {
            panic!("{problems:?} in\n{file}");
        }
    }
    for (noun, name, record) in import.records() {
        let value = record.to_string();
        let value = value.as_bytes();
        let accepted = match noun {
            "service" => parse_policy(value).is_ok(),
            "instance" => parse_instance(value).is_ok(),
            _ => RouteName::parse(&name).is_ok_and(|name| parse_route(&name, value).is_ok()),
        };
        assert!(accepted, "{noun} {name}: {record}");
    }
}

struct Texts<'a> {
    nginx: &'a str,
    resource: &'a str,
    template: &'a str,
}

impl Files for Texts<'_> {
    fn read(&self, path: &str) -> Result<String, String> {
        let found = [("nginx.conf", self.nginx), (".toml", self.resource), ("/templates/", self.template)];
        let text = found.iter().find(|(part, _)| path.contains(part) && !path.ends_with("confd.toml"));
        text.map(|(_, text)| (*text).to_owned()).ok_or_else(|| "there is no such file".to_owned())
    }

    fn fitting(&self, _: &str) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}
