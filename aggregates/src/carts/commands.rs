//! What may be asked of a cart.

use crate::identifiers::{CartItemId, OrderId, ProductId, UserId};
use crate::lines::{LineQuantity, OrderLine};

/// What may be asked of a cart.
#[allow(missing_docs, reason = "the variant says what is asked, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq)]
pub enum CartCommand {
    /// Add a line; with `merge` add to the line of the same product if there is one.
    AddItem { item_id: CartItemId, product_id: ProductId, quantity: u32, max_per_line: u32, merge: bool },
    /// Change the quantity of a line.
    ChangeQuantity { item_id: CartItemId, quantity: u32, max_per_line: u32 },
    /// Take a line out.
    RemoveItem { item_id: CartItemId },
    /// Take all lines out.
    Clear,
    /// Make an order of the lines, as they were priced.
    CheckOut {
        order_id: OrderId,
        user_id: UserId,
        lines: Vec<OrderLine>,
        shipping_address: String,
        customer_notes: Option<String>,
    },
    /// Take the lines of a refused order back, each up to the most that a line may hold.
    Reopen { order_id: OrderId, lines: Vec<LineQuantity>, max_per_line: u32 },
    /// The user is gone.
    Abandon,
}
