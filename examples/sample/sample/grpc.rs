//! gRPC health v1, `Check` and `Watch`: the status comes in trailers, as with every gRPC service.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;

use super::answer::Answer;
use super::body;
use super::instance::Instance;

pub fn is_grpc(fields: &HeaderMap) -> bool {
    fields.get(CONTENT_TYPE).is_some_and(|said| said.as_bytes().starts_with(b"application/grpc"))
}

pub async fn answer(request: Request<Incoming>, instance: &Arc<Instance>) -> Answer {
    if !request.uri().path().starts_with(HEALTH) {
        return unimplemented();
    }
    let health = HealthServer::new(HealthService::from_health_reporter(instance.reporter.clone()));
    match TowerToHyperService::new(health).call(request).await {
        Ok(answer) => answer.map(body::boxed),
        Err(never) => match never {},
    }
}

/// An answer of trailers alone, which HTTP/2 sends as its head.
fn unimplemented() -> Answer {
    let mut answer = Response::new(body::full(""));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer.headers_mut().insert(GRPC_STATUS, HeaderValue::from_static("12"));
    answer
}

/// Where the paths of the health service start.
pub const HEALTH: &str = "/grpc.health.v1.Health/";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
