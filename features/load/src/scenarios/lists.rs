//! Looking through the products.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::connection::{Call, Connection};
use crate::error::Result;
use crate::pace::Visitor;
use crate::scenarios::{ready, unexpected};
use crate::tally::{Ending, Visit};

/// How many pages somebody looks at before beginning anew.
const PAGES: usize = 5;
const FIRST_PAGE: &str = "/v1/products";

/// Turns over pages of 20 products.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    next: Option<String>,
    seen: usize,
}

#[derive(Deserialize)]
struct Listed {
    data: Vec<IgnoredAny>,
    next_cursor: Option<String>,
}

impl Visitor for Reader {
    async fn prepare(&mut self, connection: &mut Connection) -> Result<()> {
        ready(connection).await
    }

    async fn visit(&mut self, connection: &mut Connection) -> Result<Visit> {
        let path = self.next.take();
        let answer = connection.send(Call::get(path.as_deref().unwrap_or(FIRST_PAGE))).await?;
        if answer.status != 200 {
            return Ok(Visit::ended(unexpected(&answer, "list products")));
        }
        let page: Listed = answer.json()?;
        if page.data.is_empty() {
            return Ok(Visit::ended(Ending::Failed("list products: an empty page".to_owned())));
        }
        self.seen += 1;
        let cursor = page.next_cursor.filter(|_| !self.seen.is_multiple_of(PAGES));
        self.next = cursor.map(|cursor| format!("{FIRST_PAGE}?cursor={cursor}"));
        Ok(Visit::ended(Ending::Done))
    }
}
