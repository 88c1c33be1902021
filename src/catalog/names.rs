//! DNS names that stand in instances' addresses: who uses them, and what they were last resolved to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::Resolution;
use crate::model::ServiceName;

#[derive(Debug, Default)]
pub struct Names {
    used: BTreeMap<Arc<str>, Name>,
    by_service: HashMap<ServiceName, BTreeSet<Arc<str>>>,
    is_changed: bool,
}

#[derive(Debug, Default)]
struct Name {
    services: BTreeSet<ServiceName>,
    address: Option<IpAddr>,
}

impl Names {
    /// The last good address. It stays while the name cannot be looked up.
    pub fn get(&self, name: &str) -> Option<IpAddr> {
        self.used.get(name).and_then(|n| n.address)
    }

    /// Says which names one service uses now.
    pub fn uses(&mut self, service: &ServiceName, names: BTreeSet<Arc<str>>) {
        let before = self.by_service.get(service).cloned().unwrap_or_default();
        if before == names {
            return;
        }
        for name in names.difference(&before) {
            self.is_changed |= !self.used.contains_key(name);
            self.used.entry(name.clone()).or_default().services.insert(service.clone());
        }
        for name in before.difference(&names) {
            let Some(entry) = self.used.get_mut(name) else { continue };
            entry.services.remove(service);
            if entry.services.is_empty() {
                self.used.remove(name);
                self.is_changed = true;
            }
        }
        if names.is_empty() {
            self.by_service.remove(service);
        } else {
            self.by_service.insert(service.clone(), names);
        }
    }

    /// Notes what was found; answers with the services to which it makes a difference. The address in use stays as long
    /// as it is among those found, so a rotating answer does not move anybody.
    pub fn resolved(&mut self, resolution: Resolution) -> BTreeSet<ServiceName> {
        let Some(entry) = self.used.get_mut(&resolution.name) else { return BTreeSet::new() };
        if entry.address.is_some_and(|current| resolution.addresses.contains(&current)) {
            return BTreeSet::new();
        }
        let Some(found) = resolution.addresses.into_iter().min() else { return BTreeSet::new() };
        entry.address = Some(found);
        entry.services.clone()
    }

    /// All names in use, if they are other ones than at the last call.
    pub fn changed(&mut self) -> Option<BTreeSet<Arc<str>>> {
        std::mem::take(&mut self.is_changed).then(|| self.used.keys().cloned().collect())
    }
}
