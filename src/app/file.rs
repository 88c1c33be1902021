//! What the configuration file declares, as changes like any other source's.

use tracing::{info, warn};

use crate::config::{Config, Listener};
use crate::model::{Change, Departure, Event, Origin, RouteName, ServiceName};

/// What was sent last; the next file is compared with it.
pub struct FileDeclarations {
    config: Config,
}

impl FileDeclarations {
    pub fn first(config: &Config) -> (Self, Event) {
        let nothing = Config { routes: Vec::new(), services: Default::default(), ..config.clone() };
        let mut declarations = Self { config: nothing };
        let event = declarations.changed(config);
        (declarations, event)
    }

    /// The changes that lead from the last file to this one.
    pub fn changed(&mut self, next: &Config) -> Event {
        let mut changes = Vec::new();
        self.services(next, &mut changes);
        self.routes(next, &mut changes);
        info!(n_changes = changes.len(), "File's declarations read");
        self.config = next.clone();
        Event { origin: Origin::File, revision: 0, changes }
    }

    fn services(&self, next: &Config, changes: &mut Vec<Change>) {
        let (old, new) = (&self.config.services, &next.services);
        for (service, old) in old {
            let new = new.get(service);
            if old.policy.is_some() && new.is_none_or(|n| n.policy.is_none()) {
                changes.push(Change::Policy { service: service.clone(), policy: None });
            }
            for id in old.instances.keys().filter(|id| new.is_none_or(|n| !n.instances.contains_key(*id))) {
                changes.push(Change::InstanceGone { service: service.clone(), id: id.clone(), departure: Departure::Deleted });
            }
        }
        for (service, new) in new {
            let old = old.get(service);
            if let Some(policy) = new.policy.as_ref().filter(|p| old.and_then(|o| o.policy.as_ref()) != Some(p)) {
                changes.push(Change::Policy { service: service.clone(), policy: Some(Box::new(policy.clone())) });
            }
            for (id, spec) in new.instances.iter().filter(|(id, spec)| old.and_then(|o| o.instances.get(*id)) != Some(spec)) {
                let service: ServiceName = service.clone();
                changes.push(Change::Instance { service, id: id.clone(), spec: spec.clone() });
            }
        }
    }

    fn routes(&self, next: &Config, changes: &mut Vec<Change>) {
        let (old, new) = (&self.config.routes, &next.routes);
        let gone = old.iter().filter(|o| new.iter().all(|n| n.name != o.name));
        let mut push = |name: &RouteName, route| changes.push(Change::Route { name: name.clone(), route });
        gone.for_each(|o| push(&o.name, None));
        new.iter().filter(|n| !old.contains(n)).for_each(|n| push(&n.name, Some(Box::new(n.clone()))));
    }
}

/// What of the listeners is in force until the end; certificate files are not.
fn fixed(listeners: &[Listener]) -> Vec<Listener> {
    let mut fixed = listeners.to_vec();
    for tls in fixed.iter_mut().filter_map(|listener| listener.tls.as_mut()) {
        tls.certificates.clear();
        tls.client_ca = None;
    }
    fixed
}

/// Names what a running process cannot take over.
pub fn warn_of_restart(running: &Config, next: &Config) {
    let changed = [
        ("listener", fixed(&running.listeners) != fixed(&next.listeners)),
        ("registry", running.registry != next.registry),
        ("admin", running.admin != next.admin),
        ("proxy", running.proxy != next.proxy),
        ("log", running.log != next.log),
        ("process", running.process != next.process),
        ("acme", running.acme != next.acme),
    ];
    for (section, _) in changed.into_iter().filter(|(_, changed)| *changed) {
        warn!(section, "This section has changed, but needs a restart; routes and services are in force at once");
    }
}
