//! A past for a mart: stock that came, was reserved, sold, shipped and released, written straight into the log.
//!
//! Events written by commands take milliseconds each; a past of a million of them takes a statement.

use sqlx::{Connection, Executor, PgConnection};

use crate::databases::{Databases, SERVICES};

/// What happens to each stock item.
pub const EVENTS_OF_AN_ITEM: u64 = 8;
/// Items come in blocks, and the events of a block are mixed: those of one item are far apart.
const ITEMS_OF_A_BLOCK: u64 = 1_000;

/// The events of all items, in the order of their positions: an item opens, goods come, some are sold and shipped,
/// some are reserved and not paid for; and at the very end goods come for each item once more.
const EVENTS: &str = r#"
    insert into event_store.events (position, aggregate_type, aggregate_id, sequence, event_type, event_version,
                                    payload, metadata, partition, recorded_at)
    select $1::bigint + case step when 8 then $2::bigint * 7 + item + 1
                else (item / $3::bigint) * $3 * 7 + (step - 1) * $3 + item % $3 + 1 end as position,
           'stock_item', id, step, type, '1.0', json_build_object(type, body),
           json_build_object('event_id', md5(id || step)::uuid), event_store.partition_of(id),
           timestamptz '2026-01-01' + make_interval(secs => item::double precision / 100)
    from (select item, step, md5('item ' || item)::uuid::text as id, 50 + item % 50 as pieces,
                 md5('sold ' || item)::uuid as sold, md5('left ' || item)::uuid as unpaid,
                 timestamptz '2026-01-01' as at
          from generate_series(0, $2::bigint - 1) as item, generate_series(1, 8) as step) as happening,
    lateral (select case step
        when 1 then 'StockItemOpened' when 2 then 'StockReceived' when 3 then 'StockReserved'
        when 4 then 'ReservationCommitted' when 5 then 'StockShipped' when 6 then 'StockReserved'
        when 7 then 'ReservationReleased' when 8 then 'StockReceived' end as type) as named,
    lateral (select json_build_object(
        'on_hand', pieces - case when step >= 5 then 2 else 0 end + case step when 8 then 10 else 0 end,
        'held', case step when 3 then 2 when 6 then 1 else 0 end,
        'committed', case step when 4 then 2 else 0 end,
        'sold', case when step >= 4 then 2 else 0 end) as levels) as left_over,
    lateral (select case step
        when 1 then json_build_object('low_stock_threshold', null)
        when 2 then json_build_object('quantity', pieces, 'reason', 'delivery', 'levels', levels)
        when 3 then json_build_object('reservation', sold, 'quantity', 2, 'until', at, 'levels', levels)
        when 4 then json_build_object('reservation', sold, 'quantity', 2, 'levels', levels)
        when 5 then json_build_object('reservation', sold, 'quantity', 2, 'at', at, 'levels', levels)
        when 6 then json_build_object('reservation', unpaid, 'quantity', 1, 'until', at, 'levels', levels)
        when 7 then json_build_object('reservation', unpaid, 'quantity', 1, 'why', 'expired', 'at', at,
                                      'levels', levels)
        when 8 then json_build_object('quantity', 10, 'reason', 'delivery', 'levels', levels)
        end as body) as told
    order by position"#;

/// New items, opened and no more.
const OPENED: &str = "
    insert into event_store.events (position, aggregate_type, aggregate_id, sequence, event_type, event_version,
                                    payload, metadata, partition, recorded_at)
    select head + number, 'stock_item', id, 1, 'StockItemOpened', '1.0',
           json_build_object('StockItemOpened', json_build_object('low_stock_threshold', null)),
           json_build_object('event_id', gen_random_uuid()), event_store.partition_of(id), clock_timestamp()
    from (select coalesce(max(position), 0) as head from event_store.events) as log,
         (select number, gen_random_uuid()::text as id from generate_series(1, $1::bigint) as number) as item";

/// Tells of new events, as a process does after its appends.
const NOTIFIED: &str = "select pg_notify('mart_log', max(position)::text) from event_store.events";

/// The rows of `stock_levels` that differ from what became of the items of a past.
const WRONG_ROWS: &str = "
    select count(*)
    from (select md5('item ' || item)::uuid as id, 58 + item % 50 as pieces
          from generate_series(0, $1::bigint - 1) as item) as expected
    left join {table} row on row.id = expected.id::text
    where row.id is null or (row.product_id, row.on_hand, row.held, row.committed, row.available, row.reserved,
                             row.sold, row.status, row.version)
          is distinct from (expected.id, expected.pieces, 0, 0, expected.pieces, 0, 2, 'open', 8)";

/// How many items have about so many events.
pub fn items_for(events: u64) -> i64 {
    let blocks = (events / EVENTS_OF_AN_ITEM / ITEMS_OF_A_BLOCK).max(1);
    i64::try_from(blocks * ITEMS_OF_A_BLOCK).expect("a past is not that long")
}

/// Gives the inventory of a mart that does not run a past of so many items, as one that all of the mart has worked
/// off, except for its read models: those are to be rebuilt. The mart must have run before.
///
/// # Panics
/// When a database does not answer.
pub async fn write_past(databases: &Databases, items: i64) {
    let head =
        databases.number("inventory", "select coalesce(max(position), 0) from event_store.events").await;
    let mut inventory = databases.connect("inventory").await;
    sqlx::query(EVENTS)
        .bind(head)
        .bind(items)
        .bind(i64::try_from(ITEMS_OF_A_BLOCK).expect("it is small"))
        .execute(&mut inventory)
        .await
        .expect("the events can be written");
    inventory.execute("analyze event_store.events").await.expect("analysed");
    let end = databases.number("inventory", "select max(position) from event_store.events").await;
    let moved = "update event_store.relay set position = $1 where source = 'inventory'";
    sqlx::query(moved).bind(end).execute(&mut inventory).await.expect("moved");
    for service in SERVICES {
        let mut database = databases.connect(service).await;
        let moved = "update event_store.checkpoints set position = $1 where source = 'inventory'";
        sqlx::query(moved).bind(end).execute(&mut database).await.expect("moved");
    }
}

/// Opens so many new items in one commit, as commands would that come together.
///
/// # Panics
/// When the database does not answer.
pub async fn open_items(inventory: &mut PgConnection, items: i64) {
    let mut transaction = inventory.begin().await.expect("a transaction begins");
    // A statement of its own: what a statement sees is older than the lock that it takes itself.
    transaction.execute("select event_store.keep_writers_out()").await.expect("locked");
    sqlx::query(OPENED).bind(items).execute(&mut *transaction).await.expect("the events can be written");
    transaction.execute(NOTIFIED).await.expect("notified");
    transaction.commit().await.expect("it commits");
}

/// The id of an item of the past, which is that of its product.
///
/// # Panics
/// When the database does not answer.
pub async fn item(databases: &Databases, number: i64) -> String {
    let mut inventory = databases.connect("inventory").await;
    let id = sqlx::query_scalar("select md5('item ' || $1::bigint)::uuid::text").bind(number);
    id.fetch_one(&mut inventory).await.expect("the statement is right")
}

/// How many rows of a table of `stock_levels` are not what the past made of them.
///
/// # Panics
/// When there is no such table.
pub async fn wrong_rows(databases: &Databases, table: &str, items: i64) -> i64 {
    let mut inventory = databases.connect("inventory").await;
    let statement = WRONG_ROWS.replace("{table}", table);
    let wrong = sqlx::query_scalar(&statement).bind(items).fetch_one(&mut inventory).await;
    wrong.expect("the statement is right")
}
