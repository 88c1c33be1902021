//! How many further attempts a service gets: a share of its requests over ten seconds, and a few more so that a quiet
//! service can retry at all. Without it, retries would double the load on whatever is failing already.

use super::{Moment, Service, Window};

impl Service {
    /// A request begins.
    pub fn count_request(&self, now: Moment) {
        self.stats.budget.add(now, 1, 0);
    }

    /// Takes one retry out of the budget; `false`: there is none left.
    pub fn take_retry(&self, now: Moment) -> bool {
        let (counted, policy) = (self.stats.budget.read(now), &self.policy.retry);
        let share = counted.all * u64::from(policy.budget_percent) / 100;
        let allowed = counted.marked < share + u64::from(policy.budget_floor) * Window::SPAN_SECONDS;
        if allowed {
            self.stats.budget.add(now, 0, 1);
        }
        allowed
    }
}
