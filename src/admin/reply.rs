//! The answers' outer form: status, fields, and JSON for everything that went wrong.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value as Json, json};

use super::body::Body;
use super::{ENDPOINTS, Reply};

/// Why there is no answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a method that only reads.
    Method,
    Body,
    /// No token where one has to be shown, or a wrong one.
    Unauthorized {
        wrong: bool,
    },
    /// The `Host` field names a host that this cannot be.
    Host {
        said: String,
    },
    NoEndpoint,
    NoService {
        name: String,
    },
    Query(String),
    TooManyFollowers,
}

impl Refusal {
    pub fn reply(self) -> Reply {
        let (status, error, message) = match &self {
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method", "everything here is read with GET or HEAD".to_owned()),
            Self::Body => (StatusCode::PAYLOAD_TOO_LARGE, "body", "a request to this address has no body".to_owned()),
            Self::Unauthorized { wrong } => {
                let message = if *wrong {
                    "this token is not valid here"
                } else {
                    "this has to be asked with a token (Authorization: Bearer TOKEN), or where one is taken, with a client certificate"
                };
                (StatusCode::UNAUTHORIZED, "unauthorized", message.to_owned())
            }
            Self::Host { said } => {
                let rule = "an IP address, localhost, a name without a dot, or one below .local, .internal or .svc";
                (StatusCode::FORBIDDEN, "host", format!("{said:?} cannot be the name of this address: use {rule}"))
            }
            Self::NoEndpoint => (StatusCode::NOT_FOUND, "not_found", "there is nothing at this path; see endpoints".to_owned()),
            Self::NoService { name } => (StatusCode::NOT_FOUND, "no_service", format!("there is no service {name:?}")),
            Self::Query(message) => (StatusCode::BAD_REQUEST, "query", message.clone()),
            Self::TooManyFollowers => {
                let message = "as many as are allowed follow the events already; ask without text/event-stream";
                (StatusCode::SERVICE_UNAVAILABLE, "too_many_followers", message.to_owned())
            }
        };
        let mut said = json!({ "error": error, "message": message });
        if self == Self::NoEndpoint {
            said["endpoints"] = ENDPOINTS.into();
        }
        let mut reply = json_reply(status, &said);
        match self {
            Self::Unauthorized { .. } => reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Self::Method => reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD")),
            Self::TooManyFollowers => reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5")),
            _ => None,
        };
        reply
    }
}

pub fn json_reply(status: StatusCode, value: &Json) -> Reply {
    let mut text = value.to_string();
    text.push('\n');
    let mut reply = reply(JSON, Body::Whole(text.into()));
    *reply.status_mut() = status;
    reply
}

pub fn reply(content_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    let fields = reply.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

pub fn text_reply(text: &'static str) -> Reply {
    reply("text/plain; charset=utf-8", Body::Whole(Bytes::from_static(text.as_bytes())))
}

pub const JSON: &str = "application/json";
