//! Chapters in which something is wrong with an instance, or with the way to it.

use std::time::Duration;

use tokio::time::sleep;

use super::super::relay::Relay;
use super::super::scene::{Cast, address_of_its_own};
use super::deed::Deed;
use super::land::{A_WHILE, CAST, Land, SERVICE};
use crate::Outcome;

impl Land {
    pub async fn calm(&self) -> Outcome<Deed> {
        let before = self.ejections().await?;
        sleep(A_WHILE).await;
        Ok(Deed::nothing([("ejections", self.ejections().await? - before)]))
    }

    /// Their records live on until the lease ends, so the registry is no help.
    pub async fn killed(&mut self) -> Outcome<Deed> {
        let (retries, ejections) = (self.retries().await?, self.ejections().await?);
        for n in 0..3 {
            let killed = &mut self.running[n];
            killed.process.kill();
            sleep(AWAY).await;
            self.running[n] = self.scene.instance(SERVICE, &killed.id, Cast { at: Some(killed.address), ..CAST })?;
            self.is_whole().await?;
        }
        let (retries, ejections) = (self.retries().await? - retries, self.ejections().await? - ejections);
        Ok(Deed::any([("retries", retries), ("ejections", ejections)]))
    }

    pub async fn hanging(&self) -> Outcome<Deed> {
        self.taken_out("hang").await
    }

    pub async fn failing(&self) -> Outcome<Deed> {
        self.taken_out("fail&status=503").await
    }

    /// Its health is fine, so only real requests find out.
    async fn taken_out(&self, behaviour: &str) -> Outcome<Deed> {
        let (retries, ejections) = (self.retries().await?, self.ejections().await?);
        self.for_a_while(behaviour).await?;
        let (retries, ejections) = (self.retries().await? - retries, self.ejections().await? - ejections);
        Ok(Deed::all([("retries", retries), ("ejections", ejections)]))
    }

    /// It is well otherwise, and stays in use.
    pub async fn slow(&self) -> Outcome<Deed> {
        let before = self.n_requests().await?;
        self.for_a_while("slow&ms=300").await?;
        let (_, fewer) = self.kept_away(&before).await?;
        Ok(Deed::all([("% fewer requests for it than for the others", fewer)]).provided(fewer > 50))
    }

    /// Nobody can take half an answer back: those requests fail, until the instance is out.
    pub async fn broken(&self) -> Outcome<Deed> {
        let (before, ejections) = (self.n_requests().await?, self.ejections().await?);
        self.for_a_while("break").await?;
        let (received, fewer) = self.kept_away(&before).await?;
        let ejections = self.ejections().await? - ejections;
        let deed = Deed::all([("ejections", ejections), ("% fewer requests for it than for the others", fewer)]);
        Ok(deed.provided(fewer > 50).with_broken_off(received))
    }

    /// One instance more, which goes on renewing its lease.
    pub async fn unreachable(&mut self) -> Outcome<Deed> {
        let at = address_of_its_own()?;
        let way = Relay::start(address_of_its_own()?, at)?;
        let mut far = self.newcomer(Cast { at: Some(at), seen_at: Some(way.address), registrar: false, ..CAST })?;
        self.scene.know(SERVICE, std::slice::from_ref(&far)).await?;
        let (lost, failed_probes) = (self.attempts_lost().await?, self.failed_probes().await?);
        way.cut();
        sleep(A_WHILE).await;
        let (lost, failed_probes) = (self.attempts_lost().await? - lost, self.failed_probes().await? - failed_probes);
        way.mend();
        self.scene.know(SERVICE, std::slice::from_ref(&far)).await?;
        far.process.terminate()?;
        far.process.ends_within(LEAVES_MAX).await?;
        Ok(Deed::any([("attempts given up", lost), ("failed probes", failed_probes)]))
    }

    pub async fn deployed(&mut self) -> Outcome<Deed> {
        let before = self.changes_applied().await?;
        for _ in 0..self.running.len() {
            self.replace_one().await?;
        }
        Ok(Deed::all([("changes of the pool applied", self.changes_applied().await? - before)]))
    }

    /// A new one comes, the one that is longest there leaves.
    pub async fn replace_one(&mut self) -> Outcome<()> {
        let comes = self.newcomer(CAST)?;
        self.scene.know(SERVICE, std::slice::from_ref(&comes)).await?;
        self.running.push(comes);
        self.one_leaves().await
    }

    pub async fn one_leaves(&mut self) -> Outcome<()> {
        let mut leaving = self.running.remove(0);
        leaving.process.terminate()?;
        leaving.process.ends_within(LEAVES_MAX).await
    }

    /// The first instance does this, and is well again afterwards.
    async fn for_a_while(&self, behaviour: &str) -> Outcome<()> {
        self.running[0].behaves(&format!("{behaviour}&for={}", A_WHILE.as_millis())).await?;
        sleep(A_WHILE).await;
        Ok(())
    }

    /// That reached each instance, by its own count.
    async fn n_requests(&self) -> Outcome<Vec<u64>> {
        let mut n = Vec::new();
        for instance in &self.running {
            n.push(instance.n_requests().await?);
        }
        Ok(n)
    }

    /// Requests that the first instance got since then, and by how many percent this is less than what each of the others got.
    async fn kept_away(&self, before: &[u64]) -> Outcome<(u64, u64)> {
        let got: Vec<u64> = self.n_requests().await?.iter().zip(before).map(|(now, before)| now - before).collect();
        let of_others = got[1..].iter().sum::<u64>() / (got.len() as u64 - 1);
        let fewer = 100 * of_others.saturating_sub(got[0]) / of_others.max(1);
        Ok((got[0], fewer))
    }

    async fn changes_applied(&self) -> Outcome<u64> {
        self.scene.metric("pointsman_registry_events_total", &[]).await
    }

    async fn attempts_lost(&self) -> Outcome<u64> {
        let lost = async |outcome| self.scene.metric("pointsman_upstream_requests_total", &[("outcome", outcome)]).await;
        Ok(lost("timeout").await? + lost("connect_timeout").await?)
    }

    async fn failed_probes(&self) -> Outcome<u64> {
        let failed = async |result| self.scene.metric("pointsman_probes_total", &[("result", result)]).await;
        Ok(failed("timeout").await? + failed("connect_timeout").await?)
    }
}

/// Of a killed instance, as with a supervisor.
const AWAY: Duration = Duration::from_secs(1);
const LEAVES_MAX: Duration = Duration::from_secs(30);
