//! A read model that is built anew from all events.

use figures::{Failure, Options, Row};
use projections::Live;
use projections::orders::order_details::OrderDetails;
use projections::rebuild::{self, Outcome, Silent};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::following::forget;
use crate::history::{BLOCK_EVENTS, History};
use crate::stock::{Stock, agree};
use crate::{memory, sources};

/// Rebuild of a million events.
pub(crate) async fn measure(history: &History, options: &Options) -> Result<Row, Failure> {
    // Whole lives of whole orders; the rate does not depend on how many there are.
    let replayed = BLOCK_EVENTS;
    let (mut ours, mut theirs, mut peak_mib) = (Vec::new(), Vec::new(), 0);
    for round in 1..=options.rounds {
        let stock = Stock::new(history.log.database());
        stock.begin(replayed).await?;
        history.settle().await?;
        theirs.push(stock.replay(replayed).await?);
        memory::begin()?;
        ours.push(rebuild(history).await?);
        peak_mib = peak_mib.max(memory::peak_mib()?);
        let live = Live::<OrderDetails>::new(history.log.clone());
        let order = &history.orders[0];
        let (row, view) = (live.find(order).await?, stock.view(order).await?);
        if !row.zip(view).is_some_and(|(row, view)| agree(&row, &view)) {
            return Err(format!("the row and the view of order {order} differ").into());
        }
        forget(history).await?;
        eprintln!(
            "rebuilding, round {round}: {:.0}/s, QueryReplay {:.0}/s",
            ours[round - 1],
            theirs[round - 1]
        );
    }
    let row = Row::new("rebuild", "events/s", &ours)
        .beside("QueryReplay", &theirs)
        .at_least(200_000.0)
        .at_least_times(100.0)
        .note(format!(
            "order_details, {} events, process at most {peak_mib} MiB; QueryReplay {replayed}",
            history.events
        ));
    Ok(row)
}

/// Rebuilds until the new rows are live; gives events per second.
async fn rebuild(history: &History) -> Result<f64, Failure> {
    let log = &history.afresh()?;
    let started = Instant::now();
    let outcome = rebuild::run::<OrderDetails>(
        log,
        &sources(log, None),
        &rebuild::Options::default(),
        &Silent,
        &CancellationToken::new(),
    )
    .await?;
    let took = started.elapsed();
    match outcome {
        Outcome::Switched(_) => Ok(history.events as f64 / took.as_secs_f64()),
        other => Err(format!("the rebuild ended with {other:?}").into()),
    }
}
