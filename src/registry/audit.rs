//! A cheap comparison of keys and revisions with etcd, now and then, while the watch goes on: etcd itself has lost events
//! (its issue #17529), and a restore to a higher revision looks like nothing at all.
//!
//! 1. When it is due, etcd's keys are read page by page at one revision and walked beside ours.
//! 2. What the watch edited meanwhile is left out.
//! 3. An event may still be on its way, so what differs is only suspected; what differs in the same way a second later is
//!    drift, and the session lists anew.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::etcd::{Content, Etcd, Page, PageRequest};
use super::fault::Fault;
use super::merge::{Comparison, Differing};
use super::paging::PageSize;
use super::reflector::Reflector;

pub struct Audit {
    due: Instant,
    size: PageSize,
    running: Option<Running>,
    suspects: Differing,
}

struct Running {
    comparison: Comparison,
    request: PageRequest,
    page: BoxFuture<'static, Result<Page, Fault>>,
}

pub enum Turn {
    /// Call `begin`.
    Due,
    /// Call `take`.
    Page(Result<Page, Fault>),
}

impl Audit {
    /// The first one soon: a reconnect is when things get lost.
    pub fn new(now: Instant) -> Self {
        let due = now + FIRST.mul_f64(0.5 + fastrand::f64());
        Self { due, size: PageSize::default(), running: None, suspects: Differing::new() }
    }

    /// Waits for what is to be done next. Safe to drop and ask again.
    pub async fn next(&mut self) -> Turn {
        match &mut self.running {
            Some(running) => Turn::Page((&mut running.page).await),
            None => {
                sleep_until(self.due).await;
                Turn::Due
            }
        }
    }

    pub fn begin(&mut self, etcd: &Etcd, reflector: &mut Reflector) {
        let request = PageRequest { content: Content::Keys, ..PageRequest::default() };
        self.ask(etcd, reflector.begin_comparison(), request);
    }

    /// How many keys have drifted, once that is certain.
    pub fn take(&mut self, page: Result<Page, Fault>, now: Instant, etcd: &Etcd, reflector: &mut Reflector) -> usize {
        let Some(Running { mut comparison, mut request, .. }) = self.running.take() else {
            return 0;
        };
        match page {
            Ok(page) => {
                self.size.learn(page.records.len(), page.n_bytes);
                request.revision.get_or_insert(page.sighting.revision);
                request.after = page.records.last().map(|record| record.key.clone()).or(request.after);
                comparison.page(reflector, page.records);
                if page.is_last {
                    return self.judge(reflector.end_comparison(comparison), now);
                }
                self.ask(etcd, comparison, request);
                0
            }
            Err(Fault::TooLarge) if self.size.shrink() => {
                self.ask(etcd, comparison, request);
                0
            }
            // Whether the connection is dead is the pulse's to find out.
            Err(_) => {
                drop(reflector.end_comparison(comparison));
                self.due = now + AGAIN;
                0
            }
        }
    }

    fn ask(&mut self, etcd: &Etcd, comparison: Comparison, request: PageRequest) {
        let request = PageRequest { n_keys: self.size.keys(), ..request };
        let (etcd, asked) = (etcd.clone(), request.clone());
        let page = Box::pin(async move { etcd.page(&asked).await });
        self.running = Some(Running { comparison, request, page });
    }

    fn judge(&mut self, differing: Differing, now: Instant) -> usize {
        let suspects = std::mem::replace(&mut self.suspects, differing);
        if self.suspects.is_empty() {
            self.due = now + EVERY.mul_f64(0.8 + 0.4 * fastrand::f64());
            return 0;
        }
        self.due = now + AGAIN;
        self.suspects.iter().filter(|(key, disagreement)| suspects.get(*key) == Some(disagreement)).count()
    }
}

const FIRST: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(60);
/// Longer than an event is ever on its way over a living connection.
const AGAIN: Duration = Duration::from_secs(1);
