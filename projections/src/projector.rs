//! The projector: it keeps the generations of a read model up with the logs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use event_store::broker::Broker;
use event_store::subscription::{ApplyError, Body, Delivered, Effects, Source, Subscriber, Subscription};
use event_store::{Log, Result, feed};
use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::event::{Happened, reader};
use crate::generations::{self, GRACE_SECONDS, Generation, Status};
use crate::memory::RowMemory;
use crate::read_model::{PersonalData, ReadModel, Rows};
use crate::rebuild;

/// How often the generations are looked at when nothing was notified.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long the projector waits before it tries again after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// The logs read models are made of, by the names of their services, and the way to hear of new events.
#[derive(Clone)]
pub struct Sources {
    /// The logs.
    pub logs: BTreeMap<&'static str, Log>,
    /// Kafka; without it the logs are followed.
    pub broker: Option<Broker>,
}

impl Sources {
    /// What a read model subscribes to.
    ///
    /// # Errors
    /// When a log it needs is not among these.
    pub fn of<M: ReadModel>(&self) -> Result<Vec<Source>> {
        M::FEEDS
            .iter()
            .map(|feed| {
                let log = self.logs.get(feed.service).ok_or_else(|| {
                    event_store::Error::Malformed(format!("{} needs the log of {}", M::NAME, feed.service))
                })?;
                Ok(Source {
                    log: log.clone(),
                    aggregates: feed.aggregates.to_vec(),
                    personal: feed.personal == PersonalData::Opened,
                })
            })
            .collect()
    }
}

/// The rows that a projector of this process wrote last.
pub(crate) type SharedMemory<R> = Arc<Mutex<RowMemory<R>>>;

/// What the projector of a generation remembers, if it is in this process.
pub(crate) fn memory_of<M: ReadModel>(home: &Log, generation: &Generation) -> Option<SharedMemory<M::Row>> {
    home.beside(&generation.subscription())
}

/// Applies events to one generation of a read model.
pub struct Projector<M: ReadModel> {
    schema: String,
    /// Where the rows are.
    home: Log,
    /// Queries of this process find it too: see [`memory_of`].
    memory: SharedMemory<M::Row>,
    /// The logs whose events are needed in their stored form.
    sealed: BTreeMap<&'static str, Log>,
}

impl<M: ReadModel> Projector<M> {
    /// The projector of a generation: the one whose rows queries of this process remember, until the next is made.
    pub fn new(home: &Log, generation: &Generation, sources: &Sources) -> Self {
        let sealed = M::FEEDS
            .iter()
            .filter(|feed| feed.personal == PersonalData::Sealed)
            .filter_map(|feed| Some((feed.service, sources.logs.get(feed.service)?.clone())))
            .collect();
        let memory = SharedMemory::<M::Row>::default();
        home.keep_beside(&generation.subscription(), Arc::clone(&memory));
        Self { schema: generation.schema(), home: home.clone(), memory, sealed }
    }

    /// Replaces published events by their stored form where the sealed fields are needed.
    async fn stored<'a>(&self, batch: &'a [Delivered]) -> Result<Cow<'a, [Delivered]>> {
        if batch.iter().all(|event| matches!(event.body(), Body::Stored(_))) {
            return Ok(Cow::Borrowed(batch));
        }
        let mut batch = batch.to_vec();
        for (service, log) in &self.sealed {
            let published: Vec<i64> = batch
                .iter()
                .filter(|event| *event.source == **service && matches!(event.body(), Body::Published(_)))
                .map(|event| event.position)
                .collect();
            if published.is_empty() {
                continue;
            }
            let mut stored: BTreeMap<i64, Delivered> = feed::read_positions(log.database(), &published)
                .await?
                .into_iter()
                .map(|recorded| (recorded.position, Delivered::stored(*service, recorded)))
                .collect();
            for event in batch.iter_mut().filter(|event| *event.source == **service) {
                if let Some(stored) = stored.remove(&event.position) {
                    *event = stored;
                }
            }
        }
        Ok(Cow::Owned(batch))
    }

    async fn read(&self, batch: &[Delivered]) -> std::result::Result<Vec<Arc<Happened>>, ApplyError> {
        let batch = if self.sealed.is_empty() { Cow::Borrowed(batch) } else { self.stored(batch).await? };
        batch.iter().map(Happened::shared).collect()
    }
}

#[async_trait]
impl<M: ReadModel> Subscriber for Projector<M> {
    async fn prepare(&self, batch: &[Delivered]) -> std::result::Result<Effects, ApplyError> {
        const {
            let is_of_one_type = M::FEEDS.len() == 1 && M::FEEDS[0].aggregates.len() == 1;
            assert!(
                is_of_one_type || !M::OF_ONE_STREAM,
                "rows of aggregates of several types are of several streams"
            );
        }
        if !M::OF_ONE_STREAM {
            return Ok(Effects::Rows);
        }
        let happened = self.read(batch).await?;
        let mut rows = Rows::<M>::default();
        if let Ok(mut memory) = self.memory.lock() {
            rows.recall(&mut memory, &happened)?;
        }
        rows.fetch(self.home.connections(), &self.schema, happened.iter().flat_map(|one| M::keys(one)))
            .await?;
        for happened in &happened {
            rows.fold(happened)?;
        }
        let (changes, to_remember) = rows.changes(&self.schema)?;
        if let Ok(mut memory) = self.memory.lock() {
            memory.stage(to_remember);
        }
        Ok(Effects::Changes(changes))
    }

    fn committed(&self) {
        if let Ok(mut memory) = self.memory.lock() {
            memory.committed();
        }
    }

    fn forget(&self) {
        if let Ok(mut memory) = self.memory.lock() {
            memory.forget();
        }
    }

    async fn write(
        &self,
        batch: &[Delivered],
        transaction: &mut PgConnection,
    ) -> std::result::Result<(), ApplyError> {
        let happened = self.read(batch).await?;
        let mut rows = Rows::<M>::default();
        rows.reserve(transaction, &self.schema, happened.iter().flat_map(|one| M::keys(one))).await?;
        rows.fetch(&mut *transaction, &self.schema, happened.iter().flat_map(|one| M::keys(one))).await?;
        for happened in &happened {
            rows.fold(happened)?;
        }
        rows.store(transaction, &self.schema).await
    }
}

/// The subscription of a generation.
pub(crate) fn subscription<M: ReadModel>(
    home: &Log,
    sources: &Sources,
    generation: &Generation,
) -> Result<Subscription> {
    Ok(Subscription {
        name: generation.subscription(),
        home: home.clone(),
        sources: sources.of::<M>()?,
        subscriber: Arc::new(Projector::<M>::new(home, generation, sources)),
        broker: sources.broker.clone(),
        reader: reader(),
        pace: M::PACE,
    })
}

/// Keeps a read model up until `stop`: the generation that this version of the code reads, and for a while the
/// one it replaced. What an older version built is rebuilt beside it first; what a newer one built is left alone.
pub async fn run<M: ReadModel>(home: Log, sources: Sources, stop: CancellationToken) {
    let mut running: BTreeMap<String, (CancellationToken, JoinHandle<()>)> = BTreeMap::new();
    let mut changes = home.signal().read_models();
    while !stop.is_cancelled() {
        changes.mark_unchanged();
        let pause = match keep::<M>(&home, &sources, &mut running, &stop).await {
            Ok(()) => LOOK_AGAIN,
            Err(error) => {
                tracing::warn!(%error, read_model = M::NAME, "the projector cannot keep its generations yet");
                PAUSE
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            _ = changes.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    for (token, task) in running.into_values() {
        token.cancel();
        if let Err(error) = task.await {
            tracing::error!(%error, read_model = M::NAME, "a projector ended badly");
        }
    }
}

async fn keep<M: ReadModel>(
    home: &Log,
    sources: &Sources,
    running: &mut BTreeMap<String, (CancellationToken, JoinHandle<()>)>,
    stop: &CancellationToken,
) -> Result<()> {
    let live = generations::ensure::<M>(home).await?;
    if live.code_version() < M::VERSION && !rebuild::is_running(home, M::NAME).await? {
        tracing::info!(
            read_model = M::NAME,
            from = live.version,
            "an older version of the read model; rebuilding it"
        );
        rebuild::run::<M>(home, sources, &rebuild::Options::default(), &rebuild::Silent, stop).await?;
    }
    let freshly_retired = Utc::now() - TimeDelta::seconds(GRACE_SECONDS);
    let read = generations::own::<M>(home.database()).await?;
    let is_read =
        |generation: &Generation| read.as_ref().is_some_and(|read| read.version == generation.version);
    let wanted: Vec<Generation> = generations::list(home.database(), M::NAME)
        .await?
        .into_iter()
        // A table of another version of the code has other columns than this fold writes.
        .filter(|generation| generation.code_version() == M::VERSION)
        .filter(|generation| match generation.status {
            Status::Live => true,
            // The processes of this version read on in their newest rows when those of a newer one are live.
            Status::Retired => is_read(generation) || generation.changed_at > freshly_retired,
            // Nobody keeps up what is not finished, and what is to stay in the past.
            Status::Building | Status::Kept => false,
        })
        .collect();
    let over: Vec<String> = running
        .keys()
        .filter(|version| !wanted.iter().any(|generation| generation.version == **version))
        .cloned()
        .collect();
    for version in over {
        if let Some((token, task)) = running.remove(&version) {
            token.cancel();
            if let Err(error) = task.await {
                tracing::error!(%error, read_model = M::NAME, "a projector ended badly");
            }
        }
    }
    running.retain(|_, (_, task)| !task.is_finished());
    for generation in wanted {
        if let Entry::Vacant(new) = running.entry(generation.version.clone()) {
            let subscription = subscription::<M>(home, sources, &generation)?;
            let token = stop.child_token();
            new.insert((token.clone(), tokio::spawn(subscription.run(token))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use embedded::testing;

    use super::*;
    use crate::orders::PriceList;

    #[tokio::test]
    async fn what_is_remembered_stays_when_the_generations_are_looked_at_again() {
        let database = testing::database("keep").await;
        let home = Log::open("orders", &database.url, [7; 32]).expect("the URL is good");
        home.migrate().await.expect("the migrations apply");
        let logs = BTreeMap::from([("orders", home.clone()), ("catalog", home.clone())]);
        let (sources, stop) = (Sources { logs, broker: None }, CancellationToken::new());
        let mut running = BTreeMap::new();
        let mut kept = Vec::new();
        for _ in 0..2 {
            keep::<PriceList>(&home, &sources, &mut running, &stop).await.expect("kept");
            let generation = generations::ensure::<PriceList>(&home).await.expect("it is there");
            kept.push(memory_of::<PriceList>(&home, &generation).expect("it is projected here"));
        }
        assert!(Arc::ptr_eq(&kept[0], &kept[1]));
        stop.cancel();
        for (_, task) in running.into_values() {
            task.await.expect("the projector ends");
        }
    }
}
