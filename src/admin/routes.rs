//! `/api/v1/routes`: what is in force, with what was counted on it.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::Reply;
use super::body::{Body, Gone, Outlet};
use super::reply::{JSON, reply};
use super::services::origin_word;
use crate::catalog::Snapshot;
use crate::routing::Route;
use crate::wire::route_json;

pub fn list(snapshot: Arc<Snapshot>) -> Reply {
    reply(JSON, Body::in_pieces(|out| async move { tell(&snapshot, &out).await }))
}

async fn tell(snapshot: &Snapshot, out: &Outlet) -> Result<(), Gone> {
    let mut text = format!("{{\"revision\":{},\"routes\":[", snapshot.revision);
    for (n, route) in snapshot.routes.routes().into_iter().enumerate() {
        text.push_str(if n == 0 { "\n" } else { ",\n" });
        text.push_str(&one(snapshot, route).to_string());
        out.pass(&mut text).await?;
    }
    text.push_str("\n]}\n");
    out.send(text).await
}

/// The record as the registry has it, and what is known of it here. What instances are told is not shown: it may be a password.
pub fn one(snapshot: &Snapshot, route: &Route) -> Json {
    let mut said = route_json(&route.spec);
    for fields in ["/request_headers/set", "/request_headers/add"] {
        let fields = said.pointer_mut(fields).and_then(Json::as_object_mut);
        fields.into_iter().flatten().for_each(|(_, value)| *value = "(hidden)".into());
    }
    said["name"] = route.spec.name.as_str().into();
    said["origin"] = origin_word(route.origin).into();
    if let Some(service) = route.spec.service() {
        said["service_exists"] = snapshot.services.get(service).is_some().into();
    }
    let [none, c1, c2, c3, c4, c5] = route.stats.by_class();
    said["requests"] = json!({ "none": none, "1xx": c1, "2xx": c2, "3xx": c3, "4xx": c4, "5xx": c5 });
    said
}
