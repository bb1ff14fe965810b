//! Batches that are prepared while those before them are.
//!
//! What a process manager does about an event takes as long as a commit. If the next batch began only after that, an
//! event would wait for a commit that has nothing to do with it before its own begins: with ten steps for an order, that is
//! most of the time that the order takes. So a batch begins while others are under way, unless it has an event of a stream
//! that one of them has, too: of one stream nothing is done before what comes first is. What is to be written of a batch, and
//! its checkpoints, follow in the order of the batches. When one cannot be applied, those behind it are prepared again after
//! it: what they have done by then is known by its identity.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::task::Poll;

use futures::FutureExt;
use tokio::task::{JoinError, JoinHandle};

use super::cursor::Batch;
use super::{ApplyError, BATCH_EVENTS, Delivered, Effects, Subscriber};
use crate::panics;

/// How many batches are under way at most.
const BATCHES: usize = 8;
/// How many are kept in order at most, those with nothing to do included.
const KEPT: usize = 64;

/// What is to be written of a batch.
pub(super) type Prepared = std::result::Result<Effects, ApplyError>;

enum Preparation {
    /// None of its events is wanted.
    Needless,
    Begun(JoinHandle<Prepared>),
    Done(Prepared),
}

struct Preparing {
    source: usize,
    batch: Arc<Batch>,
    preparation: Preparation,
}

impl Preparing {
    /// Notes whether it is prepared by now.
    fn look(&mut self) {
        if let Preparation::Begun(task) = &mut self.preparation
            && let Some(done) = task.now_or_never()
        {
            self.preparation = Preparation::Done(ended(done));
        }
    }
}

/// The stream of an event: an aggregate is of one source.
fn stream(event: &Delivered) -> (&str, &str) {
    (&event.aggregate_id, &event.aggregate_type)
}

/// A batch that nothing is ahead of any more.
pub(super) struct Ready {
    /// The place of its source in the subscription.
    pub(super) source: usize,
    pub(super) batch: Arc<Batch>,
    /// None when it has no events.
    pub(super) prepared: Option<Prepared>,
}

/// Batches in the order in which they were begun.
#[derive(Default)]
pub(super) struct Underway {
    batches: VecDeque<Preparing>,
    events: usize,
}

impl Underway {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether a batch may begin.
    pub(super) fn has_room_for(&mut self, batch: &Batch) -> bool {
        if self.is_empty() {
            return true;
        }
        if self.batches.len() >= KEPT {
            return false;
        }
        let streams: HashSet<(&str, &str)> = batch.events.iter().map(stream).collect();
        let mut preparing = 0;
        for ahead in &mut self.batches {
            ahead.look();
            match &ahead.preparation {
                Preparation::Needless => {}
                Preparation::Done(Ok(_)) => preparing += 1,
                Preparation::Done(Err(_)) => return false,
                Preparation::Begun(_) => {
                    preparing += 1;
                    if ahead.batch.events.iter().any(|event| streams.contains(&stream(event))) {
                        return false;
                    }
                }
            }
        }
        preparing == 0 || (preparing < BATCHES && self.events + batch.events.len() <= BATCH_EVENTS)
    }

    /// Begins a batch. It goes on by itself when its commands are in their queues.
    pub(super) async fn begin(&mut self, subscriber: &Arc<dyn Subscriber>, source: usize, batch: Batch) {
        let batch = Arc::new(batch);
        let preparation = if batch.events.is_empty() {
            Preparation::Needless
        } else {
            let (subscriber, batch) = (Arc::clone(subscriber), Arc::clone(&batch));
            let mut preparing =
                Box::pin(async move { panics::blamed(subscriber.prepare(&batch.events)).await });
            match futures::poll!(&mut preparing) {
                Poll::Ready(done) => Preparation::Done(done),
                Poll::Pending => Preparation::Begun(tokio::spawn(preparing)),
            }
        };
        self.events += batch.events.len();
        self.batches.push_back(Preparing { source, batch, preparation });
    }

    /// Waits until the first one is prepared; for ever when there is none. Nothing is lost when the wait is given up.
    pub(super) async fn first_done(&mut self) {
        match self.batches.front_mut() {
            Some(first) => {
                if let Preparation::Begun(task) = &mut first.preparation {
                    first.preparation = Preparation::Done(ended(task.await));
                }
            }
            None => std::future::pending().await,
        }
    }

    /// The first one, if it is prepared.
    pub(super) fn take_done(&mut self) -> Option<Ready> {
        let first = self.batches.front_mut()?;
        first.look();
        if matches!(first.preparation, Preparation::Begun(_)) {
            return None;
        }
        let Preparing { source, batch, preparation } = self.batches.pop_front()?;
        self.events -= batch.events.len();
        let prepared = match preparation {
            Preparation::Done(prepared) => Some(prepared),
            Preparation::Needless | Preparation::Begun(_) => None,
        };
        Some(Ready { source, batch, prepared })
    }

    /// Lets all of them end, and gives them back to be prepared anew.
    pub(super) async fn give_up(&mut self) -> Vec<(usize, Arc<Batch>)> {
        let mut batches = Vec::with_capacity(self.batches.len());
        while !self.is_empty() {
            self.first_done().await;
            batches.extend(self.take_done().map(|Ready { source, batch, .. }| (source, batch)));
        }
        batches
    }
}

fn ended(ended: Result<Prepared, JoinError>) -> Prepared {
    match ended {
        Ok(prepared) => prepared,
        // The runtime is ending.
        Err(_) => Err(crate::Error::ShuttingDown.into()),
    }
}
