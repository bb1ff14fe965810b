//! The places between two effects on the way of an order, and what happens there.

/// The process dies as in a power failure.
pub(crate) const ABORT: &str = "return(abort)";
/// The effect before the place stands, and whoever waits for it is told that it failed.
pub(crate) const FAIL: &str = "return(error)";
/// Whoever is there stands still for longer than a client, a broker's silence or a renewal of leases takes.
pub(crate) const STALL: &str = "sleep(3000)";

/// A failpoint, and how often it is passed before anything happens there.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its name; what stands before an `@` is a read model, whose generation is looked up.
    pub(crate) point: String,
    /// How often it is passed before.
    pub(crate) passes: usize,
}

/// Services whose appends are on the way of an order.
const LOGS: [&str; 4] = ["orders", "inventory", "payments", "notifications"];
/// Services that answer the customer.
const ANSWERING: [&str; 2] = ["orders", "payments"];
/// Subscriptions on the way that write: read models, and process managers with timed work.
const SUBSCRIPTIONS: [&str; 5] = ["order_details@", "stock_levels@", "checkout", "settlement", "notices"];
/// Process managers on the way, each with the steps of the journey that are tried beside its first: the stock
/// is reserved, committed, reserved for the other order and released; the payment is opened and captured, and
/// the other order's is opened and voided.
const PROCESSES: [(&str, &[usize]); 4] = [
    ("reservations", &[0, 1, 3]),
    ("checkout", &[0, 2, 3]),
    ("settlement", &[0, 1, 2]),
    ("notices", &[0, 2]),
];

/// All places.
pub(crate) fn places() -> Vec<Place> {
    let mut places = Vec::new();
    let mut at = |point: String, passes: usize| places.push(Place { point, passes });
    for log in LOGS {
        at(format!("append-before-commit/{log}"), 0);
        at(format!("append-after-commit/{log}"), 0);
    }
    for service in ANSWERING {
        at(format!("answer-before-kept/{service}"), 0);
        at(format!("answer-after-kept/{service}"), 0);
        at(format!("before-answer/{service}"), 0);
    }
    at("relay-acknowledged/orders".to_owned(), 0);
    at("relay-noted/orders".to_owned(), 0);
    for subscription in SUBSCRIPTIONS {
        at(format!("subscription-before-commit/{subscription}"), 0);
        at(format!("subscription-after-commit/{subscription}"), 0);
    }
    // This one gives commands only: its checkpoints follow by themselves.
    at("checkpoint-before-commit/reservations".to_owned(), 0);
    at("checkpoint-after-commit/reservations".to_owned(), 0);
    // This one gives its work to the worker first, and writes with its checkpoints what is not done by then.
    at("checkpoint-before-commit/settlement".to_owned(), 0);
    at("checkpoint-after-commit/settlement".to_owned(), 0);
    for (process, steps) in PROCESSES {
        for passes in steps {
            at(format!("process-after-command/{process}"), *passes);
        }
        at(format!("process-before-checkpoint/{process}"), 0);
        at(format!("process-before-checkpoint/{process}"), 1);
    }
    // The gateway is asked for the promise, and then for the money.
    at("gateway-answered/simulated".to_owned(), 0);
    at("gateway-answered/simulated".to_owned(), 1);
    at("message-sent/email".to_owned(), 0);
    at("timer-done/settlement".to_owned(), 0);
    at("timer-done/settlement".to_owned(), 1);
    at("timer-done/notices".to_owned(), 0);
    places
}
