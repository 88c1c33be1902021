//! nginx's times and sizes, and texts as ours.

use std::time::Duration;

/// `60`, `60s`, `1m 30s`, `500ms`, `1d`; without a unit seconds.
pub fn time(said: &str) -> Option<Duration> {
    let mut rest = said.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let n_digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let n: u64 = rest.get(..n_digits)?.parse().ok()?;
        let after = &rest[n_digits..];
        let (unit_ms, used) = UNITS.iter().find(|(unit, _)| after.starts_with(unit)).map_or((1_000, 0), |(u, ms)| (*ms, u.len()));
        if used == 0 && !after.is_empty() && !after.starts_with(' ') {
            return None;
        }
        total = total.checked_add(Duration::from_millis(n.checked_mul(unit_ms)?))?;
        rest = after[used..].trim_start();
    }
    (total <= DURATION_MAX).then_some(total)
}

/// `8k`, `1m`, `1g`, or bytes.
pub fn size(said: &str) -> Option<u64> {
    let (digits, factor) = match said.to_ascii_lowercase().chars().last()? {
        'k' => (&said[..said.len() - 1], 1 << 10),
        'm' => (&said[..said.len() - 1], 1 << 20),
        'g' => (&said[..said.len() - 1], 1 << 30),
        _ => (said, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// The first that a text begins with counts, so `ms` stands before `m`.
const UNITS: [(&str, u64); 8] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 7 * 86_400_000),
    ("M", 30 * 86_400_000),
    ("y", 365 * 86_400_000),
];

/// The longest that our own files take.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_nginxs() {
        for (said, ms) in [("60", 60_000), ("500ms", 500), ("1m 30s", 90_000), ("1h30m", 5_400_000), ("0", 0)] {
            assert_eq!(time(said), Some(Duration::from_millis(ms)), "{said}");
        }
        for wrong in ["", "x", "1x", "s", "99999999999999999999", "9y"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
        for (said, bytes) in [("8k", 8192), ("1m", 1 << 20), ("2G", 2 << 30), ("100", 100), ("0", 0)] {
            assert_eq!(size(said), Some(bytes), "{said}");
        }
        assert_eq!((size("k"), size("1x"), size(""), size("é")), (None, None, None, None));
    }
}
