//! What is in the carts: one row for each user who ever used one. Names and prices are the price list's.

use event_store::Result;
use event_store::subscription::ApplyError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use aggregates::carts::{CartEvent, CartLine};

use crate::event::{Event, Happened};
use crate::live::Live;
use crate::read_model::{Feed, PersonalData, ReadModel};

/// The read model of carts.
pub struct CartContents;

/// A cart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CartRow {
    /// Whose it is.
    pub user_id: Uuid,
    /// What is in it, in the order it was added.
    pub lines: Vec<CartLine>,
    /// The version of the aggregate.
    pub version: i64,
}

impl ReadModel for CartContents {
    const NAME: &'static str = "cart_contents";
    const VERSION: u32 = 1;
    const FEEDS: &'static [Feed] =
        &[Feed { service: "orders", aggregates: &["cart"], personal: PersonalData::Withheld }];
    const KEY: &'static str = "user_id";
    const COLUMNS: &'static str = "user_id uuid primary key,
        lines json not null,
        version bigint not null";

    type Row = CartRow;

    fn fold(
        row: Option<CartRow>,
        key: &str,
        happened: &Happened,
    ) -> std::result::Result<Option<CartRow>, ApplyError> {
        let Event::Cart(event) = &happened.event else { return Ok(row) };
        let user_id = key.parse().map_err(|_| ApplyError::Event(format!("{key} is not the id of a user")))?;
        let mut row = row.unwrap_or_else(|| CartRow { user_id, lines: Vec::new(), version: 0 });
        row.version = happened.sequence;
        match event {
            CartEvent::CartItemAdded { item_id, product_id, quantity } => {
                row.lines.push(CartLine { item_id: *item_id, product_id: *product_id, quantity: *quantity })
            }
            CartEvent::CartItemQuantityChanged { item_id, product_id: _, quantity } => {
                for line in row.lines.iter_mut().filter(|line| line.item_id == *item_id) {
                    line.quantity = *quantity;
                }
            }
            CartEvent::CartItemRemoved { item_id, product_id: _ } => {
                row.lines.retain(|line| line.item_id != *item_id);
            }
            CartEvent::CartCleared | CartEvent::CartCheckedOut { .. } => row.lines.clear(),
            CartEvent::CartReopened { order_id: _, lines } => row.lines.clone_from(lines),
            CartEvent::CartAbandoned => return Ok(None),
        }
        Ok(Some(row))
    }
}

/// The cart of a user; empty, in version 0, when it was never used.
///
/// # Errors
/// When the database is unreachable.
pub async fn find_cart(live: &Live<CartContents>, user_id: Uuid) -> Result<CartRow> {
    let found = live.find(&user_id.to_string()).await?;
    Ok(found.unwrap_or_else(|| CartRow { user_id, lines: Vec::new(), version: 0 }))
}
