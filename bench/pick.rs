//! What one pick costs, by algorithm and size of the pool, and what a rate limit's decision: `cargo bench --bench pick`.
//!
//! Idle instances of equal weight, then of ten different weights; every pick is given back at once. The last two
//! algorithms get a new key each time.

#[path = "../tests/simulation/cast.rs"]
mod cast;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::model::{Balance, ServiceName, ServicePolicy};
use pointsman::pool::{Ask, Key, Moment, Pool, Service};
use pointsman::rate::{Rule, Table};

fn main() {
    for (what, weight) in [("equal weights", (|_| 100) as fn(usize) -> u16), ("ten weights", |n| 10 * (1 + n as u16 % 10))] {
        println!("ns a pick, {what}\n{:>14} {:>10} {:>10} {:>10}", "instances", SIZES[0], SIZES[1], SIZES[2]);
        for balance in Balance::ALL {
            let costs = SIZES.map(|size| cost_ns(balance, size, weight));
            println!("{:>14} {:>10.0} {:>10.0} {:>10.0}", balance.as_str(), costs[0], costs[1], costs[2]);
        }
        println!();
    }
    println!("ns a decision of a rate limit\n{:>14} {:>10} {:>10} {:>10}", "clients", CLIENTS[0], CLIENTS[1], CLIENTS[2]);
    // So little in so long that all but the first are refused, or so much that none is.
    for (what, requests, per) in [("within", 1_000_000, Duration::from_millis(1)), ("over", 1, Duration::from_secs(86_400))] {
        let costs = CLIENTS.map(|clients| decision_ns(clients, Rule::new(requests, per, 1)));
        println!("{what:>14} {:>10.0} {:>10.0} {:>10.0}", costs[0], costs[1], costs[2]);
    }
}

/// The median of some rounds; clients come in no order, a microsecond apart.
fn decision_ns(clients: usize, rule: Rule) -> f64 {
    let (table, mut rng) = (Table::new(128 * 1024), fastrand::Rng::with_seed(1));
    let keys: Vec<u64> = (0..clients).map(|_| rng.u64(..)).collect();
    let asks: Vec<u64> = (0..PICKS).map(|_| keys[rng.usize(..clients)]).collect();
    let mut now = Duration::from_secs(1);
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            for key in &asks {
                now += Duration::from_micros(1);
                let _ = black_box(table.take(*key, rule, now));
            }
            begun.elapsed().as_nanos() as f64 / PICKS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// The median of some rounds.
fn cost_ns(balance: Balance, size: usize, weight: fn(usize) -> u16) -> f64 {
    let name = ServiceName::parse("s").expect("a name");
    let policy = ServicePolicy { balance, ..ServicePolicy::default() };
    let all = (0..size).map(|n| cast::instance(n, weight(n), Moment::from_millis(1))).collect();
    let service = Service::new(name, Arc::new(policy), Pool::new(all), Arc::default());
    let mut rng = fastrand::Rng::with_seed(1);
    let now = Moment::from_millis(1_000_000);
    let grows_with_the_pool = matches!(balance, Balance::LeastConn | Balance::Hash);
    let picks = if grows_with_the_pool { (2_000_000 / size).min(PICKS) } else { PICKS };
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|round: u64| {
            let begun = Instant::now();
            for n in 0..picks as u64 {
                let key = Some(Key::of(&(round << 32 | n).to_le_bytes()));
                black_box(service.pick(Ask { key, now, ..Ask::default() }, &mut rng).expect("all of them are up"));
            }
            begun.elapsed().as_nanos() as f64 / picks as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

const CLIENTS: [usize; 3] = [1, 1_000, 100_000];
const SIZES: [usize; 3] = [10, 1_000, 10_000];
const ROUNDS: u64 = 9;
const PICKS: usize = 100_000;
