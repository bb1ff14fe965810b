//! What clients send about carts, and its checks; and the refusals of carts, as problems.

use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use aggregates::carts::CartError;
use aggregates::identifiers::ProductId;
use aggregates::orders::checkout::DEFAULT_MAX_PER_LINE;

use crate::check::{Check, Field};
use crate::problem::Problem;
use crate::routes::orders;
use crate::text;

/// A product to be put into a cart.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CartItemDraft {
    /// Which product.
    #[serde(default)]
    #[schema(value_type = uuid::Uuid, required)]
    product_id: Field<String>,
    /// How many.
    #[serde(default)]
    #[schema(value_type = i64, required, minimum = 1, maximum = 5)]
    quantity: Field<i64>,
}

/// Another quantity of a line.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QuantityDraft {
    /// How many.
    #[serde(default)]
    #[schema(value_type = i64, required, minimum = 1, maximum = 5)]
    quantity: Field<i64>,
}

/// Where an order made of a cart goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckoutDraft {
    /// Where it goes.
    #[serde(default)]
    #[schema(value_type = String, required)]
    shipping_address: Field<String>,
    /// What the customer has to say.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    customer_notes: Field<String>,
}

/// Where an order made of a cart goes, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) shipping_address: String,
    pub(super) customer_notes: Option<String>,
}

/// What becomes of a product that is in the cart already.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AddingDraft {
    /// Whether the quantity is added to a line of the same product.
    pub(super) merge: Option<bool>,
}

impl CartItemDraft {
    pub(super) fn check(self) -> Result<(ProductId, u32), Problem> {
        let mut check = Check::new();
        let product_id = check.required("product_id", self.product_id, |value| text::uuid(&value));
        let quantity = check.required("quantity", self.quantity, quantity);
        check.finish(|| Some((ProductId(product_id?), quantity?)))
    }
}

impl QuantityDraft {
    pub(super) fn check(self) -> Result<u32, Problem> {
        let mut check = Check::new();
        let quantity = check.required("quantity", self.quantity, quantity);
        check.finish(|| quantity)
    }
}

impl CheckoutDraft {
    pub(super) fn check(self) -> Result<Destination, Problem> {
        let mut check = Check::new();
        let shipping_address = check.required("shipping_address", self.shipping_address, orders::address);
        let customer_notes = check.optional("customer_notes", self.customer_notes, orders::notes);
        check.finish(|| {
            let shipping_address = shipping_address?;
            Some(Destination { shipping_address, customer_notes: customer_notes? })
        })
    }
}

fn quantity(value: i64) -> Result<u32, String> {
    let quantity = text::whole(value, 1..=i64::from(DEFAULT_MAX_PER_LINE))?;
    u32::try_from(quantity).map_err(|error| error.to_string())
}

/// The refusal of a cart's command.
pub(super) fn problem(error: CartError) -> Problem {
    let detail = error.to_string();
    match error {
        CartError::AlreadyInCart => Problem::conflict("already_in_cart", detail).with_error(
            "product_id",
            vec!["The product is already in cart. Change the quantity of its line, or add with ?merge=true."],
        ),
        CartError::ItemUnknown => Problem::not_found(),
        CartError::CartEmpty => Problem::conflict("cart_empty", detail),
        CartError::QuantityOutOfRange { min, max } => Problem::invalid_field(
            "quantity",
            format!("must be greater than or equal to {min} and less than or equal to {max}"),
        ),
        CartError::CartFull { max: _ } => Problem::conflict("cart_full", detail),
        CartError::CartChanged => Problem::conflict("cart_changed", detail),
        CartError::Abandoned => Problem::new(StatusCode::CONFLICT, "cart_abandoned", detail),
        CartError::Lines(reason) => orders::lines_problem(reason),
        CartError::Invalid { field, reason } => orders::text_problem(field, &reason),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    fn item(body: Value) -> Result<(ProductId, u32), Value> {
        let draft: CartItemDraft = serde_json::from_value(body).expect("the body can be read");
        draft.check().map_err(|problem| json!(problem.errors()))
    }

    #[test]
    fn a_line_needs_a_product_and_one_to_five_of_it() {
        let id = Uuid::from_u128(9);
        assert_eq!(item(json!({"product_id": id, "quantity": 5})), Ok((ProductId(id), 5)));
        assert_eq!(item(json!({"quantity": 3})), Err(json!({"product_id": ["is required"]})));
        for quantity in [0, 6] {
            let message = "must be greater than or equal to 1 and less than or equal to 5";
            let body = json!({"product_id": id, "quantity": quantity});
            assert_eq!(item(body), Err(json!({"quantity": [message]})));
        }
    }

    #[test]
    fn refusals_have_stable_codes() {
        let told = |error| {
            let problem = problem(error);
            (problem.status().as_u16(), problem.code().to_owned())
        };
        let code = |status: u16, code: &str| (status, code.to_owned());
        assert_eq!(told(CartError::AlreadyInCart), code(409, "already_in_cart"));
        assert_eq!(told(CartError::ItemUnknown), code(404, "not_found"));
        assert_eq!(told(CartError::CartEmpty), code(409, "cart_empty"));
        assert_eq!(told(CartError::QuantityOutOfRange { min: 1, max: 5 }), code(422, "validation_failed"));
    }
}
