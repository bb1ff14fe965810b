//! The same view the way of cqrs-es: a `View` behind a `GenericQuery`, kept by postgres-es, with the fold of the
//! read model.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use cqrs_es::persist::{GenericQuery, PersistedEventRepository, QueryReplay, ViewRepository};
use cqrs_es::{EventEnvelope, Query, View};
use figures::Failure;
use postgres_es::{PostgresEventRepository, PostgresViewRepository};
use projections::orders::order_details::{OrderDetails, OrderRow};
use projections::{Event, Happened, ReadModel};
use serde::{Deserialize, Serialize};
use sqlx::{Executor, PgPool};
use tokio::time::Instant;
use uuid::Uuid;

use aggregates::orders::Order;

/// The view of an order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OrderView(pub(crate) Option<OrderRow>);

impl View<Order> for OrderView {
    fn update(&mut self, event: &EventEnvelope<Order>) {
        let happened = Happened {
            event_id: Uuid::nil(),
            source: "orders",
            position: 0,
            aggregate_id: event.aggregate_id.clone(),
            sequence: event.sequence as i64,
            recorded_at: DateTime::<Utc>::UNIX_EPOCH,
            actor: None,
            event: Event::Order(event.payload.clone()),
        };
        self.0 = OrderDetails::fold(self.0.take(), &event.aggregate_id, &happened)
            .expect("the history has no event that makes no sense");
    }
}

type Views = PostgresViewRepository<OrderView, Order>;

/// The first error of a query, which cqrs-es tells nobody else.
type Trouble = Arc<Mutex<Option<String>>>;

/// The stock way on a database that has its tables.
pub(crate) struct Stock {
    pool: PgPool,
    views: Arc<Views>,
}

impl Stock {
    pub(crate) fn new(pool: &PgPool) -> Self {
        Self { pool: pool.clone(), views: Arc::new(PostgresViewRepository::new("order_view", pool.clone())) }
    }

    /// Forgets all, and takes the first events of the log into its own table.
    pub(crate) async fn begin(&self, events: usize) -> Result<(), Failure> {
        self.pool.execute("truncate order_view, events").await?;
        let copy = "insert into events select aggregate_type, aggregate_id, sequence, event_type, event_version, \
                    payload, metadata from event_store.events where position <= $1";
        sqlx::query(copy).bind(events as i64).execute(&self.pool).await?;
        self.pool.execute("analyze events").await?;
        Ok(())
    }

    /// Hands events to a `GenericQuery` as the framework does after each command; gives events per second.
    pub(crate) async fn follow(&self, events: &[EventEnvelope<Order>]) -> Result<f64, Failure> {
        let (query, trouble) = self.query();
        let started = Instant::now();
        for event in events {
            query.dispatch(&event.aggregate_id, std::slice::from_ref(event)).await;
        }
        let took = started.elapsed();
        without(&trouble)?;
        Ok(events.len() as f64 / took.as_secs_f64())
    }

    /// Replays its whole table by `QueryReplay`; gives events per second.
    pub(crate) async fn replay(&self, events: usize) -> Result<f64, Failure> {
        let (query, trouble) = self.query();
        let repository = PostgresEventRepository::new(self.pool.clone());
        let mut replay = QueryReplay::<_, _, Order>::new(repository, query);
        let noted = Arc::clone(&trouble);
        replay.use_error_handler(Box::new(move |error| note(&noted, &error.to_string())));
        let started = Instant::now();
        replay.replay_all().await?;
        let took = started.elapsed();
        without(&trouble)?;
        Ok(events as f64 / took.as_secs_f64())
    }

    /// The first events of the log, as the framework hands them on.
    pub(crate) async fn events(&self, orders: &[String]) -> Result<Vec<EventEnvelope<Order>>, Failure> {
        let repository = PostgresEventRepository::new(self.pool.clone());
        let mut events = Vec::new();
        for order in orders {
            for event in repository.get_events::<Order>(order).await? {
                events.push(EventEnvelope {
                    aggregate_id: event.aggregate_id,
                    sequence: event.sequence,
                    payload: serde_json::from_value(event.payload)?,
                    metadata: serde_json::from_value(event.metadata)?,
                });
            }
        }
        // The events of orders lie between each other, as in the log.
        events.sort_by_key(|event| event.sequence);
        Ok(events)
    }

    /// The view of an order.
    pub(crate) async fn view(&self, order: &str) -> Result<Option<OrderRow>, Failure> {
        Ok(self.views.load(order).await?.and_then(|view| view.0))
    }

    fn query(&self) -> (GenericQuery<Views, OrderView, Order>, Trouble) {
        let trouble = Trouble::default();
        let mut query = GenericQuery::new(Arc::clone(&self.views));
        let noted = Arc::clone(&trouble);
        query.use_error_handler(Box::new(move |error| note(&noted, &error.to_string())));
        (query, trouble)
    }
}

fn note(trouble: &Trouble, error: &str) {
    if let Ok(mut first) = trouble.lock() {
        first.get_or_insert_with(|| error.to_owned());
    }
}

fn without(trouble: &Trouble) -> Result<(), Failure> {
    match trouble.lock().map(|mut first| first.take()) {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error.into()),
        Err(_) => Err("an error handler panicked".into()),
    }
}

/// Whether a row and a view say the same; the view does not know when its events were recorded, and the row was
/// opened for a query.
pub(crate) fn agree(row: &OrderRow, view: &OrderRow) -> bool {
    let told = |row: &OrderRow| {
        (
            row.id,
            row.lines.clone(),
            row.total_minor,
            row.order_status,
            row.payment_status,
            row.pay_by,
            row.version,
        )
    };
    told(row) == told(view)
}
