//! Fields that a body has and nobody knows. They do not end the reading: a body is read without them, and they are
//! told together with whatever else is wrong with it.

use std::cell::RefCell;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::check::describe;
use crate::problem::Problem;

/// The most unknown fields that are named at once. Each takes another reading of the body.
const NAMED_AT_ONCE: usize = 8;

/// What is said of such a field.
pub(crate) const MESSAGE: &str = "is not a known field";

tokio::task_local! {
    static OF_BODY: RefCell<Vec<String>>;
}

/// A value that was read, with the paths of what it was read without.
pub(crate) struct Known<T> {
    pub(crate) value: T,
    pub(crate) unknown: Vec<String>,
}

/// Reads JSON without the fields that nobody knows.
///
/// # Errors
/// The path of the field that is wrong otherwise, and a message for the client.
pub(crate) fn read<T: DeserializeOwned>(json: &str) -> Result<Known<T>, (String, String)> {
    let mut unknown = Vec::new();
    let mut first_error = match read_all(json) {
        Ok(value) => return Ok(Known { value, unknown }),
        Err(error) => error,
    };
    // Numbers lose their digits here; a body that comes to this is refused whatever they are.
    let mut left: Value = serde_json::from_str(json).unwrap_or_default();
    while first_error.1 == MESSAGE && unknown.len() < NAMED_AT_ONCE && remove(&mut left, &first_error.0) {
        unknown.push(first_error.0);
        first_error = match read_all(&left.to_string()) {
            Ok(value) => return Ok(Known { value, unknown }),
            Err(error) => error,
        };
    }
    Err(first_error)
}

fn read_all<T: DeserializeOwned>(json: &str) -> Result<T, (String, String)> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| describe(&error))
}

/// Removes what a path such as `items.0.price` leads to.
fn remove(value: &mut Value, path: &str) -> bool {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let pointer = if parent.is_empty() { String::new() } else { format!("/{}", parent.replace('.', "/")) };
    let object = value.pointer_mut(&pointer).and_then(Value::as_object_mut);
    object.and_then(|object| object.remove(name)).is_some()
}

/// The middleware: keeps the unknown fields of a request's body from where it is read to where it is checked.
pub async fn collect(request: Request, inner: impl AsyncFnOnce(Request) -> Response) -> Response {
    let answered = async {
        let response = inner(request).await;
        // A route that checks no draft would take them in silence.
        if response.status().is_success() && !take().is_empty() {
            return Problem::internal("a body with unknown fields was not checked").into_response();
        }
        response
    };
    OF_BODY.scope(RefCell::default(), answered).await
}

/// Leaves the unknown fields of a body to who checks its draft. False outside of a request, where nobody would.
pub(crate) fn leave(unknown: Vec<String>) -> bool {
    OF_BODY.try_with(|left| left.replace(unknown)).is_ok()
}

/// Takes what was left.
pub(crate) fn take() -> Vec<String> {
    OF_BODY.try_with(RefCell::take).unwrap_or_default()
}
