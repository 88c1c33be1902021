//! A whole landscape on one machine under load, and one thing after the other goes wrong with it. For a sceptic: each
//! chapter says what happens, what users noticed, and by which counter the proxy shows that it did something about it.

use std::fmt;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use etcd_client::DeleteOptions;
use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::scene::{Cast, Instance, Scene};
use super::{Finding, Steady};
use crate::Outcome;
use crate::load::{End, Tally, drive};

#[derive(clap::Args)]
pub struct Flags {
    #[arg(long, default_value_t = 6)]
    instances: u32,
    #[command(flatten)]
    pub steady: Steady,
}

/// What goes wrong, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chapter {
    Calm,
    Killed,
    Hanging,
    Failing,
    Poisoned,
    Partitioned,
    Crashed,
    Deployed,
}

impl Chapter {
    const ALL: [Self; 8] = [
        Self::Calm,
        Self::Killed,
        Self::Hanging,
        Self::Failing,
        Self::Poisoned,
        Self::Partitioned,
        Self::Crashed,
        Self::Deployed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Killed => "killed",
            Self::Hanging => "hanging",
            Self::Failing => "failing",
            Self::Poisoned => "poisoned",
            Self::Partitioned => "partitioned",
            Self::Crashed => "crashed",
            Self::Deployed => "deployed",
        }
    }

    fn story(self) -> &'static str {
        match self {
            Self::Calm => "nothing happens",
            Self::Killed => "three instances get SIGKILL, and come back",
            Self::Hanging => "one instance accepts requests and never answers",
            Self::Failing => "one instance answers 503",
            Self::Poisoned => "broken records are put into the registry",
            Self::Partitioned => "etcd answers nobody for longer than every lease, and goes on",
            Self::Crashed => "etcd gets SIGKILL, and comes back from its disk",
            Self::Deployed => "every instance is replaced",
        }
    }

    /// What shows that the proxy acted.
    fn evidence(self) -> &'static str {
        match self {
            Self::Calm => "ejections",
            Self::Killed | Self::Failing => "retries and ejections",
            Self::Hanging => "ejections",
            Self::Poisoned => "records rejected",
            Self::Partitioned | Self::Crashed => "times it was seen to be gone",
            Self::Deployed => "instances replaced",
        }
    }
}

/// What became of the requests of one chapter.
struct Told {
    chapter: Chapter,
    tally: Tally,
    evidence: u64,
}

impl Told {
    /// Nothing failed, and something was done about what happened; in quiet times nothing was.
    fn is_kept(&self) -> bool {
        self.tally.n_failed() == 0 && self.tally.n_answered() > 0 && (self.evidence > 0) == (self.chapter != Chapter::Calm)
    }

    fn json(&self) -> Json {
        let millis = |time: Duration| (time.as_secs_f64() * 1e5).round() / 1e2;
        json!({
            "happens": self.chapter.story(),
            "requests": self.tally.n_answered() + self.tally.n_failed(),
            "failed": self.tally.n_failed(),
            "p99_ms": millis(self.tally.latency(0.99)),
            "worst_ms": millis(self.tally.slowest()),
            self.chapter.evidence(): self.evidence,
            "kept": self.is_kept(),
        })
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chapter, tally, evidence } = self;
        let (n, n_failed, worst) = (tally.n_answered() + tally.n_failed(), tally.n_failed(), tally.slowest());
        let mark = if self.is_kept() { "kept  " } else { "BROKEN" };
        write!(f, "{mark}  {:64}  {n:6} requests  {n_failed} failed  worst {worst:8.1?}", chapter.story())?;
        if *evidence > 0 {
            write!(f, "  ({evidence} {})", chapter.evidence())?;
        }
        tally.failures().try_for_each(|(failure, n)| write!(f, "\n          {n} × {failure}"))
    }
}

struct Landscape {
    scene: Scene,
    running: Vec<Instance>,
}

pub async fn run(flags: &Flags) -> Outcome<Finding> {
    let policy = json!({
        "v": 1,
        "retry": { "per_try_timeout": "250ms" },
        "probe": { "path": "/healthz", "interval": "1s", "timeout": "500ms" },
        "ejection": { "base": "1s" },
        "slow_start": "0s",
    });
    let mut scene = Scene::start(&flags.steady.common.program, &[(SERVICE, Some(policy))]).await?;
    let running = scene.instances(SERVICE, flags.instances, CAST).await?;
    let mut landscape = Landscape { scene, running };

    let promise = "one thing after the other goes wrong, and no request fails";
    let mut finding = Finding::new("landscape", promise);
    for (n, chapter) in Chapter::ALL.into_iter().enumerate() {
        progress(&format!("{} of {}: {} …", n + 1, Chapter::ALL.len(), chapter.story()));
        let (stop, end) = End::told();
        let load = tokio::spawn(drive(flags.steady.plan(&landscape.scene, SERVICE, end)));
        sleep(BEFORE).await;
        let acted = landscape.act(chapter).await;
        sleep(AFTER).await;
        drop(stop);
        let told = Told { chapter, tally: load.await?, evidence: acted? };
        progress("");
        if !flags.steady.common.json {
            println!("{told}");
            finding.is_told = true;
        }
        finding.note(chapter.name(), told.json());
        finding.expect(told.is_kept());
    }
    Ok(finding)
}

impl Landscape {
    /// Lets it happen, waits until it is over, and says how often the proxy did what it does about it.
    async fn act(&mut self, chapter: Chapter) -> Outcome<u64> {
        let retries_before = self.retries().await?;
        let ejections_before = self.ejections().await?;
        match chapter {
            Chapter::Calm => {
                sleep(A_WHILE).await;
                Ok(self.ejections().await? - ejections_before)
            }
            Chapter::Killed => {
                for n in 0..3 {
                    let killed = &mut self.running[n];
                    killed.process.kill();
                    sleep(AWAY).await;
                    self.running[n] = self.scene.instance(SERVICE, &killed.id, Cast { at: Some(killed.address), ..CAST })?;
                    self.is_whole().await?;
                }
                Ok(self.retries().await? + self.ejections().await? - retries_before - ejections_before)
            }
            Chapter::Hanging => {
                self.for_a_while("hang").await?;
                Ok(self.ejections().await? - ejections_before)
            }
            Chapter::Failing => {
                self.for_a_while("fail&status=503").await?;
                Ok(self.retries().await? + self.ejections().await? - retries_before - ejections_before)
            }
            Chapter::Poisoned => self.poisoned().await,
            Chapter::Partitioned => self.partitioned().await,
            Chapter::Crashed => {
                self.scene.etcd.process.kill();
                self.is_connected(false).await?;
                sleep(A_WHILE).await;
                self.scene.etcd.start_again().await?;
                self.is_connected(true).await?;
                self.is_whole().await?;
                Ok(1)
            }
            Chapter::Deployed => self.deployed().await,
        }
    }

    async fn for_a_while(&self, behaviour: &str) -> Outcome<()> {
        self.running[0].behaves(&format!("{behaviour}&for={}", A_WHILE.as_millis())).await?;
        sleep(A_WHILE).await;
        Ok(())
    }

    /// A record of each kind that nobody can use.
    async fn poisoned(&mut self) -> Outcome<u64> {
        let broken = [
            (format!("/pointsman/services/{SERVICE}"), r#"{"v":1,"balance":"best"}"#),
            (format!("/pointsman/instances/{SERVICE}/broken"), "{"),
            (format!("/pointsman/instances/{SERVICE}/nowhere"), r#"{"v":1,"address":"nowhere"}"#),
            (format!("/pointsman/instances/{SERVICE}/metadata"), r#"{"v":1,"address":"169.254.169.254:80"}"#),
            (format!("/pointsman/routes/{SERVICE}"), r#"{"path_regex":"("}"#),
        ];
        let keys: Vec<String> = broken.iter().map(|(key, _)| key.clone()).collect();
        let good = [&keys[0], &keys[4]].map(String::as_str);
        let mut kept = Vec::new();
        for key in good {
            let found = self.scene.etcd.client.get(key, None).await?;
            kept.extend(found.kvs().iter().map(|pair| (key.to_owned(), String::from_utf8_lossy(pair.value()).into_owned())));
        }
        self.scene.etcd.fill(broken.into_iter().map(|(key, value)| (key, value.to_owned()))).await?;
        sleep(A_WHILE).await;
        let n_rejected = self.scene.metric("pointsman_registry_rejected_records", &[]).await?;
        self.scene.etcd.fill(kept.into_iter()).await?;
        for key in &keys[1..4] {
            self.scene.etcd.client.delete(key.as_str(), Some(DeleteOptions::new())).await?;
        }
        Ok(n_rejected)
    }

    /// Connections to it stay open meanwhile. Whether leases end afterwards is up to who is quicker, etcd or the registrars.
    async fn partitioned(&mut self) -> Outcome<u64> {
        self.scene.etcd.process.signal("STOP")?;
        let stopped = Instant::now();
        let noticed = self.is_connected(false).await;
        sleep(LONGER_THAN_LEASES.saturating_sub(stopped.elapsed())).await;
        self.scene.etcd.process.signal("CONT")?;
        noticed?;
        self.is_connected(true).await?;
        sleep(A_WHILE).await;
        self.is_whole().await?;
        Ok(1)
    }

    async fn deployed(&mut self) -> Outcome<u64> {
        let mut n_replaced = 0;
        for (n, mut leaving) in std::mem::take(&mut self.running).into_iter().enumerate() {
            let comes = self.scene.instance(SERVICE, &format!("{SERVICE}-new-{n}"), CAST)?;
            self.scene.knows(SERVICE, [comes.address].into_iter()).await?;
            self.running.push(comes);
            leaving.process.terminate()?;
            leaving.process.ends_within(LEAVES_MAX).await?;
            n_replaced += 1;
        }
        Ok(n_replaced)
    }

    async fn is_whole(&mut self) -> Outcome<()> {
        self.scene.knows(SERVICE, self.running.iter().map(|instance| instance.address)).await
    }

    /// Waits until the proxy says so.
    async fn is_connected(&self, expected: bool) -> Outcome<()> {
        let deadline = Instant::now() + NOTICED_MAX;
        while (self.scene.metric("pointsman_registry_connected", &[]).await? > 0) != expected {
            if Instant::now() > deadline {
                return Err(format!("the proxy never said that its registry is connected: {expected}").into());
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    async fn retries(&self) -> Outcome<u64> {
        self.scene.metric("pointsman_retries_total", &[]).await
    }

    async fn ejections(&self) -> Outcome<u64> {
        self.scene.metric("pointsman_ejections_total", &[]).await
    }
}

/// On a terminal, a line that the next one takes the place of.
fn progress(line: &str) {
    if stderr().is_terminal() {
        // A display that cannot be written to changes nothing.
        let _ = write!(stderr(), "\r\x1b[2K{line}").and_then(|()| stderr().flush());
    }
}

const SERVICE: &str = "shop";
/// Long enough that what happens meets requests that run.
const CAST: Cast<'_> = Cast { behave: None, latency: "5ms", registrar: false, at: None };
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_secs(1);
const A_WHILE: Duration = Duration::from_secs(4);
/// Of a killed instance, as with a supervisor.
const AWAY: Duration = Duration::from_secs(1);
/// Leases last five seconds.
const LONGER_THAN_LEASES: Duration = Duration::from_secs(8);
const NOTICED_MAX: Duration = Duration::from_secs(30);
const LEAVES_MAX: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
