//! Programs of two versions on the same data: the older rows are served while the newer ones are built, and a process
//! of the older program goes on in its own rows when a newer program has gone live.

use std::time::{Duration, Instant};

use features::eventually::eventually;
use features::mart::Setup;
use features::shop::{customer, order, order_reads, paid_order, product, stock, stock_becomes};
use features::{PATIENCE, TestMart, history};
use sqlx::Executor;

use crate::{room, with_past};

/// Events enough for a rebuild that can be watched.
const ITEMS: i64 = 4_000;
/// How long the rebuild at the start may take, on a busy machine.
const BUILT_WITHIN: Duration = Duration::from_secs(90);

/// Makes the live generation of stock look as if a program of version 0 had built it.
const OLDER: &str = "
    alter schema stock_levels_v1_1 rename to stock_levels_v0_1;
    update event_store.read_models set version = '0.1' where name = 'stock_levels' and version = '1.1';
    update event_store.checkpoints set subscription = 'stock_levels@0.1' where subscription = 'stock_levels@1.1'";

/// What a program of version 2 leaves when it has built its rows and switched to them: a table that the program of
/// version 1 cannot read. The switch is dated back, so that no grace is left for the rows that it replaced.
const NEWER: &str = "
    create schema stock_levels_v2_9;
    create table stock_levels_v2_9.stock_levels (item text primary key, levels json not null);
    update event_store.read_models set status = 'retired', changed_at = clock_timestamp() - interval '1 hour'
        where name = 'stock_levels' and status = 'live';
    insert into event_store.read_models (name, version, status) values ('stock_levels', '2.9', 'live');
    select pg_notify('mart_read_models', '')";

async fn in_inventory(mart: &TestMart, statements: &str) {
    let mut inventory = mart.databases().connect("inventory").await;
    inventory.execute(sqlx::raw_sql(statements)).await.expect("the statements are right");
}

/// Whether a generation of stock that this program built is live.
async fn is_built(mart: &TestMart) -> bool {
    let live = "select count(*) from event_store.read_models \
                where name = 'stock_levels' and status = 'live' and version like '1.%'";
    mart.databases().number("inventory", live).await == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn older_rows_are_served_while_the_newer_ones_are_built() {
    let _room = room().await;
    let mut mart = with_past(ITEMS).await;
    // What the older program has built, up to the end.
    let ann = customer(&mart).await;
    let product = product(&mart, "2.00", 10).await;
    paid_order(&ann, &product, 1).await;
    stock_becomes(&mart.admin().await, &product, [10, 9, 0, 1]).await;
    mart.stop().await;
    in_inventory(&mart, OLDER).await;
    mart.start().await;
    let admin = mart.admin().await;
    let mut looks = 0;
    let begun = Instant::now();
    while !is_built(&mart).await {
        assert_eq!(stock(&admin, &product).await, [10, 9, 0, 1]);
        looks += 1;
        assert!(begun.elapsed() < BUILT_WITHIN, "the newer rows are not built");
    }
    println!("the older rows were read {looks} times within {:?}", begun.elapsed());
    assert!(looks > 0, "there was nothing to watch");
    let table = "stock_levels_v1_2.stock_levels";
    assert_eq!(history::wrong_rows(mart.databases(), table, ITEMS).await, 0);
    let ann = mart.client().with_token(ann.token().unwrap_or_default());
    paid_order(&ann, &product, 2).await;
    stock_becomes(&admin, &product, [10, 7, 0, 3]).await;
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_rows_that_cannot_be_read_are_unavailable_until_the_newer_ones_are_built() {
    let _room = room().await;
    let mut mart = with_past(ITEMS).await;
    let product = product(&mart, "2.00", 10).await;
    mart.stop().await;
    in_inventory(&mart, OLDER).await;
    in_inventory(&mart, "alter table stock_levels_v0_1.stock_levels rename column on_hand to there").await;
    mart.start().await;
    let admin = mart.admin().await;
    let path = format!("/v1/inventory/{product}");
    let mut refused = 0;
    let shown = eventually(BUILT_WITHIN, async || {
        let reply = admin.get(&path).await;
        if reply.status == 200 {
            return Ok(reply);
        }
        let told = reply.to_string();
        reply.refuses(503, "service_unavailable");
        refused += 1;
        Err(told)
    })
    .await;
    assert!(refused > 0, "the rows were there at once");
    assert_eq!(shown.body["on_hand"], 10);
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_program_goes_on_in_its_own_rows_when_a_newer_one_has_gone_live() {
    let _room = room().await;
    let mut mart = Setup::new().await.start().await;
    let (ann, product) = (customer(&mart).await, product(&mart, "2.00", 10).await);
    paid_order(&ann, &product, 1).await;
    in_inventory(&mart, NEWER).await;
    let admin = mart.admin().await;
    paid_order(&ann, &product, 1).await;
    stock_becomes(&admin, &product, [10, 8, 0, 2]).await;

    // So does one that is started afterwards, as when a roll-out is taken back.
    mart.restart().await;
    let (ann, admin) = (mart.client().with_token(ann.token().unwrap_or_default()), mart.admin().await);
    let id = order(&ann, &product, 1).await.is(201).text_of("id");
    order_reads(&ann, &id, "awaiting_payment", "pending").await;
    stock_becomes(&admin, &product, [10, 7, 1, 2]).await;
    let untouched = "select count(*) from event_store.read_models \
                     where name = 'stock_levels' and version = '2.9' and status = 'live'";
    assert_eq!(
        mart.databases().number("inventory", untouched).await,
        1,
        "the newer rows are none of its business"
    );
    let verified = mart.run(&["verify"]).await;
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    // Its own rebuild is what takes a mart back to the older rows for good.
    let replayed = mart.run(&["replay", "stock_levels"]).await;
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    eventually(PATIENCE, async || if is_built(&mart).await { Ok(()) } else { Err("not live".to_owned()) })
        .await;
    stock_becomes(&admin, &product, [10, 7, 1, 2]).await;
    mart.stop().await;
}
