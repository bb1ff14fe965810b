//! Orders go only ways that there are, come to rest, and agree with money and stock.

use std::collections::{BTreeMap, HashMap};

use super::stock::{Reservations, Stage};
use super::{Checked, Event, Logs};

/// The money of an order, as the payments tell it.
#[derive(Debug, Default, Clone)]
pub(super) struct Payment {
    /// The last amount that was promised and neither taken nor given back.
    promised: Option<i64>,
    captures: usize,
    captured: i64,
    refunded: i64,
}

/// The money of all orders.
#[derive(Debug)]
pub(super) struct Payments(HashMap<String, Payment>);

impl Payments {
    pub(super) fn of(logs: &Logs) -> Self {
        let mut found: HashMap<String, Payment> = HashMap::new();
        for event in logs.of_type("payment") {
            let payment = found.entry(event.text("order_id").to_owned()).or_default();
            let amount = event.body["amount"]["minor"].as_i64().unwrap_or_default();
            match event.name.as_str() {
                "PaymentAuthorised" => payment.promised = Some(amount),
                "PaymentVoided" => payment.promised = None,
                "PaymentCaptured" => {
                    payment.promised = None;
                    payment.captures += 1;
                    payment.captured += amount;
                }
                "PaymentRefunded" => payment.refunded += amount,
                _ => {}
            }
        }
        Self(found)
    }
}

#[derive(Debug, Default)]
struct Order {
    status: &'static str,
    total: i64,
    /// What is bought: how many of which product.
    lines: BTreeMap<String, i64>,
    /// The first step that is not allowed.
    astray: Option<String>,
}

/// All orders.
#[derive(Debug)]
pub(super) struct Orders(BTreeMap<String, Order>);

/// From which states an event may come, and to which it leads; an empty list is any state but none at all.
fn step(event: &Event) -> (&'static [&'static str], Option<&'static str>) {
    match event.name.as_str() {
        "OrderPlaced" => (&[""], Some("placed")),
        "OrderLineReserved" | "OrderLineRejected" => (&["placed"], None),
        "OrderAwaitingPayment" => (&["placed"], Some("awaiting_payment")),
        "OrderRejected" => (&["placed"], Some("rejected")),
        "OrderAddressEdited" => (&["placed", "awaiting_payment"], None),
        "OrderEditRequested"
        | "OrderEditLineReserved"
        | "OrderEditLineRejected"
        | "OrderEditRejected"
        | "OrderLinesEdited"
        | "OrderPaymentAttempted"
        | "OrderExpiryDeferred" => (&["awaiting_payment"], None),
        "OrderCommitting" => (&["awaiting_payment"], Some("committing")),
        "OrderLineCommitted" | "OrderLineLost" => (&["committing"], None),
        "OrderConfirmed" => (&["committing"], Some("confirmed")),
        "OrderExpired" => (&["awaiting_payment"], Some("expired")),
        "OrderCancelling" => (&["placed", "awaiting_payment", "committing", "confirmed"], Some("cancelling")),
        "OrderLineReleased" => (&["cancelling"], None),
        "OrderCancelled" => (&["cancelling"], Some("cancelled")),
        "OrderShipped" if event.body["status"] == "shipped" => {
            (&["confirmed", "partially_shipped"], Some("shipped"))
        }
        "OrderShipped" => (&["confirmed", "partially_shipped"], Some("partially_shipped")),
        "OrderDelivered" => (&["shipped"], Some("delivered")),
        _ => (&[], None),
    }
}

/// The states in which an order may rest when everything is quiet.
const RESTING: [&str; 6] = ["confirmed", "shipped", "delivered", "cancelled", "expired", "rejected"];
/// Those of them in which it is bought.
const BOUGHT: [&str; 3] = ["confirmed", "shipped", "delivered"];

impl Orders {
    pub(super) fn of(logs: &Logs) -> Self {
        let mut found: BTreeMap<String, Order> = BTreeMap::new();
        for event in logs.of_type("order") {
            let order = found.entry(event.aggregate_id.clone()).or_default();
            let (from, to) = step(event);
            let allowed =
                if from.is_empty() { !order.status.is_empty() } else { from.contains(&order.status) };
            if !allowed {
                let astray = format!("{} at position {} while {}", event.name, event.position, order.status);
                order.astray.get_or_insert(astray);
            }
            order.status = to.unwrap_or(order.status);
            if ["OrderPlaced", "OrderLinesEdited"].contains(&event.name.as_str()) {
                order.total = event.body["total"]["minor"].as_i64().unwrap_or_default();
                let lines = event.body["lines"].as_array().into_iter().flatten();
                order.lines = lines
                    .map(|line| {
                        let product = line["product_id"].as_str().unwrap_or_default().to_owned();
                        (product, line["quantity"].as_i64().unwrap_or_default())
                    })
                    .collect();
            }
        }
        Self(found)
    }

    pub(super) fn paths(&self) -> Checked {
        let mut checked = Checked::new("every order went a way that there is, to its end");
        for (id, order) in &self.0 {
            checked.expect(order.astray.is_none(), || {
                format!("order {id}: {}", order.astray.clone().unwrap_or_default())
            });
            checked
                .expect(RESTING.contains(&order.status), || format!("order {id} is still {}", order.status));
        }
        checked
    }

    pub(super) fn agree(&self, payments: &Payments, reservations: &Reservations) -> Checked {
        let mut checked = Checked::new("orders, money and stock agree");
        for (id, order) in &self.0 {
            let payment = payments.0.get(id).cloned().unwrap_or_default();
            checked
                .expect(payment.captures <= 1, || format!("order {id} was paid {} times", payment.captures));
            checked.expect(payment.promised.is_none(), || {
                format!("order {id} is {} and its money is still promised: {payment:?}", order.status)
            });
            let kept = payment.captured - payment.refunded;
            let due = if BOUGHT.contains(&order.status) { order.total } else { 0 };
            checked.expect(kept == due, || {
                format!("order {id} is {}, {due} are due and {kept} were kept", order.status)
            });
            order.has_its_stock(id, reservations, &mut checked);
        }
        for (order, product) in reservations.keys() {
            checked.expect(self.0.contains_key(order), || {
                format!("{product} is reserved for the order {order}, which is none")
            });
        }
        checked
    }
}

impl Order {
    fn has_its_stock(&self, id: &str, reservations: &Reservations, checked: &mut Checked) {
        let of_order =
            reservations.range((id.to_owned(), String::new())..).take_while(|((order, _), _)| order == id);
        for ((_, product), reservation) in of_order {
            let bought =
                if BOUGHT.contains(&self.status) { self.lines.get(product).copied().unwrap_or(0) } else { 0 };
            let (here, shipped) = match self.status {
                "shipped" | "delivered" => (0, bought),
                _ => (bought, 0),
            };
            checked.expect(reservation.here == here && reservation.shipped == shipped, || {
                format!(
                    "order {id} is {} with {bought} of {product}, for which there is {reservation:?}",
                    self.status
                )
            });
        }
        for (product, quantity) in self.lines.iter().filter(|_| BOUGHT.contains(&self.status)) {
            let reservation = reservations.get(&(id.to_owned(), product.clone()));
            let firm = reservation.is_some_and(|found| {
                found.stage == Stage::Committed && found.here + found.shipped == *quantity
            });
            checked.expect(firm, || {
                format!(
                    "order {id} is {} with {quantity} of {product}, for which there is {reservation:?}",
                    self.status
                )
            });
        }
    }
}
