//! What clients send about orders, and its checks.

use std::collections::BTreeSet;

use serde::Deserialize;
use utoipa::ToSchema;

use aggregates::identifiers::ProductId;
use aggregates::lines::{LineQuantity, MAX_ADDRESS_CHARS, MAX_LINE_QUANTITY, MAX_LINES, MAX_NOTES_CHARS};

use crate::check::{Check, Field, Object};
use crate::problem::Problem;
use crate::text;

/// A line: so many of a product.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LineDraft {
    /// Which product.
    #[serde(default)]
    #[schema(value_type = uuid::Uuid, required)]
    product_id: Field<String>,
    /// How many.
    #[serde(default)]
    #[schema(value_type = i64, required, minimum = 1, maximum = 1000)]
    quantity: Field<i64>,
}

/// An order to be placed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PlacementDraft {
    /// What is bought: each product once.
    #[serde(default)]
    #[schema(value_type = Vec<LineDraft>, required)]
    items: Field<Vec<Object<LineDraft>>>,
    /// Where it goes.
    #[serde(default)]
    #[schema(value_type = String, required)]
    shipping_address: Field<String>,
    /// What the customer has to say.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    customer_notes: Field<String>,
}

/// An order to be placed, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) items: Vec<LineQuantity>,
    pub(super) shipping_address: String,
    pub(super) customer_notes: Option<String>,
}

/// Changes of an order; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EditDraft {
    /// The lines as they shall be.
    #[serde(default)]
    #[schema(value_type = Option<Vec<LineDraft>>)]
    items: Field<Vec<Object<LineDraft>>>,
    /// Where it shall go.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    shipping_address: Field<String>,
    /// What the customer has to say; empty for nothing.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    customer_notes: Field<String>,
}

/// Changes of an order, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edits {
    pub(super) items: Option<Vec<LineQuantity>>,
    pub(super) shipping_address: Option<String>,
    pub(super) customer_notes: Option<String>,
}

/// Lines that leave or arrive.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PartDraft {
    /// Which lines; all that are open unless some are named.
    #[serde(default)]
    #[schema(value_type = Option<Vec<LineDraft>>)]
    items: Field<Vec<Object<LineDraft>>>,
}

/// Lines that come back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReturnDraft {
    /// Which lines; all that can come back unless some are named.
    #[serde(default)]
    #[schema(value_type = Option<Vec<LineDraft>>)]
    items: Field<Vec<Object<LineDraft>>>,
    /// Whether what came back can be sold again, as staff found when it arrived; it can unless said otherwise.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    resellable: Field<bool>,
}

/// Lines that come back, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Return {
    pub(super) items: Vec<LineQuantity>,
    pub(super) resellable: Option<bool>,
}

impl PlacementDraft {
    pub(super) fn check(self) -> Result<Placement, Problem> {
        let mut check = Check::new();
        let items = lines(&mut check, self.items);
        let shipping_address = check.required("shipping_address", self.shipping_address, address);
        let customer_notes = check.optional("customer_notes", self.customer_notes, notes);
        check.finish(|| {
            let (items, shipping_address) = (items?, shipping_address?);
            Some(Placement { items, shipping_address, customer_notes: customer_notes? })
        })
    }
}

impl EditDraft {
    pub(super) fn check(self) -> Result<Edits, Problem> {
        let mut check = Check::new();
        let items = optional_lines(&mut check, self.items);
        let shipping_address = check.optional("shipping_address", self.shipping_address, address);
        let customer_notes = check.optional("customer_notes", self.customer_notes, notes);
        check.finish(|| {
            let (items, shipping_address) = (items?, shipping_address?);
            Some(Edits { items, shipping_address, customer_notes: customer_notes? })
        })
    }
}

impl PartDraft {
    /// The lines; none when all that are open are meant.
    pub(super) fn check(self) -> Result<Vec<LineQuantity>, Problem> {
        let mut check = Check::new();
        let items = optional_lines(&mut check, self.items);
        check.finish(|| Some(items?.unwrap_or_default()))
    }
}

impl ReturnDraft {
    pub(super) fn check(self) -> Result<Return, Problem> {
        let mut check = Check::new();
        let items = optional_lines(&mut check, self.items);
        let resellable = check.optional("resellable", self.resellable, Ok);
        check.finish(|| Some(Return { items: items?.unwrap_or_default(), resellable: resellable? }))
    }
}

/// Where something goes.
pub(crate) fn address(value: String) -> Result<String, String> {
    text::address(&value, 1..=MAX_ADDRESS_CHARS)
}

/// What a customer has to say.
pub(crate) fn notes(value: String) -> Result<String, String> {
    text::lines(&value, 0..=MAX_NOTES_CHARS)
}

fn optional_lines(
    check: &mut Check,
    field: Field<Vec<Object<LineDraft>>>,
) -> Option<Option<Vec<LineQuantity>>> {
    match field {
        Field::Absent | Field::Null => Some(None),
        Field::Mistyped(_, _) | Field::Sent(_) | Field::SentWith(_, _) => lines(check, field).map(Some),
    }
}

fn lines(check: &mut Check, field: Field<Vec<Object<LineDraft>>>) -> Option<Vec<LineQuantity>> {
    let mut products = BTreeSet::new();
    check.each("items", field, 1..=MAX_LINES, |check, Object(draft)| {
        let product_id = check.required("product_id", draft.product_id, |value| text::uuid(&value));
        let quantity = check.required("quantity", draft.quantity, |value| {
            text::whole(value, 1..=i64::from(MAX_LINE_QUANTITY))
        });
        let product_id = product_id.map(ProductId)?;
        if !products.insert(product_id) {
            check.refuse("product_id", "has a line already");
            return None;
        }
        Some(LineQuantity { product_id, quantity: u32::try_from(quantity?).ok()? })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use uuid::Uuid;

    const PRODUCT: Uuid = Uuid::from_u128(0x0194_a3b2_7d11_7abc_8def_0123_4567_89ab);

    fn placement(body: Value) -> Result<Placement, Value> {
        let draft: PlacementDraft = serde_json::from_value(body).expect("the body can be read");
        draft.check().map_err(|problem| json!(problem.errors()))
    }

    #[test]
    fn an_order_needs_lines_and_an_address() {
        let body = json!({"items": [{"product_id": PRODUCT, "quantity": 2}], "shipping_address": "Here 1"});
        let items = vec![LineQuantity { product_id: ProductId(PRODUCT), quantity: 2 }];
        let right = Placement { items, shipping_address: "Here 1".to_owned(), customer_notes: None };
        assert_eq!(placement(body), Ok(right));
        let errors = placement(json!({"items": []})).expect_err("it lacks everything");
        assert_eq!(
            errors,
            json!({"items": ["must have 1 to 100 items"], "shipping_address": ["is required"]})
        );
    }

    #[test]
    fn a_product_has_one_line_and_a_quantity_within_bounds() {
        let line = |quantity: i64| json!({"product_id": PRODUCT, "quantity": quantity});
        let body = json!({"items": [line(1), line(2)], "shipping_address": "Here 1"});
        assert_eq!(placement(body), Err(json!({"items.1.product_id": ["has a line already"]})));
        for quantity in [-5, 0, 1001] {
            let body = json!({"items": [line(quantity)], "shipping_address": "Here 1"});
            let message = "must be greater than or equal to 1 and less than or equal to 1000";
            assert_eq!(placement(body), Err(json!({"items.0.quantity": [message]})), "{quantity}");
        }
    }

    #[test]
    fn an_edit_tells_absent_from_empty() {
        let edit = |body: Value| {
            let draft: EditDraft = serde_json::from_value(body).expect("the body can be read");
            draft.check().map_err(|problem| json!(problem.errors()))
        };
        let nothing = Edits { items: None, shipping_address: None, customer_notes: None };
        assert_eq!(edit(json!({})), Ok(nothing));
        let cleared = Edits { items: None, shipping_address: None, customer_notes: Some(String::new()) };
        assert_eq!(edit(json!({"customer_notes": ""})), Ok(cleared));
        assert_eq!(
            edit(json!({"shipping_address": "", "items": []})),
            Err(json!({
                "shipping_address": ["must have at least 1 characters"],
                "items": ["must have 1 to 100 items"],
            }))
        );
    }

    #[test]
    fn a_return_names_lines_or_means_all() {
        let draft: ReturnDraft =
            serde_json::from_value(json!({"resellable": false})).expect("it can be read");
        let all = Return { items: Vec::new(), resellable: Some(false) };
        assert_eq!(draft.check().map_err(|problem| json!(problem.errors())), Ok(all));
    }
}
