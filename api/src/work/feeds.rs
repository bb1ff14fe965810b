//! Which process managers a service has, and what they listen to.

use aggregates::inventory::reservations::Reservations;
use aggregates::inventory::stock_keeping::StockKeeping;
use aggregates::notifications::notices::Notices;
use aggregates::orders::checkout::Checkout;
use aggregates::orders::housekeeping::Housekeeping;
use aggregates::payments::settlement::Settlement;
use aggregates::process::ProcessManager;

/// A log, and the types of the aggregates in it that are listened to.
pub(super) type Feed = (&'static str, &'static [&'static str]);

struct Listening {
    service: &'static str,
    process: &'static str,
    feeds: &'static [Feed],
}

const ALL: [Listening; 6] = [
    Listening { service: "inventory", process: Reservations::NAME, feeds: &[("orders", &["order"])] },
    Listening { service: "inventory", process: StockKeeping::NAME, feeds: &[("catalog", &["product"])] },
    Listening {
        service: "orders",
        process: Checkout::NAME,
        feeds: &[("inventory", &["stock_item"]), ("payments", &["payment"]), ("orders", &["cart", "order"])],
    },
    Listening { service: "orders", process: Housekeeping::NAME, feeds: &[("users", &["user"])] },
    Listening {
        service: "payments",
        process: Settlement::NAME,
        feeds: &[("orders", &["order"]), ("payments", &["payment"])],
    },
    Listening {
        service: "notifications",
        process: Notices::NAME,
        feeds: &[
            ("users", &["user"]),
            ("orders", &["order"]),
            ("payments", &["payment"]),
            ("notifications", &["notification"]),
        ],
    },
];

/// What a process manager listens to.
pub(super) fn feeds_of(process: &str) -> &'static [Feed] {
    ALL.iter().find(|listening| listening.process == process).map_or(&[], |listening| listening.feeds)
}

/// The process managers of a service that listen to the log of another.
pub(crate) fn listeners(service: &str, source: &str) -> Vec<&'static str> {
    let hears = |listening: &&Listening| listening.feeds.iter().any(|(log, _)| *log == source);
    let of_service = ALL.iter().filter(|listening| listening.service == service);
    of_service.filter(hears).map(|listening| listening.process).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_found_by_service_and_log() {
        assert_eq!(listeners("inventory", "catalog"), [StockKeeping::NAME]);
        assert_eq!(listeners("orders", "payments"), [Checkout::NAME]);
        assert!(listeners("catalog", "orders").is_empty());
        assert!(ALL.iter().all(|listening| !feeds_of(listening.process).is_empty()));
    }
}
