//! `[[route]]` and `[[service]]`: what the file declares itself, in the form the registry has.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{InstanceId, InstanceSpec, RouteName, RouteSpec, ServiceName};
use crate::wire::fields::{Fields, Report};
use crate::wire::node::{Node, Place};
use crate::wire::scalar::named;
use crate::wire::{read_instance, read_policy, read_route};

use super::FileService;

/// In the order of the file. A route without a name is `file-1`, `file-2`, … by its place among all of them.
pub(super) fn routes(root: &mut Fields<'_>) -> Vec<RouteSpec> {
    let mut taken = BTreeSet::new();
    let mut routes = Vec::new();
    for (at, mut fields) in root.sections("route").into_iter().enumerate() {
        let by_place = || RouteName::parse(&format!("file-{}", at + 1)).ok();
        let name = match fields.optional("name", named(RouteName::parse)) {
            Some(name) => Some(name),
            None => by_place(),
        };
        let Some(name) = name else { continue };
        if !taken.insert(name.clone()) {
            fields.wrong("name", format!("\"{name}\" is the name of an earlier route"));
        }
        routes.extend(read_route(&name, &mut fields));
    }
    routes
}

pub(super) fn services(root: &mut Fields<'_>) -> BTreeMap<ServiceName, FileService> {
    let mut services = BTreeMap::new();
    for mut fields in root.sections("service") {
        let name = fields.required("name", named(ServiceName::parse));
        let instances = instances(&mut fields);
        let declares_policy = fields.table().entries.iter().any(|e| e.key != "name" && e.key != "instances");
        let policy = read_policy(&mut fields);
        let Some(name) = name else { continue };
        if services.contains_key(&name) {
            fields.wrong("name", format!("\"{name}\" is the name of an earlier service"));
        }
        services.insert(name, FileService { policy: declares_policy.then_some(policy), instances });
    }
    services
}

fn instances(fields: &mut Fields<'_>) -> BTreeMap<InstanceId, InstanceSpec> {
    let read = |node: &Node, path: String, report: &Report| {
        let spec = read_instance(node, path.clone(), report)?;
        // An id has no brackets, so those of an IPv6 address are left out.
        let id = spec.address.to_string().replace(['[', ']'], "");
        let id = InstanceId::parse(&id).map_err(|e| report.problem(path.clone(), &node.place, e.to_string())).ok()?;
        Some((path, node.place.clone(), id, spec))
    };
    let mut instances = BTreeMap::new();
    let read: Vec<(String, Place, InstanceId, InstanceSpec)> = fields.each("instances", read).unwrap_or_default();
    for (path, place, id, spec) in read {
        if instances.contains_key(&id) {
            fields.report().problem(path, &place, format!("{} is the address of an earlier instance", spec.address));
        }
        instances.insert(id, spec);
    }
    instances
}
