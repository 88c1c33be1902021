//! One odd instance among ten, by way of picking: `cargo bench --bench sim`. Virtual time, so a busy machine changes nothing.

#[path = "../tests/simulation/cast.rs"]
mod cast;
#[path = "../tests/simulation/model.rs"]
mod model;

use model::{COMPARED, Odd, simulate};

fn main() {
    for odd in [Odd::Slow, Odd::Failing, Odd::Cold] {
        let what = match odd {
            Odd::Slow => "one of ten takes 100 ms instead of 10",
            Odd::Failing => "one of ten answers 503 in 1 ms; no ejection, no retry",
            Odd::Cold => "one of ten has just come, and is cold",
        };
        println!("{what}\n{:>14} {:>9} {:>9} {:>9} {:>17}", "", "p50 ms", "p99 ms", "errors %", "share of it in %");
        for balance in COMPARED {
            let figures = simulate(odd, balance, REQUESTS);
            let name = balance.as_str();
            println!(
                "{name:>14} {:>9.1} {:>9.1} {:>9.2} {:>17.2}",
                figures.p50_ms, figures.p99_ms, figures.errors, figures.odd_share
            );
        }
        println!();
    }
}

/// Forty virtual seconds.
const REQUESTS: usize = 100_000;
