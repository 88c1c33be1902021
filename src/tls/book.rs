//! The certificates in force, of files and of the registry, and which of them a client is offered.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::RootCertStore;

use super::CertIndex;
use crate::model::{Certificate, CertificateName, ListenerCertificates};

/// The ground state.
#[derive(Debug, Default)]
pub struct CertBook {
    registry: BTreeMap<CertificateName, Arc<Certificate>>,
    listeners: BTreeMap<usize, Arc<Listed>>,
    has_changed: bool,
}

/// All that handshakes choose from, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    registry: Arc<CertIndex>,
    /// For clients that name nobody we know.
    default: Option<Arc<Certificate>>,
    listeners: BTreeMap<usize, Arc<Listed>>,
}

/// What the file gives one listener.
#[derive(Debug)]
struct Listed {
    own: CertIndex,
    client_authorities: Option<Arc<RootCertStore>>,
}

impl CertBook {
    /// Whether there was one of that name before.
    pub fn set_registry(&mut self, name: CertificateName, certificate: Option<Arc<Certificate>>) -> bool {
        self.has_changed = true;
        let before = match certificate {
            Some(certificate) => self.registry.insert(name, certificate),
            None => self.registry.remove(&name),
        };
        before.is_some()
    }

    /// Says which of them were not there before.
    pub fn set_listener(&mut self, listener: usize, certificates: &ListenerCertificates) -> Vec<Arc<Certificate>> {
        let ListenerCertificates { own, client_authorities } = certificates;
        let listed = Listed { own: CertIndex::new(own.iter().cloned()), client_authorities: client_authorities.clone() };
        let before = self.listeners.insert(listener, Arc::new(listed));
        self.has_changed = true;
        own.iter().filter(|new| before.as_ref().is_none_or(|before| !before.own.all().contains(new))).cloned().collect()
    }

    /// `None` if nothing has changed since the last call. Costs as much as there are names in the registry, but certificates
    /// change by the day.
    pub fn changed(&mut self) -> Option<Certificates> {
        if !std::mem::take(&mut self.has_changed) {
            return None;
        }
        let mut registry: Vec<_> = self.registry.values().cloned().collect();
        let default = self.registry.get(DEFAULT).or(registry.first()).cloned();
        // Of two for one name the fresher one is meant.
        registry.sort_by_key(|certificate| Reverse(certificate.not_after));
        Some(Certificates { registry: Arc::new(CertIndex::new(registry)), default, listeners: self.listeners.clone() })
    }
}

impl Certificates {
    /// Those for a name that a client has sent, best first: the exact name, a wildcard, the default; the listener's own
    /// before the registry's.
    pub fn find<'a>(&'a self, listener: usize, name: Option<&str>) -> impl Iterator<Item = &'a Arc<Certificate>> {
        let name = name.map(|name| match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        });
        let own = self.listeners.get(&listener).map(|listed| &listed.own);
        let both = [own, Some(&*self.registry)];
        let named: [[&[Arc<Certificate>]; 2]; 2] = match &name {
            Some(name) => {
                [both.map(|i| i.map_or(&[][..], |i| i.exact(name))), both.map(|i| i.map_or(&[][..], |i| i.wildcard(name)))]
            }
            None => Default::default(),
        };
        let default = own.into_iter().flat_map(CertIndex::all).take(1).chain(&self.default);
        named.into_iter().flatten().flatten().chain(default)
    }

    pub fn client_authorities(&self, listener: usize) -> Option<&Arc<RootCertStore>> {
        self.listeners.get(&listener)?.client_authorities.as_ref()
    }

    /// All of them, each with the listeners among `terminating` that offer it.
    pub fn all<'a>(&'a self, terminating: &'a [usize]) -> impl Iterator<Item = (&'a Arc<Certificate>, Vec<usize>)> {
        let own = self.listeners.iter().flat_map(|(listener, listed)| listed.own.all().iter().map(|c| (c, vec![*listener])));
        own.chain(self.registry.all().iter().map(|certificate| (certificate, terminating.to_vec()))).map(
            |(certificate, mut of)| {
                of.retain(|listener| self.is_offered(*listener, certificate));
                (certificate, of)
            },
        )
    }

    /// Whether some client would get it: for none of its names, and not as the default, does another with the same kind
    /// of key come before it.
    fn is_offered(&self, listener: usize, certificate: &Arc<Certificate>) -> bool {
        let is_first = |name: Option<&str>| {
            let kind = certificate.pair.key.algorithm();
            let first = self.find(listener, name).find(|other| other.pair.key.algorithm() == kind);
            first.is_some_and(|first| Arc::ptr_eq(first, certificate))
        };
        // What a star stands for is never `*` itself, so nothing else is exactly that.
        certificate.names.iter().any(|name| is_first(Some(name))) || is_first(None)
    }
}

/// The registry's certificate of this name is its default; without it, the first by name.
const DEFAULT: &str = "default";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::samples::Sample;

    fn name(name: &str) -> CertificateName {
        CertificateName::parse(name).unwrap()
    }

    fn certificate(of: &str, names: &[&str], days: i64) -> Arc<Certificate> {
        Sample::of(names).valid(-86_400, days * 86_400).in_registry(of)
    }

    /// `NAME names…` of the registry, and of the file of listener 0.
    fn book(registry: &[(&str, &[&str], i64)], own: &[(&str, &[&str])]) -> CertBook {
        let mut book = CertBook::default();
        for (of, names, days) in registry {
            book.set_registry(name(of), Some(certificate(of, names, *days)));
        }
        let own = own.iter().map(|(of, names)| certificate(of, names, 1)).collect();
        book.set_listener(0, &ListenerCertificates { own, client_authorities: None });
        book
    }

    fn found(certificates: &Certificates, sni: Option<&str>) -> Vec<String> {
        certificates.find(0, sni).map(|c| c.source.to_string()).collect()
    }

    #[test]
    fn the_exact_name_comes_before_a_wildcard_and_both_before_the_default() {
        let mut book = book(
            &[("star", &["*.shop.example"], 1), ("exact", &["a.shop.example"], 1), ("default", &["other.example"], 1)],
            &[("file", &["*.shop.example", "file.example"])],
        );
        let all = book.changed().unwrap_or_default();
        assert_eq!(found(&all, Some("a.shop.example")), ["exact", "file", "star", "file", "default"]);
        assert_eq!(found(&all, Some("B.Shop.Example")), ["file", "star", "file", "default"]);
        assert_eq!(found(&all, Some("a.b.shop.example")), ["file", "default"]);
        assert_eq!(found(&all, Some("shop.example")), ["file", "default"]);
        assert_eq!(found(&all, None), ["file", "default"]);
    }

    #[test]
    fn of_two_for_one_name_the_one_that_lasts_longer_is_served() {
        let mut book = book(&[("a-old", &["shop.example"], 1), ("b-new", &["shop.example"], 30)], &[]);
        let all = book.changed().unwrap_or_default();
        assert_eq!(found(&all, Some("shop.example"))[..1], ["b-new"]);
        // And without a name of its own the default is the first by name.
        assert_eq!(found(&all, None), ["a-old"]);
    }

    #[test]
    fn what_is_taken_away_is_offered_no_more() {
        let mut book = book(&[("a", &["a.example"], 1)], &[]);
        book.set_registry(name("a"), None);
        assert_eq!(found(&book.changed().unwrap_or_default(), Some("a.example")), [""; 0]);
    }

    #[test]
    fn a_certificate_that_others_hide_is_offered_nowhere() {
        let mut book = book(&[("hidden", &["a.example"], 1), ("default", &["a.example"], 9)], &[]);
        let all = book.changed().unwrap_or_default();
        let offered: Vec<_> = all.all(&[0]).map(|(c, of)| (c.source.to_string(), of)).collect();
        assert_eq!(offered, [("default".to_owned(), vec![0]), ("hidden".to_owned(), vec![])]);
    }
}
