//! The head of a response: read strictly, since the next response on the connection begins where this one is said to end;
//! written anew for the client.

use http::{Method, StatusCode, Version};
use httparse::{EMPTY_HEADER, Status};

use super::fields::FieldList;
use crate::proxy::forward::{self, FieldsMut};
use crate::proxy::head::number;
use crate::routing::{Fields, all, text};

/// What a head says about the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub body: Ends,
    /// The instance keeps the connection, as far as it says.
    pub keeps: bool,
}

/// Where a response body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    After(u64),
    WithLastChunk,
    WithConnection,
}

/// Not HTTP, or not one response.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid;

/// A whole head that was read, with its fields still those of the instance.
pub struct Read<'a> {
    pub head: ResponseHead,
    reason: &'a str,
    version: Version,
    fields: FieldList<'a>,
}

/// Reads a whole head. `method`: what it answers.
pub fn read<'a>(bytes: &'a [u8], method: &Method) -> Result<Read<'a>, Invalid> {
    let mut room = [EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut room);
    match response.parse(bytes) {
        Ok(Status::Complete(length)) if length == bytes.len() => {}
        _ => return Err(Invalid),
    }
    let version = if response.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Invalid)?;
    let fields = FieldList::of(response.headers.iter().map(|f| (f.name, f.value)));
    let body = ends(&fields, status, version, method)?;
    let keeps = version == Version::HTTP_11 && body != Ends::WithConnection && !has_option(&fields, "close");
    Ok(Read { head: ResponseHead { status, body, keeps }, reason: response.reason.unwrap_or_default(), version, fields })
}

impl<'a> Read<'a> {
    /// The instance asks for less.
    pub fn pushes_back(&self) -> bool {
        self.fields.get("retry-after").is_some()
    }

    /// The same for the client, `more` fields included. `closes`: the client's connection ends with this response. `edit`: what
    /// its route changes.
    pub fn write(
        mut self,
        closes: bool,
        edit: impl FnOnce(&mut FieldList<'a>),
        more: &[(&'static str, String)],
        out: &mut Vec<u8>,
    ) {
        let ResponseHead { status, body, .. } = self.head;
        forward::rewrite_response(&mut self.fields, status, self.version);
        edit(&mut self.fields);
        self.fields.remove("transfer-encoding");
        if status.is_informational() {
            self.fields.remove("content-length");
        } else if !matches!(body, Ends::After(_)) {
            self.fields.set("transfer-encoding", b"chunked");
        }
        if closes {
            self.fields.set("connection", b"close");
        }
        for (name, value) in more {
            self.fields.set(name, value.as_bytes());
        }
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        self.fields.write(out);
        out.extend_from_slice(b"\r\n");
    }
}

/// RFC 9112 §6.3.
pub fn ends(fields: &impl Fields, status: StatusCode, version: Version, method: &Method) -> Result<Ends, Invalid> {
    let mut lengths = all(fields, "content-length");
    let length = match lengths.next() {
        None => None,
        Some(first) => Some(number(first).filter(|_| lengths.next().is_none()).ok_or(Invalid)?),
    };
    let mut codings = all(fields, "transfer-encoding");
    let is_chunked = match codings.next() {
        None => false,
        Some(coding) => {
            let plain = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
            if !plain || length.is_some() || version == Version::HTTP_10 {
                return Err(Invalid);
            }
            true
        }
    };
    Ok(match length {
        _ if !has_body(status, method) => Ends::After(0),
        Some(length) => Ends::After(length),
        None if is_chunked => Ends::WithLastChunk,
        None => Ends::WithConnection,
    })
}

pub fn has_body(status: StatusCode, method: &Method) -> bool {
    let never = status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    !never && method != Method::HEAD
}

/// Whether `Connection` names it.
pub fn has_option(fields: &impl Fields, name: &str) -> bool {
    let mut options = all(fields, "connection").filter_map(text).flat_map(|value| value.split(','));
    options.any(|option| option.trim().eq_ignore_ascii_case(name))
}

/// An instance is ours, so this is no limit of policy.
pub const FIELDS_MAX: usize = 128;
