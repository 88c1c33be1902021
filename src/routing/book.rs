//! The ground state of the routes, and how one table follows from another.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{HostRoutes, Route, RouteTable};
use crate::model::{HostPattern, Origin, RouteName, RouteSpec};

type Key = (Origin, RouteName);
/// `None` stands for routes of any host.
type HostKey = Option<HostPattern>;

#[derive(Debug, Default)]
pub struct RouteBook {
    routes: BTreeMap<Key, Arc<Route>>,
    by_host: HashMap<HostKey, BTreeSet<Key>>,
}

impl RouteBook {
    /// The successor of `table`. Costs the routes of the hosts that the changes name, before and after.
    pub fn apply(&mut self, table: &RouteTable, changes: Vec<(Origin, RouteName, Option<RouteSpec>)>) -> RouteTable {
        let mut touched: HashSet<HostKey> = HashSet::new();
        for (origin, name, spec) in changes {
            let key = (origin, name);
            let old = self.routes.remove(&key);
            for host in old.iter().flat_map(|old| hosts(&old.spec)) {
                if let Some(keys) = self.by_host.get_mut(&host) {
                    keys.remove(&key);
                }
                touched.insert(host);
            }
            let Some(spec) = spec else { continue };
            for host in hosts(&spec) {
                self.by_host.entry(host.clone()).or_default().insert(key.clone());
                touched.insert(host);
            }
            // The counts are of (route, service): a route that names another service counts anew.
            let stats = old.filter(|old| old.spec.service() == spec.service()).map(|old| old.stats.clone());
            self.routes.insert(key, Arc::new(Route { origin, spec, stats: stats.unwrap_or_default() }));
        }
        let mut next = table.clone();
        for host in touched {
            let keys = self.by_host.get(&host).into_iter().flatten();
            let routes = HostRoutes::new(keys.filter_map(|key| self.routes.get(key)).cloned().collect());
            next.replace(host.as_ref(), routes);
            if self.by_host.get(&host).is_some_and(BTreeSet::is_empty) {
                self.by_host.remove(&host);
            }
        }
        next
    }

    pub fn get(&self, origin: Origin, name: &RouteName) -> Option<&Arc<Route>> {
        self.routes.get(&(origin, name.clone()))
    }

    /// All of them: the file's first, each origin's by name.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
    }
}

fn hosts(spec: &RouteSpec) -> Vec<HostKey> {
    if spec.hosts.is_empty() { vec![None] } else { spec.hosts.iter().cloned().map(Some).collect() }
}
