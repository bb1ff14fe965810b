//! What happens to a cart.

use serde::{Deserialize, Serialize};

use crate::identifiers::{CartItemId, OrderId, ProductId, UserId};
use crate::lines::OrderLine;
use crate::personal::Personal;
use crate::records::domain_event;

/// A line of a cart. It has no price: a cart shows the current ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CartLine {
    /// The line's own id.
    pub item_id: CartItemId,
    /// Which product.
    pub product_id: ProductId,
    /// How many.
    pub quantity: u32,
}

/// What happens to a cart.
#[allow(missing_docs, reason = "the variant says what happened, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CartEvent {
    /// A line was added.
    CartItemAdded { item_id: CartItemId, product_id: ProductId, quantity: u32 },
    /// A line has another quantity.
    CartItemQuantityChanged { item_id: CartItemId, product_id: ProductId, quantity: u32 },
    /// A line was taken out.
    CartItemRemoved { item_id: CartItemId, product_id: ProductId },
    /// All lines were taken out.
    CartCleared,
    /// The lines became an order, at these prices. The cart is empty.
    CartCheckedOut {
        order_id: OrderId,
        user_id: UserId,
        lines: Vec<OrderLine>,
        shipping_address: Personal<String>,
        customer_notes: Option<Personal<String>>,
    },
    /// The order was refused, and its lines came back. The cart now holds these.
    CartReopened { order_id: OrderId, lines: Vec<CartLine> },
    /// The user is gone.
    CartAbandoned,
}

domain_event!(CartEvent {
    CartItemAdded,
    CartItemQuantityChanged,
    CartItemRemoved,
    CartCleared,
    CartCheckedOut,
    CartReopened,
    CartAbandoned,
});
