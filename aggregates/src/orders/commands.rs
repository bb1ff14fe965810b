//! What may be asked of an order.

use chrono::{DateTime, Utc};

use crate::identifiers::{OrderId, ProductId, UserId};
use crate::lines::{LineQuantity, OrderLine};
use crate::money::Money;

/// What may be asked of an order. Those that begin with `Record` bring the answers of stock and payment; they
/// are not refused when they come late.
#[allow(missing_docs, reason = "the variant says what is asked, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq)]
pub enum OrderCommand {
    /// Buy these lines at these prices.
    PlaceOrder {
        order_id: OrderId,
        user_id: UserId,
        lines: Vec<OrderLine>,
        shipping_address: String,
        customer_notes: Option<String>,
        from_cart: bool,
        pay_within_seconds: u32,
    },
    /// Change what is given. Empty notes clear them; lines replace the lines, a product that stays keeps the
    /// price it was ordered at.
    Edit { lines: Option<Vec<OrderLine>>, shipping_address: Option<String>, customer_notes: Option<String> },
    /// The stock holds these lines.
    RecordReserved { product_ids: Vec<ProductId>, now: DateTime<Utc> },
    /// The stock cannot hold a line.
    RecordRejected {
        product_id: ProductId,
        requested: u32,
        available: u32,
        revision: u32,
        now: DateTime<Utc>,
    },
    /// The stock holds another quantity of a line.
    RecordAdjusted { product_id: ProductId, quantity: u32, revision: u32 },
    /// The stock made the holds of these lines firm.
    RecordCommitted { product_ids: Vec<ProductId> },
    /// The stock lost a hold.
    RecordLost { product_id: ProductId },
    /// The stock gave a hold back.
    RecordReleased { product_id: ProductId },
    /// An attempt to pay began.
    RecordPaymentAttempted { attempt: u32 },
    /// An attempt to pay failed.
    RecordPaymentDeclined { attempt: u32 },
    /// The money is promised.
    RecordPaymentAuthorised { attempt: u32, amount: Money },
    /// The money is received.
    RecordPaymentCaptured { amount: Money },
    /// The promised money could not be taken.
    RecordCaptureFailed,
    /// The promise of money was given back.
    RecordPaymentVoided,
    /// Money went back; `refunded` is all that ever did.
    RecordPaymentRefunded { amount: Money, refunded: Money },
    /// No money of the customer is with us, and none will be taken.
    RecordPaymentClosed,
    /// The time to pay has passed.
    Expire { now: DateTime<Utc> },
    /// Cancel; an admin may do so for longer.
    Cancel { by_admin: bool },
    /// These lines leave; none named means all that are left.
    Ship { lines: Vec<LineQuantity> },
    /// All arrived.
    Deliver,
    /// The customer sends these lines back; none named means all that can be.
    RequestReturn { lines: Vec<LineQuantity> },
    /// What was sent back arrived.
    ReceiveReturn { resellable: bool },
}
