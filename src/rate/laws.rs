//! The table beside an exact account of the same requests, which remembers everybody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use proptest::prelude::*;

use super::table::WAYS;
use super::{Rule, Table};

/// Remembers what each client was let in with; judges nobody.
#[derive(Default)]
struct Account(HashMap<u64, u64>);

impl Account {
    fn would(&self, key: u64, rule: Rule, now: Duration) -> Result<u64, Duration> {
        rule.take(self.0.get(&key).copied().unwrap_or(0), now.as_nanos() as u64)
    }

    fn let_in(&mut self, key: u64, rule: Rule, now: Duration) {
        let full = self.0.entry(key).or_default();
        *full = (*full).max(now.as_nanos() as u64) + rule.cost;
    }
}

fn rule() -> impl Strategy<Value = Rule> {
    (1..20u32, 1..2000u64, 1..10u32).prop_map(|(requests, ms, burst)| Rule::new(requests, Duration::from_millis(ms), burst))
}

/// Clients by number, and how many milliseconds after the one before.
fn requests(clients: u64) -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((0..clients, 0..200u64), 1..400)
}

/// As a hash would name it.
fn key(client: u64) -> u64 {
    client.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

proptest! {
    #[test]
    fn as_many_clients_as_have_places_are_judged_exactly(rule in rule(), requests in requests(WAYS as u64)) {
        let (table, mut account, mut now) = (Table::new(1), Account::default(), Duration::from_millis(1));
        for (client, later) in requests {
            now += Duration::from_millis(later);
            let expected = account.would(key(client), rule, now).map(drop);
            prop_assert_eq!(table.take(key(client), rule, now), expected);
            if expected.is_ok() {
                account.let_in(key(client), rule, now);
            }
        }
        prop_assert_eq!(table.displaced(), 0);
    }

    #[test]
    fn a_flood_of_clients_refuses_nobody_who_keeps_to_the_rate(rule in rule(), requests in requests(200)) {
        let (table, mut account, mut now) = (Table::new(2 * WAYS), Account::default(), Duration::from_millis(1));
        for (client, later) in requests {
            now += Duration::from_millis(later / 20);
            match table.take(key(client), rule, now) {
                Ok(()) => account.let_in(key(client), rule, now),
                // Who is refused has had as much as the rate allows, and is told no more than is left to wait.
                Err(wait) => prop_assert!(account.would(key(client), rule, now).is_err_and(|exact| wait <= exact)),
            }
        }
    }
}

#[test]
fn a_quiet_client_is_served_through_a_flood_and_a_loud_one_is_not() {
    let (table, rule) = (Table::new(1024), Rule::new(10, Duration::from_secs(1), 2));
    let (quiet, loud) = (key(u64::MAX - 1), key(u64::MAX - 2));
    let (mut loud_served, mut flood_refused) = (0, 0);
    for n in 0..100_000u64 {
        // A hundred seconds: the quiet one asks five times a second, the loud one and each client of the flood far more often.
        let now = Duration::from_millis(1 + n);
        if n % 200 == 0 {
            assert_eq!(table.take(quiet, rule, now), Ok(()), "after {n} others");
        }
        loud_served += u32::from(table.take(loud, rule, now).is_ok());
        flood_refused += u32::from(table.take(key(n), rule, now).is_err());
    }
    assert_eq!(flood_refused, 0, "each of them came once");
    assert!((1000..1010).contains(&loud_served), "10 a second, whoever else comes: {loud_served}");
    assert_eq!(table.displaced(), 0, "at 1000 new clients a second each is done within 100 ms, and 1024 have room");
}

#[test]
fn a_table_that_is_too_small_forgets_and_says_so() {
    let (table, rule, now) = (Table::new(WAYS), Rule::new(1, Duration::from_secs(60), 2), Duration::from_secs(1));
    (0..WAYS as u64 + 1).for_each(|client| assert_eq!(table.take(key(client), rule, now), Ok(())));
    assert_eq!(table.displaced(), 1);
}

#[test]
fn threads_that_ask_for_one_client_get_what_it_may_have_together() {
    let (table, rule) = (Table::new(64), Rule::new(1, Duration::from_secs(3600), 1000));
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (table, served) = (&table, &served);
            scope.spawn(move || {
                for n in 0..2000u64 {
                    let now = Duration::from_millis(1);
                    served.fetch_add(usize::from(table.take(key(0), rule, now).is_ok()), Relaxed);
                    // Others, so that rows are shared.
                    let _ = table.take(key(1 + (thread * 2000 + n) % 40), rule, now);
                }
            });
        }
    });
    let served = served.into_inner();
    assert!((1000..=1003).contains(&served), "{served} of 1000, and one at most for each further thread");
}
