//! How much there is of what, and where: one row for each stock item.

use event_store::Result;
use event_store::subscription::ApplyError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use aggregates::identifiers::{ProductId, StockItemId};
use aggregates::inventory::{Levels, StockItemEvent};

use crate::event::{Event, Happened};
use crate::live::{Live, Page};
use crate::read_model::{Feed, PersonalData, ReadModel};

/// The read model of stock.
pub struct StockLevels;

/// Whether a stock item is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StockStatus {
    /// Yes.
    Open,
    /// Until the last reservation goes.
    Closing,
    /// Not any more.
    Closed,
}

/// A stock item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockRow {
    /// The stock item: the product's id at the main location, else `product@location`.
    pub id: String,
    /// What lies there.
    pub product_id: Uuid,
    /// Where it lies.
    pub location: String,
    /// What lies there.
    pub on_hand: u32,
    /// Reserved by orders that are not paid.
    pub held: u32,
    /// Paid, waiting to leave.
    pub committed: u32,
    /// What can be promised to somebody else.
    pub available: u32,
    /// What is promised: held or committed.
    pub reserved: u32,
    /// Committed, or shipped at any time.
    pub sold: u64,
    /// From how much on it is little.
    pub low_stock_threshold: Option<u32>,
    /// Whether it is kept.
    pub status: StockStatus,
    /// The version of the aggregate.
    pub version: i64,
}

impl StockRow {
    fn set(&mut self, levels: Levels) {
        self.on_hand = levels.on_hand;
        self.held = levels.held;
        self.committed = levels.committed;
        self.available = levels.available();
        self.reserved = levels.reserved();
        self.sold = levels.sold;
    }
}

impl ReadModel for StockLevels {
    const NAME: &'static str = "stock_levels";
    const VERSION: u32 = 1;
    const FEEDS: &'static [Feed] =
        &[Feed { service: "inventory", aggregates: &["stock_item"], personal: PersonalData::Withheld }];
    const KEY: &'static str = "id";
    const COLUMNS: &'static str = "id text collate \"C\" primary key,
        product_id uuid not null,
        location text not null,
        on_hand bigint not null,
        held bigint not null,
        committed bigint not null,
        available bigint not null,
        reserved bigint not null,
        sold bigint not null,
        low_stock_threshold bigint,
        status text not null,
        version bigint not null";

    type Row = StockRow;

    fn fold(
        row: Option<StockRow>,
        key: &str,
        happened: &Happened,
    ) -> std::result::Result<Option<StockRow>, ApplyError> {
        let Event::StockItem(event) = &happened.event else { return Ok(row) };
        let mut row = match row {
            Some(row) => row,
            None => unopened(key)?,
        };
        if let Some(levels) = event.levels() {
            row.set(levels);
        }
        row.version = happened.sequence;
        match event {
            StockItemEvent::StockItemOpened { low_stock_threshold } => {
                row.status = StockStatus::Open;
                row.low_stock_threshold = *low_stock_threshold;
            }
            StockItemEvent::LowStockThresholdSet { low_stock_threshold } => {
                row.low_stock_threshold = *low_stock_threshold;
            }
            StockItemEvent::StockItemClosing { .. } => row.status = StockStatus::Closing,
            StockItemEvent::StockItemClosed { .. } => row.status = StockStatus::Closed,
            StockItemEvent::StockReceived { .. }
            | StockItemEvent::StockRemoved { .. }
            | StockItemEvent::StockCounted { .. }
            | StockItemEvent::StockWrittenOff { .. }
            | StockItemEvent::StockReserved { .. }
            | StockItemEvent::ReservationRejected { .. }
            | StockItemEvent::ReservationAdjusted { .. }
            | StockItemEvent::ReservationCommitted { .. }
            | StockItemEvent::ReservationLost { .. }
            | StockItemEvent::ReservationReleased { .. }
            | StockItemEvent::StockShipped { .. }
            | StockItemEvent::StockReturned { .. }
            | StockItemEvent::StockDepleted { .. }
            | StockItemEvent::StockReplenished { .. }
            | StockItemEvent::LowStockReached { .. } => {}
        }
        Ok(Some(row))
    }
}

/// An order may ask for stock before the item is opened, and the refusal is an event of the item: until it is
/// opened, queries do not show it.
fn unopened(key: &str) -> std::result::Result<StockRow, ApplyError> {
    let item: StockItemId =
        key.parse().map_err(|_| ApplyError::Event(format!("{key} is not the id of a stock item")))?;
    Ok(StockRow {
        id: key.to_owned(),
        product_id: item.product_id.0,
        location: item.location,
        on_hand: 0,
        held: 0,
        committed: 0,
        available: 0,
        reserved: 0,
        sold: 0,
        low_stock_threshold: None,
        status: StockStatus::Closed,
        version: 0,
    })
}

/// Stock items that are kept, in the order of their ids, which is that of their products. The cursor is the
/// id of a row.
///
/// # Errors
/// When the database is unreachable.
pub async fn list_stock(
    live: &Live<StockLevels>,
    after: Option<&str>,
    limit: u32,
) -> Result<Page<StockRow, String>> {
    let statement = live
        .select("where t.status <> 'closed' and ($1::text is null or t.id > $1) order by t.id limit $2")
        .await?;
    let found =
        sqlx::query(&statement).bind(after).bind(i64::from(limit) + 1).fetch_all(live.connections()).await?;
    Ok(Page::cut(live.rows(&found).await?, limit as usize, |row| row.id.clone()))
}

/// The stock of a product at the main location; none when it is not kept.
///
/// # Errors
/// When the database is unreachable.
pub async fn find_stock(live: &Live<StockLevels>, product_id: Uuid) -> Result<Option<StockRow>> {
    let found = live.find(&StockItemId::main(ProductId(product_id)).to_string()).await?;
    Ok(found.filter(|row| row.status != StockStatus::Closed))
}
