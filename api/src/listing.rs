//! Lists as they are answered: a page of rows, and where to go on.

use serde::Serialize;
use utoipa::ToSchema;

use crate::extract::Cursor;

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Listed<T> {
    /// The rows.
    pub data: Vec<T>,
    /// What to send as `cursor` for the rows behind these; `null` when there are none.
    #[schema(value_type = Option<String>)]
    pub next_cursor: Option<Cursor>,
}

impl<T> Listed<T> {
    /// Rows, and the key of the last one when there are more behind it.
    pub fn new<K: Serialize>(data: Vec<T>, next: Option<K>) -> Self {
        Self { data, next_cursor: next.as_ref().map(Cursor::after) }
    }
}
