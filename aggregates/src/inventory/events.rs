//! What happens to a stock item. Every event carries the levels after it, so that readers need no arithmetic.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::identifiers::OrderId;
use crate::records::domain_event;

/// The quantities of a stock item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levels {
    /// What lies there.
    pub on_hand: u32,
    /// Reserved by orders that are not paid.
    pub held: u32,
    /// Paid, waiting to leave.
    pub committed: u32,
    /// Committed, or shipped at any time.
    pub sold: u64,
}

impl Levels {
    /// What can be promised to somebody else.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.on_hand.saturating_sub(self.reserved())
    }

    /// What is promised: held or committed.
    #[must_use]
    pub fn reserved(&self) -> u32 {
        self.held.saturating_add(self.committed)
    }
}

/// Why a reservation was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseReason {
    /// The order was not paid in time.
    Expired,
    /// The order was cancelled or rejected.
    Cancelled,
    /// The payment failed for good.
    PaymentFailed,
    /// The order was edited.
    Edited,
}

/// In what condition goods came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReturnCondition {
    /// They can be sold again.
    Resellable,
    /// They cannot, and are written off at once.
    Damaged,
}

/// What happens to a stock item.
#[allow(missing_docs, reason = "the variant says what happened, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StockItemEvent {
    /// The item is kept from now on.
    StockItemOpened { low_stock_threshold: Option<u32> },
    /// Nothing more is promised; the item closes when the last reservation goes.
    StockItemClosing { levels: Levels },
    /// The item is not kept any more.
    StockItemClosed { levels: Levels },
    /// Goods came in.
    StockReceived { quantity: u32, reason: Option<String>, levels: Levels },
    /// Goods were taken out.
    StockRemoved { quantity: u32, reason: Option<String>, levels: Levels },
    /// Goods were counted; the correction is what the books were wrong by.
    StockCounted { counted: u32, correction: i64, reason: Option<String>, levels: Levels },
    /// Goods were lost or spoilt.
    StockWrittenOff { quantity: u32, reason: Option<String>, levels: Levels },
    /// Pieces are held for an order.
    StockReserved { reservation: OrderId, quantity: u32, until: Option<DateTime<Utc>>, levels: Levels },
    /// Pieces cannot be held for an order. `available` counts what the order itself holds already.
    ReservationRejected { reservation: OrderId, requested: u32, available: u32, revision: u32 },
    /// The order holds another quantity.
    ReservationAdjusted {
        reservation: OrderId,
        previous: u32,
        quantity: u32,
        revision: u32,
        at: DateTime<Utc>,
        levels: Levels,
    },
    /// The order was paid: its pieces wait to leave.
    ReservationCommitted { reservation: OrderId, quantity: u32, levels: Levels },
    /// The order was paid, but its pieces are gone.
    ReservationLost { reservation: OrderId, requested: u32, available: u32 },
    /// The order holds nothing any more, and never will again. The quantity is 0 when it held nothing.
    ReservationReleased {
        reservation: OrderId,
        quantity: u32,
        why: ReleaseReason,
        at: DateTime<Utc>,
        levels: Levels,
    },
    /// Pieces left for the customer.
    StockShipped { reservation: OrderId, quantity: u32, at: DateTime<Utc>, levels: Levels },
    /// Pieces came back from the customer.
    StockReturned { reservation: OrderId, quantity: u32, condition: ReturnCondition, levels: Levels },
    /// From now on stock is low at this quantity.
    LowStockThresholdSet { low_stock_threshold: Option<u32> },
    /// The last available piece went.
    StockDepleted { levels: Levels },
    /// There are pieces available again.
    StockReplenished { levels: Levels },
    /// What is available fell to the threshold or below.
    LowStockReached { threshold: u32, levels: Levels },
}

impl StockItemEvent {
    /// The levels that it leaves; none when it neither changes nor tells them.
    pub fn levels(&self) -> Option<Levels> {
        match self {
            Self::StockItemClosing { levels }
            | Self::StockItemClosed { levels }
            | Self::StockReceived { levels, .. }
            | Self::StockRemoved { levels, .. }
            | Self::StockCounted { levels, .. }
            | Self::StockWrittenOff { levels, .. }
            | Self::StockReserved { levels, .. }
            | Self::ReservationAdjusted { levels, .. }
            | Self::ReservationCommitted { levels, .. }
            | Self::ReservationReleased { levels, .. }
            | Self::StockShipped { levels, .. }
            | Self::StockReturned { levels, .. }
            | Self::StockDepleted { levels }
            | Self::StockReplenished { levels }
            | Self::LowStockReached { levels, .. } => Some(*levels),
            Self::StockItemOpened { .. }
            | Self::ReservationRejected { .. }
            | Self::ReservationLost { .. }
            | Self::LowStockThresholdSet { .. } => None,
        }
    }
}

domain_event!(StockItemEvent {
    StockItemOpened,
    StockItemClosing,
    StockItemClosed,
    StockReceived,
    StockRemoved,
    StockCounted,
    StockWrittenOff,
    StockReserved,
    ReservationRejected,
    ReservationAdjusted,
    ReservationCommitted,
    ReservationLost,
    ReservationReleased,
    StockShipped,
    StockReturned,
    LowStockThresholdSet,
    StockDepleted,
    StockReplenished,
    LowStockReached,
});
