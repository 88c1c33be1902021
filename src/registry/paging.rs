//! How many keys to ask for at once.
//!
//! Each page costs etcd a walk over the whole index, so pages should be few; each is one message in memory, so they should
//! not be large. What the last page weighed tells how many the next may have.

/// The size of the next page, learned from the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(usize);

impl PageSize {
    pub fn keys(self) -> usize {
        self.0
    }

    pub fn learn(&mut self, n_keys: usize, n_bytes: usize) {
        if let Some(mean) = n_bytes.checked_div(n_keys) {
            self.0 = (PAGE_BYTES / mean.max(1)).clamp(KEYS_MIN, KEYS_MAX);
        }
    }

    /// The page was too much. False when it cannot be smaller.
    pub fn shrink(&mut self) -> bool {
        let was = self.0;
        self.0 = (was / 4).max(1);
        self.0 < was
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self(1000)
    }
}

const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Below, 100,000 keys would take a thousand walks over the index.
const KEYS_MIN: usize = 100;
const KEYS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_with_small_records_and_shrink_with_large_ones() {
        let mut size = PageSize::default();
        size.learn(1000, 270_000);
        assert_eq!(size.keys(), 7767);
        size.learn(7767, 7767 * 20);
        assert_eq!(size.keys(), KEYS_MAX);
        size.learn(10, 14_000_000);
        assert_eq!(size.keys(), KEYS_MIN);
        size.learn(0, 0);
        assert_eq!(size.keys(), KEYS_MIN, "an empty page teaches nothing");
        let shrunk: Vec<usize> = std::iter::from_fn(|| size.shrink().then(|| size.keys())).collect();
        assert_eq!(shrunk, [25, 6, 1]);
    }
}
