//! From a request to its answer. What is done follows the **last** segment of the path, so the service works the
//! same behind `/`, `/users` or `/shop/users`: a proxy need not take the prefix away.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TRAILER};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::body::{self, AnswerBody, Failure};
use super::connection::Link;
use super::instance::{Instance, Stage};
use super::{grpc, stopping, ws};

pub type Answer = Response<AnswerBody>;

/// An `Err` ends the connection (HTTP/2: the stream) without an answer.
pub async fn answer(request: Request<Incoming>, link: Arc<Link>, instance: Arc<Instance>) -> Result<Answer, Failure> {
    let n = instance.count_request();
    let about_health = is_about_health(request.uri());
    if !about_health {
        sleep(instance.latency).await;
    }
    let mut answer = if !about_health && chance(instance.fail_percent) {
        fail(StatusCode::SERVICE_UNAVAILABLE)
    } else {
        match perform(request, n, &link, &instance).await {
            Ok(answer) => answer,
            Err(Unanswered::Malformed(said)) => text(StatusCode::BAD_REQUEST, said),
            Err(Unanswered::Ended(failure)) => return Err(failure),
        }
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

async fn perform(request: Request<Incoming>, n: u64, link: &Link, instance: &Arc<Instance>) -> Result<Answer, Unanswered> {
    if grpc::is_grpc(request.headers()) {
        return Ok(grpc::answer(request, instance).await);
    }
    let uri = request.uri().clone();
    match last_segment(&uri) {
        "slow" => {
            sleep(millis(&uri, "ms", 1_000)?).await;
            Ok(describe(&request, n, link, instance))
        }
        "fail" => Ok(fail(status(&uri, StatusCode::INTERNAL_SERVER_ERROR)?)),
        "flaky" if chance(number(&uri, "percent", 50)?) => Ok(fail(StatusCode::SERVICE_UNAVAILABLE)),
        "stream" => stream(&uri),
        "sse" => events(&uri, instance),
        "bytes" => Ok(typed("application/octet-stream", body::page(number(&uri, "n", 1_024)?))),
        "echo" => echo(request).await,
        "sum" => {
            let (n_bytes, adler32) = body::sum(request.into_body()).await.map_err(ended)?;
            Ok(json_answer(&json!({ "bytes": n_bytes, "adler32": format!("{adler32:08x}") })))
        }
        "trailers" => Ok(trailers()),
        "close" => {
            if request.version() < Version::HTTP_2 {
                link.reset();
            }
            Err(ended("asked to close without an answer"))
        }
        "ws" => Ok(ws::accept(request, link)),
        "healthz" => health(request.method(), &uri, instance).await,
        "drain" => Ok(drain(request.method(), instance).await),
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

fn stream(uri: &Uri) -> Result<Answer, Unanswered> {
    let size = number(uri, "size", 32_usize)?;
    if size > PIECE_MAX {
        return Err(Unanswered::Malformed(format!("size: {size} is more than {PIECE_MAX}\n")));
    }
    let piece = move |n| {
        let mut bytes = format!("chunk {n} ").into_bytes();
        bytes.resize(size.max(1) - 1, b'.');
        bytes.push(b'\n');
        Bytes::from(bytes)
    };
    let pause = millis(uri, "ms", 100)?;
    Ok(typed("text/plain", body::paced(number(uri, "chunks", 10)?, pause, piece, std::future::pending())))
}

/// Without `events` they go on until the client leaves or the service stops.
fn events(uri: &Uri, instance: &Instance) -> Result<Answer, Unanswered> {
    let name = instance.name.clone();
    let event = move |n| Bytes::from(format!("id: {n}\nevent: tick\ndata: {{\"instance\":\"{name}\",\"n\":{n}}}\n\n"));
    let mut stage = instance.stage();
    let stopped = async move { stopping(&mut stage).await };
    let body = body::paced(number(uri, "events", u64::MAX)?, millis(uri, "ms", 1_000)?, event, stopped);
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
async fn health(method: &Method, uri: &Uri, instance: &Instance) -> Result<Answer, Unanswered> {
    if method == Method::POST {
        instance.set_health(status(uri, StatusCode::OK)?).await;
    }
    let health = instance.health();
    let shown = if method == Method::POST { StatusCode::OK } else { health };
    Ok(text(shown, format!("{health}\n")))
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
        _ => {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "POST drains, DELETE takes it back\n".to_owned());
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, DELETE"));
            answer
        }
    }
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

fn last_segment(uri: &Uri) -> &str {
    uri.path().rsplit('/').next().unwrap_or_default()
}

fn is_about_health(uri: &Uri) -> bool {
    matches!(last_segment(uri), "healthz" | "drain") || uri.path().starts_with(grpc::HEALTH)
}

fn chance(percent: u8) -> bool {
    fastrand::u8(0..100) < percent
}

fn status(uri: &Uri, default: StatusCode) -> Result<StatusCode, Unanswered> {
    let code = number(uri, "status", default.as_u16())?;
    // 1xx are not final answers, so nobody could be answered with one.
    StatusCode::from_u16(code)
        .ok()
        .filter(|status| !status.is_informational())
        .ok_or_else(|| Unanswered::Malformed(format!("status: {code} is not in 200..=999\n")))
}

fn millis(uri: &Uri, name: &str, default: u64) -> Result<Duration, Unanswered> {
    number(uri, name, default).map(Duration::from_millis)
}

/// The number after `name=` in the query.
fn number<T>(uri: &Uri, name: &str, default: T) -> Result<T, Unanswered>
where
    T: FromStr<Err: Display>,
{
    let mut fields = uri.query().unwrap_or_default().split('&').filter_map(|field| field.split_once('='));
    let Some((_, said)) = fields.find(|(field, _)| *field == name) else { return Ok(default) };
    said.parse().map_err(|error| Unanswered::Malformed(format!("{name}: {said:?}: {error}\n")))
}

/// Every answer says who gave it.
const INSTANCE: HeaderName = HeaderName::from_static("x-instance");
/// One piece of `/stream` is made in memory.
const PIECE_MAX: usize = 1 << 20;
