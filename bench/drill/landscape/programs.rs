//! The chapter in which the proxies themselves are replaced.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use super::deed::Deed;
use super::land::{Land, eventually};
use crate::Outcome;

impl Land {
    /// As by `kill -QUIT` after a new version was installed: one after the other hands its sockets to a new process.
    pub async fn upgraded(&mut self) -> Outcome<Deed> {
        let mut n_taken_over = 0;
        for proxy in &self.scene.proxies {
            let took_over = async || proxy.metric("pointsman_upgrades_total", &[("result", "taken_over")]).await;
            proxy.process.signal(Signal::SIGQUIT)?;
            eventually("a new process has taken over", async || Ok(took_over().await? == 1)).await?;
            n_taken_over += 1;
            let ended = async {
                while !proxy.process.first_has_ended() {
                    sleep(LOOK_AGAIN).await;
                }
            };
            timeout(DRAINED_MAX, ended).await.map_err(|_| "the old process runs on")?;
        }
        Ok(Deed::all([("processes took over", n_taken_over)]))
    }
}

const DRAINED_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
