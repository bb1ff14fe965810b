//! All read models, by the services they belong to, for whoever runs them without knowing them.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::time::Duration;

use async_trait::async_trait;
use event_store::read_your_writes::{self, Place};
use event_store::subscription::retry_parked as retry;
use event_store::{Error, Log, Result};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::generations::{self, Generation};
use crate::live::Live;
use crate::projector::{self, Projector, Sources};
use crate::read_model::ReadModel;
use crate::rebuild::{self, Options, Outcome, Progress};
use crate::{catalog, inventory, notifications, orders, payments, users};

/// Every read model, with the service in whose database it stands.
static ALL: &[(&str, &dyn Kept)] = &[
    ("users", &Entry::<users::UserDirectory>::NEW),
    ("catalog", &Entry::<catalog::ProductListing>::NEW),
    ("inventory", &Entry::<inventory::StockLevels>::NEW),
    ("orders", &Entry::<orders::PriceList>::NEW),
    ("orders", &Entry::<orders::Customers>::NEW),
    ("orders", &Entry::<orders::CartContents>::NEW),
    ("orders", &Entry::<orders::OrderDetails>::NEW),
    ("payments", &Entry::<payments::Payments>::NEW),
    ("notifications", &Entry::<notifications::MessageLog>::NEW),
];

/// What became of the events that waited for a read model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reordered {
    /// How many were applied.
    pub applied: u64,
    /// The streams that still cannot go on, with the reason.
    pub stuck: Vec<(String, String)>,
}

/// What can be done with a read model without knowing which one it is.
#[async_trait]
trait Kept: Send + Sync {
    fn name(&self) -> &'static str;
    fn services(&self) -> Vec<&'static str>;
    fn run(&self, home: Log, sources: Sources, stop: CancellationToken) -> JoinHandle<()>;
    fn reader(&self, home: Log) -> Box<dyn Reader>;
    async fn ensure(&self, home: &Log) -> Result<Generation>;
    async fn rebuild(
        &self,
        home: &Log,
        sources: &Sources,
        options: &Options,
        progress: &dyn Progress,
        stop: &CancellationToken,
    ) -> Result<Outcome>;
    async fn drop_old(&self, home: &Log) -> Result<usize>;
    async fn retry_parked(&self, home: &Log, sources: &Sources) -> Result<Reordered>;
}

/// The live generation of a read model, whichever it is.
#[async_trait]
trait Reader: Send + Sync {
    fn reads(&self, source: &str) -> bool;
    async fn subscription(&self) -> Result<String>;
}

struct Entry<M>(PhantomData<fn() -> M>);

impl<M> Entry<M> {
    const NEW: Self = Self(PhantomData);
}

#[async_trait]
impl<M: ReadModel> Kept for Entry<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn services(&self) -> Vec<&'static str> {
        M::FEEDS.iter().map(|feed| feed.service).collect()
    }

    fn run(&self, home: Log, sources: Sources, stop: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(projector::run::<M>(home, sources, stop))
    }

    fn reader(&self, home: Log) -> Box<dyn Reader> {
        Box::new(Live::<M>::new(home))
    }

    async fn ensure(&self, home: &Log) -> Result<Generation> {
        generations::ensure::<M>(home).await
    }

    async fn rebuild(
        &self,
        home: &Log,
        sources: &Sources,
        options: &Options,
        progress: &dyn Progress,
        stop: &CancellationToken,
    ) -> Result<Outcome> {
        rebuild::run::<M>(home, sources, options, progress, stop).await
    }

    async fn drop_old(&self, home: &Log) -> Result<usize> {
        rebuild::drop_old::<M>(home).await
    }

    async fn retry_parked(&self, home: &Log, sources: &Sources) -> Result<Reordered> {
        let live = generations::ensure::<M>(home).await?;
        let projector = Projector::<M>::new(home, &live, sources);
        let retried = retry(home, &live.subscription(), &sources.of::<M>()?, &projector).await?;
        Ok(Reordered { applied: retried.applied, stuck: retried.stuck })
    }
}

#[async_trait]
impl<M: ReadModel> Reader for Live<M> {
    fn reads(&self, source: &str) -> bool {
        M::FEEDS.iter().any(|feed| feed.service == source)
    }

    async fn subscription(&self) -> Result<String> {
        Ok(self.generation().await?.subscription())
    }
}

fn of_service(service: &str) -> impl Iterator<Item = &'static dyn Kept> {
    ALL.iter().filter(move |(home, _)| *home == service).map(|(_, kept)| *kept)
}

fn named(name: &str) -> Result<&'static dyn Kept> {
    let found = ALL.iter().map(|(_, kept)| *kept).find(|kept| kept.name() == name);
    found.ok_or_else(|| Error::Malformed(format!("there is no read model {name}")))
}

/// The names of a service's read models.
#[must_use]
pub fn names(service: &str) -> Vec<&'static str> {
    of_service(service).map(Kept::name).collect()
}

/// The names of all read models.
#[must_use]
pub fn all_names() -> Vec<&'static str> {
    ALL.iter().map(|(_, kept)| kept.name()).collect()
}

/// The service in whose database a read model stands.
#[must_use]
pub fn home_of(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(_, kept)| kept.name() == name).map(|(service, _)| *service)
}

/// The services whose logs the read models of a service are made of.
#[must_use]
pub fn services_needed(service: &str) -> BTreeSet<&'static str> {
    of_service(service).flat_map(Kept::services).collect()
}

/// The services whose logs a read model is made of.
///
/// # Errors
/// When there is no such read model.
pub fn sources_of(name: &str) -> Result<Vec<&'static str>> {
    Ok(named(name)?.services())
}

/// Makes what a service's read models need in its database, unless it is there.
///
/// # Errors
/// When the database is unreachable.
pub async fn ensure_all(service: &str, home: &Log) -> Result<()> {
    for kept in of_service(service) {
        kept.ensure(home).await?;
    }
    Ok(())
}

/// Keeps the read models of a service up until `stop`, each in a task of its own.
#[must_use]
pub fn run_projectors(
    service: &str,
    home: &Log,
    sources: &Sources,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    of_service(service).map(|kept| kept.run(home.clone(), sources.clone(), stop.clone())).collect()
}

/// Rebuilds a read model: see [`rebuild::run`].
///
/// # Errors
/// When there is no such read model, or as [`rebuild::run`].
pub async fn rebuild(
    name: &str,
    home: &Log,
    sources: &Sources,
    options: &Options,
    progress: &dyn Progress,
    stop: &CancellationToken,
) -> Result<Outcome> {
    named(name)?.rebuild(home, sources, options, progress, stop).await
}

/// The generations of a read model, oldest first.
///
/// # Errors
/// When there is no such read model, or the database is unreachable.
pub async fn generations(name: &str, home: &Log) -> Result<Vec<Generation>> {
    generations::list(home.database(), named(name)?.name()).await
}

/// Drops the generations of a read model that are not live. Says how many.
///
/// # Errors
/// When there is no such read model, or the database is unreachable.
pub async fn drop_old(name: &str, home: &Log) -> Result<usize> {
    named(name)?.drop_old(home).await
}

/// Applies the events that wait for the live generation of a read model.
///
/// # Errors
/// When there is no such read model, or the database is unreachable.
pub async fn retry_parked(name: &str, home: &Log, sources: &Sources) -> Result<Reordered> {
    named(name)?.retry_parked(home, sources).await
}

/// Waits once as [`Readers::wait_all`] does. Whoever waits often keeps [`Readers`].
///
/// # Errors
/// When the database is unreachable.
pub async fn wait_all(
    service: &str,
    home: &Log,
    place: &Place,
    source: Option<&PgPool>,
    limit: Duration,
) -> Result<bool> {
    Readers::new(service, home).wait_all(place, source, limit).await
}

/// The read models of a service, for those who wait until all of them show a write. Made once and kept: it
/// remembers which generations are live.
pub struct Readers {
    home: Log,
    readers: Vec<Box<dyn Reader>>,
}

impl Readers {
    /// The read models of a service in the database of its log.
    #[must_use]
    pub fn new(service: &str, home: &Log) -> Self {
        let readers = of_service(service).map(|kept| kept.reader(home.clone())).collect();
        Self { home: home.clone(), readers }
    }

    /// Waits until every read model that is made of `place.source` has applied it; says whether all have
    /// within `limit`. `source` is the database of the place's log, for a place whose partition is not known.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub async fn wait_all(&self, place: &Place, source: Option<&PgPool>, limit: Duration) -> Result<bool> {
        let mut subscriptions = Vec::with_capacity(self.readers.len());
        for reader in self.readers.iter().filter(|reader| reader.reads(&place.source)) {
            subscriptions.push(reader.subscription().await?);
        }
        if subscriptions.is_empty() {
            return Ok(true);
        }
        let subscriptions: Vec<&str> = subscriptions.iter().map(String::as_str).collect();
        read_your_writes::wait(&self.home, &subscriptions, place, source, limit).await
    }
}
