//! Chapters in which something is wrong with what stands in the registry.

use std::time::Duration;

use etcd_client::{Txn, TxnOp};
use nix::sys::signal::Signal;
use tokio::time::sleep;

use super::deed::Deed;
use super::land::{Land, N_PROXIES, SERVICE, eventually};
use crate::Outcome;

impl Land {
    /// Each is rejected alone and the record before it stays, while an instance comes that everybody is to use.
    pub async fn poisoned(&mut self) -> Outcome<Deed> {
        let keys: Vec<String> = BROKEN.iter().map(|(key, _)| format!("/pointsman/{key}")).collect();
        let mut before = Vec::new();
        for key in &keys {
            let found = self.scene.etcd.client.get(key.as_str(), None).await?;
            before.push(found.kvs().first().map(|pair| String::from_utf8_lossy(pair.value()).into_owned()));
        }
        let broken = keys.iter().zip(BROKEN).map(|(key, (_, value))| (key.clone(), value.to_owned()));
        self.scene.etcd.fill(broken).await?;
        let expected = BROKEN.len() * N_PROXIES;
        eventually("every broken record is rejected", async || Ok(self.rejected().await? == expected as u64)).await?;
        self.replace_one().await?;
        let n_rejected = self.rejected().await?;

        for (key, value) in keys.into_iter().zip(before) {
            match value {
                Some(value) => drop(self.scene.etcd.client.put(key, value, None).await?),
                None => drop(self.scene.etcd.client.delete(key, None).await?),
            }
        }
        eventually("nothing is rejected any more", async || Ok(self.rejected().await? == 0)).await?;
        Ok(Deed::all([("records rejected", n_rejected), ("instance replaced meanwhile", 1)]))
    }

    /// By hand, so it is believed at once. Whoever is alive registers again.
    pub async fn deleted(&mut self) -> Outcome<Deed> {
        let (deletions, puts) = (self.applied("delete").await?, self.applied("put").await?);
        let half = &self.running[..self.running.len() / 2];
        let keys = half.iter().map(|instance| format!("/pointsman/instances/{SERVICE}/{}", instance.id));
        let all = Txn::new().and_then(keys.map(|key| TxnOp::delete(key, None)).collect::<Vec<_>>());
        let expected = (half.len() * N_PROXIES) as u64;
        self.scene.etcd.client.txn(all).await?;
        eventually("it is believed", async || Ok(self.applied("delete").await? >= deletions + expected)).await?;
        eventually("they are back", async || Ok(self.applied("put").await? >= puts + expected)).await?;
        sleep(HELD).await;
        Ok(Deed::all([("deletions applied", self.applied("delete").await? - deletions)]))
    }

    /// Their registrars stand still for longer than the lease lasts. Without removal protection the pool would be half.
    pub async fn expired(&mut self) -> Outcome<Deed> {
        let half = self.running.len() / 2;
        let expected = (half * N_PROXIES) as u64;
        for stopped in &self.running[..half] {
            stopped.process.signal(Signal::SIGSTOP)?;
        }
        let held = eventually("who was lost is kept", async || Ok(self.limbo().await? == expected)).await;
        let n_protected = self.scene.metric("pointsman_registry_protection_active", &[]).await;
        sleep(HELD).await;
        let still_used = self.is_whole().await;
        for stopped in &self.running[..half] {
            stopped.process.signal(Signal::SIGCONT)?;
        }
        held.and(still_used)?;
        eventually("they are registered again", async || Ok(self.limbo().await? == 0)).await?;
        Ok(Deed::all([("instances kept by removal protection", expected), ("services protected", n_protected?)]))
    }

    async fn applied(&self, kind: &str) -> Outcome<u64> {
        self.scene.metric("pointsman_registry_events_total", &[("kind", kind)]).await
    }

    async fn rejected(&self) -> Outcome<u64> {
        self.scene.metric("pointsman_registry_rejected_records", &[]).await
    }

    pub async fn limbo(&self) -> Outcome<u64> {
        self.scene.metric("pointsman_registry_limbo_instances", &[("service", SERVICE)]).await
    }
}

/// Key and value.
const BROKEN: [(&str, &str); 9] = [
    ("services/shop", r#"{"v":1,"balance":"best"}"#),
    ("routes/shop", r#"{"path_regex":"(","service":"shop"}"#),
    ("routes/shop-2", "[]"),
    ("certificates/shop", r#"{"chain":"none","key":"none"}"#),
    ("overrides/shop/shop-1", r#"{"state":"asleep"}"#),
    ("instances/shop/broken", "{"),
    ("instances/shop/nowhere", r#"{"v":1,"address":"nowhere"}"#),
    ("instances/shop/metadata", r#"{"v":1,"address":"169.254.169.254:80"}"#),
    ("instances/shop/of-tomorrow", r#"{"v":99,"address":"127.0.0.1:1"}"#),
];
const HELD: Duration = Duration::from_secs(2);
