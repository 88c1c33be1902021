//! Both directions of one connection, and what its client has left of each budget.

use std::time::{Duration, Instant};

use super::cause::Cause;
use super::frames::{Frame, Frames};

#[derive(Debug)]
pub struct Watch {
    received: Frames,
    sent: Frames,
    /// By [`Cause`].
    spent: [u32; BUDGETS.len()],
    /// Up to when time has made good for what was spent.
    reckoned: Instant,
    /// Heads that have begun to arrive.
    n_heads: u64,
    /// CONTINUATION frames of a head that is not at its end.
    continuations: Option<u32>,
    continuations_max: u32,
    last_kind: u8,
    last_stream: u32,
    /// Our SETTINGS are out: no frame may stand before them.
    has_begun: bool,
    /// The client has been told that the connection ends.
    is_over: bool,
}

/// What a client may do ahead of what makes good for it.
struct Budget {
    ahead: u32,
    per_second: u32,
    /// For an answer that went out whole.
    per_answer: u32,
    /// For a frame of DATA that went out.
    per_piece: u32,
}

/// By [`Cause`], as far as it is counted.
const BUDGETS: [Budget; 8] = [
    // Resets: browsers take back a page full of images at once, and go on asking.
    Budget { ahead: 200, per_second: 10, per_answer: 1, per_piece: 0 },
    // Pings: gRPC measures the path with one for each piece that it gets.
    Budget { ahead: 100, per_second: 10, per_answer: 0, per_piece: 1 },
    // Settings: nobody needs more than one or two.
    Budget { ahead: 20, per_second: 1, per_answer: 0, per_piece: 0 },
    // Window updates: careful clients send two for each piece, and one for each stream they open.
    Budget { ahead: 1000, per_second: 100, per_answer: 4, per_piece: 4 },
    // Priorities: browsers send several for each request.
    Budget { ahead: 500, per_second: 20, per_answer: 4, per_piece: 0 },
    // Empty data: allowed, and of no use.
    Budget { ahead: 50, per_second: 2, per_answer: 0, per_piece: 0 },
    // Faults.
    Budget { ahead: 100, per_second: 5, per_answer: 0, per_piece: 0 },
    // Heads: as many streams as may run can wait to be looked at, and a client may begin with more than it may have.
    Budget { ahead: 250, per_second: 5, per_answer: 0, per_piece: 0 },
];

impl Watch {
    /// `head_size`: bytes that a head may have.
    pub fn new(head_size: usize, now: Instant) -> Self {
        Self {
            received: Frames::of_client(),
            sent: Frames::of_server(),
            spent: [0; BUDGETS.len()],
            reckoned: now,
            n_heads: 0,
            continuations: None,
            continuations_max: u32::try_from(head_size / FRAME_SIZE).unwrap_or(u32::MAX).max(CONTINUATIONS_MIN),
            last_kind: SETTINGS,
            last_stream: 0,
            has_begun: false,
            is_over: false,
        }
    }

    /// Bytes of the client, in the order they came in. `Some`: it is enough.
    pub fn received(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Option<Cause> {
        while let Some((frame, rest)) = self.received.next(bytes) {
            bytes = rest;
            self.last_kind = frame.kind;
            if let Some(cause) = self.costs(&frame)
                && self.is_too_much(cause, &now)
            {
                return Some(cause);
            }
        }
        None
    }

    /// So many heads have become requests.
    pub fn begun(&mut self, n: u32) {
        let waiting = &mut self.spent[Cause::Heads as usize];
        *waiting = waiting.saturating_sub(n);
    }

    /// Bytes of ours. `Some`: the client has made us do this too often, or the codec says so.
    pub fn sent(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Option<Cause> {
        while let Some((frame, rest)) = self.sent.next(bytes) {
            bytes = rest;
            self.has_begun = true;
            let [a, b, c, d, e, f, g, h] = frame.first;
            match frame.kind {
                DATA | HEADERS => self.earn(&frame),
                RST_STREAM => {
                    let is_fault = is_fault_of_client(u32::from_be_bytes([a, b, c, d]));
                    if is_fault && self.is_too_much(Cause::Faults, &now) {
                        return Some(Cause::Faults);
                    }
                }
                GOAWAY => {
                    let code = u32::from_be_bytes([e, f, g, h]);
                    self.is_over |= code != NO_ERROR;
                    if code == ENHANCE_YOUR_CALM {
                        return Some(Cause::Codec);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Which head is being received, if one is.
    pub fn head(&self) -> Option<u64> {
        let is_inside = self.received.is_inside() && matches!(self.last_kind, HEADERS | CONTINUATION);
        (is_inside || self.continuations.is_some()).then_some(self.n_heads)
    }

    /// What tells the client that it is enough, where a frame may stand at all.
    pub fn goodbye(&mut self) -> Option<[u8; 17]> {
        if !self.has_begun || self.is_over || !self.sent.is_between() {
            return None;
        }
        self.is_over = true;
        let mut frame = [0; 17];
        (frame[2], frame[3]) = (8, GOAWAY);
        frame[9..13].copy_from_slice(&self.last_stream.to_be_bytes());
        frame[13..].copy_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        Some(frame)
    }

    fn costs(&mut self, frame: &Frame) -> Option<Cause> {
        match frame.kind {
            DATA => (frame.flags & END_STREAM == 0 && data_length(frame) == 0).then_some(Cause::EmptyData),
            HEADERS => {
                self.n_heads += 1;
                self.continuations = (frame.flags & END_HEADERS == 0).then_some(0);
                let is_new = self.last_stream < frame.stream;
                self.last_stream = self.last_stream.max(frame.stream);
                is_new.then_some(Cause::Heads)
            }
            CONTINUATION => {
                let n = self.continuations.map_or(0, |n| n + 1);
                self.continuations = (frame.flags & END_HEADERS == 0).then_some(n);
                (n > self.continuations_max).then_some(Cause::Continuations)
            }
            RST_STREAM => Some(Cause::Resets),
            PING => Some(Cause::Pings),
            SETTINGS | GOAWAY => Some(Cause::Settings),
            WINDOW_UPDATE => Some(Cause::WindowUpdates),
            // A client that pushes is told so by the codec.
            PUSH_PROMISE => None,
            _ => Some(Cause::Priorities),
        }
    }

    fn is_too_much(&mut self, cause: Cause, now: &impl Fn() -> Instant) -> bool {
        // What has no budget is too much as it is.
        let (Some(spent), Some(budget)) = (self.spent.get_mut(cause as usize), BUDGETS.get(cause as usize)) else { return true };
        *spent += 1;
        if *spent <= budget.ahead {
            return false;
        }
        self.forgive(now());
        self.spent[cause as usize] > budget.ahead
    }

    /// Only asked for when a budget is used up: most connections never look at a clock.
    fn forgive(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.reckoned).as_secs();
        self.reckoned += Duration::from_secs(seconds);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        for (spent, budget) in self.spent.iter_mut().zip(&BUDGETS) {
            *spent = spent.saturating_sub(budget.per_second.saturating_mul(seconds));
        }
    }

    fn earn(&mut self, frame: &Frame) {
        let is_piece = u32::from(frame.kind == DATA && frame.length > 0);
        let is_answer = u32::from(frame.flags & END_STREAM != 0);
        for (spent, budget) in self.spent.iter_mut().zip(&BUDGETS) {
            *spent = spent.saturating_sub(is_piece * budget.per_piece + is_answer * budget.per_answer);
        }
    }
}

/// Without its padding.
fn data_length(frame: &Frame) -> u32 {
    let padding = if frame.flags & PADDED == 0 { 0 } else { 1 + u32::from(frame.first[0]) };
    frame.length.saturating_sub(padding)
}

/// Streams that end so did because of what the client sent on them. The others broke off for reasons of ours or of an
/// instance, or were refused, and then their heads count.
fn is_fault_of_client(code: u32) -> bool {
    !matches!(code, NO_ERROR | INTERNAL_ERROR | REFUSED_STREAM | CANCEL)
}

// Kinds of frames, their flags, and error codes: RFC 9113, sections 6 and 7.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What a client may put into one frame: the protocol's default, which we leave.
const FRAME_SIZE: usize = 16 * 1024;
/// One less than what the codec allows for.
const CONTINUATIONS_MIN: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(payload);
        bytes
    }

    fn watch() -> (Watch, Instant) {
        let now = Instant::now();
        let mut watch = Watch::new(32 * 1024, now);
        assert_eq!(watch.received(&[b'x'; 24], || now), None, "the preface");
        (watch, now)
    }

    /// How many of these the client may send, if nothing else happens.
    fn allowed(watch: &mut Watch, now: Instant, frame: &[u8], expected: Cause) -> u32 {
        for n in 0..10_000 {
            if let Some(cause) = watch.received(frame, || now) {
                assert_eq!(cause, expected);
                return n;
            }
        }
        panic!("{expected:?} has no end")
    }

    #[test]
    fn every_kind_of_frame_that_costs_has_an_end_and_time_makes_good_for_it() {
        let padding = frame(DATA, PADDED, &[3, 0, 0, 0]);
        for (bytes, cause, ahead, after_ten_seconds) in [
            (frame(RST_STREAM, 0, &[0; 4]), Cause::Resets, 200, 100),
            (frame(PING, 0, &[0; 8]), Cause::Pings, 100, 100),
            (frame(PING, 1, &[0; 8]), Cause::Pings, 100, 100),
            (frame(SETTINGS, 0, &[]), Cause::Settings, 20, 10),
            (frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]), Cause::WindowUpdates, 1000, 1000),
            (frame(2, 0, &[0; 5]), Cause::Priorities, 500, 200),
            (frame(0x10, 0, b"u=1"), Cause::Priorities, 500, 200),
            (frame(0xfa, 0, &[]), Cause::Priorities, 500, 200),
            (frame(DATA, 0, &[]), Cause::EmptyData, 50, 20),
            (padding, Cause::EmptyData, 50, 20),
        ] {
            let (mut watch, now) = watch();
            assert_eq!(allowed(&mut watch, now, &bytes, cause), ahead, "{cause:?}");
            let later = now + Duration::from_secs(10);
            // The one that was too much has to be made good for, too.
            assert_eq!(allowed(&mut watch, later, &bytes, cause), after_ten_seconds - 1, "{cause:?} after ten seconds");
        }
    }

    #[test]
    fn the_documented_budgets_are_these() {
        let row = |(cause, budget): (Cause, &Budget)| {
            let Budget { ahead, per_second, per_answer, per_piece } = budget;
            format!("| `{}` | {ahead} | {per_second} | {per_answer} | {per_piece} |", cause.as_str())
        };
        let ours: Vec<String> = Cause::ALL.into_iter().zip(&BUDGETS).map(row).collect();
        let section = include_str!("../../../docs/requests.md").split("## What a client of HTTP/2 may ask for").nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows: Vec<Vec<&str>> = section.lines().filter(|l| l.starts_with("| `")).map(|l| l.split('|').collect()).collect();
        let counted = |row: &&Vec<&str>| row.len() == 8;
        let without_words = |row: &Vec<&str>| [&row[..2], &row[3..]].concat().join("|");
        assert_eq!(rows.iter().filter(counted).map(without_words).collect::<Vec<_>>(), ours);
        let named: Vec<&str> = rows.iter().map(|row| row[1].trim().trim_matches('`')).collect();
        assert_eq!(named, Cause::ALL.map(Cause::as_str));
    }

    #[test]
    fn who_takes_answers_may_go_on() {
        let (mut watch, now) = watch();
        for n in 0..5000 {
            let mut said = frame(RST_STREAM, 0, &[0; 4]);
            said.extend(frame(PING, 0, &[0; 8]));
            said.extend(frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]).repeat(2));
            said.extend(frame(2, 0, &[0; 5]).repeat(2));
            assert_eq!(watch.received(&said, || now), None, "round {n}");
            assert_eq!(watch.sent(&frame(DATA, END_STREAM, b"answer"), || now), None);
        }
    }

    #[test]
    fn data_and_ends_of_streams_cost_nothing() {
        let (mut watch, now) = watch();
        for bytes in [frame(DATA, END_STREAM, &[]), frame(DATA, 0, b"x"), frame(HEADERS, END_HEADERS, b"trailers")] {
            (0..5000).for_each(|_| assert_eq!(watch.received(&bytes, || now), None));
        }
    }

    #[test]
    fn a_head_may_come_in_some_pieces() {
        for (head_size, pieces) in [(1024, 4), (32 * 1024, 4), (1024 * 1024, 64)] {
            let now = Instant::now();
            let mut watch = Watch::new(head_size, now);
            watch.received(&[b'x'; 24], || now);
            assert_eq!(watch.received(&frame(HEADERS, 0, b"x"), || now), None);
            let more = frame(CONTINUATION, 0, &[]);
            assert_eq!(allowed(&mut watch, now, &more, Cause::Continuations), pieces, "{head_size}");
            // One that ends in time is followed by another that may be as long.
            for _ in 0..100 {
                assert_eq!(watch.received(&frame(HEADERS, 0, b"x"), || now), None);
                (0..3).for_each(|_| assert_eq!(watch.received(&more, || now), None));
                assert_eq!(watch.received(&frame(CONTINUATION, END_HEADERS, b"x"), || now), None);
                assert_eq!(watch.head(), None);
            }
        }
    }

    #[test]
    fn a_head_is_open_until_its_last_byte() {
        let (mut watch, now) = watch();
        let whole = frame(HEADERS, END_HEADERS, &[b'x'; 100]);
        watch.received(&whole[..50], || now);
        assert_eq!(watch.head(), Some(1));
        watch.received(&whole[50..], || now);
        assert_eq!(watch.head(), None);
        watch.received(&frame(HEADERS, 0, b"x"), || now);
        watch.received(&frame(CONTINUATION, 0, b"x"), || now);
        assert_eq!(watch.head(), Some(2), "the second one, with all its pieces");
        let data = frame(DATA, 0, &[b'x'; 100]);
        watch.received(&frame(CONTINUATION, END_HEADERS, b"x"), || now);
        watch.received(&data[..50], || now);
        assert_eq!(watch.head(), None, "this is no head");
    }

    #[test]
    fn heads_have_to_become_requests() {
        let head = |stream: u32| {
            let mut bytes = frame(HEADERS, END_HEADERS, b"x");
            bytes[5..9].copy_from_slice(&stream.to_be_bytes());
            bytes
        };
        let (mut watch, now) = watch();
        let lost = (0..1000).find(|n| watch.received(&head(2 * n + 1), || now) == Some(Cause::Heads));
        assert_eq!(lost, Some(250));
        let (mut watch, now) = self::watch();
        for n in 0..5000 {
            assert_eq!(watch.received(&head(2 * n + 1), || now), None, "number {n}");
            watch.begun(u32::from(n > 200));
        }
    }

    #[test]
    fn only_faults_of_the_client_count_as_such() {
        for (code, counts) in [
            (NO_ERROR, false),
            (1, true),
            (INTERNAL_ERROR, false),
            (3, true),
            (5, true),
            (REFUSED_STREAM, false),
            (CANCEL, false),
        ] {
            let (mut watch, now) = watch();
            let reset = frame(RST_STREAM, 0, &code.to_be_bytes());
            let cut = (0..300).find_map(|_| watch.sent(&reset, || now));
            assert_eq!(cut, counts.then_some(Cause::Faults), "error {code}");
        }
    }

    #[test]
    fn goodbye_is_said_once_and_only_between_frames() {
        let (mut watch, now) = watch();
        assert_eq!(watch.goodbye(), None, "before our SETTINGS");
        watch.sent(&frame(SETTINGS, 0, &[]), || now);
        let data = frame(DATA, 0, &[b'x'; 100]);
        watch.sent(&data[..60], || now);
        assert_eq!(watch.goodbye(), None, "in the middle of a frame");
        watch.sent(&data[60..], || now);
        watch.received(&frame(HEADERS, END_HEADERS, b"x"), || now);
        let expected = [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 11];
        assert_eq!(watch.goodbye(), Some(expected));
        assert_eq!(watch.goodbye(), None);
    }

    #[test]
    fn the_codec_may_have_enough_first() {
        let (mut watch, now) = watch();
        watch.sent(&frame(SETTINGS, 0, &[]), || now);
        assert_eq!(watch.sent(&frame(GOAWAY, 0, &[0x7f, 255, 255, 255, 0, 0, 0, 0]), || now), None, "the end of the process");
        assert_eq!(watch.sent(&frame(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, 11]), || now), Some(Cause::Codec));
        assert_eq!(watch.goodbye(), None, "it has said so itself");
    }
}
