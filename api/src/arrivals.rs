//! Waiting for an aggregate to change, by whatever process: an order for its stock, a payment for the gateway.
//!
//! One task per log follows its head while anybody waits and wakes those whose aggregate has a new event; so
//! a thousand waiters cost one look at the log, not a thousand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_es::Aggregate;
use event_store::execute::Loaded;
use event_store::{CommandBus, Log, Result, feed};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How many events are looked at in one go.
const CHUNK_EVENTS: i64 = 5_000;
/// How long a waiter trusts to be told before it looks for itself.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long a command of this process may have an aggregate before a waiter reads what that has become: looked for so
/// often, with such a pause.
const LOOKS_FOR_A_COMMAND: u32 = 10;
const PAUSE_FOR_A_COMMAND: Duration = Duration::from_millis(1);

/// Those who wait for one aggregate.
#[derive(Default)]
struct Place {
    woken: Notify,
    /// The position of the last event they were told of.
    told: AtomicI64,
}

/// How many wait for each aggregate, and what wakes them.
type Places = Arc<Mutex<HashMap<String, (usize, Arc<Place>)>>>;

/// Wakes those who wait for aggregates of one log.
#[derive(Clone)]
pub struct Arrivals {
    waiting: Places,
    _guard: Arc<DropGuard>,
}

/// A seat among those who wait for an aggregate. Whoever has it is told of all that happens from then on, so who takes
/// it before a command need not read what came of that.
pub struct Seat {
    arrivals: Arrivals,
    aggregate_id: String,
    place: Arc<Place>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Ok(mut waiting) = self.arrivals.waiting.lock()
            && let Some((seats, _)) = waiting.get_mut(&self.aggregate_id)
        {
            *seats -= 1;
            if *seats == 0 {
                waiting.remove(&self.aggregate_id);
            }
        }
    }
}

impl Arrivals {
    /// Follows a log.
    pub fn start(log: Log) -> Self {
        let stop = CancellationToken::new();
        let waiting = Places::default();
        let (places, token) = (Arc::clone(&waiting), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = follow(log, places) => {}
            }
        });
        Self { waiting, _guard: Arc::new(stop.drop_guard()) }
    }

    /// Waits until an aggregate is as wanted; gives its state then, or as it is after `limit`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn wait_for<A>(
        &self,
        bus: &CommandBus<A>,
        aggregate_id: &str,
        limit: Duration,
        wanted: impl Fn(&A) -> bool,
    ) -> Result<Loaded<A>>
    where
        A: Aggregate + Clone + 'static,
        A::Command: Clone + Send + Sync,
        A::Error: Send + Sync + 'static,
    {
        self.seat(aggregate_id).wait_for(bus, None, limit, wanted).await
    }

    /// Takes a seat among those who wait for an aggregate.
    pub fn seat(&self, aggregate_id: &str) -> Seat {
        let place = match self.waiting.lock() {
            Ok(mut waiting) => {
                let (seats, place) = waiting.entry(aggregate_id.to_owned()).or_default();
                *seats += 1;
                Arc::clone(place)
            }
            Err(_) => Arc::default(),
        };
        Seat { arrivals: self.clone(), aggregate_id: aggregate_id.to_owned(), place }
    }
}

impl Seat {
    /// The aggregate that is waited for.
    pub fn aggregate_id(&self) -> &str {
        &self.aggregate_id
    }

    /// Waits until the aggregate is as wanted; gives its state then, or as it is after `limit`. A version that it had
    /// after the seat was taken, if the caller knows one, spares the first look into the log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn wait_for<A>(
        &self,
        bus: &CommandBus<A>,
        mut known: Option<i64>,
        limit: Duration,
        wanted: impl Fn(&A) -> bool,
    ) -> Result<Loaded<A>>
    where
        A: Aggregate + Clone + 'static,
        A::Command: Clone + Send + Sync,
        A::Error: Send + Sync + 'static,
    {
        let deadline = Instant::now() + limit;
        let mut is_trusted = true;
        loop {
            let woken = self.place.woken.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let told = self.place.told.load(Ordering::Acquire);
            // What this process did itself it need not read.
            let remembered = match known {
                Some(known) => self.remembered(bus, known).await,
                None => None,
            };
            let is_newest = |state: &Loaded<A>| state.position().is_some_and(|position| position >= told);
            let state = match remembered {
                Some(state) if wanted(&state.aggregate) => return Ok(state),
                Some(state) if is_trusted && is_newest(&state) => state,
                Some(_) | None => bus.load(&self.aggregate_id).await?,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if wanted(&state.aggregate) || left.is_zero() {
                return Ok(state);
            }
            known = Some(state.version);
            is_trusted = tokio::time::timeout(left.min(LOOK_AGAIN), woken).await.is_ok();
        }
    }

    /// The aggregate as this process remembers it, if that is not older than a version. A command that has it is waited
    /// for: it takes a commit, and to read the aggregate costs more.
    async fn remembered<A>(&self, bus: &CommandBus<A>, version: i64) -> Option<Loaded<A>>
    where
        A: Aggregate + Clone + 'static,
        A::Command: Clone + Send + Sync,
        A::Error: Send + Sync + 'static,
    {
        for _ in 0..LOOKS_FOR_A_COMMAND {
            if let Some(state) = bus.remembered(&self.aggregate_id) {
                return (state.version >= version).then_some(state);
            }
            if !bus.is_at_work(&self.aggregate_id) {
                return None;
            }
            tokio::time::sleep(PAUSE_FOR_A_COMMAND).await;
        }
        None
    }
}

async fn follow(log: Log, waiting: Places) {
    let mut own = log.follow();
    let mut head = log.signal().head();
    let mut seen = *head.borrow_and_update();
    loop {
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return },
            () = own.arrived() => {}
        }
        while let Some((batch, from)) = own.next(seen) {
            let events = &batch[from..];
            wake(&waiting, events.iter().map(|event| (event.position, event.aggregate_id.as_str())));
            seen += events.len() as i64;
        }
        let upto = *head.borrow_and_update();
        let anybody = waiting.lock().is_ok_and(|waiting| !waiting.is_empty());
        // Whoever takes a seat after this looks for itself first, or gives a command first, so nothing is missed by
        // skipping.
        if !anybody {
            seen = upto.max(seen);
            continue;
        }
        while seen < upto {
            match feed::touched(log.connections(), seen, CHUNK_EVENTS).await {
                Ok(touched) => {
                    let Some((last, _)) = touched.last() else { break };
                    seen = *last;
                    wake(&waiting, touched.iter().map(|(position, id)| (*position, id.as_str())));
                }
                Err(error) => {
                    tracing::debug!(%error, "arrivals cannot be seen; waiters look for themselves");
                    break;
                }
            }
        }
    }
}

/// Tells those who wait for any of these aggregates of its event.
fn wake<'a>(waiting: &Places, events: impl Iterator<Item = (i64, &'a str)>) {
    if let Ok(waiting) = waiting.lock() {
        for (position, id) in events {
            if let Some((_, place)) = waiting.get(id) {
                place.told.fetch_max(position, Ordering::Release);
                place.woken.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aggregates::identifiers::{OrderId, UserId};
    use aggregates::money::{Currency, Money};
    use aggregates::payments::{Payment, PaymentCommand, Stage};
    use embedded::postgres::database_url;
    use embedded::testing::{self, TemporaryPostgres, TestDatabase};
    use event_store::log::create_database;
    use event_store::{Context, Target};
    use uuid::Uuid;

    use super::*;
    use crate::services::bus;

    /// How long something may take that is sure to come.
    const PATIENCE: Duration = Duration::from_secs(10);
    const ID: &str = "a payment";

    fn log(url: &str) -> Log {
        Log::open("payments", url, [7; 32]).expect("the URL is good")
    }

    /// The log as two processes have it open.
    async fn two_processes() -> (TestDatabase, Log, Log) {
        let database = testing::database("arrivals").await;
        let (here, elsewhere) = (log(&database.url), log(&database.url));
        here.migrate().await.expect("the migrations apply");
        (database, here, elsewhere)
    }

    async fn give(payments: &CommandBus<Payment>, command: PaymentCommand) -> i64 {
        let target = Target::Existing(ID.to_owned());
        payments.execute(target, command, Context::default()).await.expect("accepted").sequence
    }

    async fn open(payments: &CommandBus<Payment>) -> i64 {
        let (order_id, user_id) = (OrderId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        let amount = Money::new(1_999, Currency::USD);
        give(payments, PaymentCommand::Open { order_id, user_id, amount }).await
    }

    async fn request(payments: &CommandBus<Payment>) -> i64 {
        let command = PaymentCommand::RequestAttempt {
            token: "tok".to_owned(),
            card_brand: "visa".to_owned(),
            card_last4: "4242".to_owned(),
            paid_by: UserId(Uuid::from_u128(2)),
            by_admin: false,
            amount: None,
        };
        give(payments, command).await
    }

    fn is_requested(payment: &Payment) -> bool {
        payment.account().is_some_and(|account| matches!(account.stage, Stage::Requested(_)))
    }

    #[tokio::test]
    async fn what_another_process_did_since_is_read_and_not_remembered_otherwise() {
        let (_database, here, elsewhere) = two_processes().await;
        let payments = bus(&here);
        let seat = Arrivals::start(here).seat(ID);
        let opened = open(&payments).await;
        let requested = request(&bus(&elsewhere)).await;
        let told = async {
            while seat.place.told.load(Ordering::Acquire) < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("it is told of the event of the other process");

        assert_eq!(payments.remembered(ID).map(|state| state.version), Some(opened));
        let state = seat.wait_for(&payments, Some(opened), Duration::ZERO, is_requested).await;
        assert_eq!(state.expect("the log can be read").version, requested);
    }

    #[tokio::test]
    async fn who_is_told_nothing_looks_for_itself() {
        let (_database, here, elsewhere) = two_processes().await;
        let payments = bus(&here);
        let opened = open(&payments).await;
        let requested = request(&bus(&elsewhere)).await;
        // Nobody tells this place of anything.
        let (arrivals, place) = (Arrivals::start(here), Arc::default());
        let seat = Seat { arrivals, aggregate_id: ID.to_owned(), place };
        let state = seat.wait_for(&payments, Some(opened), PATIENCE, is_requested).await;
        assert_eq!(state.expect("the log can be read").version, requested);
    }

    #[tokio::test]
    async fn what_this_process_did_itself_is_not_read() {
        let server = TemporaryPostgres::start().await.expect("a server");
        create_database(&server.server_url(), "payments").await.expect("created");
        let log = log(&database_url(&server.server_url(), "payments"));
        log.migrate().await.expect("the migrations apply");
        let payments = bus(&log);
        let arrivals = Arrivals::start(log);
        let (seat, unsure) = (arrivals.seat(ID), arrivals.seat(ID));
        let opened = open(&payments).await;
        request(&payments).await;
        server.stop().await;
        let state = seat.wait_for(&payments, Some(opened), PATIENCE, is_requested).await;
        assert_eq!(state.expect("nothing was read").version, opened + 1);
        let state = seat.wait_for(&payments, Some(opened), Duration::ZERO, |_| false).await;
        assert_eq!(state.expect("nothing was read").version, opened + 1, "not as wanted, but the newest");
        assert!(unsure.wait_for(&payments, None, PATIENCE, is_requested).await.is_err());
    }
}
