//! What a proxy says of itself, and an instance of itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tokio::time::sleep;

use crate::Outcome;
use crate::load::{Connection, Request};
use crate::proxies::Proxy;

impl Proxy {
    /// Waits until it sends requests to these addresses.
    pub async fn knows(&self, service: &str, addresses: &[SocketAddr]) -> Outcome<()> {
        let mut unknown: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        let deadline = Instant::now() + KNOWN_MAX;
        while !unknown.is_empty() {
            let seen = self.seen(service).await?;
            let eligible = seen.iter().filter(|instance| instance["eligible"] == true);
            let known: Vec<&str> = eligible.filter_map(|instance| instance["address"].as_str()).collect();
            unknown.retain(|address| !known.contains(&address.as_str()));
            if Instant::now() > deadline {
                return Err(format!("a proxy never used {unknown:?} of {service}, only {known:?}").into());
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// What it says of each instance; nothing as long as none is known.
    pub async fn seen(&self, service: &str) -> Outcome<Vec<Json>> {
        let said = self.says(&format!("/api/v1/services/{service}")).await?;
        Ok(said.unwrap_or_default()["instances"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    pub async fn applied_revision(&self) -> Outcome<u64> {
        self.metric("pointsman_registry_applied_revision", &[]).await
    }

    /// The sum of its series of this name with all of these labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Outcome<u64> {
        let text = ask(self.admin()?, "GET", "/metrics").await?.ok_or("no metrics")?;
        let text = String::from_utf8(text)?;
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            let carries = |(label, said): &(&str, &str)| rest.contains(&format!("{label}=\"{said}\""));
            (found == name && labels.iter().all(carries)).then(|| value.parse::<f64>().ok())?
        });
        Ok(series.sum::<f64>() as u64)
    }

    async fn says(&self, path: &str) -> Outcome<Option<Json>> {
        let said = ask(self.admin()?, "GET", path).await?;
        Ok(said.map(|body| serde_json::from_slice(&body)).transpose()?)
    }

    fn admin(&self) -> Outcome<SocketAddr> {
        self.admin.ok_or_else(|| "only ours has an admin address".into())
    }
}

/// The body of a 200; none with any other status.
pub async fn ask(address: SocketAddr, method: &str, path: &str) -> Outcome<Option<Vec<u8>>> {
    let mut connection = Connection::open(address).await?;
    let mut body = Vec::new();
    let request = Request::new(method, &address.to_string(), path, 0, true);
    let answer = connection.exchange_into(&request, |piece| body.extend_from_slice(piece)).await?;
    Ok((answer.status == 200).then_some(body))
}

/// Processes start, register and are probed; on two busy cores, twenty at once take a while.
const KNOWN_MAX: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
