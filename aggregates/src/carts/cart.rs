//! The cart: state, decisions, and what follows from events.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::carts::commands::CartCommand;
use crate::carts::events::{CartEvent, CartLine};
use crate::carts::refusals::CartError;
use crate::identifiers::{CartItemId, OrderId, ProductId, UserId};
use crate::lines::{self, LineQuantity, MAX_LINES, OrderLine};
use crate::records::{Recorded, decided_aggregate};

/// The most checkouts a cart remembers, so that the lines of a refused order can come back once.
pub const MAX_REMEMBERED_CHECKOUTS: usize = 16;

/// The cart of a user. One that never was is as good as an empty one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Cart {
    /// In use.
    Active(Contents),
    /// The user is gone.
    Abandoned,
}

impl Default for Cart {
    fn default() -> Self {
        Self::Active(Contents::default())
    }
}

/// What is in a cart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// The lines, one for each product, in the order they were added.
    pub lines: Vec<CartLine>,
    /// The latest orders made of this cart whose lines could still come back.
    pub checkouts: VecDeque<OrderId>,
}

impl Cart {
    /// The lines; none in a cart that was abandoned.
    #[must_use]
    pub fn lines(&self) -> &[CartLine] {
        match self {
            Self::Active(contents) => &contents.lines,
            Self::Abandoned => &[],
        }
    }

    /// What a command leads to, by the rules.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn decide(&self, command: CartCommand) -> Result<Vec<CartEvent>, CartError> {
        match (self, command) {
            (Self::Abandoned, CartCommand::Abandon | CartCommand::Clear | CartCommand::Reopen { .. }) => {
                Ok(Vec::new())
            }
            (Self::Abandoned, _) => Err(CartError::Abandoned),
            (Self::Active(_), CartCommand::Abandon) => Ok(vec![CartEvent::CartAbandoned]),
            (
                Self::Active(cart),
                CartCommand::AddItem { item_id, product_id, quantity, max_per_line, merge },
            ) => cart.add_item(item_id, product_id, quantity, max_per_line, merge),
            (Self::Active(cart), CartCommand::ChangeQuantity { item_id, quantity, max_per_line }) => {
                let line = cart.line(item_id)?;
                check_quantity(quantity, max_per_line)?;
                let event =
                    CartEvent::CartItemQuantityChanged { item_id, product_id: line.product_id, quantity };
                Ok((line.quantity != quantity).then_some(event).into_iter().collect())
            }
            (Self::Active(cart), CartCommand::RemoveItem { item_id }) => {
                let product_id = cart.line(item_id)?.product_id;
                Ok(vec![CartEvent::CartItemRemoved { item_id, product_id }])
            }
            (Self::Active(cart), CartCommand::Clear) => {
                Ok((!cart.lines.is_empty()).then_some(CartEvent::CartCleared).into_iter().collect())
            }
            (
                Self::Active(cart),
                CartCommand::CheckOut { order_id, user_id, lines, shipping_address, customer_notes },
            ) => cart.check_out(order_id, user_id, lines, &shipping_address, customer_notes),
            (Self::Active(cart), CartCommand::Reopen { order_id, lines, max_per_line }) => {
                Ok(cart.reopen(order_id, &lines, max_per_line))
            }
        }
    }

    fn evolve(&mut self, event: CartEvent) {
        let Self::Active(cart) = self else { return };
        match event {
            CartEvent::CartItemAdded { item_id, product_id, quantity } => {
                cart.lines.push(CartLine { item_id, product_id, quantity });
            }
            CartEvent::CartItemQuantityChanged { item_id, product_id: _, quantity } => {
                if let Some(line) = cart.lines.iter_mut().find(|line| line.item_id == item_id) {
                    line.quantity = quantity;
                }
            }
            CartEvent::CartItemRemoved { item_id, product_id: _ } => {
                cart.lines.retain(|line| line.item_id != item_id);
            }
            CartEvent::CartCleared => cart.lines.clear(),
            CartEvent::CartCheckedOut { order_id, .. } => {
                cart.lines.clear();
                if cart.checkouts.len() == MAX_REMEMBERED_CHECKOUTS {
                    cart.checkouts.pop_front();
                }
                cart.checkouts.push_back(order_id);
            }
            CartEvent::CartReopened { order_id, lines } => {
                cart.checkouts.retain(|checkout| *checkout != order_id);
                cart.lines = lines;
            }
            CartEvent::CartAbandoned => *self = Self::Abandoned,
        }
    }
}

impl Contents {
    fn line(&self, item_id: CartItemId) -> Result<&CartLine, CartError> {
        self.lines.iter().find(|line| line.item_id == item_id).ok_or(CartError::ItemUnknown)
    }

    fn add_item(
        &self,
        item_id: CartItemId,
        product_id: ProductId,
        quantity: u32,
        max_per_line: u32,
        merge: bool,
    ) -> Result<Vec<CartEvent>, CartError> {
        check_quantity(quantity, max_per_line)?;
        match self.lines.iter().find(|line| line.product_id == product_id) {
            Some(_) if !merge => Err(CartError::AlreadyInCart),
            Some(line) => {
                let quantity = line.quantity.saturating_add(quantity);
                check_quantity(quantity, max_per_line)?;
                Ok(vec![CartEvent::CartItemQuantityChanged { item_id: line.item_id, product_id, quantity }])
            }
            None if self.lines.len() >= MAX_LINES => Err(CartError::CartFull { max: MAX_LINES }),
            None => Ok(vec![CartEvent::CartItemAdded { item_id, product_id, quantity }]),
        }
    }

    /// All that would refuse the order is checked here: an order refused later would have cost the customer
    /// the cart.
    fn check_out(
        &self,
        order_id: OrderId,
        user_id: UserId,
        lines: Vec<OrderLine>,
        shipping_address: &str,
        customer_notes: Option<String>,
    ) -> Result<Vec<CartEvent>, CartError> {
        if self.checkouts.contains(&order_id) {
            return Ok(Vec::new());
        }
        if self.lines.is_empty() {
            return Err(CartError::CartEmpty);
        }
        let wanted: BTreeMap<_, _> = self.lines.iter().map(|line| (line.product_id, line.quantity)).collect();
        let priced: BTreeMap<_, _> = lines.iter().map(|line| (line.product_id, line.quantity)).collect();
        if wanted != priced {
            return Err(CartError::CartChanged);
        }
        lines::total_of(&lines).map_err(CartError::Lines)?;
        let shipping_address = lines::checked_address(shipping_address)
            .map_err(|reason| CartError::Invalid { field: "shipping_address", reason })?;
        let customer_notes = lines::checked_notes(customer_notes)
            .map_err(|reason| CartError::Invalid { field: "customer_notes", reason })?;
        Ok(vec![CartEvent::CartCheckedOut {
            order_id,
            user_id,
            lines,
            shipping_address: shipping_address.into(),
            customer_notes: customer_notes.map(Into::into),
        }])
    }

    fn reopen(&self, order_id: OrderId, returned: &[LineQuantity], max_per_line: u32) -> Vec<CartEvent> {
        if !self.checkouts.contains(&order_id) {
            return Vec::new();
        }
        let mut lines = self.lines.clone();
        for back in returned {
            let found = lines.iter_mut().find(|line| line.product_id == back.product_id);
            if let Some(line) = found {
                let both = line.quantity.saturating_add(back.quantity).min(max_per_line);
                line.quantity = line.quantity.max(both);
            } else if lines.len() < MAX_LINES {
                lines.push(CartLine {
                    item_id: CartItemId(order_id.derive(&back.product_id.to_string())),
                    product_id: back.product_id,
                    quantity: back.quantity.min(max_per_line),
                });
            }
        }
        vec![CartEvent::CartReopened { order_id, lines }]
    }
}

decided_aggregate!(Cart, "cart", CartCommand, CartEvent, CartError);

impl Recorded for Cart {
    fn personal_fields(event_type: &str) -> &'static [&'static str] {
        match event_type {
            "CartCheckedOut" => &["shipping_address", "customer_notes"],
            _ => &[],
        }
    }

    fn person_of(aggregate_id: &str, _event: &CartEvent) -> Option<Uuid> {
        aggregate_id.parse().ok()
    }
}

fn check_quantity(quantity: u32, max: u32) -> Result<(), CartError> {
    if (1..=max).contains(&quantity) { Ok(()) } else { Err(CartError::QuantityOutOfRange { min: 1, max }) }
}
