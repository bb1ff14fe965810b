//! From a draft, in which every field may be missing or wrong, to a value: all that is wrong is told at once.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::problem::{FieldErrors, Problem};
use crate::unknown_fields::{self, Known};

/// A field of a draft: `#[serde(default)] #[schema(value_type = String, required)] name: Field<String>`, or
/// `value_type = Option<String>` for one that may be missing. A value of the wrong type does not end the
/// reading of the body, so that the other fields are judged too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// It was not sent.
    #[default]
    Absent,
    /// It was sent as `null`, which means the same as not at all.
    Null,
    /// It has another type: the path below the field (empty for the field itself) and a message.
    Mistyped(String, String),
    /// It was sent.
    Sent(T),
    /// It was sent with fields below it, at these paths, that nobody knows.
    SentWith(T, Vec<String>),
}

impl<T> Field<T> {
    /// Whether the client sent it.
    pub fn is_sent(&self) -> bool {
        matches!(self, Self::Sent(_) | Self::SentWith(_, _) | Self::Mistyped(_, _))
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if raw.get() == "null" {
            return Ok(Self::Null);
        }
        Ok(match unknown_fields::read(raw.get()) {
            Ok(Known { value, unknown }) if unknown.is_empty() => Self::Sent(value),
            Ok(Known { value, unknown }) => Self::SentWith(value, unknown),
            Err((path, message)) => Self::Mistyped(path, message),
        })
    }
}

/// An object below a field. Left to itself, serde takes the items of a list for the fields of a struct, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("struct of some fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
    }
}

/// The path of the field that a reading error is about, and what is wrong with it, for the client.
pub(crate) fn describe(error: &serde_path_to_error::Error<serde_json::Error>) -> (String, String) {
    let path = error.path().to_string().replace('[', ".").replace(']', "");
    // serde_path_to_error calls the whole `.` and an item of it `[0]`.
    let path = path.trim_start_matches('.').to_owned();
    let text = error.inner().to_string();
    let named = text.split('`').nth(1).unwrap_or_default();
    if text.starts_with("unknown field") {
        // The path of an unknown field ends with its name already.
        let ends_with_it = path == named || path.ends_with(&format!(".{named}"));
        let path = if ends_with_it { path } else { join(&path, named) };
        return (path, unknown_fields::MESSAGE.to_owned());
    }
    if text.starts_with("missing field") {
        return (join(&path, named), "is required".to_owned());
    }
    if text.starts_with("duplicate field") {
        return (join(&path, named), "was sent twice".to_owned());
    }
    (path, expectation(&text))
}

/// `invalid type: string "x", expected i64 at line 1` → `must be a whole number`.
fn expectation(text: &str) -> String {
    let expected = text.rsplit_once("expected ").map_or("", |(_, expected)| expected);
    let expected = expected.split(" at line ").next().unwrap_or_default();
    let what = match expected {
        "a string" | "a borrowed string" => "a string",
        "a boolean" => "true or false",
        "i64" | "i32" | "u64" | "u32" | "u16" | "u8" => "a whole number",
        "a sequence" => "a list",
        "a decimal number" => "a decimal number",
        other if other.starts_with("struct ") => "an object",
        _ => return "has the wrong type".to_owned(),
    };
    format!("must be {what}")
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() || name.is_empty() { format!("{path}{name}") } else { format!("{path}.{name}") }
}

/// Collects what is wrong. Each method gives `None` for a field that is not right, and [`finish`](Self::finish)
/// makes the value when everything is.
#[derive(Debug, Default)]
pub struct Check {
    prefix: String,
    messages: BTreeMap<String, Vec<String>>,
}

impl Check {
    /// Nothing wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A field that must be sent and pass `rule`.
    pub fn required<T, U>(
        &mut self,
        name: &str,
        field: Field<T>,
        rule: impl FnOnce(T) -> Result<U, String>,
    ) -> Option<U> {
        match self.optional(name, field, rule)? {
            Some(value) => Some(value),
            None => {
                self.refuse(name, "is required");
                None
            }
        }
    }

    /// A field that may be missing, and must pass `rule` when it is sent: `Some(None)` when it is missing.
    pub fn optional<T, U>(
        &mut self,
        name: &str,
        field: Field<T>,
        rule: impl FnOnce(T) -> Result<U, String>,
    ) -> Option<Option<U>> {
        let value = match field {
            Field::Absent | Field::Null => return Some(None),
            Field::Mistyped(path, message) => {
                self.refuse(&join(name, &path), message);
                return None;
            }
            Field::Sent(value) => value,
            Field::SentWith(value, unknown) => {
                for path in unknown {
                    self.refuse(&join(name, &path), unknown_fields::MESSAGE);
                }
                value
            }
        };
        match rule(value) {
            Ok(value) => Some(Some(value)),
            Err(message) => {
                self.refuse(name, message);
                None
            }
        }
    }

    /// A list whose length is within `length`, each item checked by `item`, whose fields are then named
    /// `items.0.quantity`.
    pub fn each<T, U>(
        &mut self,
        name: &str,
        field: Field<Vec<T>>,
        length: RangeInclusive<usize>,
        mut item: impl FnMut(&mut Self, T) -> Option<U>,
    ) -> Option<Vec<U>> {
        let items = self.required(name, field, |items| {
            if length.contains(&items.len()) {
                return Ok(items);
            }
            Err(format!("must have {} to {} items", length.start(), length.end()))
        })?;
        let count = items.len();
        let checked = items
            .into_iter()
            .enumerate()
            .filter_map(|(index, draft)| self.within(&format!("{name}.{index}"), |check| item(check, draft)))
            .collect::<Vec<_>>();
        (checked.len() == count).then_some(checked)
    }

    /// Checks the fields of an object within the body, which are then named `card.number`.
    pub fn within<U>(&mut self, name: &str, inner: impl FnOnce(&mut Self) -> Option<U>) -> Option<U> {
        let path = join(&self.prefix, name);
        let outer = std::mem::replace(&mut self.prefix, path);
        let value = inner(self);
        self.prefix = outer;
        value
    }

    /// Says that a field is wrong: for rules that concern several.
    pub fn refuse(&mut self, name: &str, message: impl Into<String>) {
        self.messages.entry(join(&self.prefix, name)).or_default().push(message.into());
    }

    /// Makes the value, when nothing is wrong, nor the body has fields that nobody knows.
    ///
    /// # Errors
    /// A 422 problem that names every wrong field.
    pub fn finish<U>(mut self, make: impl FnOnce() -> Option<U>) -> Result<U, Problem> {
        for path in unknown_fields::take() {
            self.messages.entry(path).or_default().push(unknown_fields::MESSAGE.to_owned());
        }
        if !self.messages.is_empty() {
            let errors = self.messages.into_iter().map(|(path, messages)| (path, messages.into()));
            return Err(Problem::validation(errors.collect::<FieldErrors>()));
        }
        make().ok_or_else(|| Problem::internal("a check gave no value and named no field"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::text;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct LineDraft {
        #[serde(default)]
        product_id: Field<String>,
        #[serde(default)]
        quantity: Field<i64>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct OrderDraft {
        #[serde(default)]
        items: Field<Vec<LineDraft>>,
        #[serde(default)]
        shipping_address: Field<String>,
        #[serde(default)]
        customer_notes: Field<String>,
    }

    #[derive(Debug, PartialEq)]
    struct Order {
        items: Vec<i64>,
        shipping_address: String,
        customer_notes: Option<String>,
    }

    fn check(body: serde_json::Value) -> Result<Order, FieldErrors> {
        let draft: OrderDraft = serde_json::from_value(body).expect("the body can be read");
        let mut check = Check::new();
        let items = check.each("items", draft.items, 1..=3, |check, line| {
            let product_id = check.required("product_id", line.product_id, |value| text::uuid(&value));
            let quantity = check.required("quantity", line.quantity, |value| text::whole(value, 1..=5));
            product_id.and(quantity)
        });
        let shipping_address =
            check.required("shipping_address", draft.shipping_address, |value| text::line(&value, 1..=500));
        let customer_notes =
            check.optional("customer_notes", draft.customer_notes, |value| text::lines(&value, 0..=9));
        check
            .finish(|| {
                let (items, shipping_address) = (items?, shipping_address?);
                Some(Order { items, shipping_address, customer_notes: customer_notes? })
            })
            .map_err(|problem| problem.errors().clone())
    }

    fn messages(errors: serde_json::Value) -> FieldErrors {
        serde_json::from_value(errors).expect("errors are an object")
    }

    #[test]
    fn a_right_body_becomes_a_value() {
        let id = "0194a3b2-7d11-7abc-8def-0123456789ab";
        let body = json!({"items": [{"product_id": id, "quantity": 2}], "shipping_address": "Here 1"});
        let order = Order { items: vec![2], shipping_address: "Here 1".to_owned(), customer_notes: None };
        assert_eq!(check(body), Ok(order));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let body =
            json!({"items": [{"quantity": 6}, {"product_id": "x", "quantity": "2"}], "customer_notes": 5});
        assert_eq!(
            check(body),
            Err(messages(json!({
                "items.0.product_id": ["is required"],
                "items.0.quantity": ["must be greater than or equal to 1 and less than or equal to 5"],
                "items.1.product_id": ["must be a UUID"],
                "items.1.quantity": ["must be a whole number"],
                "shipping_address": ["is required"],
                "customer_notes": ["must be a string"],
            })))
        );
    }

    #[test]
    fn an_unknown_field_deep_in_a_list_is_named_and_hides_nothing() {
        let body = json!({"items": [{"price": 1}], "shipping_address": "Here 1"});
        assert_eq!(
            check(body),
            Err(messages(json!({
                "items.0.price": ["is not a known field"],
                "items.0.product_id": ["is required"],
                "items.0.quantity": ["is required"],
            })))
        );
        assert_eq!(
            check(json!({"items": [], "shipping_address": null})),
            Err(messages(json!({"items": ["must have 1 to 3 items"], "shipping_address": ["is required"]})))
        );
    }
}
