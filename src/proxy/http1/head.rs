//! The head of a request, read strictly: what another reader could see otherwise is refused, not mended.
//!
//! httparse knows tokens, targets and values; what it lets pass and we do not is a line that ends without a carriage return.

use std::ops::Range;

use http::{Method, Version};
use httparse::{EMPTY_HEADER, Error, Status};

use crate::proxy::reply::Refusal;
use crate::routing::Fields;

/// A whole head. It owns its bytes, so a further attempt can be made of it long after the connection has read on.
#[derive(Debug)]
pub struct Head {
    bytes: Vec<u8>,
    pub method: Method,
    target: Range<usize>,
    fields: Vec<(Range<usize>, Range<usize>)>,
    /// HTTP/1.0, which has other rules.
    pub is_old: bool,
}

impl Head {
    /// `bytes`: as far as [`HeadEnd`] says. Fields beyond `n_fields` are too many.
    pub fn parse(bytes: Vec<u8>, n_fields: usize) -> Result<Self, Refusal> {
        let mut room = [EMPTY_HEADER; FIELDS_USUAL];
        let mut more = Vec::new();
        let mut request = httparse::Request::new(&mut room);
        let mut parsed = request.parse(&bytes);
        if parsed == Err(Error::TooManyHeaders) && n_fields > FIELDS_USUAL {
            more.resize(n_fields, EMPTY_HEADER);
            request = httparse::Request::new(&mut more);
            parsed = request.parse(&bytes);
        }
        match parsed {
            Ok(Status::Complete(length)) if length == bytes.len() => {}
            Err(Error::TooManyHeaders) => return Err(Refusal::TooManyFields),
            Err(Error::HeaderName) => return Err(Refusal::Malformed("a field name is not a token")),
            Err(Error::HeaderValue) => return Err(Refusal::Malformed("a field value holds control characters")),
            Ok(_) | Err(_) => return Err(Refusal::Malformed("the request is not valid HTTP")),
        }
        let malformed = || Refusal::Malformed("the request line is not valid HTTP");
        let method = request.method.and_then(|m| Method::from_bytes(m.as_bytes()).ok()).ok_or_else(malformed)?;
        let is_old = request.version == Some(0);
        let target = place(&bytes, request.path.ok_or_else(malformed)?.as_bytes());
        let fields = request.headers.iter().map(|f| (place(&bytes, f.name.as_bytes()), place(&bytes, f.value))).collect();
        Ok(Self { method, target, fields, is_old, bytes })
    }

    pub fn target(&self) -> &[u8] {
        &self.bytes[self.target.clone()]
    }

    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|(name, value)| (self.name(name), &self.bytes[value.clone()]))
    }

    pub fn version(&self) -> Version {
        if self.is_old { Version::HTTP_10 } else { Version::HTTP_11 }
    }

    fn name(&self, range: &Range<usize>) -> &str {
        // A token is ASCII, or it would not have been parsed.
        std::str::from_utf8(&self.bytes[range.clone()]).unwrap_or_default()
    }
}

impl Fields for Head {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        let is_it = |range: &Range<usize>| self.bytes[range.clone()].eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(|(other, _)| is_it(other)).nth(n).map(|(_, value)| &self.bytes[value.clone()])
    }

    fn each(&self, show: &mut dyn FnMut(&str, &[u8])) {
        self.fields().for_each(|(name, value)| show(name, value));
    }
}

/// Where a part stands in the whole that it was read from.
fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    // An empty value may point anywhere.
    let start = start.min(whole.len() - part.len());
    start..start + part.len()
}

/// Finds the empty line that ends a head, of a request or a response, however it is cut into pieces.
#[derive(Debug, Default)]
pub struct HeadEnd {
    seen: usize,
    line_start: usize,
}

/// A line ends with a bare LF: some would read two lines where others read one.
#[derive(Debug, PartialEq, Eq)]
pub struct BareLineFeed;

impl HeadEnd {
    /// That many bytes of the head hold no end.
    pub fn has_seen(&self, n: usize) -> bool {
        self.seen >= n
    }

    /// `bytes`: all that has come of the head so far, and maybe more. Looks at each byte once.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, BareLineFeed> {
        while let Some(at) = memchr::memchr(b'\n', &bytes[self.seen..]) {
            let feed = self.seen + at;
            if feed == 0 || bytes[feed - 1] != b'\r' {
                return Err(BareLineFeed);
            }
            let is_empty = self.line_start + 1 == feed;
            self.seen = feed + 1;
            self.line_start = self.seen;
            if is_empty {
                return Ok(Some(self.seen));
            }
        }
        self.seen = bytes.len();
        Ok(None)
    }
}

/// Most requests have fewer; more cost an allocation.
const FIELDS_USUAL: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The parts of a head as they were understood, or why it was refused.
    fn read(text: &[u8]) -> Result<String, String> {
        let length = match HeadEnd::default().find(text) {
            Ok(Some(length)) => length,
            Ok(None) => return Err("unfinished".to_owned()),
            Err(BareLineFeed) => return Err("bare".to_owned()),
        };
        let head = Head::parse(text[..length].to_vec(), 100).map_err(|refusal| refusal.status().to_string())?;
        let mut said = format!("{} {}", head.method, String::from_utf8_lossy(head.target()));
        head.each(&mut |name, value| said += &format!("/{name}={}", String::from_utf8_lossy(value)));
        Ok(said)
    }

    #[test]
    fn heads_are_read_as_they_stand() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", "GET //Host=a"),
            ("POST /x?y HTTP/1.1\r\nA:1\r\nb:\t 2 \r\nempty:\r\n\r\n", "POST /x?y/A=1/b=2/empty="),
            ("PURGE * HTTP/1.1\r\na: \u{e9}\r\n\r\n", "PURGE */a=\u{e9}"),
            ("GET / HTTP/1.1\r\n\r\n", "GET /"),
        ] {
            assert_eq!(read(text.as_bytes()).as_deref(), Ok(expected), "{text:?}");
        }
        let many: String = (0..100).map(|n| format!("x-{n}: {n}\r\n")).collect();
        let head = Head::parse(format!("GET / HTTP/1.1\r\n{many}\r\n").into_bytes(), 100).unwrap();
        assert_eq!((head.get("X-99"), head.fields().len()), (Some(&b"99"[..]), 100));
    }

    #[test]
    fn what_is_odd_is_refused() {
        for text in ["GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "GET / HTTP/1.1\r\nHost: a\n\n"] {
            assert_eq!(read(text.as_bytes()), Err("bare".to_owned()), "{text:?}");
        }
        for text in [
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\n folded: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\u{7f}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHo(st: a\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET /\u{1} HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "GET /\r\n\r\n",
            "GET\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "G\u{e9}T / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(read(text.as_bytes()), Err("400".to_owned()), "{text:?}");
        }
        let many: String = (0..101).map(|n| format!("x-{n}: {n}\r\n")).collect();
        assert_eq!(read(format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes()), Err("431".to_owned()));
    }

    proptest! {
        #[test]
        fn the_end_is_found_however_the_head_is_cut(
            text in "[a-c:\\r\\n]{0,40}(\\r\\n){0,2}",
            cuts in prop::collection::vec(0.0..1.0, 0..4),
        ) {
            let whole = HeadEnd::default().find(text.as_bytes());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut: f64| (text.len() as f64 * cut) as usize).collect();
            cuts.sort_unstable();
            let mut end = HeadEnd::default();
            let mut found = Ok(None);
            for cut in cuts.into_iter().chain([text.len()]) {
                found = end.find(&text.as_bytes()[..cut]);
                if found != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(found, whole);
        }

        #[test]
        fn no_bytes_bring_the_parser_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::parse(bytes, 100);
        }
    }
}
