//! `/api/v1/certificates`: whom each vouches for, until when, and where it is offered. Never a key.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use super::body::{Body, Gone, Outlet};
use super::reply::{JSON, reply};
use super::services::moment;
use super::sources::Sources;
use super::{Reply, acme};
use crate::model::{Certificate, CertificateSource};
use crate::telemetry::{Exposition, families};
use crate::tls::fingerprint_text;

pub fn list(sources: Arc<Sources>) -> Reply {
    reply(JSON, Body::in_pieces(|out| async move { tell(&sources, &out).await }))
}

async fn tell(sources: &Sources, out: &Outlet) -> Result<(), Gone> {
    let snapshot = sources.live.load_full();
    let terminating: Vec<usize> = sources.terminating.iter().map(|(number, _)| *number).collect();
    let now = SystemTime::now();
    let mut text = format!("{{\"revision\":{},\"certificates\":[", snapshot.revision);
    for (n, (certificate, listeners)) in snapshot.certificates.all(&terminating).enumerate() {
        text.push_str(if n == 0 { "\n" } else { ",\n" });
        let address = |number: &usize| sources.terminating.iter().find(|(n, _)| n == number).map(|(_, address)| *address);
        text.push_str(&one(certificate, &listeners.iter().filter_map(address).collect::<Vec<_>>(), now).to_string());
        out.pass(&mut text).await?;
    }
    let rejected = (sources.certificate_files)().into_iter().map(|(file, reason)| json!({ "file": file, "reason": reason }));
    text.push_str(&format!("\n],\"rejected\":{},\"acme\":{}}}\n", rejected.collect::<Json>(), acme::state(sources, &snapshot)));
    out.send(text).await
}

fn one(certificate: &Certificate, listeners: &[SocketAddr], now: SystemTime) -> Json {
    json!({
        "name": certificate.source.to_string(),
        "source": match certificate.source {
            CertificateSource::File(_) => "file",
            CertificateSource::Registry(_) => "registry",
        },
        "names": certificate.names.iter().map(|name| &**name).collect::<Json>(),
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "not_before": moment(certificate.not_before),
        "not_after": moment(certificate.not_after),
        "expired": certificate.not_after <= now,
        "fingerprint": fingerprint_text(&certificate.fingerprint),
        "in_use": !listeners.is_empty(),
        "listeners": listeners.iter().map(ToString::to_string).collect::<Json>(),
    })
}

pub fn metrics(sources: &Sources, handshakes: &[(&str, &str, u64)], text: &mut Exposition) {
    text.family(&families::TLS_HANDSHAKES);
    if !sources.terminating.is_empty() {
        handshakes.iter().for_each(|(version, result, n)| text.sample(&[version, result], n));
    }
    let snapshot = sources.live.load_full();
    text.family(&families::CERTIFICATE_EXPIRY);
    // Two listeners may use one file.
    let mut told = std::collections::BTreeSet::new();
    for (certificate, _) in snapshot.certificates.all(&[]) {
        if told.insert(&certificate.source) {
            let at = certificate.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
            text.sample(&[&certificate.source.to_string()], at.as_secs());
        }
    }
    text.family(&families::CERTIFICATE_FILES_REJECTED);
    text.sample(&[], (sources.certificate_files)().len() as u64);
}
