//! CRC-32C (Castagnoli), bit by bit: a header has a few dozen bytes, and seldom a checksum.

/// Of these pieces, one behind the other.
pub fn crc32c(pieces: [&[u8]; 3]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ REFLECTED } else { crc >> 1 })
    };
    !pieces.into_iter().flatten().fold(!0, step)
}

/// 0x1EDC6F41, read from its other end.
const REFLECTED: u32 = 0x82F6_3B78;

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720 §B.4 and the usual check value.
    #[test]
    fn known_sums_come_out() {
        assert_eq!(crc32c([b"1234", b"56789", b""]), 0xe306_9283);
        assert_eq!(crc32c([&[0; 32], b"", b""]), 0x8a91_36aa);
        assert_eq!(crc32c([&[0xff; 32], b"", b""]), 0x62a8_ab43);
    }
}
