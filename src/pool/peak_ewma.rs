//! Power of two choices by expected time: the answers of late, as a mean that jumps up with a late one and comes down over
//! ten seconds, times (in flight + 1), over the weight.
//!
//! A newcomer is expected to take what the service takes on average, and so is, little by little, whoever is not asked.
//! Slow answers are not held against an instance that warms up: slow start bounds what it gets, and without requests it
//! would stay cold for ever. A failure counts as an answer after five seconds at least. Idle instances are a tie unless one is twice as slow, and
//! by more than what opening a connection may take: noise must not decide where all of a quiet service's requests go.

use std::cmp::Ordering;

use super::p2c::{better_of_two, load};
use super::pick::{Candidate, Draw};

pub fn pick<'a>(draw: &Draw<'a, '_>, rng: &mut fastrand::Rng) -> Option<Candidate<'a>> {
    let (mean, now) = (draw.mean_latency_us(), draw.ask.now);
    better_of_two(draw, rng, |other, best| {
        let expected = |c: Candidate<'_>| {
            let us = c.instance.state.latency_now.expected_us(mean, now);
            let us = if us > mean && draw.is_warming(&c) { mean } else { us };
            // With nothing measured at all, everybody is alike.
            f64::from(us.max(1.0))
        };
        let (other_takes, best_takes) = (expected(other), expected(best));
        let (other_load, best_load) = (load(other, best, now), load(best, other, now));
        if other_load == 0 && best_load == 0 {
            let (sooner, later) = (other_takes.min(best_takes), other_takes.max(best_takes));
            let is_tie = later < sooner * ALIKE || later - sooner < ALIKE_US;
            return if is_tie { other.waited_longer(&best) } else { other_takes < best_takes };
        }
        let cost = |takes: f64, load: u32, weight: u32| takes * (f64::from(load) + 1.0) / f64::from(weight.max(1));
        match cost(other_takes, other_load, other.weight).total_cmp(&cost(best_takes, best_load, best.weight)) {
            Ordering::Less => true,
            Ordering::Equal => other.waited_longer(&best),
            Ordering::Greater => false,
        }
    })
}

/// Up to this factor, two idle instances take as long.
const ALIKE: f64 = 2.0;
/// And if this is all that lies between them.
const ALIKE_US: f64 = 5_000.0;

#[cfg(test)]
mod tests {
    use crate::model::{Balance, Outcome};
    use crate::pool::pick::tests::{NOW, ask, service};
    use crate::pool::{Ask, Service};
    use std::time::Duration;

    /// One request at a time: each instance takes so many milliseconds, or fails at once where that is 0.
    fn shares(takes_ms: &[u64], n: usize) -> Vec<usize> {
        let service = service(&vec![100; takes_ms.len()], Balance::PeakEwma);
        let (mut rng, mut counts) = (fastrand::Rng::with_seed(5), vec![0; takes_ms.len()]);
        for request in 0..n {
            let now = NOW + Duration::from_millis(request as u64);
            let mut held = service.pick(Ask { now, ..Ask::default() }, &mut rng).unwrap();
            let place = place_of(&service, &held);
            counts[place] += 1;
            let took = Duration::from_millis(takes_ms[place]);
            let outcome = if took.is_zero() { Outcome::GatewayError } else { Outcome::Success };
            service.answered(&mut held, outcome, took, now);
            service.end_attempt(&mut held, outcome, Some(took), now);
        }
        counts
    }

    fn place_of(service: &Service, held: &crate::pool::InFlight) -> usize {
        service.pool.all().iter().position(|i| i.id == held.instance().id).unwrap()
    }

    #[test]
    fn the_slow_one_is_asked_now_and_then_and_the_failing_one_hardly() {
        let slow = shares(&[10, 10, 10, 10, 100], 2000);
        assert!(slow[4] < 20 && slow[..4].iter().all(|n| *n > 400), "{slow:?}");
        let failing = shares(&[10, 10, 10, 10, 0], 2000);
        assert!(failing[4] <= 5, "{failing:?}");
    }

    #[test]
    fn differences_that_may_be_noise_decide_nothing_among_the_idle() {
        for takes_ms in [[10, 11, 12, 13], [1, 2, 3, 5]] {
            let shares = shares(&takes_ms, 2000);
            assert!(shares.iter().all(|n| (400..600).contains(n)), "{takes_ms:?}: {shares:?}");
        }
    }

    #[test]
    fn a_newcomer_is_neither_shunned_nor_swamped() {
        let service = service(&[100; 5], Balance::PeakEwma);
        for place in 0..4 {
            let mut held = crate::pool::InFlight::begin(service.pool.all()[place].clone());
            service.answered(&mut held, Outcome::Success, Duration::from_millis(10), NOW);
        }
        let mut rng = fastrand::Rng::with_seed(5);
        let held: Vec<_> = (0..100).map(|_| service.pick(ask(&[]), &mut rng).unwrap()).collect();
        let newcomer = held.iter().filter(|held| place_of(&service, held) == 4).count();
        assert!((15..=25).contains(&newcomer), "{newcomer} of 100");
    }
}
