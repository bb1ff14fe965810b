//! Products as customers find them: what the catalogue says, and whether the stock has any.
//!
//! The two come from different logs in whatever order: a row that has only seen its stock is not listed yet.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use event_store::subscription::ApplyError;
use event_store::{Error, Result};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use uuid::Uuid;

use aggregates::catalog::ProductEvent;
use aggregates::identifiers::{MAIN_LOCATION, StockItemId};
use aggregates::text;

use crate::event::{Event, Happened};
use crate::live::{Live, Page, TimeCursor};
use crate::read_model::{Feed, PersonalData, ReadModel};

/// The read model of products.
pub struct ProductListing;

/// Whether a product is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListingStatus {
    /// Only its stock is known so far.
    Unlisted,
    /// It is offered.
    Listed,
    /// It is not offered for the time being.
    Withdrawn,
    /// It will never be offered again.
    Discontinued,
}

/// A product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProductRow {
    /// The product.
    pub id: Uuid,
    /// The stock-keeping unit.
    pub sku: Option<String>,
    /// What it is called.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Where it comes from.
    pub country_of_origin: String,
    /// What it costs, in minor units.
    pub price_minor: i64,
    /// In which currency.
    pub currency: String,
    /// Where it is found.
    pub categories: Vec<String>,
    /// The addresses of its pictures.
    pub images: Vec<String>,
    /// Whatever else there is to say.
    pub attributes: BTreeMap<String, String>,
    /// Whether it is offered.
    pub status: ListingStatus,
    /// How many can be ordered, at the main location.
    pub available: u32,
    /// Whether it is offered and can be ordered.
    pub is_available: bool,
    /// When it was listed.
    pub created_at: DateTime<Utc>,
    /// The version of the product; 0 while only the stock is known.
    pub version: i64,
    /// What a search looks into.
    pub searched: String,
}

impl ProductRow {
    fn unlisted(id: Uuid) -> Self {
        Self {
            id,
            sku: None,
            name: String::new(),
            description: String::new(),
            country_of_origin: String::new(),
            price_minor: 0,
            currency: String::new(),
            categories: Vec::new(),
            images: Vec::new(),
            attributes: BTreeMap::new(),
            status: ListingStatus::Unlisted,
            available: 0,
            is_available: false,
            created_at: DateTime::UNIX_EPOCH,
            version: 0,
            searched: String::new(),
        }
    }
}

impl ReadModel for ProductListing {
    const NAME: &'static str = "product_listing";
    const VERSION: u32 = 1;
    const FEEDS: &'static [Feed] = &[
        Feed { service: "catalog", aggregates: &["product"], personal: PersonalData::Withheld },
        Feed { service: "inventory", aggregates: &["stock_item"], personal: PersonalData::Withheld },
    ];
    const KEY: &'static str = "id";
    const COLUMNS: &'static str = "id uuid primary key,
        sku text,
        name text collate \"C\" not null,
        description text not null,
        country_of_origin text not null,
        price_minor bigint not null,
        currency text not null,
        categories text[] not null,
        images text[] not null,
        attributes json not null,
        status text not null,
        available bigint not null,
        is_available boolean not null,
        created_at timestamptz not null,
        version bigint not null,
        searched text not null";
    // The product gives it its description, and the stock item its availability.
    const OF_ONE_STREAM: bool = false;
    const INDEXES: &'static [&'static str] = &[
        "(created_at, id) where status = 'listed'",
        "(name, id) where status = 'listed'",
        "(price_minor, id) where status = 'listed'",
        "using gin (categories)",
    ];

    type Row = ProductRow;

    fn keys(happened: &Happened) -> Vec<String> {
        let Event::StockItem(_) = &happened.event else { return vec![happened.aggregate_id.clone()] };
        match happened.aggregate_id.parse::<StockItemId>() {
            Ok(item) if item.location == MAIN_LOCATION => vec![item.product_id.to_string()],
            Ok(_) => Vec::new(),
            // No row has this key: the event is parked, not skipped.
            Err(_) => vec![happened.aggregate_id.clone()],
        }
    }

    fn fold(
        row: Option<ProductRow>,
        key: &str,
        happened: &Happened,
    ) -> std::result::Result<Option<ProductRow>, ApplyError> {
        let id: Uuid =
            key.parse().map_err(|_| ApplyError::Event(format!("{key} is not the id of a product")))?;
        let mut row = row.unwrap_or_else(|| ProductRow::unlisted(id));
        match &happened.event {
            Event::Product(event) => {
                let first = matches!(event, ProductEvent::ProductListed { .. });
                if !first && row.status == ListingStatus::Unlisted {
                    return Err(ApplyError::Event(format!("product {key} was never listed")));
                }
                evolve(&mut row, event, happened);
            }
            Event::StockItem(event) => {
                if let Some(levels) = event.levels() {
                    row.available = levels.available();
                }
            }
            Event::User(_)
            | Event::Cart(_)
            | Event::Order(_)
            | Event::Payment(_)
            | Event::Notification(_) => {}
        }
        row.is_available = row.status == ListingStatus::Listed && row.available > 0;
        Ok(Some(row))
    }
}

fn evolve(row: &mut ProductRow, event: &ProductEvent, happened: &Happened) {
    row.version = happened.sequence;
    match event {
        ProductEvent::ProductListed {
            name,
            description,
            country_of_origin,
            price,
            sku,
            categories,
            images,
            attributes,
            opening_stock: _,
        } => {
            row.name.clone_from(name);
            row.description.clone_from(description);
            row.country_of_origin.clone_from(country_of_origin);
            row.price_minor = price.minor;
            price.currency.code().clone_into(&mut row.currency);
            row.sku.clone_from(sku);
            row.categories.clone_from(categories);
            row.images.clone_from(images);
            row.attributes.clone_from(attributes);
            row.status = ListingStatus::Listed;
            row.created_at = happened.recorded_at;
        }
        ProductEvent::ProductDescribed { name, description, country_of_origin, sku, images, attributes } => {
            row.name.clone_from(name);
            row.description.clone_from(description);
            row.country_of_origin.clone_from(country_of_origin);
            row.sku.clone_from(sku);
            row.images.clone_from(images);
            row.attributes.clone_from(attributes);
        }
        ProductEvent::ProductRepriced { price, previous: _ } => {
            row.price_minor = price.minor;
            price.currency.code().clone_into(&mut row.currency);
        }
        ProductEvent::ProductCategorised { categories } => row.categories.clone_from(categories),
        ProductEvent::ProductWithdrawn => row.status = ListingStatus::Withdrawn,
        ProductEvent::ProductRelisted => row.status = ListingStatus::Listed,
        ProductEvent::ProductDiscontinued => row.status = ListingStatus::Discontinued,
    }
    row.searched = text::fold(&format!("{}\n{}", row.name, row.description));
}

/// In what order products are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProductSort {
    /// By name, by code point.
    Name,
    /// By name, the last first.
    NameDescending,
    /// By price, the cheapest first.
    Price,
    /// By price, the dearest first.
    PriceDescending,
    /// The oldest first.
    CreatedAt,
    /// The newest first.
    #[default]
    CreatedAtDescending,
}

/// The place of a product in a list of some order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProductCursor {
    /// In a list by name.
    Name(String, Uuid),
    /// In a list by price.
    Price(i64, Uuid),
    /// In a list by time.
    CreatedAt(TimeCursor),
}

impl ProductCursor {
    /// Whether it is a place in a list of this order.
    #[must_use]
    pub fn fits(&self, sort: ProductSort) -> bool {
        match sort {
            ProductSort::Name | ProductSort::NameDescending => matches!(self, Self::Name(..)),
            ProductSort::Price | ProductSort::PriceDescending => matches!(self, Self::Price(..)),
            ProductSort::CreatedAt | ProductSort::CreatedAtDescending => matches!(self, Self::CreatedAt(..)),
        }
    }

    fn of(row: &ProductRow, sort: ProductSort) -> Self {
        match sort {
            ProductSort::Name | ProductSort::NameDescending => Self::Name(row.name.clone(), row.id),
            ProductSort::Price | ProductSort::PriceDescending => Self::Price(row.price_minor, row.id),
            ProductSort::CreatedAt | ProductSort::CreatedAtDescending => {
                Self::CreatedAt(TimeCursor { created_at: row.created_at, id: row.id })
            }
        }
    }
}

/// Which products are listed, and in what order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProductQuery {
    /// Those whose name or description contains this, in whatever case; all characters stand for themselves.
    pub search: Option<String>,
    /// Those of this category.
    pub category: Option<String>,
    /// Those that can be ordered, or those that cannot.
    pub available: Option<bool>,
    /// The order.
    pub sort: ProductSort,
}

/// The products offered that fit a query.
///
/// # Errors
/// When the cursor is of a list of another order (see [`ProductCursor::fits`]), or the database is unreachable.
pub async fn list_products(
    live: &Live<ProductListing>,
    query: &ProductQuery,
    after: Option<&ProductCursor>,
    limit: u32,
) -> Result<Page<ProductRow, ProductCursor>> {
    if after.is_some_and(|cursor| !cursor.fits(query.sort)) {
        return Err(Error::Malformed("a cursor of a list of another order".to_owned()));
    }
    let (column, kind, descending) = match query.sort {
        ProductSort::Name => ("name", "text", false),
        ProductSort::NameDescending => ("name", "text", true),
        ProductSort::Price => ("price_minor", "bigint", false),
        ProductSort::PriceDescending => ("price_minor", "bigint", true),
        ProductSort::CreatedAt => ("created_at", "timestamptz", false),
        ProductSort::CreatedAtDescending => ("created_at", "timestamptz", true),
    };
    let (direction, beyond) = if descending { ("desc", "<") } else { ("asc", ">") };
    let (place, id) = match after {
        None => (None, None),
        Some(ProductCursor::Name(name, id)) => (Some(name.clone()), Some(*id)),
        Some(ProductCursor::Price(price, id)) => (Some(price.to_string()), Some(*id)),
        Some(ProductCursor::CreatedAt(cursor)) => (Some(cursor.created_at.to_rfc3339()), Some(cursor.id)),
    };
    let statement = live
        .select(&format!(
            "where t.status = 'listed' \
             and ($1::text is null or strpos(t.searched, $1) > 0) \
             and ($2::text is null or t.categories @> array[$2::text]) \
             and ($3::boolean is null or t.is_available = $3) \
             and ($4::uuid is null or (t.{column}, t.id) {beyond} ($5::text::{kind}, $4::uuid)) \
             order by t.{column} {direction}, t.id {direction} limit $6"
        ))
        .await?;
    let found = sqlx::query(&statement)
        .bind(query.search.as_deref().map(text::fold))
        .bind(&query.category)
        .bind(query.available)
        .bind(id)
        .bind(place)
        .bind(i64::from(limit) + 1)
        .fetch_all(live.connections())
        .await?;
    Ok(Page::cut(live.rows(&found).await?, limit as usize, |row| ProductCursor::of(row, query.sort)))
}

/// The product with an id, also one that is withdrawn; none when it was never listed or is discontinued.
///
/// # Errors
/// When the database is unreachable.
pub async fn find_product(live: &Live<ProductListing>, id: Uuid) -> Result<Option<ProductRow>> {
    let found = live.find(&id.to_string()).await?;
    Ok(found.filter(|row| match row.status {
        ListingStatus::Listed | ListingStatus::Withdrawn => true,
        ListingStatus::Unlisted | ListingStatus::Discontinued => false,
    }))
}

/// Whether a product was ever listed.
///
/// # Errors
/// When the database is unreachable.
pub async fn product_exists(live: &Live<ProductListing>, id: Uuid) -> Result<bool> {
    let table = live.table().await?;
    let row =
        sqlx::query(&format!("select exists (select from {table} where id = $1 and status <> 'unlisted')"))
            .bind(id)
            .fetch_one(live.connections())
            .await?;
    Ok(row.try_get(0)?)
}
