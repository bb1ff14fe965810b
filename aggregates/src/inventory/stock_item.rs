//! The stock item: state, decisions, and what follows from events.
//!
//! Always `held + committed <= on_hand`, and `on_hand + shipped + written off + removed = received + returned +
//! counted corrections`.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::identifiers::OrderId;
use crate::inventory::commands::StockItemCommand;
use crate::inventory::events::{Levels, ReleaseReason, ReturnCondition, StockItemEvent};
use crate::inventory::refusals::StockItemError;
use crate::records::{Recorded, decided_aggregate};
use crate::text;

/// The most pieces of one thing at one place.
pub const MAX_QUANTITY: u32 = 1_000_000_000;
/// How long a closed reservation is remembered, so that a late command finds it closed.
const CLOSED_RESERVATION_MEMORY: TimeDelta = TimeDelta::days(1);
/// The longest reason, in characters.
const MAX_REASON_CHARS: usize = 500;

/// A product at a place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StockItem {
    /// Whether it is kept.
    pub status: Status,
    /// How much there is.
    pub levels: Levels,
    /// From how much on it is little.
    pub low_stock_threshold: Option<u32>,
    /// For whom it is held, and for whom it was lately.
    pub reservations: BTreeMap<OrderId, Reservation>,
    /// Closed reservations, the longest closed first: they are forgotten from this end without looking at the
    /// others.
    closed: VecDeque<(DateTime<Utc>, OrderId)>,
}

/// Whether a stock item is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not yet.
    #[default]
    Unopened,
    /// Yes.
    Open,
    /// Until the last reservation goes.
    Closing,
    /// Not any more.
    Closed,
}

/// What an order has of a stock item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// How far it got.
    pub stage: Stage,
    /// How many pieces are still here for the order.
    pub quantity: u32,
    /// How many left for the customer.
    pub shipped: u32,
    /// How many came back.
    pub returned: u32,
    /// The edit of the order that it follows.
    pub revision: u32,
}

/// How far a reservation got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Promised, but not paid.
    Held,
    /// Paid.
    Committed,
    /// All gone to the customer.
    Shipped,
    /// Given back, or never had.
    Released(ReleaseReason),
}

impl Reservation {
    fn new(stage: Stage, quantity: u32) -> Self {
        Self { stage, quantity, shipped: 0, returned: 0, revision: 0 }
    }

    fn is_closed(&self) -> bool {
        match self.stage {
            Stage::Held | Stage::Committed => self.quantity == 0,
            Stage::Shipped | Stage::Released(_) => true,
        }
    }
}

impl StockItem {
    /// What a command leads to, by the rules.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn decide(&self, command: StockItemCommand) -> Result<Vec<StockItemEvent>, StockItemError> {
        let mut events = match command {
            StockItemCommand::Open { low_stock_threshold } => self.open(low_stock_threshold),
            StockItemCommand::Close => self.close(),
            StockItemCommand::Receive { quantity, reason } => self.receive(quantity, reason),
            StockItemCommand::Remove { quantity, reason } => self.take_out(quantity, reason, |out| {
                StockItemEvent::StockRemoved { quantity, reason: out.0, levels: out.1 }
            }),
            StockItemCommand::WriteOff { quantity, reason } => self.take_out(quantity, reason, |out| {
                StockItemEvent::StockWrittenOff { quantity, reason: out.0, levels: out.1 }
            }),
            StockItemCommand::Count { counted, reason } => self.count(counted, reason),
            StockItemCommand::SetLowStockThreshold { low_stock_threshold } => {
                self.check_open()?;
                let event = StockItemEvent::LowStockThresholdSet { low_stock_threshold };
                Ok((low_stock_threshold != self.low_stock_threshold).then_some(event).into_iter().collect())
            }
            StockItemCommand::Reserve { reservation, quantity, until } => {
                self.reserve(reservation, quantity, until)
            }
            StockItemCommand::Adjust { reservation, quantity, revision, now } => {
                self.adjust(reservation, quantity, revision, now)
            }
            StockItemCommand::Commit { reservation, quantity } => self.commit(reservation, quantity),
            StockItemCommand::Release { reservation, why, now } => Ok(self.release(reservation, why, now)),
            StockItemCommand::Ship { reservation, quantity, now } => self.ship(reservation, quantity, now),
            StockItemCommand::Return { reservation, quantity, condition } => {
                self.take_back(reservation, quantity, condition)
            }
        }?;
        let edges = self.edges(&events);
        events.extend(edges);
        Ok(events)
    }

    fn check_open(&self) -> Result<(), StockItemError> {
        match self.status {
            Status::Open | Status::Closing => Ok(()),
            Status::Unopened => Err(StockItemError::NotOpen),
            Status::Closed => Err(StockItemError::Closed),
        }
    }

    fn open(&self, low_stock_threshold: Option<u32>) -> Result<Vec<StockItemEvent>, StockItemError> {
        match self.status {
            Status::Unopened => Ok(vec![StockItemEvent::StockItemOpened { low_stock_threshold }]),
            Status::Open => Ok(Vec::new()),
            Status::Closing | Status::Closed => Err(StockItemError::Closed),
        }
    }

    fn close(&self) -> Result<Vec<StockItemEvent>, StockItemError> {
        let levels = self.levels;
        match self.status {
            Status::Unopened => Err(StockItemError::NotOpen),
            Status::Open if levels.reserved() > 0 => Ok(vec![StockItemEvent::StockItemClosing { levels }]),
            Status::Open => Ok(vec![StockItemEvent::StockItemClosed { levels }]),
            Status::Closing | Status::Closed => Ok(Vec::new()),
        }
    }

    fn receive(&self, quantity: u32, reason: Option<String>) -> Result<Vec<StockItemEvent>, StockItemError> {
        self.check_open()?;
        let reason = checked_reason(reason)?;
        let levels = self.levels_with_more(quantity)?;
        Ok(vec![StockItemEvent::StockReceived { quantity, reason, levels }])
    }

    fn take_out(
        &self,
        quantity: u32,
        reason: Option<String>,
        event: impl FnOnce((Option<String>, Levels)) -> StockItemEvent,
    ) -> Result<Vec<StockItemEvent>, StockItemError> {
        self.check_open()?;
        let reason = checked_reason(reason)?;
        check_quantity(quantity, 1)?;
        let available = self.levels.available();
        if quantity > available {
            return Err(StockItemError::InsufficientStock { requested: quantity, available });
        }
        let levels = Levels { on_hand: self.levels.on_hand - quantity, ..self.levels };
        Ok(vec![event((reason, levels))])
    }

    fn count(&self, counted: u32, reason: Option<String>) -> Result<Vec<StockItemEvent>, StockItemError> {
        self.check_open()?;
        let reason = checked_reason(reason)?;
        check_quantity(counted, 0)?;
        let reserved = self.levels.reserved();
        if counted < reserved {
            return Err(StockItemError::BelowReserved { counted, reserved });
        }
        let correction = i64::from(counted) - i64::from(self.levels.on_hand);
        let levels = Levels { on_hand: counted, ..self.levels };
        Ok(vec![StockItemEvent::StockCounted { counted, correction, reason, levels }])
    }

    /// What can be promised: nothing unless the item is open.
    fn promisable(&self) -> u32 {
        match self.status {
            Status::Open => self.levels.available(),
            Status::Unopened | Status::Closing | Status::Closed => 0,
        }
    }

    fn reserve(
        &self,
        reservation: OrderId,
        quantity: u32,
        until: Option<DateTime<Utc>>,
    ) -> Result<Vec<StockItemEvent>, StockItemError> {
        check_quantity(quantity, 1)?;
        let available = match self.reservations.get(&reservation).map(|found| found.stage) {
            Some(Stage::Held | Stage::Committed | Stage::Shipped) => return Ok(Vec::new()),
            Some(Stage::Released(_)) => 0,
            None => self.promisable(),
        };
        if quantity > available {
            let rejected = StockItemEvent::ReservationRejected {
                reservation,
                requested: quantity,
                available,
                revision: 0,
            };
            return Ok(vec![rejected]);
        }
        let levels = Levels { held: self.levels.held + quantity, ..self.levels };
        Ok(vec![StockItemEvent::StockReserved { reservation, quantity, until, levels }])
    }

    fn adjust(
        &self,
        reservation: OrderId,
        quantity: u32,
        revision: u32,
        now: DateTime<Utc>,
    ) -> Result<Vec<StockItemEvent>, StockItemError> {
        check_quantity(quantity, 0)?;
        let rejected = |available| StockItemEvent::ReservationRejected {
            reservation,
            requested: quantity,
            available,
            revision,
        };
        let held = match self.reservations.get(&reservation) {
            None => 0,
            Some(found) if revision < found.revision => return Ok(Vec::new()),
            Some(Reservation { stage: Stage::Held, quantity, .. }) => *quantity,
            Some(_) if quantity == 0 => return Ok(Vec::new()),
            Some(_) => return Ok(vec![rejected(0)]),
        };
        let attainable = held.saturating_add(self.promisable());
        if quantity > held && quantity > attainable {
            return Ok(vec![rejected(attainable)]);
        }
        let levels = Levels { held: self.levels.held - held + quantity, ..self.levels };
        let adjusted = StockItemEvent::ReservationAdjusted {
            reservation,
            previous: held,
            quantity,
            revision,
            at: now,
            levels,
        };
        // A new revision is answered even when it changes nothing: the order waits for the answer.
        let known = self.reservations.get(&reservation).map(|found| found.revision);
        let answered = quantity == held && known == Some(revision);
        if answered {
            return Ok(Vec::new());
        }
        Ok([adjusted].into_iter().chain(self.close_when_free(levels)).collect())
    }

    /// A reservation that expired, or was forgotten, is made again if it can be.
    fn commit(&self, reservation: OrderId, quantity: u32) -> Result<Vec<StockItemEvent>, StockItemError> {
        check_quantity(quantity, 1)?;
        let available = match self.reservations.get(&reservation) {
            Some(Reservation { stage: Stage::Committed | Stage::Shipped, .. }) => return Ok(Vec::new()),
            Some(Reservation { stage: Stage::Held, quantity: held, .. }) if *held > 0 => {
                let quantity = *held;
                let levels = Levels {
                    held: self.levels.held - quantity,
                    committed: self.levels.committed + quantity,
                    sold: self.levels.sold + u64::from(quantity),
                    ..self.levels
                };
                return Ok(vec![StockItemEvent::ReservationCommitted { reservation, quantity, levels }]);
            }
            Some(Reservation { stage: Stage::Released(ReleaseReason::Expired) | Stage::Held, .. }) | None => {
                self.promisable()
            }
            Some(Reservation { stage: Stage::Released(_), .. }) => 0,
        };
        if quantity > available {
            return Ok(vec![StockItemEvent::ReservationLost { reservation, requested: quantity, available }]);
        }
        let held = Levels { held: self.levels.held + quantity, ..self.levels };
        let committed = Levels {
            committed: self.levels.committed + quantity,
            sold: self.levels.sold + u64::from(quantity),
            ..self.levels
        };
        Ok(vec![
            StockItemEvent::StockReserved { reservation, quantity, until: None, levels: held },
            StockItemEvent::ReservationCommitted { reservation, quantity, levels: committed },
        ])
    }

    /// An unknown reservation leaves a mark, so that a `Reserve` that comes late is refused.
    fn release(&self, reservation: OrderId, why: ReleaseReason, at: DateTime<Utc>) -> Vec<StockItemEvent> {
        let (quantity, levels) = match self.reservations.get(&reservation) {
            Some(Reservation { stage: Stage::Released(_) | Stage::Shipped, .. }) => return Vec::new(),
            Some(Reservation { stage: Stage::Held, quantity, .. }) => {
                (*quantity, Levels { held: self.levels.held - quantity, ..self.levels })
            }
            Some(Reservation { stage: Stage::Committed, quantity, .. }) => {
                let levels = Levels {
                    committed: self.levels.committed - quantity,
                    sold: self.levels.sold - u64::from(*quantity),
                    ..self.levels
                };
                (*quantity, levels)
            }
            None => (0, self.levels),
        };
        let mut events = vec![StockItemEvent::ReservationReleased { reservation, quantity, why, at, levels }];
        events.extend(self.close_when_free(levels));
        events
    }

    fn ship(
        &self,
        reservation: OrderId,
        quantity: u32,
        at: DateTime<Utc>,
    ) -> Result<Vec<StockItemEvent>, StockItemError> {
        check_quantity(quantity, 1)?;
        let committed = match self.reservations.get(&reservation) {
            Some(Reservation { stage: Stage::Committed, quantity, .. }) => *quantity,
            Some(Reservation { stage: Stage::Held | Stage::Shipped | Stage::Released(_), .. }) | None => 0,
        };
        if quantity > committed {
            return Err(StockItemError::NotCommitted { requested: quantity, committed });
        }
        let levels = Levels {
            on_hand: self.levels.on_hand - quantity,
            committed: self.levels.committed - quantity,
            ..self.levels
        };
        let mut events = vec![StockItemEvent::StockShipped { reservation, quantity, at, levels }];
        events.extend(self.close_when_free(levels));
        Ok(events)
    }

    /// A reservation shipped long ago is forgotten; then the order alone knows what may come back, and it asked.
    fn take_back(
        &self,
        reservation: OrderId,
        quantity: u32,
        condition: ReturnCondition,
    ) -> Result<Vec<StockItemEvent>, StockItemError> {
        if self.status == Status::Unopened {
            return Err(StockItemError::NotOpen);
        }
        if let Some(found) = self.reservations.get(&reservation) {
            let shipped = found.shipped - found.returned;
            if quantity > shipped {
                return Err(StockItemError::NotShipped { requested: quantity, shipped });
            }
        }
        let levels = self.levels_with_more(quantity)?;
        let mut events = vec![StockItemEvent::StockReturned { reservation, quantity, condition, levels }];
        events.extend(match condition {
            ReturnCondition::Resellable => None,
            ReturnCondition::Damaged => {
                Some(StockItemEvent::StockWrittenOff { quantity, reason: None, levels: self.levels })
            }
        });
        Ok(events)
    }

    fn levels_with_more(&self, quantity: u32) -> Result<Levels, StockItemError> {
        check_quantity(quantity, 1)?;
        let room = MAX_QUANTITY.saturating_sub(self.levels.on_hand);
        if quantity > room {
            return Err(StockItemError::QuantityOutOfRange { min: 1, max: room });
        }
        Ok(Levels { on_hand: self.levels.on_hand + quantity, ..self.levels })
    }

    fn close_when_free(&self, levels: Levels) -> Option<StockItemEvent> {
        (self.status == Status::Closing && levels.reserved() == 0)
            .then_some(StockItemEvent::StockItemClosed { levels })
    }

    /// What a decision means for those who only want to know whether there is stock.
    fn edges(&self, events: &[StockItemEvent]) -> Vec<StockItemEvent> {
        let Some(levels) = events.iter().rev().find_map(StockItemEvent::levels) else { return Vec::new() };
        let (before, after) = (self.levels.available(), levels.available());
        let depleted = (before > 0 && after == 0).then_some(StockItemEvent::StockDepleted { levels });
        let replenished = (before == 0 && after > 0).then_some(StockItemEvent::StockReplenished { levels });
        let low = self
            .low_stock_threshold
            .filter(|threshold| before > *threshold && after <= *threshold)
            .map(|threshold| StockItemEvent::LowStockReached { threshold, levels });
        depleted.into_iter().chain(replenished).chain(low).collect()
    }

    fn evolve(&mut self, event: StockItemEvent) {
        if let Some(levels) = event.levels() {
            self.levels = levels;
        }
        match event {
            StockItemEvent::StockItemOpened { low_stock_threshold } => {
                self.status = Status::Open;
                self.low_stock_threshold = low_stock_threshold;
            }
            StockItemEvent::StockItemClosing { .. } => self.status = Status::Closing,
            StockItemEvent::StockItemClosed { .. } => self.status = Status::Closed,
            StockItemEvent::LowStockThresholdSet { low_stock_threshold } => {
                self.low_stock_threshold = low_stock_threshold;
            }
            StockItemEvent::StockReserved { reservation, quantity, .. } => {
                self.reservations.insert(reservation, Reservation::new(Stage::Held, quantity));
            }
            StockItemEvent::ReservationAdjusted { reservation, quantity, revision, at, .. } => {
                let found = self.reservation(reservation, Stage::Held);
                found.quantity = quantity;
                found.revision = revision;
                self.note_closed(reservation, at);
            }
            StockItemEvent::ReservationCommitted { reservation, .. } => {
                self.reservation(reservation, Stage::Committed).stage = Stage::Committed;
            }
            StockItemEvent::ReservationReleased { reservation, why, at, .. } => {
                let found = self.reservation(reservation, Stage::Released(why));
                found.stage = Stage::Released(why);
                found.quantity = 0;
                self.note_closed(reservation, at);
            }
            StockItemEvent::StockShipped { reservation, quantity, at, .. } => {
                let found = self.reservation(reservation, Stage::Committed);
                found.quantity = found.quantity.saturating_sub(quantity);
                found.shipped = found.shipped.saturating_add(quantity);
                if found.quantity == 0 {
                    found.stage = Stage::Shipped;
                }
                self.note_closed(reservation, at);
            }
            StockItemEvent::StockReturned { reservation, quantity, .. } => {
                if let Some(found) = self.reservations.get_mut(&reservation) {
                    found.returned = found.returned.saturating_add(quantity);
                }
            }
            StockItemEvent::StockReceived { .. }
            | StockItemEvent::StockRemoved { .. }
            | StockItemEvent::StockCounted { .. }
            | StockItemEvent::StockWrittenOff { .. }
            | StockItemEvent::ReservationRejected { .. }
            | StockItemEvent::ReservationLost { .. }
            | StockItemEvent::StockDepleted { .. }
            | StockItemEvent::StockReplenished { .. }
            | StockItemEvent::LowStockReached { .. } => {}
        }
    }

    fn reservation(&mut self, reservation: OrderId, stage: Stage) -> &mut Reservation {
        self.reservations.entry(reservation).or_insert_with(|| Reservation::new(stage, 0))
    }

    /// Notes that a reservation closed, if it did, and forgets those that closed long ago.
    fn note_closed(&mut self, reservation: OrderId, at: DateTime<Utc>) {
        if self.reservations.get(&reservation).is_some_and(Reservation::is_closed) {
            self.closed.push_back((at, reservation));
        }
        while let Some((closed_at, forgotten)) = self.closed.front().copied() {
            if at.signed_duration_since(closed_at) <= CLOSED_RESERVATION_MEMORY {
                break;
            }
            self.closed.pop_front();
            if self.reservations.get(&forgotten).is_some_and(Reservation::is_closed) {
                self.reservations.remove(&forgotten);
            }
        }
    }
}

decided_aggregate!(StockItem, "stock_item", StockItemCommand, StockItemEvent, StockItemError);

impl Recorded for StockItem {}

fn check_quantity(quantity: u32, min: u32) -> Result<(), StockItemError> {
    if (min..=MAX_QUANTITY).contains(&quantity) {
        Ok(())
    } else {
        Err(StockItemError::QuantityOutOfRange { min, max: MAX_QUANTITY })
    }
}

fn checked_reason(reason: Option<String>) -> Result<Option<String>, StockItemError> {
    let reason = reason.map(|reason| text::normalise(&reason)).filter(|reason| !reason.is_empty());
    text::check_line(reason.as_deref().unwrap_or_default(), 0, MAX_REASON_CHARS)
        .map_err(|why| StockItemError::Invalid { field: "reason", reason: why })?;
    Ok(reason)
}
