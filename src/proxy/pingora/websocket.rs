//! Where the frames of a WebSocket end (RFC 6455, section 5.2), so that a word of ours can stand between them.

/// The frames of one direction, found as their bytes pass.
#[derive(Debug, Clone)]
pub struct Frames {
    /// Bytes that are of no interest: what comes before the first frame, or what a frame holds.
    skip: u64,
    head: [u8; 10],
    have: usize,
    /// A close frame has passed: nothing may follow it.
    is_over: bool,
}

impl Frames {
    /// `before`: bytes that pass before the first frame.
    pub fn behind(before: usize) -> Self {
        Self { skip: before as u64, head: [0; 10], have: 0, is_over: false }
    }

    pub fn pass(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes {
            if self.skip > 0 {
                let passing = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                self.skip -= passing as u64;
                bytes = &bytes[passing..];
                continue;
            }
            self.head[self.have] = *first;
            self.have += 1;
            bytes = rest;
            if self.have == self.wanted() {
                self.is_over |= self.head[0] & OPCODE == CLOSE;
                self.skip = self.length().saturating_add(if self.head[1] & MASKED == 0 { 0 } else { 4 });
                self.have = 0;
            }
        }
    }

    /// Whether a frame may stand here.
    pub fn is_between(&self) -> bool {
        self.skip == 0 && self.have == 0 && !self.is_over
    }

    /// Bytes of a frame's head, but for its mask.
    fn wanted(&self) -> usize {
        match self.head[1] & LENGTH {
            _ if self.have < 2 => 2,
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn length(&self) -> u64 {
        let [_, short, a, b, c, d, e, f, g, h] = self.head;
        match short & LENGTH {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => u64::from(short),
        }
    }
}

/// A close frame, “going away”, for a client.
pub fn going_away() -> [u8; 4] {
    let [high, low] = GOING_AWAY;
    [FINAL | CLOSE, 2, high, low]
}

/// The same for an instance, to whom everything comes masked.
pub fn going_away_masked(mask: [u8; 4]) -> [u8; 8] {
    let ([high, low], [a, b, c, d]) = (GOING_AWAY, mask);
    [FINAL | CLOSE, MASKED | 2, a, b, c, d, high ^ a, low ^ b]
}

const FINAL: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 8;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a frame may stand after each byte.
    fn betweens(before: usize, bytes: &[u8]) -> Vec<bool> {
        let mut frames = Frames::behind(before);
        bytes
            .iter()
            .map(|byte| {
                frames.pass(&[*byte]);
                frames.is_between()
            })
            .collect()
    }

    #[test]
    fn frames_end_where_their_length_says() {
        let masked = [0x82, 0x82, 1, 2, 3, 4, 9, 9];
        let long = [&[0x82, 126, 1, 0][..], &[0; 256]].concat();
        let longer = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[0; 65536]].concat();
        for frame in [&[0x81, 0][..], &[0x81, 1, b'x'], &masked, &long, &longer] {
            let found = betweens(0, &frame.repeat(2));
            let ends: Vec<usize> = found.iter().enumerate().filter(|(_, between)| **between).map(|(n, _)| n + 1).collect();
            assert_eq!(ends, [frame.len(), 2 * frame.len()]);
            let mut at_once = Frames::behind(3);
            at_once.pass(b"101");
            at_once.pass(&frame.repeat(2));
            assert!(at_once.is_between());
        }
    }

    #[test]
    fn nothing_stands_before_the_first_frame_or_behind_the_last() {
        assert_eq!(betweens(2, &[1, 2, 0x81, 0]), [false, true, false, true]);
        assert_eq!(betweens(0, &[0x88, 0, 0x81, 0]), [false; 4]);
        let mut frames = Frames::behind(0);
        frames.pass(&going_away_masked([1, 2, 3, 4]));
        assert!(!frames.is_between());
    }

    #[test]
    fn a_length_beyond_all_bounds_ends_nowhere() {
        let mut frames = Frames::behind(0);
        frames.pass(&[0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255]);
        frames.pass(&[0; 100]);
        assert!(!frames.is_between());
    }
}
