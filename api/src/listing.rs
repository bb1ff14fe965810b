//! Lists as they are answered: a page of rows, and where to go on.

use projections::Page;
use serde::Serialize;
use utoipa::ToSchema;

use crate::extract::Cursor;
use crate::problem::Problem;

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

    /// A page of a read model, each row shown by `view`.
    pub fn of<R, K: Serialize>(page: Page<R, K>, view: impl FnMut(R) -> T) -> Self {
        Self::new(page.rows.into_iter().map(view).collect(), page.next)
    }

    /// The same, where a row may be one that cannot be shown.
    ///
    /// # Errors
    /// What `view` says of the first such row.
    pub fn try_of<R, K: Serialize>(
        page: Page<R, K>,
        view: impl FnMut(R) -> Result<T, Problem>,
    ) -> Result<Self, Problem> {
        Ok(Self::new(page.rows.into_iter().map(view).collect::<Result<_, _>>()?, page.next))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_ends_with_null() {
        let last = Listed::of(Page::<_, i64> { rows: vec![1, 2], next: None }, |row| row * 10);
        let sent = serde_json::to_value(last).expect("a list is JSON");
        assert_eq!(sent, json!({"data": [10, 20], "next_cursor": null}));
    }

    #[test]
    fn a_list_that_goes_on_says_where() {
        let page = Listed::of(Page { rows: vec![1], next: Some(7_i64) }, |row| row);
        let next = page.next_cursor.expect("there is more");
        assert_eq!(next.key::<i64>().map_err(|problem| problem.to_string()), Ok(7));
    }
}
