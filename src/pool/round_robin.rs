//! Smooth weighted round robin without a lock: the turn walks over the weights' line in steps that are coprime with
//! its length, so that every place is visited once in each full round and heavy instances come well spread.
//! It depends on the turn alone, so a change of the pool does not start it over.

use super::pick::{Candidate, Draw, gcd};

pub fn pick<'a>(draw: &Draw<'a, '_>, turn: u64) -> Option<Candidate<'a>> {
    let total = draw.weights().total();
    let place = if draw.weights().are_equal() {
        turn % total
    } else {
        (u128::from(turn) * u128::from(draw.weights().step()) % u128::from(total)) as u64
    };
    draw.at(place)
}

/// Near the golden section of `total`, which spreads best, and coprime with it.
pub(super) fn step(total: u64) -> u64 {
    let golden = (total as f64 * 0.618_033_988_749_895) as u64;
    (golden.max(1)..).find(|step| gcd(*step, total) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use crate::model::Balance;
    use crate::pool::pick::tests::{counts, service};

    #[test]
    fn each_full_round_is_exact() {
        assert_eq!(counts(&service(&[100, 100, 100], Balance::RoundRobin), 300), [100, 100, 100]);
        assert_eq!(counts(&service(&[5, 1, 1], Balance::RoundRobin), 7), [5, 1, 1]);
        assert_eq!(counts(&service(&[500, 300, 200], Balance::RoundRobin), 10), [5, 3, 2]);
        assert_eq!(counts(&service(&[65535, 1], Balance::RoundRobin), 65536), [65535, 1]);
    }

    #[test]
    fn a_heavy_instance_does_not_come_in_one_block() {
        let picks = counts(&service(&[50, 50, 100], Balance::RoundRobin), 2);
        assert!(picks[2] <= 1, "two of two went to the heavy one");
        let picks = counts(&service(&[10, 90], Balance::RoundRobin), 9);
        assert!(picks[0] <= 1, "{picks:?}");
    }
}
