//! Chapters in which something is wrong with etcd itself, or with the way to it.

use std::time::{Duration, Instant};

use etcd_client::GetOptions;
use nix::sys::signal::Signal;
use tokio::time::sleep;

use super::deed::Deed;
use super::land::{A_WHILE, CAST, Land, N_PROXIES, SERVICE, eventually};
use crate::Outcome;

impl Land {
    /// The second proxy. It serves by what it knew last; who has left since refuses, and that is found out without a registry.
    pub async fn partitioned(&mut self) -> Outcome<Deed> {
        self.ways[1].cut();
        let meanwhile = self.changes_unseen().await;
        self.ways[1].mend();
        let n_behind = meanwhile?;
        self.n_connected(N_PROXIES).await?;
        let ahead = self.scene.proxies[0].applied_revision().await?;
        self.scene.proxies[1].has_applied(ahead.try_into()?).await?;
        Ok(Deed::all([("revisions behind, and caught up", n_behind)]))
    }

    async fn changes_unseen(&mut self) -> Outcome<u64> {
        self.n_connected(N_PROXIES - 1).await?;
        let comes = self.newcomer(CAST)?;
        self.scene.proxies[0].knows(SERVICE, &[comes.address]).await?;
        self.running.push(comes);
        self.one_leaves().await?;
        sleep(A_WHILE).await;
        let [ahead, behind] = [&self.scene.proxies[0], &self.scene.proxies[1]];
        Ok(ahead.applied_revision().await?.saturating_sub(behind.applied_revision().await?))
    }

    /// Connections to it stay open meanwhile. Whether leases end afterwards is up to who is quicker, etcd or the registrars.
    pub async fn frozen(&mut self) -> Outcome<Deed> {
        self.scene.etcd.process.signal(Signal::SIGSTOP)?;
        let stopped = Instant::now();
        let noticed = self.n_connected(0).await;
        sleep(LONGER_THAN_LEASES.saturating_sub(stopped.elapsed())).await;
        self.scene.etcd.process.signal(Signal::SIGCONT)?;
        noticed?;
        self.n_connected(N_PROXIES).await?;
        sleep(A_WHILE).await;
        Ok(Deed::all([("proxies saw it gone, and went on", N_PROXIES as u64)]))
    }

    pub async fn crashed(&mut self) -> Outcome<Deed> {
        self.scene.etcd.process.kill();
        self.n_connected(0).await?;
        sleep(A_WHILE).await;
        self.scene.etcd.start_again().await?;
        self.n_connected(N_PROXIES).await?;
        Ok(Deed::all([("proxies saw it gone, and went on", N_PROXIES as u64)]))
    }

    /// What came after the backup is lost, and who has left since is back on paper.
    pub async fn restored(&mut self) -> Outcome<Deed> {
        let relists = self.relists().await?;
        let backup = self.scene.etcd.backup()?;
        self.changes().await?;
        self.replace_one().await?;
        self.scene.etcd.restore(backup).await?;
        self.read_anew(relists).await
    }

    /// What operators wrote is put back; instances register again by themselves.
    pub async fn replaced(&mut self) -> Outcome<Deed> {
        let relists = self.relists().await?;
        self.changes().await?;
        let all = self.scene.etcd.client.get("/pointsman/", Some(GetOptions::new().with_prefix())).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let records = all.kvs().iter().map(|pair| (text(pair.key()), text(pair.value())));
        let by_operators = |(key, _): &(String, String)| OPERATORS.iter().any(|kind| key.starts_with(kind));
        let records = records.filter(by_operators).collect();
        self.scene.etcd.replace(records).await?;
        self.read_anew(relists).await
    }

    /// So that the revision falls for certain.
    async fn changes(&mut self) -> Outcome<()> {
        let mut last = 0;
        for n in 0..CHANGES {
            let key = format!("/pointsman/instances/elsewhere/{}", n % 10);
            let put = self.scene.etcd.client.put(key, format!("127.0.0.1:{}", 1 + n), None).await?;
            last = put.header().map_or(last, |header| header.revision());
        }
        for proxy in &mut self.scene.proxies {
            proxy.has_applied(last).await?;
        }
        Ok(())
    }

    async fn read_anew(&self, before: u64) -> Outcome<Deed> {
        self.n_connected(N_PROXIES).await?;
        let expected = before + N_PROXIES as u64;
        eventually("every proxy has read everything anew", async || Ok(self.relists().await? >= expected)).await?;
        sleep(LONGER_THAN_LEASES).await;
        eventually("nobody is kept any more", async || Ok(self.limbo().await? == 0)).await?;
        Ok(Deed::all([("times everything was read anew", self.relists().await? - before)]))
    }
}

const OPERATORS: [&str; 3] = ["/pointsman/services/", "/pointsman/routes/", "/pointsman/certificates/"];
const CHANGES: u16 = 50;
/// Leases last five seconds.
const LONGER_THAN_LEASES: Duration = Duration::from_secs(8);
