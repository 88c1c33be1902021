//! One timer for a whole connection. A wait only says when it is over; the timer itself is touched when a deadline is
//! earlier than all before it, or when it has rung too early. So the usual request sets none.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

pub struct Alarm {
    due: Instant,
    /// Made with the first wait.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    pub fn new(due: Instant) -> Self {
        Self { due, sleep: None }
    }

    pub fn set(&mut self, due: Instant) {
        self.due = due;
    }

    /// Ready once the time that was set last has come.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.due;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due.into())));
        if sleep.deadline().into_std() > due {
            sleep.as_mut().reset(due.into());
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due.into());
        }
        Poll::Pending
    }
}
