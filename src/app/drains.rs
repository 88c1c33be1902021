//! Who is draining, and who has finished: what `pointsman drain --wait` waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::Snapshot;
use crate::model::{InstanceId, Lifecycle, ServiceName};
use crate::pool::InstanceState;

/// The instances that are present and may take nothing new. Costs what changes and what drains, not what exists.
#[derive(Debug, Default)]
pub struct Drains {
    draining: BTreeMap<(ServiceName, InstanceId), Draining>,
}

#[derive(Debug)]
struct Draining {
    state: Arc<InstanceState>,
    /// How many looks in a row found nothing in flight.
    n_idle: u32,
}

impl Drains {
    /// Takes in what a new snapshot says of the services that changed.
    pub fn follow(&mut self, snapshot: &Snapshot, services: &BTreeSet<ServiceName>) {
        for service in services {
            let instances = snapshot.services.get(service.as_str()).map_or(&[][..], |s| s.pool.all());
            let draining = instances.iter().filter(|i| i.standing.lifecycle != Lifecycle::Ready);
            let now: BTreeMap<_, _> = draining.map(|i| (i.id.clone(), i.state.clone())).collect();
            self.draining.retain(|(of, id), _| of != service || now.contains_key(id));
            for (id, state) in now {
                let entry = self.draining.entry((service.clone(), id));
                let draining = entry.or_insert_with(|| Draining { state: state.clone(), n_idle: 0 });
                if draining.state.generation != state.generation {
                    *draining = Draining { state, n_idle: 0 };
                }
            }
        }
    }

    /// Looks at each once and answers with those that have nothing in flight, as `SERVICE/ID`. One idle look is not
    /// enough: a request may have read the snapshot before the swap and not have picked yet.
    pub fn look(&mut self) -> Vec<String> {
        let mut drained = Vec::new();
        for ((service, id), draining) in &mut self.draining {
            draining.n_idle = if draining.state.in_flight() == 0 { draining.n_idle.saturating_add(1) } else { 0 };
            if draining.n_idle >= IDLE_LOOKS {
                drained.push(format!("{service}/{id}"));
            }
        }
        drained
    }

    pub fn n_active(&self) -> u64 {
        self.draining.values().filter(|d| d.state.in_flight() > 0).count() as u64
    }
}

const IDLE_LOOKS: u32 = 2;
