//! The landscape itself, and what the chapters do with it.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use super::super::Steady;
use super::super::relay::Relay;
use super::super::scene::{Cast, Instance, Scene, address_of_its_own};
use super::Flags;
use super::chapter::Chapter;
use super::deed::Deed;
use super::display::Display;
use super::told::Told;
use crate::Outcome;
use crate::load::{End, Plan, drive};
use crate::registry::Etcd;

pub struct Land {
    pub running: Vec<Instance>,
    pub scene: Scene,
    /// Of each proxy, to etcd.
    pub ways: Vec<Relay>,
    n_cast: usize,
}

impl Land {
    pub async fn open(flags: &Flags) -> Outcome<Self> {
        let policy = json!({
            "v": 1,
            "retry": { "per_try_timeout": humantime::format_duration(flags.per_try).to_string() },
            "probe": { "path": "/healthz", "interval": "1s", "timeout": "500ms" },
            "ejection": { "base": "1s" },
            "slow_start": "0s",
        });
        let etcd = Etcd::start().await?;
        let to = etcd.url.trim_start_matches("http://").parse()?;
        let ways = (0..N_PROXIES).map(|_| Relay::start(address_of_its_own()?, to)).collect::<Outcome<Vec<_>>>()?;
        let urls: Vec<String> = ways.iter().map(|way| format!("http://{}", way.address)).collect();
        let program = &flags.steady.common.program;
        let scene = Scene::set(etcd, program, &[(SERVICE, Some(policy))], &urls, PROXY).await?;
        let running = scene.instances(SERVICE, flags.instances, CAST).await?;
        Ok(Self { running, scene, ways, n_cast: flags.instances as usize })
    }

    /// A chapter under load, until everything is as it was.
    pub async fn tell(&mut self, chapter: Chapter, steady: &Steady, display: &mut Display) -> Outcome<Told> {
        let (stop, end) = End::told();
        let share = Plan { rate: Some(steady.rate / N_PROXIES as f64), ..steady.plan(&self.scene, SERVICE, end) };
        let connections = share.connections.div_ceil(N_PROXIES as u32);
        let plans = self.scene.proxies.iter().map(|proxy| Plan { address: proxy.address, connections, ..share.clone() });
        let loads: Vec<_> = plans.map(|plan| tokio::spawn(drive(plan))).collect();
        let deed = display.during(chapter, &stop, async {
            sleep(BEFORE).await;
            let deed = self.act(chapter).await?;
            self.is_whole().await?;
            sleep(AFTER).await;
            Ok(deed)
        });
        let deed = deed.await;
        drop(stop);
        let mut told = Told { chapter, tally: Default::default(), deed };
        for load in loads {
            told.tally.add(&load.await?);
        }
        Ok(told)
    }

    /// Lets it happen, waits until it is over, and says what was done about it.
    async fn act(&mut self, chapter: Chapter) -> Outcome<Deed> {
        match chapter {
            Chapter::Calm => self.calm().await,
            Chapter::Killed => self.killed().await,
            Chapter::Hanging => self.hanging().await,
            Chapter::Failing => self.failing().await,
            Chapter::Slow => self.slow().await,
            Chapter::Broken => self.broken().await,
            Chapter::Unreachable => self.unreachable().await,
            Chapter::Poisoned => self.poisoned().await,
            Chapter::Deleted => self.deleted().await,
            Chapter::Expired => self.expired().await,
            Chapter::Partitioned => self.partitioned().await,
            Chapter::Frozen => self.frozen().await,
            Chapter::Crashed => self.crashed().await,
            Chapter::Restored => self.restored().await,
            Chapter::Replaced => self.replaced().await,
            Chapter::Upgraded => self.upgraded().await,
            Chapter::Deployed => self.deployed().await,
        }
    }

    /// One that was never there before.
    pub fn newcomer(&mut self, cast: Cast<'_>) -> Outcome<Instance> {
        self.n_cast += 1;
        self.scene.instance(SERVICE, &format!("{SERVICE}-{}", self.n_cast - 1), cast)
    }

    /// Every proxy uses every instance.
    pub async fn is_whole(&self) -> Outcome<()> {
        self.scene.know(SERVICE, &self.running).await
    }

    /// Waits until so many of the proxies say that they have a registry.
    pub async fn n_connected(&self, n: usize) -> Outcome<()> {
        eventually(&format!("{n} of {N_PROXIES} proxies are connected to etcd"), async || {
            Ok(self.scene.metric("pointsman_registry_connected", &[]).await? == n as u64)
        })
        .await
    }

    pub async fn retries(&self) -> Outcome<u64> {
        self.scene.metric("pointsman_retries_total", &[]).await
    }

    pub async fn ejections(&self) -> Outcome<u64> {
        self.scene.metric("pointsman_ejections_total", &[]).await
    }

    /// Times that everything was listed anew because of what etcd said; starts aside.
    pub async fn relists(&self) -> Outcome<u64> {
        let mut n = 0;
        for reason in ["backwards", "epoch", "compacted"] {
            n += self.scene.metric("pointsman_registry_relists_total", &[("reason", reason)]).await?;
        }
        Ok(n)
    }
}

/// With a deadline that a busy machine keeps, too.
pub async fn eventually(what: &str, is_so: impl AsyncFn() -> Outcome<bool>) -> Outcome<()> {
    let deadline = Instant::now() + EVENTUALLY;
    while !is_so().await? {
        if Instant::now() > deadline {
            return Err(format!("after {} s it is not so that {what}", EVENTUALLY.as_secs()).into());
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

pub const SERVICE: &str = "shop";
/// Long enough that what happens meets requests that run. The registrar is a process of its own.
pub const CAST: Cast<'_> = Cast { behave: None, latency: "5ms", registrar: true, at: None, seen_at: None };
pub const A_WHILE: Duration = Duration::from_secs(4);
pub const N_PROXIES: usize = 2;
/// So that a process that was replaced has soon nothing left to do.
const PROXY: &str = "[proxy.limits]\nkeep_alive = \"2s\"\n[proxy.shutdown]\ngrace = \"0s\"\ndrain = \"5s\"\n";
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_secs(1);
const EVENTUALLY: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
