//! What one changed instance costs, by the number of registered instances: `cargo bench --bench catalog`.
//!
//! Services of ten instances each. The curve must be flat; the last rows show what the size of the changed service itself costs.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pointsman::catalog::{Catalog, Live};
use pointsman::model::{Address, Change, Event, InstanceId, InstanceSpec, Origin, ServiceName};

fn main() {
    println!("{:>10} {:>12} {:>14} {:>14}", "instances", "per service", "median µs", "p99 µs");
    for (instances, per_service) in [(1_000, 10), (10_000, 10), (100_000, 10), (1_000, 1_000), (10_000, 10_000)] {
        let mut times = one_change(instances, per_service);
        times.sort_unstable();
        let micros = |d: Duration| d.as_secs_f64() * 1e6;
        let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("{instances:>10} {per_service:>12} {:>14.1} {:>14.1}", micros(median), micros(p99));
    }
}

fn one_change(instances: usize, per_service: usize) -> Vec<Duration> {
    let live = Arc::new(Live::default());
    let mut catalog = Catalog::new(live, Arc::default());
    let all = (0..instances).map(|n| put(n, per_service, 100)).collect();
    apply(&mut catalog, 1, all);
    (0..ROUNDS)
        .map(|round| {
            let changed = fastrand::usize(0..instances);
            let change = vec![put(changed, per_service, 1 + round as u16 % 1000)];
            let begun = Instant::now();
            apply(&mut catalog, 2 + round as u64, change);
            begun.elapsed()
        })
        .collect()
}

fn apply(catalog: &mut Catalog, revision: u64, changes: Vec<Change>) {
    let event = Event { origin: Origin::Registry, revision, changes };
    catalog.apply(vec![event], vec![], Instant::now(), SystemTime::now());
}

fn put(n: usize, per_service: usize, weight: u16) -> Change {
    let address = format!("10.{}.{}.{}:8080", n >> 16 & 255, n >> 8 & 255, n & 255);
    let spec = InstanceSpec { weight, ..InstanceSpec::at(Address::parse(&address).expect("an address")) };
    let service = ServiceName::parse(&format!("service-{}", n / per_service)).expect("a name");
    Change::Instance { service, id: InstanceId::parse(&format!("i{n}")).expect("a name"), spec }
}

const ROUNDS: usize = 2000;
