//! What the proxy says about itself at its admin endpoint.

use std::net::SocketAddr;

use http::Version;
use serde_json::Value;

use super::World;
use super::client::{Answer, Ask, Connection};

impl World {
    /// `None`: nobody answers there.
    pub fn admin_status(&self, path: &str) -> Option<u16> {
        self.try_admin(path).ok().map(|answer| answer.status)
    }

    pub fn admin(&self, ask: impl Into<Ask>) -> Answer {
        self.try_admin(ask).unwrap_or_else(|error| panic!("the admin endpoint: {error}"))
    }

    pub fn status(&self) -> Value {
        self.admin("/api/v1/status").json()
    }

    /// The sum of the series of this name that carry these labels. `None`: there is none.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        sum(&self.admin("/metrics"), name, labels)
    }

    /// The same of another proxy; of one that does not answer there is none.
    pub fn metric_at(&self, admin: SocketAddr, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        sum(&self.try_admin_at(admin, "/metrics").ok()?, name, labels)
    }

    pub(super) fn try_admin(&self, ask: impl Into<Ask>) -> Result<Answer, String> {
        self.try_admin_at(self.admin, ask)
    }

    fn try_admin_at(&self, admin: SocketAddr, ask: impl Into<Ask>) -> Result<Answer, String> {
        // It answers under its own name only, so that no page of a stranger can ask it through a browser.
        let ask = ask.into().host(&admin.to_string());
        self.handle().block_on(async { Connection::open(admin, Version::HTTP_11).await?.ask(ask).await })
    }
}

fn sum(answer: &Answer, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let series = answer.text().lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, rest) = series.split_once('{').unwrap_or((series, ""));
        let carries = |(label, said): &(&str, &str)| rest.contains(&format!("{label}=\"{said}\""));
        (found == name && labels.iter().all(carries)).then(|| value.parse::<f64>().expect("a number"))
    });
    series.reduce(|sum, value| sum + value)
}
