//! A read model that follows a log from its beginning, as after an outage.

use event_store::read_your_writes::Place;
use figures::{Failure, Options, Row};
use projections::generations;
use projections::orders::order_details::OrderDetails;
use projections::{Live, ReadModel, projector};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::history::{BLOCK_EVENTS, History, life};
use crate::stock::{Stock, agree};
use crate::{PATIENCE, sources};

/// Orders of the first block whose events the stock way follows: its rate does not depend on how many there are.
const STOCK_ORDERS: usize = 400;
/// The same in a quick run.
const QUICK_STOCK_ORDERS: usize = 20;

/// Live projection from a backlog.
pub(crate) async fn measure(history: &History, options: &Options) -> Result<Row, Failure> {
    let orders = if options.quick { QUICK_STOCK_ORDERS } else { STOCK_ORDERS };
    let orders = &history.orders[..orders.min(history.orders.len())];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let stock = Stock::new(history.log.database());
        stock.begin(BLOCK_EVENTS).await?;
        let events = stock.events(orders).await?;
        history.settle().await?;
        theirs.push(stock.follow(&events).await?);
        ours.push(follow(history).await?);
        let live = Live::<OrderDetails>::new(history.log.clone());
        for order in [&orders[0], &orders[orders.len() - 1]] {
            let (row, view) = (live.find(order).await?, stock.view(order).await?);
            let same = row.zip(view).is_some_and(|(row, view)| agree(&row, &view));
            if !same {
                return Err(format!("the row and the view of order {order} differ").into());
            }
        }
        forget(history).await?;
        eprintln!(
            "following, round {round}: {:.0}/s, GenericQuery {:.0}/s",
            ours[round - 1],
            theirs[round - 1]
        );
    }
    let row = Row::new("live projection from a backlog", "events/s", &ours)
        .beside("GenericQuery", &theirs)
        .at_least(50_000.0)
        .at_least_times(50.0)
        .note(format!(
            "order_details, {} events; GenericQuery {}",
            history.events,
            orders.len() * life().len()
        ));
    Ok(row)
}

/// Runs the projector until it has caught up; gives events per second.
async fn follow(history: &History) -> Result<f64, Failure> {
    let log = &history.afresh()?;
    generations::ensure::<OrderDetails>(log).await?;
    let stop = CancellationToken::new();
    let started = Instant::now();
    let running = tokio::spawn(projector::run::<OrderDetails>(log.clone(), sources(log, None), stop.clone()));
    let place = Place { source: "orders".to_owned(), partition: None, position: history.events as i64 };
    let live = Live::<OrderDetails>::new(log.clone());
    let reached = live.wait(&place, Some(log.database()), PATIENCE).await?;
    let took = started.elapsed();
    stop.cancel();
    running.await?;
    if !reached {
        return Err(format!("{} did not catch up", OrderDetails::NAME).into());
    }
    Ok(history.events as f64 / took.as_secs_f64())
}

/// Drops all generations, so that the next round begins anew.
pub(crate) async fn forget(history: &History) -> Result<(), Failure> {
    for generation in generations::list(history.log.database(), OrderDetails::NAME).await? {
        generations::drop(history.log.database(), &generation).await?;
    }
    Ok(())
}
