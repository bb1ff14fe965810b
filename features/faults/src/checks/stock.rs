//! Stock is conserved and never promised twice: every stock item is folded anew, by the rules of a warehouse.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::{Checked, Event, Logs};

/// How far a reservation got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Held,
    Committed,
    Released,
}

/// What an order has of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reservation {
    pub(super) stage: Stage,
    /// Pieces that are still here for the order.
    pub(super) here: i64,
    /// Pieces that left for the customer.
    pub(super) shipped: i64,
}

/// The reservations of all orders, by order and product.
pub(super) type Reservations = BTreeMap<(String, String), Reservation>;

#[derive(Debug, Default)]
struct Item {
    on_hand: i64,
    held: i64,
    committed: i64,
}

/// Checks all stock items; gives what they are reserved for.
pub(super) fn conserved(logs: &Logs) -> (Checked, Reservations) {
    let mut checked = Checked::new("stock is conserved and never promised twice");
    let mut items: HashMap<&str, Item> = HashMap::new();
    let mut reservations = Reservations::new();
    for event in logs.of_type("stock_item") {
        let item = items.entry(&event.aggregate_id).or_default();
        if let Err(wrong) = item.apply(event, &mut reservations) {
            checked.expect(false, || {
                format!("{} {} at position {}: {wrong}", event.name, event.aggregate_id, event.position)
            });
        }
        checked.expect(item.is_sound(), || {
            format!("after {} at position {} the stock is {item:?}", event.name, event.position)
        });
        checked.expect(item.equals(&event.body["levels"]), || {
            format!("at position {} the levels are {} and not {item:?}", event.position, event.body["levels"])
        });
    }
    for ((order, product), reservation) in &reservations {
        let open = reservation.stage == Stage::Held && reservation.here > 0;
        checked.expect(!open, || {
            format!("order {order} holds {} of {product} although no order is open", reservation.here)
        });
    }
    (checked, reservations)
}

impl Item {
    fn is_sound(&self) -> bool {
        self.held >= 0 && self.committed >= 0 && self.held + self.committed <= self.on_hand
    }

    fn equals(&self, levels: &Value) -> bool {
        levels.is_null()
            || (levels["on_hand"] == self.on_hand
                && levels["held"] == self.held
                && levels["committed"] == self.committed)
    }

    fn apply(&mut self, event: &Event, reservations: &mut Reservations) -> Result<(), String> {
        let quantity = event.number("quantity");
        let key = (event.text("reservation").to_owned(), event.aggregate_id.clone());
        let known = reservations.get(&key).copied();
        let now =
            |stage, here| Some(Reservation { stage, here, shipped: known.map_or(0, |known| known.shipped) });
        let next = match event.name.as_str() {
            "StockReceived" => {
                self.on_hand += quantity;
                None
            }
            "StockRemoved" | "StockWrittenOff" => {
                self.on_hand -= quantity;
                None
            }
            "StockCounted" => {
                self.on_hand += event.number("correction");
                None
            }
            "StockReserved" => {
                if known.is_some_and(|known| known.here > 0) {
                    return Err(format!("the order has {known:?} already"));
                }
                self.held += quantity;
                now(Stage::Held, quantity)
            }
            "ReservationAdjusted" => {
                let had = known.map_or(0, |known| known.here);
                if had != event.number("previous") || known.is_some_and(|known| known.stage != Stage::Held) {
                    return Err(format!("the order had {known:?}"));
                }
                self.held += quantity - had;
                now(Stage::Held, quantity)
            }
            "ReservationCommitted" => {
                if known.is_none_or(|known| known.stage != Stage::Held || known.here != quantity) {
                    return Err(format!("the order had {known:?}"));
                }
                self.held -= quantity;
                self.committed += quantity;
                now(Stage::Committed, quantity)
            }
            "ReservationReleased" => {
                match known {
                    None if quantity == 0 => {}
                    Some(Reservation { stage: Stage::Held, here, .. }) if here == quantity => {
                        self.held -= quantity
                    }
                    Some(Reservation { stage: Stage::Committed, here, .. }) if here == quantity => {
                        self.committed -= quantity;
                    }
                    _ => return Err(format!("it is released again: the order had {known:?}")),
                }
                now(Stage::Released, 0)
            }
            "StockShipped" => {
                let Some(had) =
                    known.filter(|known| known.stage == Stage::Committed && known.here >= quantity)
                else {
                    return Err(format!("the order had {known:?}"));
                };
                self.on_hand -= quantity;
                self.committed -= quantity;
                Some(Reservation { here: had.here - quantity, shipped: had.shipped + quantity, ..had })
            }
            "StockReturned" => {
                self.on_hand += quantity;
                None
            }
            _ => None,
        };
        if let Some(next) = next {
            reservations.insert(key, next);
        }
        Ok(())
    }
}
