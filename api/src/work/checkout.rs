//! The timed work of checkout: orders that were not paid expire.

use std::time::Duration;

use event_store::append::CommandKey;
use event_store::timers::{Done, Due, Queue};
use event_store::{Context, ExecuteError, Target};

use aggregates::identifiers::derive;
use aggregates::orders::checkout::{Checkout, CheckoutJob};
use aggregates::orders::{OrderCommand, OrderError};
use aggregates::process::ProcessManager;

use crate::services::OrdersService;
use crate::work::Workers;

/// Orders that were not paid: a decision takes milliseconds.
const QUEUE: Queue = Queue { name: Checkout::NAME, concurrency: 32, patience: Duration::from_secs(10) };

pub(super) fn work(workers: &mut Workers, service: OrdersService) {
    let log = service.surroundings.log.clone();
    let handle = move |due: Due| {
        let service = service.clone();
        async move { expire(&service, due).await }
    };
    workers.work_off(&log, QUEUE, handle);
}

async fn expire(service: &OrdersService, due: Due) -> Done {
    let CheckoutJob::ExpireOrder { order_id } = match serde_json::from_value(due.command) {
        Ok(job) => job,
        Err(error) => return Done::Failed(format!("an unreadable job: {error}")),
    };
    // The time is the database's, by which the job became due, and not this machine's.
    let Some(now) = due.now else {
        return Done::Failed("an order does not expire at once".to_owned());
    };
    let context = Context {
        key: Some(CommandKey {
            // Each try decides anew: an expiry that came too early must not stand for the one that is due.
            command_id: derive(due.id, now.to_rfc3339().as_bytes()),
            principal: Checkout::NAME.to_owned(),
            fingerprint: Vec::new(),
            derived: true,
        }),
        ..Context::default()
    };
    let command = OrderCommand::Expire { now };
    match service.orders.execute(Target::Existing(order_id.to_string()), command, context).await {
        Ok(_) => Done::Finished,
        Err(ExecuteError::Refused(OrderError::NotDue)) => Done::Again(Duration::from_secs(1)),
        Err(ExecuteError::Refused(refusal)) => {
            tracing::debug!(order.id = %order_id, %refusal, "the order need not expire");
            Done::Finished
        }
        Err(error) => Done::Failed(error.to_string()),
    }
}
