//! What must hold for whatever bytes come from a client or an instance (see `crate::fuzzing`). What we write is read again,
//! by our own readers and by [`Plain`], whose rules leave nothing to read otherwise.

use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime};

use http::{Method, Version};

use super::chunks::{self, Chunks};
use super::fields::FieldList;
use super::head::{Head, HeadEnd};
use super::request::Request;
use super::response::{self, Ends};
use crate::catalog::{Catalog, Live};
use crate::config::ClientLimits;
use crate::model::{Change, Event, Origin, RouteName, Secret, ServiceName, ServicePolicy, StickyPolicy, plain_path};
use crate::proxy::arrival::{Arrival, Trusted};
use crate::proxy::downstream::{Link, Met};
use crate::proxy::forward::FieldsMut;
use crate::proxy::head::{Framing, RawHead, RequestHead};
use crate::proxy::laws::PEER;
use crate::wire::parse_route;

/// A head that a client sends. What reaches an instance, or the other engine, can be read in one way, and says what the
/// client's said; and with a route that changes it, what that says.
pub fn request_head(bytes: &[u8]) {
    plain_head(bytes);
    edited_head(bytes);
}

fn edited_head(bytes: &[u8]) {
    let Some(request) = request(bytes, &EDITING) else { return };
    if request.is_general() || request.way.as_ref().is_none_or(|way| way.forwarding.instead.is_some()) {
        return;
    }
    let mut written = Vec::new();
    request.write_head(&mut written);
    let plain = Plain::of(&written);
    let target = plain.start.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let target = std::str::from_utf8(target).unwrap_or("not UTF-8");
    let path = target.split('?').next().unwrap_or_default();
    assert!(path == "*" || !path.starts_with("//") && plain_path(path).is_ok_and(|plain| plain == path), "{target}");
    assert_eq!((plain.n("host"), plain.value("host")), (1, &b"api.internal"[..]));
    assert_eq!((plain.n("x-real-ip"), plain.value("x-real-ip")), (1, &b"192.0.2.9"[..]));
    assert_eq!((plain.n("x-asked"), plain.n("x_asked"), plain.n("authorization")), (1, 0, 0));
    assert!(plain.value("x-asked").iter().all(|byte| byte.is_ascii_graphic() || *byte == b' '));
}

/// A request with a route, if these bytes are one.
fn request(bytes: &[u8], world: &Live) -> Option<Request> {
    let limits = ClientLimits::default();
    let length = HeadEnd::default().find(bytes).ok()??;
    let head = Head::parse(bytes[..length].to_vec(), limits.fields).ok()?;
    let arrival = Arrival::of(PEER, &head, &Trusted::default(), &mut fastrand::Rng::with_seed(1));
    let link = Link::new(Met { peer: PEER, local: PEER, listening: Arc::default(), stats: Arc::default() }, None);
    let mut request = Request::new(head, arrival);
    request.find_way(world, &limits, &link).ok()?;
    Some(request)
}

fn plain_head(bytes: &[u8]) {
    let limits = ClientLimits::default();
    let Some(request) = request(bytes, &WORLD) else { return };
    let Some(framing) = request.way.as_ref().map(|way| way.framing) else { return };
    let said = Said::of(&request.head, &limits);
    let is_general = request.is_general();
    let written = if is_general {
        request.plain_head()
    } else {
        let mut written = Vec::new();
        request.write_head(&mut written);
        written
    };

    let plain = Plain::of(&written);
    let words: Vec<&[u8]> = plain.start.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { panic!("no request line: {:?}", plain.start) };
    assert!(version == b"HTTP/1.1" || request.head.is_old && version == b"HTTP/1.0");
    assert_eq!(method, request.head.method.as_str().as_bytes());
    let target = std::str::from_utf8(target).unwrap_or("not UTF-8");
    let path = target.split('?').next().unwrap_or_default();
    assert!(path == "*" || plain_path(path).is_ok_and(|plain| plain == path), "{target}");

    assert_eq!(plain.n("host"), 1);
    match framing {
        Framing::Nothing => assert_eq!((plain.n("content-length"), plain.n("transfer-encoding")), (0, 0)),
        Framing::Length(length) => {
            assert_eq!((plain.n("content-length"), plain.n("transfer-encoding")), (1, 0));
            assert_eq!(plain.number("content-length"), length);
        }
        Framing::Chunked => {
            assert_eq!((plain.n("content-length"), plain.n("transfer-encoding")), (0, 1));
            assert_eq!(plain.value("transfer-encoding"), b"chunked");
        }
    }
    for gone in ["keep-alive", "proxy-connection", "http2-settings", "expect"] {
        assert_eq!(plain.n(gone), 0, "{gone}");
    }
    if is_general {
        assert!(plain.n("connection") <= 1 && plain.n("upgrade") <= 1);
    } else {
        for gone in ["connection", "upgrade", "x-real-ip", "forwarded"] {
            assert_eq!(plain.n(gone), 0, "{gone}");
        }
        assert_eq!((plain.n("x-forwarded-for"), plain.value("x-forwarded-for")), (1, &b"192.0.2.9"[..]));
        assert_eq!((plain.n("x-pointsman-attempt"), plain.value("x-pointsman-attempt")), (1, &b"1"[..]));
        assert_eq!((plain.n("x-request-id"), plain.n("traceparent")), (1, 1));
    }

    let Ok(again) = Head::parse(written, OURS_MORE + limits.fields) else { panic!("we refuse what we wrote") };
    // HTTP/1.0 may have no host, and gets one.
    if said.is_some() {
        assert_eq!(Said::of(&again, &more(&limits)), said);
    }
}

/// Its first byte says what it answers (`h`: HEAD), the rest is a response head. What reaches the client can be read in one
/// way, and its body ends where the instance's ends.
pub fn response_head(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let method = if *kind == b'h' { Method::HEAD } else { Method::GET };
    let Ok(Some(length)) = HeadEnd::default().find(bytes) else { return };
    let Ok(read) = response::read(&bytes[..length], &method) else { return };
    let head = read.head;
    let mut written = Vec::new();
    let frame = |fields: &mut FieldList<'_>| fields.set("x-frame-options", b"DENY");
    read.write(false, frame, &[], &mut written);

    let plain = Plain::of(&written);
    assert!(plain.start.starts_with(format!("HTTP/1.1 {} ", head.status.as_str()).as_bytes()), "{:?}", plain.start);
    assert!(plain.n("content-length") + plain.n("transfer-encoding") <= 1, "two lengths");
    assert_eq!(plain.n("connection") + plain.n("keep-alive") + plain.n("proxy-connection"), 0);
    assert_eq!(plain.n("x-frame-options"), 1);
    if plain.fields.len() > response::FIELDS_MAX {
        // What we add leaves no room for it to be read as an instance's again.
        return;
    }
    let Ok(again) = response::read(&written, &method) else { panic!("we refuse what we wrote") };
    assert_eq!(again.head.status, head.status);
    let expected = if head.body == Ends::WithConnection { Ends::WithLastChunk } else { head.body };
    assert_eq!(again.head.body, expected);
}

/// Its first byte says where the rest, a chunked body, is cut. It means the same however it comes, and what is written of
/// it means that too.
pub fn chunks(bytes: &[u8]) {
    let Some((cut, wire)) = bytes.split_first() else { return };
    let whole = Body::read(&[wire]);
    let cut = usize::from(*cut).min(wire.len());
    assert_eq!(Body::read(&[&wire[..cut], &wire[cut..]]), whole, "cut at {cut} it is another");
    let Some(Body { bytes, last: Some(last), .. }) = &whole else { return };

    let mut written = Vec::new();
    bytes.chunks(300).for_each(|piece| chunks::write(piece, &mut written));
    written.extend_from_slice(last);
    let used = written.len();
    written.extend_from_slice(b"GET / HTTP/1.1\r\n");
    let again = Body::read(&[&written]);
    assert_eq!(again, Some(Body { bytes: bytes.clone(), last: Some(last.clone()), used }));
    let trailers = last.strip_prefix(b"0").unwrap_or_default();
    for name in ["content-length", "transfer-encoding", "host", "x-forwarded-for", "x-request-id", "connection"] {
        assert_eq!(Plain::fields(trailers.strip_suffix(b"\r\n\r\n").unwrap_or_default()).n(name), 0, "{name}");
    }
}

#[derive(Debug, PartialEq)]
struct Body {
    bytes: Vec<u8>,
    /// The last chunk as we write it; `None`: it has not come.
    last: Option<Vec<u8>>,
    used: usize,
}

impl Body {
    /// `None`: it is refused.
    fn read(pieces: &[&[u8]]) -> Option<Self> {
        let mut chunks = Chunks::new();
        let mut body = Self { bytes: Vec::new(), last: None, used: 0 };
        for piece in pieces {
            let bytes = &mut body.bytes;
            body.used += chunks.decode(piece, |part| bytes.extend_from_slice(part)).ok()?;
        }
        if chunks.is_done() {
            chunks.write_last(body.last.insert(Vec::new())).ok()?;
        }
        Some(body)
    }
}

/// What a request head says, as it is routed.
#[derive(Debug, PartialEq)]
struct Said {
    host: String,
    target: String,
    framing: Framing,
}

impl Said {
    fn of(head: &Head, limits: &ClientLimits) -> Option<Self> {
        let raw = RawHead {
            method: &head.method,
            target: head.target(),
            authority: None,
            version: Version::HTTP_11,
            fields: head,
            peer: PEER,
            scheme: crate::proxy::head::Scheme::Http,
        };
        let checked = RequestHead::check(raw, limits).ok()?;
        Some(Self { host: checked.host.to_string(), target: checked.origin_form(), framing: checked.framing })
    }
}

/// A head that nobody can read in two ways: lines end with CR LF and hold neither, names are tokens, a colon follows at
/// once. Panics for any other.
struct Plain<'a> {
    start: &'a [u8],
    fields: Vec<(String, &'a [u8])>,
}

impl<'a> Plain<'a> {
    fn of(head: &'a [u8]) -> Self {
        let Some(head) = head.strip_suffix(b"\r\n\r\n") else { panic!("no empty line at its end") };
        Self::fields(head)
    }

    /// Without the empty line.
    fn fields(head: &'a [u8]) -> Self {
        let mut lines = Vec::new();
        let mut rest = head;
        while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
            lines.push(&rest[..at]);
            rest = &rest[at + 2..];
        }
        lines.push(rest);
        let is_odd = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
        lines.iter().for_each(|line| assert!(!line.iter().any(is_odd), "{line:?}"));
        let field = |line: &&'a [u8]| {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { panic!("no colon: {line:?}") };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
            assert!(!name.is_empty() && name.iter().all(is_token), "{name:?}");
            (String::from_utf8_lossy(name).to_ascii_lowercase(), value)
        };
        Self { start: lines[0], fields: lines[1..].iter().map(field).collect() }
    }

    fn n(&self, name: &str) -> usize {
        self.fields.iter().filter(|(other, _)| other == name).count()
    }

    fn value(&self, name: &str) -> &'a [u8] {
        self.fields.iter().find(|(other, _)| other == name).map_or(&[], |(_, value)| value)
    }

    fn number(&self, name: &str) -> u64 {
        let text = std::str::from_utf8(self.value(name)).unwrap_or_default();
        text.parse().unwrap_or_else(|e| panic!("{name}: {text}: {e}"))
    }
}

/// Room for what we add to a head of the greatest size.
fn more(limits: &ClientLimits) -> ClientLimits {
    ClientLimits { head_size: limits.head_size * 2, fields: limits.fields + OURS_MORE, ..limits.clone() }
}

/// One route for everything, to a service whose cookies are read.
static WORLD: LazyLock<Arc<Live>> = LazyLock::new(|| world("{\"service\":\"api\"}"));

/// The same, and the route changes whatever it can.
static EDITING: LazyLock<Arc<Live>> = LazyLock::new(|| {
    world(
        r#"{"service":"api","rewrite":{"regex":"^/(.)(.*)$","to":"/$2/$1?by=$1","host":"api.internal"},
            "request_headers":{"set":{"X-Real-IP":"{client_address}","X-Asked":"{scheme} {host} {path}{?query} {request_id}"},
                               "add":{"X-List":"ours"},"remove":["Authorization"]}}"#,
    )
});

fn world(route: &str) -> Arc<Live> {
    let live = Arc::new(Live::default());
    let (Ok(name), Ok(service)) = (RouteName::parse("all"), ServiceName::parse("api")) else { return live };
    let Ok(route) = parse_route(&name, route.as_bytes()) else { return live };
    let sticky = StickyPolicy { cookie: "stay".into(), ttl: None };
    let policy = ServicePolicy { sticky: Some(sticky), ..ServicePolicy::default() };
    let changes = vec![
        Change::Route { name, route: Some(Box::new(route.value)) },
        Change::Policy { service, policy: Some(Box::new(policy)) },
    ];
    let event = Event { origin: Origin::Registry, revision: 1, changes };
    let mut catalog = Catalog::new(live.clone(), Arc::default()).with_secret(Some(Secret::new("sesame")));
    catalog.apply(vec![event], vec![], Instant::now(), SystemTime::now());
    live
}

const OURS_MORE: usize = 16;
