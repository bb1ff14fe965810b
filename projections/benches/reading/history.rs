//! A log of orders with a past, in both layouts.

use chrono::{DateTime, Utc};
use cqrs_es::DomainEvent;
use embedded::postgres::database_url;
use event_store::Log;
use figures::{Failure, Options};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use uuid::Uuid;

use aggregates::identifiers::{OrderId, ProductId, UserId};
use aggregates::lines::{LineQuantity, OrderLine};
use aggregates::money::{Currency, Money};
use aggregates::orders::{OrderEvent, PaymentStatus};
use aggregates::personal::Personal;

/// Events of the past.
const EVENTS: usize = 1_000_000;
/// The same in a quick run.
const QUICK_EVENTS: usize = 20_000;
/// Orders whose events lie between each other, as those of customers do who buy at the same time.
const SIDE_BY_SIDE: usize = 500;
/// Events of these orders: the first so many of the log are the whole lives of the first orders.
pub(crate) const BLOCK_EVENTS: usize = SIDE_BY_SIDE * LIFE_EVENTS;
/// What happens to an order.
const LIFE_EVENTS: usize = 10;
/// Orders that are written by one statement.
const ORDERS_AT_ONCE: usize = 5_000;
/// Stands for the id of an order until it is written.
const SOME_ORDER: Uuid = Uuid::from_u128(0x0195_51a0_0000_7000_8000_0000_0000_0003);

const WRITE: &str = "
    insert into event_store.events
    select h.head + row_number() over (order by (o.n - 1) / $4, l.n, o.n), 'order', o.id, l.n, l.event_type, '1.0',
           replace(l.payload, $5, o.id)::json, json_build_object('event_id', gen_random_uuid()),
           event_store.partition_of(o.id), clock_timestamp()
    from unnest($1::text[]) with ordinality as o(id, n),
         unnest($2::text[], $3::text[]) with ordinality as l(event_type, payload, n),
         (select coalesce(max(position), 0) as head from event_store.events) h";

/// The tables of postgres-es 0.5, as its `db/init.sql` makes them.
const STOCK_TABLES: &str = "
    create table events (
        aggregate_type text not null,
        aggregate_id   text not null,
        sequence       bigint check (sequence >= 0) not null,
        event_type     text not null,
        event_version  text not null,
        payload        json not null,
        metadata       json not null,
        primary key (aggregate_type, aggregate_id, sequence)
    );
    create table order_view (
        view_id text primary key,
        version bigint check (version >= 0) not null,
        payload json not null
    )";

/// A log of orders with a past.
pub(crate) struct History {
    pub(crate) log: Log,
    /// How many events it has.
    pub(crate) events: usize,
    /// Its orders.
    pub(crate) orders: Vec<String>,
}

impl History {
    /// The same log, as a process sees it that has just started: it has heard of no reader yet.
    pub(crate) fn afresh(&self) -> Result<Log, Failure> {
        let url = self.log.connect_options().to_url_lossy();
        Ok(Log::open(self.log.source(), url.as_str(), [7; 32])?)
    }

    pub(crate) async fn write(server_url: &str, options: &Options) -> Result<Self, Failure> {
        let events = if options.quick { QUICK_EVENTS } else { EVENTS };
        let log = open(server_url, "history").await?;
        let mut connection = log.database().acquire().await?;
        connection.execute(STOCK_TABLES).await?;
        let life = life();
        let types: Vec<String> = life.iter().map(DomainEvent::event_type).collect();
        let payloads: Vec<String> = life.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let orders: Vec<String> = (0..events / life.len()).map(|_| Uuid::now_v7().to_string()).collect();
        for orders in orders.chunks(ORDERS_AT_ONCE) {
            sqlx::query(WRITE)
                .bind(orders)
                .bind(&types)
                .bind(&payloads)
                .bind(SIDE_BY_SIDE as i64)
                .bind(SOME_ORDER.to_string())
                .execute(&mut *connection)
                .await?;
        }
        drop(connection);
        eprintln!("{events} events of {} orders are written", orders.len());
        let history = Self { log, events, orders };
        history.settle().await?;
        Ok(history)
    }

    /// Writes out what was left dirty, so that no row pays for what was done before it.
    pub(crate) async fn settle(&self) -> Result<(), Failure> {
        let mut connection = self.log.database().acquire().await?;
        connection.execute("vacuum (analyze) event_store.events").await?;
        connection.execute("checkpoint").await?;
        Ok(())
    }
}

/// A log in a database of its own.
pub(crate) async fn open(server_url: &str, name: &str) -> Result<Log, Failure> {
    let mut server = PgConnection::connect(server_url).await?;
    server.execute(format!("create database {name}").as_str()).await?;
    let log = Log::open("orders", &database_url(server_url, name), [7; 32])?;
    log.migrate().await?;
    Ok(log)
}

/// What happens to an order of two lines until it is confirmed.
pub(crate) fn life() -> [OrderEvent; LIFE_EVENTS] {
    let user_id = UserId(Uuid::from_u128(0x0195_51a0_0000_7000_8000_0000_0000_0001));
    let [first, second] = [2, 3].map(|number| ProductId(Uuid::from_u128(number)));
    let usd = |minor| Money::new(minor, Currency::USD);
    let line = |product_id, name: &str, quantity, minor| OrderLine {
        product_id,
        name: name.to_owned(),
        quantity,
        unit_price: usd(minor),
    };
    let lines = vec![line(first, "Teapot, blue", 1, 99_999), line(second, "Cup, stoneware", 6, 1_250)];
    let quantities: Vec<LineQuantity> = lines
        .iter()
        .map(|line| LineQuantity { product_id: line.product_id, quantity: line.quantity })
        .collect();
    let total = usd(107_499);
    // As long as a sealed address of three lines.
    let sealed = || Personal::Sealed("c2VhbGVkIHdpdGggdGhlIGtleSBvZiBpdHMgcGVyc29u".repeat(3));
    [
        OrderEvent::OrderPlaced {
            order_id: OrderId(SOME_ORDER),
            user_id,
            lines: lines.clone(),
            total,
            shipping_address: sealed(),
            customer_notes: Some(sealed()),
            from_cart: false,
            pay_within_seconds: 900,
        },
        OrderEvent::OrderLineReserved { product_id: first },
        OrderEvent::OrderLineReserved { product_id: second },
        OrderEvent::OrderAwaitingPayment {
            user_id,
            total,
            pay_by: DateTime::<Utc>::UNIX_EPOCH + chrono::TimeDelta::days(20_000),
        },
        OrderEvent::OrderPaymentAttempted { attempt: 1, payment_status: PaymentStatus::Pending },
        OrderEvent::OrderPaymentAuthorised {
            attempt: 1,
            amount: total,
            payment_status: PaymentStatus::Authorized,
        },
        OrderEvent::OrderCommitting { user_id, lines: quantities },
        OrderEvent::OrderLineCommitted { product_id: first },
        OrderEvent::OrderLineCommitted { product_id: second },
        OrderEvent::OrderConfirmed { user_id, lines, total },
    ]
}
