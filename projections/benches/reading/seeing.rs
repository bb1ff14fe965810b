//! From a commit to the row that a query finds, by way of relay, broker and projector, while little goes on.

use std::collections::HashMap;
use std::time::Duration;

use cqrs_es::EventStore;
use event_store::broker::Broker;
use event_store::{Behaviour, CommandBus, Log, relay};
use figures::{Failure, Options, Row};
use projections::event::encoder;
use projections::orders::order_details::OrderDetails;
use projections::{Live, projector};
use rand::Rng;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use aggregates::identifiers::OrderId;
use aggregates::orders::{Order, OrderEvent};

use crate::history::{life, open};
use crate::relaying::broker;
use crate::{PATIENCE, sources};

/// Orders placed in a round.
const ORDERS: usize = 400;
/// The same in a quick run.
const QUICK_ORDERS: usize = 20;
/// Orders that are placed before anything is counted.
const WARM_UP: usize = 20;
/// The longest pause between two orders, in microseconds: some 50 orders a second.
const PAUSE_US: u64 = 40_000;
/// How often a row is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Commit → visible in the read model.
pub(crate) async fn measure(server_url: &str, options: &Options) -> Result<Vec<Row>, Failure> {
    let orders = if options.quick { QUICK_ORDERS } else { ORDERS };
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let log = open(server_url, &format!("seeing_{round}")).await?;
        let mut latencies = see(&log, orders).await?;
        latencies.sort_unstable();
        let at = |percent: usize| latencies[latencies.len() * percent / 100].as_secs_f64() * 1_000.0;
        p50.push(at(50));
        p99.push(at(99));
        eprintln!("seeing, round {round}: p50 {:.1} ms, p99 {:.1} ms", at(50), at(99));
    }
    let note = format!("{orders} orders, some 50/s, looked for each millisecond; in-process broker");
    Ok(vec![
        Row::new("commit to visible, p50", "ms", &p50),
        Row::new("commit to visible, p99", "ms", &p99).at_most(25.0).note(note),
    ])
}

/// The first event of an order.
fn placed(order: Uuid) -> OrderEvent {
    let [mut first, ..] = life();
    if let OrderEvent::OrderPlaced { order_id, .. } = &mut first {
        *order_id = OrderId(order);
    }
    first
}

async fn see(log: &Log, orders: usize) -> Result<Vec<Duration>, Failure> {
    let (kafka, config) = broker()?;
    let broker = Broker::new(config);
    let stop = CancellationToken::new();
    let relaying = tokio::spawn(relay::run(log.clone(), broker.clone(), encoder("orders"), stop.clone()));
    let sources = sources(log, Some(broker));
    let projecting = tokio::spawn(projector::run::<OrderDetails>(log.clone(), sources, stop.clone()));
    let bus = CommandBus::<Order>::new(log.clone(), (), Behaviour::default(), 1_000);
    let live = Live::<OrderDetails>::new(log.clone());
    let mut latencies = Vec::with_capacity(orders);
    for number in 0..WARM_UP + orders {
        let order = Uuid::now_v7();
        let id = order.to_string();
        let context = bus.load_aggregate(&id).await?;
        bus.commit(vec![placed(order)], context, HashMap::new()).await?;
        let committed = Instant::now();
        while live.find(&id).await?.is_none() {
            if committed.elapsed() > PATIENCE {
                return Err(format!("order {number}, {id}, never became visible").into());
            }
            sleep(LOOK_AGAIN).await;
        }
        if number >= WARM_UP {
            latencies.push(committed.elapsed());
        }
        let pause = rand::rng().random_range(0..PAUSE_US);
        sleep(Duration::from_micros(pause)).await;
    }
    stop.cancel();
    relaying.await?;
    projecting.await?;
    drop(kafka);
    Ok(latencies)
}
