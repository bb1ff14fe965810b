//! The events of stock items on the wire.

use aggregates::inventory::{Levels, ReleaseReason, ReturnCondition, StockItemEvent};

use crate::field::{wire_choice, wire_record};
use crate::mart::inventory::v1;
use crate::published::published;

published! {
    Inventory in "mart.inventory.v1", InventoryEvent with inventory_event::Event:
    StockItem(StockItemEvent, "stock_item") {
        StockItemOpened { low_stock_threshold },
        StockItemClosing { levels },
        StockItemClosed { levels },
        StockReceived { quantity, reason, levels },
        StockRemoved { quantity, reason, levels },
        StockCounted { counted, correction, reason, levels },
        StockWrittenOff { quantity, reason, levels },
        StockReserved { reservation, quantity, until, levels },
        ReservationRejected { reservation, requested, available, revision },
        ReservationAdjusted { reservation, previous, quantity, revision, at, levels },
        ReservationCommitted { reservation, quantity, levels },
        ReservationLost { reservation, requested, available },
        ReservationReleased { reservation, quantity, why, at, levels },
        StockShipped { reservation, quantity, at, levels },
        StockReturned { reservation, quantity, condition, levels },
        LowStockThresholdSet { low_stock_threshold },
        StockDepleted { levels },
        StockReplenished { levels },
        LowStockReached { threshold, levels },
    }
}

wire_record!(Levels as v1::Levels { on_hand, held, committed, sold });

wire_choice!(ReleaseReason as v1::ReleaseReason { Expired, Cancelled, PaymentFailed, Edited });

wire_choice!(ReturnCondition as v1::ReturnCondition { Resellable, Damaged });
