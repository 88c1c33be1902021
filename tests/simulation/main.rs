//! What picking makes of one odd instance among ten; `cargo bench --bench sim` prints the whole comparison.

mod cast;
mod model;

use model::{COMPARED, Figures, Odd, simulate};
use pointsman::model::Balance;

fn figures(odd: Odd, balance: Balance) -> Figures {
    simulate(odd, balance, 20_000)
}

#[test]
fn the_slow_one_is_felt_by_all_and_least_with_peak_ewma() {
    let p99 = |balance| {
        let Figures { p50_ms, p99_ms, .. } = figures(Odd::Slow, balance);
        assert!(p50_ms < 20.0, "{balance:?}: the nine others are not as usual: {p50_ms:.0} ms");
        p99_ms
    };
    let (ewma, p2c, in_turn) = (p99(Balance::PeakEwma), p99(Balance::P2c), p99(Balance::RoundRobin));
    assert!(ewma < p2c && p2c < in_turn / 3.0, "p99: {ewma:.0} ms peak_ewma, {p2c:.0} p2c, {in_turn:.0} round_robin");
}

#[test]
fn who_fails_fast_draws_no_requests() {
    for balance in COMPARED {
        let errors = figures(Odd::Failing, balance).errors;
        let most = if matches!(balance, Balance::RoundRobin | Balance::Random) { 11.0 } else { 2.0 };
        assert!(errors <= most, "{balance:?}: {errors:.1} % errors");
    }
}

#[test]
fn a_cold_newcomer_is_not_swamped() {
    for balance in COMPARED {
        let Figures { p99_ms, odd_share, .. } = figures(Odd::Cold, balance);
        assert!((0.1..10.0).contains(&odd_share), "{balance:?}: {odd_share:.1} % of the requests in its first seconds");
        assert!(p99_ms < 250.0, "{balance:?}: p99 {p99_ms:.0} ms");
    }
}
