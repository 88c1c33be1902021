//! `Watch`: one task per gRPC stream. It takes a request or one batch at a time and hands the answer to a short queue;
//! when the client does not read, the queue is full and only this task waits.

use std::sync::Arc;

use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Doorway, answer};
use crate::embedded::fault::Fault;
use crate::embedded::kv::KeyRange;
use crate::embedded::watchers::{Event, Pulled, StreamId, Watching};

#[async_trait]
impl PbWatchService for Doorway {
    type WatchStream = ReceiverStream<Result<PbWatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<PbWatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, told) = mpsc::channel(ANSWERS_WAITING_MAX);
        let session = Session::open(self.clone(), answers);
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(told)))
    }
}

struct Session {
    doorway: Doorway,
    stream: StreamId,
    /// Notified when there is something to pull.
    wake: Arc<Notify>,
    answers: mpsc::Sender<Result<PbWatchResponse, Status>>,
}

/// The client does not listen any more.
struct Gone;

enum Turn {
    Asked(PbWatchRequest),
    Ready,
    ProgressDue,
    Left,
    Stopping,
}

impl Session {
    fn open(doorway: Doorway, answers: mpsc::Sender<Result<PbWatchResponse, Status>>) -> Self {
        let wake = Arc::new(Notify::new());
        let stream = doorway.shared.lock().watchers.open(wake.clone());
        Self { doorway, stream, wake, answers }
    }

    async fn run(self, mut requests: Streaming<PbWatchRequest>) {
        let mut stopping = self.doorway.stopping.clone();
        let every = self.doorway.progress_every;
        let mut progress = interval_at(Instant::now() + every, every);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let turn = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => Turn::Asked(request),
                    Ok(None) | Err(_) => Turn::Left,
                },
                () = self.wake.notified() => Turn::Ready,
                _ = progress.tick() => Turn::ProgressDue,
                () = self.answers.closed() => Turn::Left,
                _ = stopping.wait_for(|stopping| *stopping) => Turn::Stopping,
            };
            let done = match turn {
                Turn::Asked(request) => self.answer(request).await,
                Turn::Ready => self.tell_one().await,
                Turn::ProgressDue => self.tell_progress().await,
                Turn::Left => Err(Gone),
                Turn::Stopping => {
                    // Full or closed: then the client is not there to hear it.
                    let _ = self.answers.try_send(Err(Fault::Stopped.into()));
                    Err(Gone)
                }
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, request: PbWatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(PbWatchRequestUnion::CreateRequest(asked)) => {
                // etcd takes no key to be the smallest one.
                let key = if asked.key.is_empty() { vec![0] } else { asked.key };
                let mut watching = Watching {
                    keys: KeyRange::new(key, asked.range_end),
                    from: asked.start_revision,
                    puts: !asked.filters.contains(&FILTER_PUTS),
                    deletes: !asked.filters.contains(&FILTER_DELETES),
                    prev_kv: asked.prev_kv,
                    progress_notify: asked.progress_notify,
                    fragment: asked.fragment,
                };
                let (created, revision) = {
                    let mut state = self.doorway.shared.lock();
                    let revision = state.revision();
                    if watching.from == 0 {
                        watching.from = revision + 1;
                    }
                    (state.watch(self.stream, asked.watch_id, watching), revision)
                };
                let mut told = self.response(revision, *created.as_ref().unwrap_or(&NO_WATCH));
                told.created = true;
                if let Err(fault) = created {
                    told.canceled = true;
                    told.cancel_reason = fault.text().into();
                }
                self.send(told).await
            }
            Some(PbWatchRequestUnion::CancelRequest(asked)) => {
                let revision = {
                    let mut state = self.doorway.shared.lock();
                    // As etcd: silence about a watch there is not.
                    if !state.watchers.cancel(self.stream, asked.watch_id) {
                        return Ok(());
                    }
                    state.revision()
                };
                let told = PbWatchResponse { canceled: true, ..self.response(revision, asked.watch_id) };
                self.send(told).await
            }
            Some(PbWatchRequestUnion::ProgressRequest(_)) => {
                // The revision we state is only true when everything before it has been told.
                let revision = self.doorway.shared.lock().revision();
                while self.owes(revision) {
                    self.tell_one().await?;
                }
                self.send(self.response(revision, NO_WATCH)).await
            }
            None => Ok(()),
        }
    }

    fn owes(&self, revision: i64) -> bool {
        self.doorway.shared.lock().watchers.owes(self.stream, revision)
    }

    async fn tell_one(&self) -> Result<(), Gone> {
        let pulled = self.doorway.shared.lock().pull(self.stream);
        match pulled {
            Pulled::Idle => return Ok(()),
            Pulled::NotYet => {}
            Pulled::Compacted { watch_id, revision } => {
                let told = PbWatchResponse {
                    canceled: true,
                    compact_revision: revision,
                    ..self.response(REVISION_OF_A_COMPACTED_CANCEL, watch_id)
                };
                self.send(told).await?;
            }
            Pulled::Batch { watch_id, revision, events, fragment } => {
                let mut fragments = if fragment { cut(&events) } else { vec![&events[..]] }.into_iter().peekable();
                while let Some(events) = fragments.next() {
                    let mut told = self.response(revision, watch_id);
                    told.events = events.iter().map(answer::event).collect();
                    told.fragment = fragments.peek().is_some();
                    self.send(told).await?;
                }
            }
        }
        // There may be more; requests get their turn in between.
        self.wake.notify_one();
        Ok(())
    }

    async fn tell_progress(&self) -> Result<(), Gone> {
        let (due, revision) = {
            let mut state = self.doorway.shared.lock();
            (state.watchers.due_progress(self.stream), state.revision())
        };
        for watch_id in due {
            self.send(self.response(revision, watch_id)).await?;
        }
        Ok(())
    }

    fn response(&self, revision: i64, watch_id: i64) -> PbWatchResponse {
        PbWatchResponse { header: self.doorway.header(revision), watch_id, ..PbWatchResponse::default() }
    }

    async fn send(&self, told: PbWatchResponse) -> Result<(), Gone> {
        let mut stopping = self.doorway.stopping.clone();
        tokio::select! {
            sent = self.answers.send(Ok(told)) => sent.map_err(|_| Gone),
            _ = stopping.wait_for(|stopping| *stopping) => Err(Gone),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.doorway.shared.lock().watchers.close(self.stream);
    }
}

/// Cuts a batch where a piece would pass the size of one fragment.
fn cut(events: &[Event]) -> Vec<&[Event]> {
    let mut pieces = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, event) in events.iter().enumerate() {
        if bytes + event.size() > FRAGMENT_BYTES && at > start {
            pieces.push(&events[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += event.size();
    }
    pieces.push(&events[start..]);
    pieces
}

/// Answers a client has not taken from us yet, each of about a mebibyte at most; the rest waits in the log.
const ANSWERS_WAITING_MAX: usize = 4;
const FRAGMENT_BYTES: usize = 1536 << 10;
/// What etcd writes where an answer is about no watch.
const NO_WATCH: i64 = -1;
const REVISION_OF_A_COMPACTED_CANCEL: i64 = 0;
const FILTER_PUTS: i32 = 0;
const FILTER_DELETES: i32 = 1;
