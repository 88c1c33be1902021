//! DNS names that stand in instances' addresses: who uses them, and what they were last resolved to.
//!
//! A name may be used by the file, which may name any address, and by the registry, which may not: so it has two
//! addresses, which are nearly always the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tracing::warn;

use super::Resolution;
use crate::config::{AddressGuard, Refused, Said};
use crate::model::{Origin, ServiceName};

#[derive(Debug, Default)]
pub struct Names {
    used: BTreeMap<Arc<str>, Name>,
    by_service: HashMap<ServiceName, BTreeSet<Arc<str>>>,
    is_changed: bool,
}

#[derive(Debug, Default)]
struct Name {
    services: BTreeSet<ServiceName>,
    /// For instances of the file.
    any: Option<IpAddr>,
    /// For all others: one that the guard lets pass.
    guarded: Option<IpAddr>,
    /// Why none of those found last was let pass.
    refused: Option<Refused>,
}

impl Names {
    /// The last good address. It stays while the name cannot be looked up, or has only addresses that are refused; if there
    /// never was a good one, why not, as far as that is known.
    pub fn get(&self, name: &str, whose: Origin) -> Result<IpAddr, Option<Refused>> {
        let name = self.used.get(name).ok_or(None)?;
        match whose {
            Origin::File => name.any.ok_or(None),
            Origin::Registry | Origin::Source(_) => name.guarded.ok_or(name.refused),
        }
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
    pub fn resolved(&mut self, resolution: Resolution, guard: &AddressGuard) -> BTreeSet<ServiceName> {
        let Some(entry) = self.used.get_mut(&resolution.name) else { return BTreeSet::new() };
        let judged = resolution.addresses.iter().map(|ip| guard.judge_ip(*ip).map(|()| *ip));
        let good: Vec<IpAddr> = judged.clone().flatten().collect();
        let refused = judged.filter_map(Result::err).next().filter(|_| good.is_empty());
        if let (Some(refused), Some(keeping)) = (refused, entry.guarded) {
            guard.count(Said::Name);
            warn!(name = %resolution.name, %keeping, "Name keeps its address: the one it has now {refused}");
        }
        let is_changed = [settle(&mut entry.any, &resolution.addresses), settle(&mut entry.guarded, &good)].contains(&true);
        let is_changed = std::mem::replace(&mut entry.refused, refused) != refused || is_changed;
        if is_changed { entry.services.clone() } else { BTreeSet::new() }
    }

    /// All names in use, if they are other ones than at the last call.
    pub fn changed(&mut self) -> Option<BTreeSet<Arc<str>>> {
        std::mem::take(&mut self.is_changed).then(|| self.used.keys().cloned().collect())
    }
}

/// Whether it is another one now.
fn settle(current: &mut Option<IpAddr>, found: &[IpAddr]) -> bool {
    if current.is_some_and(|current| found.contains(&current)) {
        return false;
    }
    let Some(first) = found.iter().min() else { return false };
    *current = Some(*first);
    true
}
