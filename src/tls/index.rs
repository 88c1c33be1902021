//! Certificates by the names they vouch for.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::Certificate;

/// Where two vouch for the same name, the one that was named first comes first; a client may not know its kind of key, so
/// the others are kept.
#[derive(Debug, Default)]
pub struct CertIndex {
    all: Vec<Arc<Certificate>>,
    exact: HashMap<Arc<str>, Vec<Arc<Certificate>>>,
    /// By what follows the first dot of `*.example.com`.
    wildcard: HashMap<Arc<str>, Vec<Arc<Certificate>>>,
}

impl CertIndex {
    pub fn new(certificates: impl IntoIterator<Item = Arc<Certificate>>) -> Self {
        let mut index = Self::default();
        for certificate in certificates {
            for name in &certificate.names {
                let (names, key) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut index.wildcard, rest.into()),
                    None => (&mut index.exact, name.clone()),
                };
                names.entry(key).or_default().push(certificate.clone());
            }
            index.all.push(certificate);
        }
        index
    }

    pub fn all(&self) -> &[Arc<Certificate>] {
        &self.all
    }

    /// `name` is in lower case.
    pub fn exact(&self, name: &str) -> &[Arc<Certificate>] {
        self.exact.get(name).map_or(&[], Vec::as_slice)
    }

    /// A star stands for one label (RFC 9525 §6.3).
    pub fn wildcard(&self, name: &str) -> &[Arc<Certificate>] {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        parent.and_then(|parent| self.wildcard.get(parent)).map_or(&[], Vec::as_slice)
    }
}
