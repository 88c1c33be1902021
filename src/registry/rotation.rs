//! Which endpoint is next, and how long to wait before.

use std::time::Duration;

/// The endpoints in an order of our own, so that many proxies do not all choose the first one.
pub struct Rotation {
    endpoints: Vec<String>,
    current: usize,
    n_failed: u32,
    random: fastrand::Rng,
}

impl Rotation {
    pub fn new(endpoints: &[String], mut random: fastrand::Rng) -> Self {
        let mut endpoints = endpoints.to_vec();
        random.shuffle(&mut endpoints);
        Self { endpoints, current: 0, n_failed: 0, random }
    }

    pub fn current(&self) -> &str {
        &self.endpoints[self.current]
    }

    /// This endpoint failed after it had served for `healthy`. The next one is current; wait before asking it.
    pub fn failed(&mut self, healthy: Duration) -> Duration {
        if healthy >= HEALTHY_AFTER {
            self.n_failed = 0;
        }
        self.current = (self.current + 1) % self.endpoints.len();
        self.n_failed = self.n_failed.saturating_add(1);
        let ceiling = WAIT_MIN.saturating_mul(1 << (self.n_failed - 1).min(16)).min(WAIT_MAX);
        // Full jitter: proxies that lost the same etcd do not come back together.
        ceiling.mul_f64(self.random.f64())
    }
}

/// A session of this length ends the doubling.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_gets_its_turn_in_an_order_of_ones_own() {
        let endpoints: Vec<String> = (0..5).map(|n| format!("http://{n}")).collect();
        let orders: Vec<Vec<String>> = (0..20)
            .map(|seed| {
                let mut rotation = Rotation::new(&endpoints, fastrand::Rng::with_seed(seed));
                let order = (0..5).map(|_| {
                    let current = rotation.current().to_owned();
                    rotation.failed(Duration::ZERO);
                    current
                });
                let order: Vec<String> = order.collect();
                assert_eq!(rotation.current(), order[0], "after the last comes the first");
                order
            })
            .collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort();
            assert_eq!(sorted, endpoints);
        }
        assert!(orders.iter().any(|order| order[0] != orders[0][0]), "all begin with the same endpoint");
    }

    #[test]
    fn waits_double_up_to_a_bound_and_a_healthy_session_ends_that() {
        let mut rotation = Rotation::new(&["http://a".to_owned()], fastrand::Rng::with_seed(7));
        let mut waits = |healthy: u64, n: usize| -> Duration {
            (0..n).map(|_| rotation.failed(Duration::from_secs(healthy))).max().unwrap_or_default()
        };
        assert!(waits(0, 1) <= WAIT_MIN);
        let long = waits(1, 100);
        assert!(long > Duration::from_secs(1) && long <= WAIT_MAX, "{long:?}");
        assert!(waits(5, 100) <= WAIT_MIN);
    }
}
