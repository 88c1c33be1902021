//! What can be found: records that cannot be read, and records that contradict or miss each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{AddressGuard, Config, Problems, RegistryKind};
use crate::model::{Address, InstanceId, RouteSpec, ServiceName};
use crate::registry::{Entry, Key, KeyError, Record};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub weight: Weight,
    /// Where in the registry, if it is about a record.
    pub key: Option<String>,
    pub revision: Option<u64>,
    /// With its file and line, or its key and revision.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Something is not as its writer meant it.
    Problem,
    /// Odd, but it may be meant.
    Warning,
}

pub fn in_configuration(loaded: &Result<(Config, Problems), Problems>) -> Vec<Finding> {
    let (problems, weight) = match loaded {
        Ok((_, warnings)) => (warnings, Weight::Warning),
        Err(problems) => (problems, Weight::Problem),
    };
    problems.lines().map(|text| Finding { weight, key: None, revision: None, text }).collect()
}

/// `own`: what stands under our prefix. `foreign`: what other programs registered, in the order in which it wins.
/// `config`: what the file declares, if it can be read; routes and services of all may name each other.
pub fn in_registry(own: &[Entry], foreign: &[Entry], config: Option<&Config>) -> Vec<Finding> {
    let mut declared = Declared::default();
    let guard = config.map(AddressGuard::of).unwrap_or_default();
    let mut found = Vec::new();
    let own = own.iter().map(|entry| (entry, false));
    for (entry, is_foreign) in own.chain(foreign.iter().map(|entry| (entry, true))) {
        let key = match &entry.key {
            Ok(key) => key,
            // A newer writer may know more kinds of records.
            Err(error @ KeyError::Kind) => {
                found.push(about(entry, Weight::Warning, error.to_string()));
                continue;
            }
            Err(error) => {
                found.push(about(entry, Weight::Problem, error.to_string()));
                continue;
            }
        };
        match if is_foreign { Record::read_foreign(&entry.value) } else { Record::read(key, &entry.value) } {
            Ok(parsed) => {
                found.extend(parsed.warnings.iter().map(|warning| about(entry, Weight::Warning, warning.to_string())));
                let judged = match &parsed.value {
                    Record::Instance(spec) => guard.judge_declared(spec),
                    _ => Ok(()),
                };
                match judged {
                    Ok(()) => declared.note(key, &parsed.value, entry),
                    Err(refused) => {
                        found.push(about(entry, Weight::Problem, refused));
                        declared.note_unreadable(key);
                    }
                }
            }
            Err(problems) => {
                found.extend(problems.iter().map(|problem| about(entry, Weight::Problem, problem.to_string())));
                declared.note_unreadable(key);
            }
        }
    }
    if let Some(config) = config {
        declared.services.extend(config.services.keys().cloned());
        let fixed = config.services.iter().flat_map(|(service, declared)| declared.instances.keys().map(move |id| (service, id)));
        declared.ids.extend(fixed.map(|(service, id)| (service.clone(), id.clone())));
        let missing = |route: &RouteSpec| route.service().filter(|service| !declared.services.contains(*service)).cloned();
        for (route, service) in config.routes.iter().filter_map(|route| Some((route, missing(route)?))) {
            let text = format!("the file's route {}: {}", route.name, no_service(&service));
            found.push(Finding { weight: Weight::Problem, key: None, revision: None, text });
        }
    }
    found.extend(declared.contradictions());
    found
}

/// Keys that whoever sees the wire to the registry may read.
pub fn in_plain_sight(own: &[Entry], registry: &RegistryKind) -> Option<Finding> {
    let RegistryKind::Etcd(etcd) = registry else { return None };
    let plain = etcd.endpoints.iter().find(|endpoint| endpoint.starts_with("http://"))?;
    let mut holders = own.iter().filter(|entry| matches!(entry.key, Ok(Key::Certificate(_) | Key::AcmeAccount)));
    let first = holders.next()?;
    let others = match holders.count() {
        0 => String::new(),
        n => format!(", like {n} more"),
    };
    let message = format!("holds a private key{others}, and {plain} is not encrypted: use https:// endpoints");
    Some(about(first, Weight::Warning, message))
}

/// What the readable records say.
#[derive(Default)]
struct Declared<'a> {
    services: BTreeSet<ServiceName>,
    ids: BTreeSet<(ServiceName, InstanceId)>,
    addresses: BTreeMap<(ServiceName, Address), Vec<&'a Entry>>,
    routes: Vec<(ServiceName, &'a Entry)>,
    overrides: Vec<(ServiceName, InstanceId, &'a Entry)>,
}

impl<'a> Declared<'a> {
    fn note(&mut self, key: &Key, record: &Record, entry: &'a Entry) {
        match (key, record) {
            (Key::Instance { service, id }, Record::Instance(spec)) => {
                self.services.insert(service.clone());
                // Who comes later under the same name is not in force, and gets no traffic.
                if self.ids.insert((service.clone(), id.clone())) {
                    self.addresses.entry((service.clone(), spec.address.clone())).or_default().push(entry);
                }
            }
            (Key::Policy(service), _) => {
                self.services.insert(service.clone());
            }
            (Key::Override { service, id }, _) => self.overrides.push((service.clone(), id.clone(), entry)),
            (_, Record::Route(route)) => self.routes.extend(route.service().map(|service| (service.clone(), entry))),
            _ => {}
        }
    }

    /// It is there, and its own problem is told; it must not make another of those that name it.
    fn note_unreadable(&mut self, key: &Key) {
        match key {
            Key::Instance { service, id } => {
                self.services.insert(service.clone());
                self.ids.insert((service.clone(), id.clone()));
            }
            Key::Policy(service) => {
                self.services.insert(service.clone());
            }
            _ => {}
        }
    }

    fn contradictions(&self) -> Vec<Finding> {
        let routes = self.routes.iter().filter(|(service, _)| !self.services.contains(service));
        let routes = routes.map(|(service, entry)| about(entry, Weight::Problem, no_service(service)));
        let twins = self.addresses.iter().flat_map(|((_, address), entries)| {
            entries.iter().skip(1).map(move |entry| {
                let first = &entries[0].raw_key;
                about(entry, Weight::Problem, format!("{address} is also the address of {first}, so it gets the traffic of two"))
            })
        });
        let overrides = self.overrides.iter().filter(|(service, id, _)| !self.ids.contains(&(service.clone(), id.clone())));
        let overrides = overrides.map(|(service, id, entry)| {
            about(entry, Weight::Warning, format!("there is no instance {service}/{id}; it will hold once there is"))
        });
        routes.chain(twins).chain(overrides).collect()
    }
}

fn no_service(service: &ServiceName) -> String {
    format!("there is no service {service}; its requests are answered with 503")
}

fn about(entry: &Entry, weight: Weight, message: String) -> Finding {
    let text = format!("{} (revision {}): {message}", entry.raw_key, entry.revision);
    Finding { weight, key: Some(entry.raw_key.clone()), revision: Some(entry.revision), text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EtcdConfig;

    fn entries(prefix: &str, records: &[(&str, &str)]) -> Vec<Entry> {
        let entry = |(revision, (path, value)): (u64, &(&str, &str))| Entry {
            raw_key: format!("{prefix}{path}"),
            key: Key::parse(path),
            value: value.as_bytes().to_vec(),
            revision,
            leased: false,
        };
        (1..).zip(records).map(entry).collect()
    }

    /// Records as `key value` → what is found, weights first.
    fn check(records: &[(&str, &str)], expected: &[(Weight, &str)]) {
        check_with(records, &[], expected);
    }

    fn check_with(own: &[(&str, &str)], foreign: &[(&str, &str)], expected: &[(Weight, &str)]) {
        let found = in_registry(&entries("/p", own), &entries("/theirs", foreign), None);
        let texts: Vec<&str> = found.iter().map(|finding| finding.text.as_str()).collect();
        assert_eq!(found.len(), expected.len(), "{texts:#?}");
        for (finding, (weight, part)) in found.iter().zip(expected) {
            assert!(finding.weight == *weight && finding.text.contains(part), "{part:?} is not in {:?}", finding.text);
        }
    }

    #[test]
    fn a_registry_in_order_has_nothing_to_find() {
        let records = [
            ("/meta", r#"{"schema":1,"epoch":"x"}"#),
            ("/instances/orders/a1", "10.0.0.1:80"),
            ("/instances/orders/a2", "10.0.0.2:80"),
            ("/instances/cart/a1", "10.0.0.1:80"),
            ("/overrides/orders/a1", r#"{"state":"draining"}"#),
            ("/routes/shop", r#"{"service":"orders"}"#),
        ];
        check(&records, &[]);
    }

    #[test]
    fn a_key_that_everybody_on_the_wire_can_read_is_a_warning() {
        let own = entries("/p", &[("/instances/a/1", "10.0.0.1:80"), ("/certificates/a", "{}"), ("/certificates/b", "{}")]);
        let etcd = |url: &str| EtcdConfig::plain(vec![url.to_owned()]);
        let found = in_plain_sight(&own, &RegistryKind::Etcd(etcd("http://10.0.0.9:2379"))).unwrap();
        assert!(
            found.text.starts_with("/p/certificates/a (revision 2): holds a private key, like 1 more, and http://10.0.0.9:2379")
        );
        assert_eq!(found.weight, Weight::Warning);
        assert_eq!(in_plain_sight(&own, &RegistryKind::Etcd(etcd("https://10.0.0.9:2379"))), None);
        assert_eq!(in_plain_sight(&own[..1], &RegistryKind::Etcd(etcd("http://10.0.0.9:2379"))), None);
    }

    #[test]
    fn every_problem_of_every_record_is_found() {
        let records = [
            ("/instances/orders/a1", r#"{"address":"x","weight":70000}"#),
            ("/instances/orders", "10.0.0.1:80"),
            ("/novelties/x", "1"),
            ("/routes/shop", r#"{"service":"orders","new_field":1}"#),
        ];
        let expected = [
            (Weight::Problem, "/p/instances/orders/a1 (revision 1): address"),
            (Weight::Problem, "/p/instances/orders/a1 (revision 1): weight"),
            (Weight::Problem, "/p/instances/orders (revision 2)"),
            (Weight::Warning, "/p/novelties/x (revision 3)"),
            (Weight::Warning, "new_field"),
        ];
        check(&records, &expected);
    }

    #[test]
    fn what_others_registered_counts_unless_ours_hides_it() {
        let own = [("/instances/orders/a1", "10.0.0.1:80"), ("/routes/shop", r#"{"service":"cart"}"#)];
        let foreign = [
            ("/instances/orders/a1", r#"{"Op":0,"Addr":"10.0.0.1:80"}"#),
            ("/instances/cart/c1", r#"{"Op":1,"Addr":"10.0.0.1:80"}"#),
            ("/instances/cart/c 2", "10.0.0.1:80"),
        ];
        let expected =
            [(Weight::Problem, "/theirs/instances/cart/c1 (revision 2): Op: 1"), (Weight::Problem, "the instance in the key")];
        check_with(&own, &foreign, &expected);
    }

    #[test]
    fn an_address_that_the_registry_may_not_name_is_a_problem_of_its_record_alone() {
        let records = [
            ("/instances/orders/a1", "169.254.169.254:80"),
            ("/instances/orders/a2", "169.254.169.254:80"),
            ("/routes/shop", r#"{"service":"orders"}"#),
        ];
        let expected = [
            (Weight::Problem, "/p/instances/orders/a1 (revision 1): address: 169.254.169.254:80 is link-local"),
            (Weight::Problem, "/p/instances/orders/a2 (revision 2): address: 169.254.169.254:80 is link-local"),
        ];
        check(&records, &expected);
    }

    #[test]
    fn records_that_miss_or_contradict_each_other_are_found() {
        let records = [
            ("/instances/orders/a1", "10.0.0.1:80"),
            ("/instances/orders/a2", r#"{"address":"10.0.0.1:80"}"#),
            ("/overrides/orders/a3", r#"{"weight":0}"#),
            ("/routes/shop", r#"{"service":"order"}"#),
        ];
        let expected = [
            (Weight::Problem, "/p/routes/shop (revision 4): there is no service order;"),
            (Weight::Problem, "/p/instances/orders/a2 (revision 2): 10.0.0.1:80 is also the address of /p/instances/orders/a1"),
            (Weight::Warning, "/p/overrides/orders/a3 (revision 3): there is no instance orders/a3"),
        ];
        check(&records, &expected);
    }
}
