//! What a client is told when we do not forward, or forwarding failed: the only table from an error to HTTP.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};

use super::arrival::REQUEST_ID;
use super::attempt::Failure;
use super::forward::FieldsMut;
use crate::model::Respond;
use crate::pool::PickError;
use crate::routing::Fields;

/// Why a request has no answer from an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Malformed(&'static str),
    Method,
    /// An ACME directory has asked for this.
    Challenge {
        key_authorization: Arc<str>,
    },
    /// The route leads elsewhere.
    Redirect {
        status: u16,
        location: String,
    },
    /// The route answers itself.
    Respond(Arc<Respond>),
    /// This listener answers nothing itself.
    OverHttps {
        location: String,
    },
    /// `Expect` asks for something else than `100-continue`.
    Expectation,
    NoRoute,
    /// No route yet, because the registry has not answered since the start.
    RegistryUnknown,
    SlowHead,
    SlowBody,
    BodyTooLarge,
    TargetTooLong,
    HeadTooLarge,
    TooManyFields,
    /// The client has used up what its route's rate allows, and may come back after so many seconds.
    Limited {
        seconds: u64,
    },
    /// The service has no instance that takes traffic, or does not exist (yet).
    NoInstances,
    NoneHealthy,
    /// As many requests as may be are under way.
    Overflow,
    /// Every attempt failed; the last one like this.
    Upstream(Failure),
    /// A fault of ours.
    Internal,
}

/// A short answer of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    /// `None`: there is no body.
    pub content_type: Option<HeaderValue>,
    /// Seconds.
    pub retry_after: Option<u64>,
    pub location: Option<String>,
    pub body: String,
    /// What somebody wants to be so, and is no accident of this moment.
    is_lasting: bool,
}

impl Reply {
    /// Its fields but for those of the listener and the route.
    pub fn write_fields(&self, fields: &mut impl FieldsMut, request_id: &str) {
        if let Some(content_type) = &self.content_type {
            fields.set("content-type", content_type.as_bytes());
        }
        if self.status != StatusCode::NO_CONTENT && self.status != StatusCode::NOT_MODIFIED {
            fields.set("content-length", self.body.len().to_string().as_bytes());
        }
        if !self.is_lasting {
            fields.set("cache-control", b"no-store");
        }
        fields.set(REQUEST_ID, request_id.as_bytes());
        if let Some(seconds) = self.retry_after {
            fields.set("retry-after", seconds.to_string().as_bytes());
        }
        if let Some(location) = &self.location {
            fields.set("location", location.as_bytes());
        }
    }
}

impl Refusal {
    pub fn status(&self) -> u16 {
        match self {
            Self::Challenge { .. } => 200,
            Self::OverHttps { .. } => 308,
            Self::Redirect { status, .. } => *status,
            Self::Respond(respond) => respond.status,
            Self::Malformed(_) => 400,
            Self::NoRoute => 404,
            Self::Method => 405,
            Self::SlowHead | Self::SlowBody => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::Limited { .. } => 429,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::Internal => 500,
            Self::Upstream(Failure::ConnectTimeout | Failure::Timeout) => 504,
            Self::Upstream(_) => 502,
            Self::NoInstances | Self::NoneHealthy | Self::Overflow | Self::RegistryUnknown => 503,
        }
    }

    /// One word for programs: in the body, in the access log, in `X-Pointsman-Reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Method => "method",
            Self::Challenge { .. } => "acme_challenge",
            Self::OverHttps { .. } => "over_https",
            Self::Redirect { .. } => "redirect",
            Self::Respond(_) => "respond",
            Self::Expectation => "expectation",
            Self::NoRoute => "no_route",
            Self::RegistryUnknown => "registry_unknown",
            Self::SlowHead => "slow_head",
            Self::SlowBody => "slow_body",
            Self::BodyTooLarge => "body_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::Limited { .. } => "limited",
            Self::NoInstances => "no_instances",
            Self::NoneHealthy => "none_healthy",
            Self::Overflow => "overflow",
            Self::Upstream(failure) => failure.reason(),
            Self::Internal => "internal",
        }
    }

    /// Whether the connection may carry another request. What could not be read to its end cannot be followed by one.
    pub fn keeps_connection(&self) -> bool {
        use Refusal::*;
        matches!(
            self,
            Challenge { .. }
                | OverHttps { .. }
                | Redirect { .. }
                | Respond(_)
                | NoRoute
                | RegistryUnknown
                | Limited { .. }
                | NoInstances
                | NoneHealthy
                | Overflow
                | Upstream(_)
        )
    }

    /// It is what the route is there for: the route's `response_headers` are for it, too.
    pub fn is_of_route(&self) -> bool {
        matches!(self, Self::Redirect { .. } | Self::Respond(_))
    }

    /// The answer, in JSON unless the client asked for text.
    pub fn reply(&self, request: &dyn Fields, request_id: &str) -> Reply {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let reason = self.reason();
        let plain = HeaderValue::from_static;
        let (content_type, body) = if let Self::Challenge { key_authorization } = self {
            (plain("text/plain"), key_authorization.to_string())
        } else if let Self::Respond(respond) = self {
            (respond.content_type.clone(), respond.body.clone())
        } else if wants_text(request) {
            (plain("text/plain; charset=utf-8"), format!("{} {self} ({reason}, request {request_id})\n", status.as_str()))
        } else {
            let body = serde_json::json!({
                "status": status.as_u16(), "error": reason, "message": self.to_string(), "request_id": request_id,
            });
            (plain("application/json"), format!("{body}\n"))
        };
        let location = match self {
            Self::OverHttps { location } | Self::Redirect { location, .. } => Some(location.clone()),
            _ => None,
        };
        let is_of_route = self.is_of_route();
        Reply {
            status,
            content_type: Some(content_type).filter(|_| !body.is_empty()),
            retry_after: match self {
                Self::Limited { seconds } => Some(*seconds),
                _ => (status == 503 && !is_of_route).then_some(1),
            },
            location,
            body,
            is_lasting: is_of_route,
        }
    }

    /// The same as an HTTP/1.1 message, for a client that an engine has no request of.
    pub fn message(&self, request_id: &str) -> Vec<u8> {
        let reply = self.reply(&HeaderMap::new(), request_id);
        let content_type = reply.content_type.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        format!(
            "HTTP/1.1 {}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n{}",
            reply.status,
            reply.body.len(),
            reply.body
        )
        .into_bytes()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(what) => what,
            Self::Method => "this method is not forwarded",
            Self::Challenge { .. } => "an ACME directory has asked for this",
            Self::OverHttps { .. } => "this host is asked over https",
            Self::Redirect { .. } => "this is to be found elsewhere",
            Self::Respond(_) => "the route answers itself",
            Self::Expectation => "nothing but 100-continue can be expected",
            Self::NoRoute => "no route matches this request",
            Self::RegistryUnknown => "the registry has not answered since the start",
            Self::SlowHead => "the request head did not arrive in time",
            Self::SlowBody => "the request body made no progress",
            Self::BodyTooLarge => "the request body is too large",
            Self::TargetTooLong => "the request target is too long",
            Self::HeadTooLarge => "the request head is too large",
            Self::TooManyFields => "the request head has too many fields",
            Self::Limited { .. } => "more requests than the route takes of a client",
            Self::NoInstances => "the service has no instances",
            Self::NoneHealthy => "no instance of the service can be used",
            Self::Overflow => "the service has as many requests as it may",
            Self::Upstream(Failure::ConnectTimeout | Failure::Timeout) => "the service did not answer in time",
            Self::Upstream(_) => "the service could not be reached or broke off",
            Self::Internal => "the proxy failed",
        })
    }
}

impl From<PickError> for Refusal {
    fn from(error: PickError) -> Self {
        match error {
            PickError::NoInstances => Self::NoInstances,
            PickError::NoneHealthy | PickError::AllTried => Self::NoneHealthy,
            PickError::Full => Self::Overflow,
        }
    }
}

/// The first of the two kinds that `Accept` names; JSON when it names neither.
fn wants_text(request: &dyn Fields) -> bool {
    let accept = request.text("accept").unwrap_or_default();
    accept
        .split(',')
        .map(|range| range.split(';').next().unwrap_or_default().trim())
        .find_map(|range| if range.ends_with("json") { Some(false) } else { range.starts_with("text/").then_some(true) })
        == Some(true)
}

/// The reason of a request whose client left before it had an answer, or the whole of it.
pub const CLIENT_GONE: &str = "client_gone";
pub const BAD_CHUNK: Refusal = Refusal::Malformed("the request body is not valid chunked coding");

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;

    fn reply(refusal: Refusal, accept: &str) -> Reply {
        let mut request = HeaderMap::new();
        request.insert(header::ACCEPT, accept.parse().unwrap());
        refusal.reply(&request, "id-1")
    }

    #[test]
    fn the_client_chooses_between_json_and_text() {
        for (accept, kind) in [
            ("*/*", "application/json"),
            ("application/json", "application/json"),
            ("application/problem+json, text/plain", "application/json"),
            ("text/html,application/xhtml+xml,*/*;q=0.8", "text/plain; charset=utf-8"),
            ("text/plain;q=0.5", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(reply(Refusal::NoRoute, accept).content_type.unwrap(), kind, "{accept}");
        }
        let json: serde_json::Value = serde_json::from_str(&reply(Refusal::NoneHealthy, "*/*").body).unwrap();
        assert_eq!((&json["error"], &json["status"], &json["request_id"]), (&"none_healthy".into(), &503.into(), &"id-1".into()));
    }

    #[test]
    fn who_may_come_back_is_told_when() {
        assert_eq!(reply(Refusal::NoInstances, "*/*").retry_after, Some(1));
        assert_eq!(reply(Refusal::Limited { seconds: 7 }, "*/*").retry_after, Some(7));
        assert_eq!(reply(Refusal::Upstream(Failure::Refused), "*/*").retry_after, None);
        assert_eq!(reply(Refusal::Upstream(Failure::Timeout), "*/*").status, 504);
        assert_eq!(reply(Refusal::Upstream(Failure::Reset), "*/*").status, 502);
    }

    #[test]
    fn a_message_frames_its_body() {
        let message = String::from_utf8(Refusal::SlowHead.message("id-1")).unwrap();
        let (head, body) = message.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())) && head.contains("connection: close"));
    }

    #[test]
    fn the_documented_table_is_this_one() {
        use Failure::*;
        let upstream = [Refused, ConnectTimeout, Tls, Reset, Timeout, Invalid].map(Refusal::Upstream);
        let ours = [
            Refusal::Malformed("what"),
            Refusal::Method,
            Refusal::Expectation,
            Refusal::NoRoute,
            Refusal::RegistryUnknown,
            Refusal::SlowHead,
            Refusal::SlowBody,
            Refusal::BodyTooLarge,
            Refusal::TargetTooLong,
            Refusal::HeadTooLarge,
            Refusal::TooManyFields,
            Refusal::Limited { seconds: 1 },
            Refusal::NoInstances,
            Refusal::NoneHealthy,
            Refusal::Overflow,
            Refusal::Internal,
        ];
        let mut told: Vec<String> =
            ours.iter().chain(&upstream).map(|r| format!("| {} | `{}` |", r.status(), r.reason())).collect();
        let document = include_str!("../../docs/requests.md");
        let rows = document.lines().filter(|row| row.starts_with("| 4") || row.starts_with("| 5"));
        let mut documented: Vec<String> = rows.map(|row| row.split('|').take(3).collect::<Vec<_>>().join("|") + "|").collect();
        told.sort();
        documented.sort();
        assert_eq!(documented, told);
    }
}
