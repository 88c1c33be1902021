//! From a request to its answer: what its path asks for, unless the instance was told to behave in another way.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TRAILER};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::asked::{Asked, Malformed};
use super::behaviour::{Behaviour, REFUSE};
use super::body::{self, AnswerBody, Failure};
use super::connection::Link;
use super::instance::{Instance, Stage};
use super::{grpc, stopping, ws};

pub type Answer = Response<AnswerBody>;

/// An `Err` ends the connection (HTTP/2: the stream) without an answer.
pub async fn answer(request: Request<Incoming>, link: Arc<Link>, instance: Arc<Instance>) -> Result<Answer, Failure> {
    let mut answer = match perform(request, &link, &instance).await {
        Ok(answer) => answer,
        Err(Unanswered::Malformed(said)) => text(StatusCode::BAD_REQUEST, said),
        Err(Unanswered::Ended(failure)) => return Err(failure),
    };
    if let Ok(name) = HeaderValue::from_str(&instance.name) {
        answer.headers_mut().insert(INSTANCE, name);
    }
    Ok(answer)
}

enum Unanswered {
    Malformed(String),
    Ended(Failure),
}

impl From<Malformed> for Unanswered {
    fn from(Malformed(said): Malformed) -> Self {
        Self::Malformed(said)
    }
}

async fn perform(request: Request<Incoming>, link: &Link, instance: &Arc<Instance>) -> Result<Answer, Unanswered> {
    let uri = request.uri().clone();
    let asked = Asked::of(&uri);
    match asked.what {
        "healthz" => return health(request.method(), asked, instance).await,
        "drain" => return Ok(drain(request.method(), instance).await),
        "behave" => return behave(request.method(), asked, instance),
        _ if uri.path().starts_with(grpc::HEALTH) => return Ok(grpc::answer(request, instance).await),
        _ => {}
    }
    let n = instance.count_request();
    sleep(instance.latency).await;
    if chance(instance.fail_percent) {
        return Ok(fail(StatusCode::SERVICE_UNAVAILABLE));
    }
    let told = instance.behaviour();
    let asked = told.as_ref().map_or(asked, |told| told.asked());
    match asked.what {
        "slow" => {
            sleep(asked.millis("ms", 1_000)?).await;
            Ok(describe(&request, n, link, instance))
        }
        "fail" => Ok(fail(asked.status(StatusCode::INTERNAL_SERVER_ERROR)?)),
        "flaky" if chance(asked.number("percent", 50)?) => Ok(fail(StatusCode::SERVICE_UNAVAILABLE)),
        "flap" if instance.is_in_odd(asked.millis("ms", 1_000)?) => Ok(fail(StatusCode::SERVICE_UNAVAILABLE)),
        "hang" => {
            instance.is_told_otherwise(told.as_ref()).await;
            Ok(describe(&request, n, link, instance))
        }
        "break" => {
            link.reset();
            Ok(typed("text/plain", body::half("this is the first half\n")))
        }
        "close" | REFUSE => {
            if request.version() < Version::HTTP_2 {
                link.reset();
            }
            Err(ended("asked to close without an answer"))
        }
        _ if grpc::is_grpc(request.headers()) => Ok(grpc::answer(request, instance).await),
        "stream" => stream(asked),
        "sse" => events(asked, instance),
        "bytes" => Ok(typed("application/octet-stream", body::page(asked.number("n", 1_024)?))),
        "echo" => echo(request).await,
        "sum" => {
            let (n_bytes, adler32) = body::sum(request.into_body()).await.map_err(ended)?;
            Ok(json_answer(&json!({ "bytes": n_bytes, "adler32": format!("{adler32:08x}") })))
        }
        "trailers" => Ok(trailers()),
        "ws" => Ok(ws::accept(request, link)),
        _ => Ok(describe(&request, n, link, instance)),
    }
}

/// Who answered, and what arrived.
fn describe(request: &Request<Incoming>, n: u64, link: &Link, instance: &Instance) -> Answer {
    let mut headers = serde_json::Map::new();
    for name in request.headers().keys() {
        let values = request.headers().get_all(name).iter();
        let said: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        headers.insert(name.to_string(), Value::String(said.join(", ")));
    }
    json_answer(&json!({
        "instance": instance.name,
        "request": n,
        "client": link.client,
        "version": format!("{:?}", request.version()),
        "method": request.method().as_str(),
        "host": host(request),
        "path": request.uri().path(),
        "query": request.uri().query(),
        "headers": headers,
    }))
}

/// HTTP/2 says it in the address, HTTP/1.1 in a field.
fn host(request: &Request<Incoming>) -> Option<&str> {
    let said = || request.headers().get(HOST)?.to_str().ok();
    request.uri().authority().map(|authority| authority.as_str()).or_else(said)
}

fn stream(asked: Asked<'_>) -> Result<Answer, Unanswered> {
    let size = asked.number("size", 32_usize)?;
    if size > PIECE_MAX {
        return Err(Unanswered::Malformed(format!("size: {size} is more than {PIECE_MAX}\n")));
    }
    let piece = move |n| {
        let mut bytes = format!("chunk {n} ").into_bytes();
        bytes.resize(size.max(1) - 1, b'.');
        bytes.push(b'\n');
        Bytes::from(bytes)
    };
    let pause = asked.millis("ms", 100)?;
    Ok(typed("text/plain", body::paced(asked.number("chunks", 10)?, pause, piece, std::future::pending())))
}

/// Without `events` they go on until the client leaves or the service stops.
fn events(asked: Asked<'_>, instance: &Instance) -> Result<Answer, Unanswered> {
    let name = instance.name.clone();
    let event = move |n| Bytes::from(format!("id: {n}\nevent: tick\ndata: {{\"instance\":\"{name}\",\"n\":{n}}}\n\n"));
    let mut stage = instance.stage();
    let stopped = async move { stopping(&mut stage).await };
    let body = body::paced(asked.number("events", u64::MAX)?, asked.millis("ms", 1_000)?, event, stopped);
    let mut answer = typed("text/event-stream", body);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(answer)
}

/// The request's body goes back as it arrives, its trailers too.
async fn echo(request: Request<Incoming>) -> Result<Answer, Unanswered> {
    let fields = request.headers();
    let content_type = fields.get(CONTENT_TYPE).cloned();
    // Only reading lets the client go on, and many expect that word before the answer's head.
    let asks_first = fields.contains_key(EXPECT);
    let body = request.into_body();
    let echoed = if asks_first { body::begun(body).await.map_err(ended)? } else { body::boxed(body) };
    let mut answer = typed("application/octet-stream", echoed);
    if let Some(content_type) = content_type {
        answer.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    Ok(answer)
}

/// HTTP/1.1 clients get the trailers if they say `TE: trailers`.
fn trailers() -> Answer {
    let name = HeaderName::from_static("x-checked");
    let mut fields = HeaderMap::new();
    fields.insert(name.clone(), HeaderValue::from_static("yes"));
    let mut answer = typed("text/plain", body::with_trailers("the trailers follow\n", fields));
    answer.headers_mut().insert(TRAILER, name.into());
    answer
}

/// `GET` tells the health, `POST ?status=503` sets it.
async fn health(method: &Method, asked: Asked<'_>, instance: &Instance) -> Result<Answer, Unanswered> {
    if method == Method::POST {
        instance.set_health(asked.status(StatusCode::OK)?).await;
    }
    let health = instance.health();
    let shown = if method == Method::POST { StatusCode::OK } else { health };
    let mut answer = text(shown, format!("{health}\n"));
    if *instance.stage().borrow() >= Stage::Draining {
        // It does not fail: it asks for no new requests.
        answer.headers_mut().insert(DRAINS, HeaderValue::from_static("1"));
    }
    Ok(answer)
}

/// `POST` drains: unhealthy for probes, `draining` in the registry, serving on. `DELETE` takes it back.
async fn drain(method: &Method, instance: &Instance) -> Answer {
    match *method {
        Method::POST => {
            instance.advance(Stage::Draining).await;
            text(StatusCode::OK, "draining\n".to_owned())
        }
        Method::DELETE => {
            instance.undrain().await;
            text(StatusCode::OK, format!("{:?}\n", *instance.stage().borrow()).to_lowercase())
        }
        _ => not_allowed("POST drains, DELETE takes it back\n", "POST, DELETE"),
    }
}

/// `POST ?as=fail&status=502` does so to every request, for as long as `for=` says in milliseconds or until `DELETE`
/// takes it back; `GET` tells what it does, and how many requests there were.
fn behave(method: &Method, asked: Asked<'_>, instance: &Arc<Instance>) -> Result<Answer, Unanswered> {
    match *method {
        Method::POST => {
            let said = asked.query.strip_prefix("as=").unwrap_or_default();
            let behaviour: Behaviour = said.parse().map_err(|why| Unanswered::Malformed(format!("as: {why}\n")))?;
            let time = asked.word("for").map(|_| asked.millis("for", 0)).transpose()?;
            let told = instance.behave(Some(behaviour));
            if let Some(time) = time {
                let instance = instance.clone();
                tokio::spawn(async move {
                    sleep(time).await;
                    instance.behaves_again(told.as_ref());
                });
            }
        }
        Method::DELETE => {
            instance.behave(None);
        }
        Method::GET => {}
        _ => return Ok(not_allowed("POST ?as=… misbehaves, DELETE takes it back, GET tells\n", "GET, POST, DELETE")),
    }
    let behaves = instance.behaviour().map(|behaviour| behaviour.to_string());
    Ok(json_answer(&json!({ "instance": instance.name, "as": behaves, "requests": instance.n_requests() })))
}

fn not_allowed(said: &str, allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, said.to_owned());
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn fail(status: StatusCode) -> Answer {
    text(status, format!("{status}, as asked\n"))
}

pub fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = typed("text/plain", body::full(text));
    *answer.status_mut() = status;
    answer
}

fn json_answer(value: &Value) -> Answer {
    typed("application/json", body::full(format!("{value:#}\n")))
}

fn typed(content_type: &'static str, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn ended(failure: impl Into<Failure>) -> Unanswered {
    Unanswered::Ended(failure.into())
}

fn chance(percent: u8) -> bool {
    fastrand::u8(0..100) < percent
}

/// With a 503, what tells Pointsman's probes from a failure.
const DRAINS: HeaderName = HeaderName::from_static("x-pointsman-drain");
/// Every answer says who gave it.
const INSTANCE: HeaderName = HeaderName::from_static("x-instance");
/// One piece of `/stream` is made in memory.
const PIECE_MAX: usize = 1 << 20;
