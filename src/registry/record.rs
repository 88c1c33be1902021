//! One key with its value → the change it declares, or why it is rejected.

use std::fmt;
use std::sync::Arc;

use super::certificate;
use super::challenge;
use super::key::Key;
use crate::model::{Change, Departure};
use crate::wire::{self, ParseResult, Problem};

/// A record that can be used, and what was odd about it.
#[derive(Debug)]
pub struct Readable {
    pub change: Change,
    /// In words, at most a few hundred characters; `None` when nothing was odd.
    pub warning: Option<String>,
}

/// A record that cannot be used. Whatever stood under its key before stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// With the prefix; bytes that are not UTF-8 are replaced.
    pub key: String,
    pub revision: u64,
    pub reason: String,
    /// The revision whose value stays in force; `None` when there never was a good one.
    pub keeping: Option<u64>,
}

/// The change that putting `value` under `key` makes, or what is wrong with it.
pub fn read(key: Key, value: &[u8]) -> Result<Readable, String> {
    let limit = size_max(&key);
    if value.len() > limit {
        return Err(format!("the value has {} bytes; at most {limit} are allowed", value.len()));
    }
    match key {
        Key::Instance { service, id } => readable(wire::parse_instance(value), |spec| Change::Instance { service, id, spec }),
        Key::Override { service, id } => {
            readable(wire::parse_override(value), |value| Change::Override { service, id, value: Some(value) })
        }
        Key::Policy(service) => {
            readable(wire::parse_policy(value), |policy| Change::Policy { service, policy: Some(Box::new(policy)) })
        }
        Key::Route(name) => {
            let parsed = wire::parse_route(&name, value);
            readable(parsed, |route| Change::Route { name, route: Some(Box::new(route)) })
        }
        Key::Certificate(name) => {
            let parsed = certificate::read(&name, value);
            readable(parsed, |certificate| Change::Certificate { name, certificate: Some(Arc::new(certificate)) })
        }
        Key::AcmeChallenge(token) => {
            let parsed = challenge::read(&token, value);
            readable(parsed, |challenge| Change::Challenge { token, challenge: Some(Arc::new(challenge)) })
        }
        Key::AcmeOrder(name) => {
            readable(wire::parse_acme_order(value), |order| Change::AcmeOrder { name, order: Some(Arc::new(order)) })
        }
        Key::Meta | Key::Proxy(_) | Key::AcmeAccount | Key::AcmeRenewer => Err("this key declares nothing".to_owned()),
    }
}

/// The same for a value that another program wrote for itself; its keys name instances only.
pub fn read_foreign(key: Key, value: &[u8]) -> Result<Readable, String> {
    match key {
        Key::Instance { service, id } => {
            readable(wire::parse_foreign_instance(value), |spec| Change::Instance { service, id, spec })
        }
        _ => Err("this key declares nothing".to_owned()),
    }
}

/// The change that losing `key` makes; `None` for keys that declare nothing.
pub fn removal(key: Key, departure: Departure) -> Option<Change> {
    match key {
        Key::Instance { service, id } => Some(Change::InstanceGone { service, id, departure }),
        Key::Override { service, id } => Some(Change::Override { service, id, value: None }),
        Key::Policy(service) => Some(Change::Policy { service, policy: None }),
        Key::Route(name) => Some(Change::Route { name, route: None }),
        Key::Certificate(name) => Some(Change::Certificate { name, certificate: None }),
        Key::AcmeChallenge(token) => Some(Change::Challenge { token, challenge: None }),
        Key::AcmeOrder(name) => Some(Change::AcmeOrder { name, order: None }),
        Key::Meta | Key::Proxy(_) | Key::AcmeAccount | Key::AcmeRenewer => None,
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (revision {}): {}; ", self.key, self.revision, self.reason)?;
        match self.keeping {
            Some(revision) => write!(f, "keeping revision {revision}"),
            None => f.write_str("no earlier value to keep"),
        }
    }
}

fn readable<T>(parsed: ParseResult<T>, change: impl FnOnce(T) -> Change) -> Result<Readable, String> {
    match parsed {
        Ok(parsed) => Ok(Readable {
            change: change(parsed.value),
            warning: (!parsed.warnings.is_empty()).then(|| in_words(&parsed.warnings)),
        }),
        Err(problems) => Err(in_words(&problems)),
    }
}

fn in_words(problems: &[Problem]) -> String {
    let mut said = String::new();
    for problem in problems {
        if said.len() > REASON_MAX {
            break;
        }
        let separator = if said.is_empty() { "" } else { "; " };
        said += &format!("{separator}{problem}");
    }
    if said.len() > REASON_MAX {
        let end = (0..=REASON_MAX).rev().find(|at| said.is_char_boundary(*at)).unwrap_or(0);
        said.truncate(end);
        said.push('…');
    }
    said
}

fn size_max(key: &Key) -> usize {
    match key {
        Key::Instance { .. } | Key::Override { .. } | Key::Meta | Key::Proxy(_) => 8 * 1024,
        Key::AcmeAccount | Key::AcmeRenewer | Key::AcmeChallenge(_) => 8 * 1024,
        Key::Policy(_) | Key::Route(_) | Key::AcmeOrder(_) => 64 * 1024,
        Key::Certificate(_) => 256 * 1024,
    }
}

/// Bytes of a reason: it is logged, held and listed, and its writer may be anybody.
const REASON_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(path: &str, message: &str) -> Problem {
        Problem { path: path.to_owned(), line: None, message: message.to_owned() }
    }

    #[test]
    fn a_rejection_reads_as_the_contract_says() {
        let mut rejected = Rejected {
            key: "/pointsman/instances/orders/a1".to_owned(),
            revision: 812,
            reason: in_words(&[problem("weight", "70000 is not in 0..=65535")]),
            keeping: Some(790),
        };
        assert_eq!(
            rejected.to_string(),
            "/pointsman/instances/orders/a1 (revision 812): weight: 70000 is not in 0..=65535; keeping revision 790"
        );
        rejected.keeping = None;
        assert!(rejected.to_string().ends_with("65535; no earlier value to keep"));
    }

    #[test]
    fn many_problems_are_one_bounded_line() {
        assert_eq!(in_words(&[problem("", "not JSON"), problem("a", "b")]), "not JSON; a: b");
        let long = in_words(&vec![problem("x", &"ü".repeat(300)); 100]);
        assert!(long.len() <= REASON_MAX + '…'.len_utf8() && long.ends_with('…'), "{}", long.len());
    }

    #[test]
    fn a_value_beyond_its_limit_is_not_even_parsed() {
        let key = || Key::parse("/instances/orders/a1").unwrap();
        let reason = read(key(), &[b' '; 8193]).unwrap_err();
        assert_eq!(reason, "the value has 8193 bytes; at most 8192 are allowed");
    }
}
