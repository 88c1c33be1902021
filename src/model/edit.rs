//! What a route does to the requests it takes and to their answers, in place of forwarding them as they are.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::ServiceName;

/// What becomes of the requests of a route.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Forward(ServiceName),
    Redirect(Redirect),
    /// Shared with the answers under way.
    Respond(Arc<Respond>),
}

/// `Location`, and no body to speak of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    pub status: u16,
    /// An absolute URL, or a path.
    pub to: Template,
}

/// An answer without an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    pub status: u16,
    /// As it stands: there are no placeholders in a body.
    pub body: String,
    pub content_type: HeaderValue,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward(service) => service.fmt(f),
            Self::Redirect(Redirect { status, to }) => f.pad(&format!("{status} {to}")),
            Self::Respond(respond) => f.pad(&format!("{} of our own", respond.status)),
        }
    }
}

/// How a request is asked for where it goes. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rewrite {
    pub path: Option<PathRewrite>,
    /// `Host` for instances, with a port if one is said.
    pub host: Option<HeaderValue>,
}

#[derive(Debug, Clone)]
pub enum PathRewrite {
    /// In place of the whole path.
    Whole(Arc<str>),
    /// In place of what `path_prefix` matched; without a final slash, so that `/` is empty.
    Prefix(Arc<str>),
    /// In place of each match.
    Regex { pattern: regex::Regex, to: Substitution },
}

impl PartialEq for PathRewrite {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex { pattern: a, to: to_a }, Self::Regex { pattern: b, to: to_b }) => {
                a.as_str() == b.as_str() && to_a == to_b
            }
            _ => false,
        }
    }
}

/// Header fields of a message: taken away first, then set, then added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// In place of all fields of that name.
    pub set: Vec<FieldEdit>,
    /// Beside those of that name.
    pub add: Vec<FieldEdit>,
    pub remove: Vec<HeaderName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldEdit {
    pub name: HeaderName,
    pub value: Template,
}

impl FieldEdits {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// A text with placeholders: `https://{host}{path}`. `{{` is a brace.
#[derive(Debug, Clone)]
pub struct Template {
    said: Arc<str>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Of(Placeholder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    ClientAddress,
    /// Lower case, without port.
    Host,
    Scheme,
    Path,
    /// Empty where there is none.
    Query,
    /// The same behind its question mark, if there is one.
    QueryIfAny,
    RequestId,
    Route,
    /// Empty where a route has none.
    Service,
}

impl Template {
    /// `Err` says what is wrong with it.
    pub fn parse(said: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = said;
        while let Some(at) = rest.find('{') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('{') {
                text.push('{');
                rest = behind;
                continue;
            }
            let Some((name, behind)) = rest.split_once('}') else { return Err("a { is not closed; {{ is a brace".to_owned()) };
            let Some(placeholder) = Placeholder::ALL.into_iter().find(|placeholder| placeholder.as_str() == name) else {
                let known = Placeholder::ALL.map(|placeholder| format!("{{{}}}", placeholder.as_str())).join(", ");
                return Err(format!("{{{name}}} is no placeholder; there are {known}, and {{{{ for a brace"));
            };
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(Part::Of(placeholder));
            rest = behind;
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        let n = parts.iter().filter(|part| matches!(part, Part::Of(_))).count();
        if n > PLACEHOLDERS_MAX {
            return Err(format!("has {n} placeholders; at most {PLACEHOLDERS_MAX} are allowed"));
        }
        Ok(Self { said: said.into(), parts })
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub fn as_str(&self) -> &str {
        &self.said
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.said == other.said
    }
}

impl Eq for Template {}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.said)
    }
}

impl Placeholder {
    const ALL: [Self; 9] = [
        Self::ClientAddress,
        Self::Host,
        Self::Scheme,
        Self::Path,
        Self::Query,
        Self::QueryIfAny,
        Self::RequestId,
        Self::Route,
        Self::Service,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientAddress => "client_address",
            Self::Host => "host",
            Self::Scheme => "scheme",
            Self::Path => "path",
            Self::Query => "query",
            Self::QueryIfAny => "?query",
            Self::RequestId => "request_id",
            Self::Route => "route",
            Self::Service => "service",
        }
    }
}

/// What takes the place of a match: `/v2/$1`. `$1` to `$9` are groups, as are `${10}` and `${name}`; `$$` is a dollar.
#[derive(Debug, Clone)]
pub struct Substitution {
    said: Arc<str>,
    parts: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Group(usize),
}

impl Substitution {
    /// `Err` says what is wrong with it.
    pub fn parse(said: &str, pattern: &regex::Regex) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = said;
        while let Some(at) = rest.find('$') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let (name, behind) = match rest.as_bytes() {
                [b'$', ..] => {
                    text.push('$');
                    rest = &rest[1..];
                    continue;
                }
                [b'0'..=b'9', ..] => rest.split_at(1),
                [b'{', ..] => rest[1..].split_once('}').ok_or("a ${ is not closed")?,
                _ => return Err("a $ is followed by a digit, by {name}, or by another $".to_owned()),
            };
            let numbered = name.parse().ok().filter(|n| *n < pattern.captures_len());
            let named = || pattern.capture_names().position(|group| group == Some(name));
            let Some(group) = numbered.or_else(named) else {
                let n = pattern.captures_len() - 1;
                return Err(format!("the pattern has no group {name}; it has {n}"));
            };
            if !text.is_empty() {
                parts.push(Piece::Text(std::mem::take(&mut text)));
            }
            parts.push(Piece::Group(group));
            rest = behind;
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Piece::Text(text));
        }
        Ok(Self { said: said.into(), parts })
    }

    pub fn parts(&self) -> &[Piece] {
        &self.parts
    }

    pub fn as_str(&self) -> &str {
        &self.said
    }
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        self.said == other.said
    }
}

pub const CERTIFICATE_SUBJECT: &str = "x-client-cert-subject";
pub const CERTIFICATE_FINGERPRINT: &str = "x-client-cert-fingerprint";
/// Fields of requests that instances may believe because nobody but us can say them, neither a client nor a route; the last
/// two are those of RFC 9440.
pub const CERTIFICATE_FIELDS: [&str; 4] = [CERTIFICATE_SUBJECT, CERTIFICATE_FINGERPRINT, "client-cert", "client-cert-chain"];

/// Of one text: each may be as long as a request target.
const PLACEHOLDERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_text_and_placeholders() {
        let parts = |said| Template::parse(said).map(|template| template.parts);
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(
            parts("https://{host}{path}{?query}!"),
            Ok(vec![
                text("https://"),
                Part::Of(Placeholder::Host),
                Part::Of(Placeholder::Path),
                Part::Of(Placeholder::QueryIfAny),
                text("!")
            ])
        );
        assert_eq!(parts("{{host}"), Ok(vec![text("{host}")]));
        assert_eq!(parts("a}"), Ok(vec![text("a}")]));
        assert_eq!(parts(""), Ok(vec![]));
        assert!(parts("{hots}").unwrap_err().starts_with("{hots} is no placeholder; there are {client_address}, {host},"));
        assert!(parts("{host").unwrap_err().contains("not closed"));
        assert!(parts(&"{path}".repeat(9)).unwrap_err().contains("at most 8"));
    }

    #[test]
    fn a_substitution_names_groups_that_there_are() {
        let pattern = regex::Regex::new("^/(?<user>[a-z]+)/(.*)$").unwrap();
        let parts = |said| Substitution::parse(said, &pattern).map(|substitution| substitution.parts);
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(parts("/$2/$10"), Ok(vec![text("/"), Piece::Group(2), text("/"), Piece::Group(1), text("0")]));
        assert_eq!(parts("/${user}$$${2}"), Ok(vec![text("/"), Piece::Group(1), text("$"), Piece::Group(2)]));
        for (wrong, why) in [("$3", "no group 3; it has 2"), ("${u}", "no group u"), ("$x", "followed by"), ("${1", "not closed")]
        {
            assert!(parts(wrong).unwrap_err().contains(why), "{wrong}");
        }
    }
}
