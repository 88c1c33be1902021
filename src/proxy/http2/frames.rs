//! The frames of one direction of a connection (RFC 9113, section 4.1), found as their bytes pass.

/// What is known of a frame once its first bytes are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Bytes behind the frame's own head.
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    /// The first bytes of what it holds, zeros behind its end.
    pub first: [u8; FIRST],
}

/// Where in the frames a direction is.
#[derive(Debug)]
pub struct Frames {
    /// Bytes that are of no interest: the client's preface, or what else a frame holds.
    skip: u32,
    head: [u8; HEAD + FIRST],
    have: usize,
}

impl Frames {
    /// Of a client, which begins with its preface.
    pub fn of_client() -> Self {
        Self { skip: PREFACE as u32, ..Self::of_server() }
    }

    pub fn of_server() -> Self {
        Self { skip: 0, head: [0; HEAD + FIRST], have: 0 }
    }

    /// Takes what comes next, and returns a frame whenever enough of one has been seen, and what is left to be taken.
    pub fn next<'a>(&mut self, mut bytes: &'a [u8]) -> Option<(Frame, &'a [u8])> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let passing = bytes.len().min(self.skip as usize);
                self.skip -= passing as u32;
                bytes = &bytes[passing..];
                continue;
            }
            let wanted = self.wanted() - self.have;
            let taken = bytes.len().min(wanted);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have >= HEAD && self.have == self.wanted() {
                return Some((self.complete(), bytes));
            }
        }
        None
    }

    /// Whether another frame could begin here.
    pub fn is_between(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    /// Whether the frame that was told last is not whole yet.
    pub fn is_inside(&self) -> bool {
        self.skip > 0 && self.have == 0
    }

    /// Bytes of a frame to gather before it is told.
    fn wanted(&self) -> usize {
        if self.have < HEAD { HEAD } else { HEAD + (self.length() as usize).min(FIRST) }
    }

    fn length(&self) -> u32 {
        u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]])
    }

    fn complete(&mut self) -> Frame {
        let mut first = [0; FIRST];
        first[..self.have - HEAD].copy_from_slice(&self.head[HEAD..self.have]);
        let length = self.length();
        self.skip = length - (self.have - HEAD) as u32;
        self.have = 0;
        let [_, _, _, kind, flags, stream @ ..] = self.head;
        let [a, b, c, d, ..] = stream;
        Frame { length, kind, flags, stream: u32::from_be_bytes([a, b, c, d]) & !(1 << 31), first }
    }
}

const HEAD: usize = 9;
/// Enough for the error code of a RST_STREAM or GOAWAY.
const FIRST: usize = 8;
/// `PRI * HTTP/2.0` and what follows it.
const PREFACE: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn all<'a>(frames: &mut Frames, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Frame> {
        let mut seen = Vec::new();
        for mut piece in pieces {
            while let Some((frame, rest)) = frames.next(piece) {
                seen.push(frame);
                piece = rest;
            }
        }
        seen
    }

    #[test]
    fn a_preface_and_frames_are_told_apart() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        bytes.extend(frame(3, 0, 0x8000_0001, &[0, 0, 0, 8]));
        let seen = all(&mut Frames::of_client(), [&bytes[..]]);
        assert_eq!(seen[0], Frame { length: 0, kind: 4, flags: 0, stream: 0, first: [0; 8] });
        assert_eq!(seen[1], Frame { length: 4, kind: 3, flags: 0, stream: 1, first: [0, 0, 0, 8, 0, 0, 0, 0] });
    }

    #[test]
    fn what_is_unfinished_is_known() {
        let mut frames = Frames::of_server();
        let bytes = frame(1, 4, 1, &[0; 100]);
        assert!(frames.is_between() && !frames.is_inside());
        for (n, byte) in bytes.iter().enumerate() {
            all(&mut frames, [&[*byte][..]]);
            let (is_last, is_told) = (n + 1 == bytes.len(), (HEAD + FIRST - 1..bytes.len() - 1).contains(&n));
            assert_eq!((frames.is_between(), frames.is_inside()), (is_last, is_told), "after byte {n}");
        }
    }

    type Sent = (u8, u8, u32, Vec<u8>);

    fn sent() -> impl Strategy<Value = Sent> {
        (any::<u8>(), any::<u8>(), 0..1_u32 << 31, prop::collection::vec(any::<u8>(), 0..40))
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(
            frames in prop::collection::vec(sent(), 0..20),
            cuts in prop::collection::vec(1..30_usize, 1..20),
        ) {
            let bytes = |(kind, flags, stream, payload): &Sent| frame(*kind, *flags, *stream, payload);
            let bytes: Vec<u8> = frames.iter().flat_map(bytes).collect();
            let mut pieces = Vec::new();
            let (mut rest, mut cut) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(rest.len().min(*cut.next().unwrap()));
                pieces.push(piece);
                rest = more;
            }
            let mut direction = Frames::of_server();
            let seen = all(&mut direction, pieces);
            let told: Vec<_> = seen.iter().map(|f| (f.kind, f.flags, f.stream, f.length as usize)).collect();
            let sent = |(kind, flags, stream, payload): &Sent| (*kind, *flags, *stream, payload.len());
            prop_assert_eq!(told, frames.iter().map(sent).collect::<Vec<_>>());
            prop_assert!(direction.is_between());
        }
    }
}
