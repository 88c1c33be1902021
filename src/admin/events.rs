//! `/api/v1/events`: the recent past, and with `Accept: text/event-stream` what comes after it.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use serde_json::{Value as Json, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, watch};

use super::Reply;
use super::body::{Body, Gone, Outlet};
use super::listener::stopped;
use super::query::Query;
use super::reply::{Refusal, json_reply, reply};
use super::services::moment;
use crate::catalog::{Happening, History};

/// Those who follow. Each holds a connection for as long as it likes, so there are few.
pub struct Followers {
    places: Arc<Semaphore>,
    shutdown: watch::Receiver<bool>,
}

impl Followers {
    pub fn new(shutdown: watch::Receiver<bool>) -> Self {
        Self { places: Arc::new(Semaphore::new(FOLLOWERS_MAX)), shutdown }
    }

    pub fn events(&self, history: &Arc<History>, query: Option<&str>, fields: &HeaderMap) -> Result<Reply, Refusal> {
        let query = Query::parse(query, &["since"])?;
        // A browser that connects again asks with the first URL, and says here how far it came.
        let resumed = fields.get("last-event-id").and_then(|id| id.to_str().ok());
        let since = match resumed.or(query.get("since")) {
            Some(said) => {
                let wrong = || Refusal::Query(format!("since: {said:?} is not the sequence number of an event"));
                said.parse::<u64>().map_err(|_| wrong())?
            }
            None => 0,
        };
        let follows = fields.get(ACCEPT).is_some_and(|accept| accept.to_str().is_ok_and(|a| a.contains("text/event-stream")));
        if !follows {
            return Ok(recent(history, since));
        }
        let place = self.places.clone().try_acquire_owned().map_err(|_| Refusal::TooManyFollowers)?;
        let (history, shutdown) = (history.clone(), self.shutdown.clone());
        let body = Body::in_pieces(move |out| async move {
            let _place = place;
            follow(&history, since, shutdown, &out).await
        });
        Ok(reply("text/event-stream", body))
    }
}

fn recent(history: &History, since: u64) -> Reply {
    let recent = history.recent();
    let since = known(since, &recent);
    let events: Vec<Json> = recent.iter().filter(|h| h.sequence > since).map(event).collect();
    json_reply(StatusCode::OK, &json!({ "events": events }))
}

async fn follow(history: &History, since: u64, mut shutdown: watch::Receiver<bool>, out: &Outlet) -> Result<(), Gone> {
    // Followed first and read then, so that nothing falls between; what is in both is told once.
    let mut following = history.follow();
    let recent = history.recent();
    let mut told = known(since, &recent);
    out.send("retry: 2000\n\n".to_owned()).await?;
    for happening in recent {
        told = tell(&happening, told, out).await?;
    }
    loop {
        let next = tokio::select! {
            next = following.recv() => next,
            () = tokio::time::sleep(SIGN_OF_LIFE) => {
                out.send(": still here\n\n".to_owned()).await?;
                continue;
            }
            () = stopped(&mut shutdown) => return Ok(()),
            () = out.gone() => return Err(Gone),
        };
        told = match next {
            Ok(happening) => tell(&happening, told, out).await?,
            Err(RecvError::Lagged(missed)) => {
                out.send(format!("event: missed\ndata: {}\n\n", json!({ "missed": missed }))).await?;
                told
            }
            Err(RecvError::Closed) => return Ok(()),
        };
    }
}

/// A number that was never given is of the process before this one: all that happened here is news.
fn known(since: u64, recent: &[Happening]) -> u64 {
    if recent.last().is_some_and(|last| since <= last.sequence) { since } else { 0 }
}

/// Answers with the sequence number up to which everything was told.
async fn tell(happening: &Happening, told: u64, out: &Outlet) -> Result<u64, Gone> {
    if happening.sequence <= told {
        return Ok(told);
    }
    out.send(format!("id: {}\ndata: {}\n\n", happening.sequence, event(happening))).await?;
    Ok(happening.sequence)
}

fn event(happening: &Happening) -> Json {
    json!({
        "sequence": happening.sequence,
        "at": moment(happening.at),
        "revision": happening.revision,
        "kind": happening.kind,
        "subject": happening.subject,
        "detail": happening.detail,
    })
}

/// A quarter of the connections there may be.
const FOLLOWERS_MAX: usize = 16;
/// So that whoever stands between does not take a quiet stream for a dead one, and a dead reader is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
