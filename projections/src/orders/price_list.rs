//! What products are called and what they cost now: the orders service's copy of the catalogue.

use std::collections::BTreeMap;

use event_store::Result;
use event_store::subscription::ApplyError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use aggregates::catalog::ProductEvent;

use crate::event::{Event, Happened};
use crate::live::Live;
use crate::read_model::{Feed, PersonalData, ReadModel};
use crate::remembered::Remembered;

/// How many prices are remembered: some 200 bytes each.
const REMEMBERED_PRICES: usize = 50_000;

/// The read model of prices.
pub struct PriceList;

/// A product and its price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceRow {
    /// The product.
    pub product_id: Uuid,
    /// What it is called.
    pub name: String,
    /// What it costs, in minor units.
    pub price_minor: i64,
    /// In which currency.
    pub currency: String,
    /// Whether it is offered.
    pub buyable: bool,
    /// Whether it will never be offered again.
    pub discontinued: bool,
}

impl ReadModel for PriceList {
    const NAME: &'static str = "price_list";
    const VERSION: u32 = 1;
    const FEEDS: &'static [Feed] =
        &[Feed { service: "catalog", aggregates: &["product"], personal: PersonalData::Withheld }];
    const KEY: &'static str = "product_id";
    const COLUMNS: &'static str = "product_id uuid primary key,
        name text not null,
        price_minor bigint not null,
        currency text not null,
        buyable boolean not null,
        discontinued boolean not null";

    type Row = PriceRow;

    fn fold(
        row: Option<PriceRow>,
        key: &str,
        happened: &Happened,
    ) -> std::result::Result<Option<PriceRow>, ApplyError> {
        let Event::Product(event) = &happened.event else { return Ok(row) };
        if let ProductEvent::ProductListed { name, price, .. } = event {
            let product_id =
                key.parse().map_err(|_| ApplyError::Event(format!("{key} is not the id of a product")))?;
            return Ok(Some(PriceRow {
                product_id,
                name: name.clone(),
                price_minor: price.minor,
                currency: price.currency.code().to_owned(),
                buyable: true,
                discontinued: false,
            }));
        }
        let mut row = row.ok_or_else(|| ApplyError::Event(format!("product {key} was never listed")))?;
        match event {
            ProductEvent::ProductDescribed { name, .. } => row.name.clone_from(name),
            ProductEvent::ProductRepriced { price, previous: _ } => {
                row.price_minor = price.minor;
                price.currency.code().clone_into(&mut row.currency);
            }
            ProductEvent::ProductWithdrawn => row.buyable = false,
            ProductEvent::ProductRelisted => row.buyable = true,
            ProductEvent::ProductDiscontinued => {
                row.buyable = false;
                row.discontinued = true;
            }
            ProductEvent::ProductListed { .. } | ProductEvent::ProductCategorised { .. } => {}
        }
        Ok(Some(row))
    }
}

/// The price list as it is asked for with each cart and each order: prices change seldom, and are remembered until
/// they do. Cheap to clone.
#[derive(Clone)]
pub struct Prices {
    live: Live<PriceList>,
    remembered: Remembered<Uuid, PriceRow>,
}

impl Prices {
    /// The price list in a database.
    pub fn new(live: Live<PriceList>) -> Self {
        Self { live, remembered: Remembered::new(REMEMBERED_PRICES) }
    }
}

/// The prices of products, by their ids; those never listed are missing.
///
/// # Errors
/// When the database is unreachable.
pub async fn find_prices(prices: &Prices, products: &[Uuid]) -> Result<BTreeMap<Uuid, PriceRow>> {
    let Prices { live, remembered } = prices;
    let seen = live.seen().await?;
    let known = |id: &Uuid| Some((*id, remembered.find(seen.as_ref()?, id)?));
    let mut rows: BTreeMap<Uuid, PriceRow> = products.iter().filter_map(known).collect();
    let missing: Vec<Uuid> = products.iter().filter(|id| !rows.contains_key(id)).copied().collect();
    if missing.is_empty() {
        return Ok(rows);
    }
    let statement = live.select("where t.product_id = any($1) order by t.product_id limit $2").await?;
    let found = sqlx::query(&statement)
        .bind(&missing)
        .bind(missing.len() as i64)
        .fetch_all(live.connections())
        .await?;
    for row in live.rows(&found).await? {
        if let Some(seen) = &seen {
            remembered.keep(seen, row.product_id, row.clone());
        }
        rows.insert(row.product_id, row);
    }
    Ok(rows)
}
