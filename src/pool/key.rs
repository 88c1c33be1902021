//! What the hashing algorithms go by. The same on every proxy, machine and version: neither the standard library's
//! hashers nor those of hash maps promise that.

/// Which instance a request belongs to, as far as the request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    pub fn of(bytes: &[u8]) -> Self {
        Self(mix(fnv(FNV_START, bytes)))
    }

    /// Another number for every seed, as if drawn.
    pub(super) fn with(self, seed: u64) -> u64 {
        mix(self.0 ^ seed)
    }

    pub(super) fn number(self) -> u64 {
        self.0
    }
}

/// An instance by its name and its service's: what it goes by for as long as it exists, whatever its weight and address.
pub(super) fn seed(service: &str, id: &str) -> u64 {
    // No name holds a slash, so no two pairs look alike.
    mix(fnv(fnv(fnv(FNV_START, service.as_bytes()), b"/"), id.as_bytes()))
}

/// FNV-1a.
fn fnv(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The end of MurmurHash3: every bit of the result hangs on every bit of what goes in.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_for_ever() {
        // A change here moves every key of every user on an upgrade, and proxies of two versions would disagree.
        assert_eq!(fnv(FNV_START, b"foobar"), 0x8594_4171_f739_67e8, "FNV-1a's own test value");
        assert_eq!(Key::of(b"").number(), 0xefd0_1f60_ba99_2926);
        assert_eq!(seed("orders", "a1"), 2_465_385_481_463_380_157);
    }
}
