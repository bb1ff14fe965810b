//! Rebuilds beside the live rows: nothing lost, nothing half seen, nothing changed by what fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aggregates::inventory::{StockItem, StockItemCommand};
use event_store::{CommandBus, Context, Target, parked};
use projections::generations::Status;
use projections::inventory::StockLevels;
use projections::inventory::stock_levels::list_stock;
use projections::rebuild::{self, Options, Outcome, Progress, Until};
use projections::{Live, registry};
use sqlx::{Connection, Executor};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::mart::Mart;

const NAME: &str = "stock_levels";

async fn receive(bus: &CommandBus<StockItem>, id: Uuid, quantity: u32) {
    let command = StockItemCommand::Receive { quantity, reason: None };
    bus.execute(Target::Existing(id.to_string()), command, Context::default()).await.expect("received");
}

/// A mart with this many stock items of one piece each, projected.
async fn stocked(items: usize) -> (Mart, CommandBus<StockItem>, Vec<Uuid>) {
    let mut mart = Mart::of(&["inventory"]).await;
    let bus = mart.bus::<StockItem>("inventory");
    let ids: Vec<Uuid> = (0..items).map(|_| Uuid::now_v7()).collect();
    for id in &ids {
        let open = StockItemCommand::Open { low_stock_threshold: None };
        bus.execute(Target::New(id.to_string()), open, Context::default()).await.expect("opened");
        receive(&bus, *id, 1).await;
    }
    mart.project("inventory").await;
    mart.settle("inventory").await;
    (mart, bus, ids)
}

async fn statuses(mart: &Mart) -> Vec<(String, Status)> {
    let generations = registry::generations(NAME, mart.log("inventory")).await.expect("listed");
    generations.into_iter().map(|generation| (generation.version, generation.status)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_while_events_go_on_loses_nothing_and_no_reader_sees_a_half() {
    let (mart, bus, ids) = stocked(30).await;
    let over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (over, bus, ids) = (Arc::clone(&over), bus.clone(), ids.clone());
        async move {
            let mut rounds = 0_u32;
            while !over.load(Ordering::Relaxed) {
                for id in &ids {
                    receive(&bus, *id, 1).await;
                }
                rounds += 1;
            }
            rounds
        }
    });
    let reader = tokio::spawn({
        let (over, live) = (Arc::clone(&over), mart.live::<StockLevels>("inventory"));
        async move {
            let mut looks = 0_u32;
            while !over.load(Ordering::Relaxed) {
                let page = list_stock(&live, None, 100).await.expect("answers");
                assert_eq!(page.rows.len(), 30);
                assert!(page.rows.iter().all(|row| row.on_hand >= 1), "every row has its history");
                looks += 1;
            }
            looks
        }
    });
    for version in ["1.2", "1.3"] {
        let outcome = mart.rebuild(NAME, &Options::default()).await;
        assert!(matches!(outcome, Outcome::Switched(new) if new.version == version));
    }
    over.store(true, Ordering::Relaxed);
    let (rounds, looks) = (writer.await.expect("writes"), reader.await.expect("reads"));
    assert!(rounds > 0 && looks > 0);
    mart.settle("inventory").await;
    let page = list_stock(&mart.live("inventory"), None, 100).await.expect("answers");
    assert!(page.rows.iter().all(|row| row.on_hand == rounds + 1));
    assert_eq!(mart.verify(NAME).await, Outcome::Equal { rows: 30 });
    let expected = [("1.1", Status::Retired), ("1.2", Status::Retired), ("1.3", Status::Live)];
    assert_eq!(statuses(&mart).await, expected.map(|(version, status)| (version.to_owned(), status)));

    // As if the last switch had been long ago: nobody has to be waited for.
    let retired = "update event_store.read_models set changed_at = changed_at - interval '1 hour' \
                   where status = 'retired'";
    mart.log("inventory").database().execute(retired).await.expect("dated back");
    assert_eq!(registry::drop_old(NAME, mart.log("inventory")).await.expect("drops"), 2);
    assert_eq!(statuses(&mart).await, [("1.3".to_owned(), Status::Live)]);
    mart.stop().await;
}

/// Stops a rebuild when it gets to a certain step.
struct StopsAt(&'static str, CancellationToken);

impl Progress for StopsAt {
    fn begins(&self, _read_model: &str, _events: u64) {
        self.does("beginning");
    }

    fn advances(&self, _events: u64) {}

    fn does(&self, what: &str) {
        if what == self.0 {
            self.1.cancel();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_stopped_changes_nothing_and_the_next_starts_clean() {
    let (mart, _bus, _ids) = stocked(3).await;
    let home = mart.log("inventory");
    for step in ["beginning", "catching up"] {
        let stop = CancellationToken::new();
        let progress = StopsAt(step, stop.clone());
        let outcome =
            registry::rebuild(NAME, home, &mart.sources, &Options::default(), &progress, &stop).await;
        assert_eq!(outcome.expect("stops"), Outcome::Stopped, "{step}");
        assert_eq!(statuses(&mart).await, [("1.1".to_owned(), Status::Live)]);
    }
    // What a rebuild leaves whose process was killed.
    let left = "insert into event_store.read_models (name, version, status) \
                values ('stock_levels', '1.7', 'building'); \
                create schema stock_levels_v1_7; create table stock_levels_v1_7.stock_levels (id text)";
    home.database().execute(sqlx::raw_sql(left)).await.expect("left");
    let outcome = mart.rebuild(NAME, &Options::default()).await;
    assert!(matches!(outcome, Outcome::Switched(_)));
    let left: bool = sqlx::query_scalar("select to_regnamespace('stock_levels_v1_7') is not null")
        .fetch_one(home.database())
        .await
        .expect("answers");
    assert!(!left, "the leftovers are gone");
    let versions: Vec<Status> = statuses(&mart).await.into_iter().map(|(_, status)| status).collect();
    assert_eq!(versions, [Status::Retired, Status::Live]);
    mart.settle("inventory").await;
    assert_eq!(mart.verify(NAME).await, Outcome::Equal { rows: 3 });
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_tampered_with_is_found() {
    let (mart, _bus, ids) = stocked(5).await;
    let live: Live<StockLevels> = mart.live("inventory");
    let tampered = ids[2].to_string();
    sqlx::query(&format!("update {} set on_hand = 999 where id = $1", live.table().await.expect("a table")))
        .bind(&tampered)
        .execute(live.database())
        .await
        .expect("tampered");
    assert_eq!(mart.verify(NAME).await, Outcome::Different { rows: 1, keys: vec![tampered] });
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_event_parks_its_stream_and_a_rebuild_reports_it() {
    let (mart, _bus, ids) = stocked(2).await;
    let home = mart.log("inventory");
    let good = r#"{"LowStockThresholdSet":{"low_stock_threshold":3}}"#;
    for (id, sequence, payload) in [(ids[0], 4, r#"{"Nonsense":{}}"#), (ids[0], 5, good), (ids[1], 4, good)] {
        sqlx::query(
            "insert into event_store.events \
             (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata) \
             values ('stock_item', $1, $2, 'LowStockThresholdSet', '1.0', $3::json, '{}')",
        )
        .bind(id.to_string())
        .bind(sequence)
        .bind(payload)
        .execute(home.database())
        .await
        .expect("appended");
    }
    home.signal().refresh().await.expect("a head");
    mart.settle("inventory").await;
    let page = list_stock(&mart.live("inventory"), None, 10).await.expect("answers");
    let told: Vec<(i64, Option<u32>)> =
        page.rows.iter().map(|row| (row.version, row.low_stock_threshold)).collect();
    assert_eq!(told, [(3, None), (4, Some(3))], "the others go on");
    let waiting = parked::list(home.database(), None, 10).await.expect("listed");
    let positions: Vec<i64> = waiting.iter().map(|event| event.position).collect();
    assert_eq!(positions, [7, 8]);

    let stop = CancellationToken::new();
    let failed = registry::rebuild(
        NAME,
        home,
        &mart.sources,
        &Options::default(),
        &projections::rebuild::Silent,
        &stop,
    )
    .await
    .expect_err("cannot be folded");
    assert!(failed.to_string().contains("LowStockThresholdSet at position 7 of inventory"), "{failed}");
    assert_eq!(statuses(&mart).await, [("1.1".to_owned(), Status::Live)]);
    let retried = registry::retry_parked(NAME, home, &mart.sources).await.expect("tried");
    assert_eq!((retried.applied, retried.stuck.len()), (0, 1));
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_of_the_past_outlives_the_next_rebuild_until_it_is_dropped() {
    let (mart, _bus, _ids) = stocked(3).await;
    let past = Options { to: Some(Until::Position(2)), ..Options::default() };
    let outcome = mart.rebuild(NAME, &past).await;
    assert!(matches!(outcome, Outcome::Kept(kept) if kept.status == Status::Kept && kept.version == "1.2"));
    let outcome = mart.rebuild(NAME, &Options::default()).await;
    assert!(matches!(outcome, Outcome::Switched(_)));
    let expected = [("1.1", Status::Retired), ("1.2", Status::Kept), ("1.3", Status::Live)];
    assert_eq!(statuses(&mart).await, expected.map(|(version, status)| (version.to_owned(), status)));
    let home = mart.log("inventory");
    let rows: i64 = sqlx::query_scalar("select count(*) from stock_levels_v1_2.stock_levels")
        .fetch_one(home.database())
        .await
        .expect("it stands");
    assert_eq!(rows, 1, "one item was opened and filled by then");

    let retired = "update event_store.read_models set changed_at = changed_at - interval '1 hour' \
                   where status = 'retired'";
    home.database().execute(retired).await.expect("dated back");
    assert_eq!(registry::drop_old(NAME, home).await.expect("drops"), 2);
    assert_eq!(statuses(&mart).await, [("1.3".to_owned(), Status::Live)]);
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_whether_a_rebuild_runs_keeps_none_from_running() {
    let mart = Mart::of(&["inventory"]).await;
    let home = mart.log("inventory").clone();
    let over = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (over, home) = (Arc::clone(&over), home.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                rebuild::is_running(&home, NAME).await.expect("answers");
            }
        }
    });
    let mut guard = sqlx::PgConnection::connect_with(home.connect_options()).await.expect("connects");
    for _ in 0..300 {
        let taken: bool =
            sqlx::query_scalar("select pg_try_advisory_lock(hashtextextended('rebuild ' || $1, 0))")
                .bind(NAME)
                .fetch_one(&mut guard)
                .await
                .expect("answers");
        assert!(taken, "whoever asks has the lock");
        assert!(rebuild::is_running(&home, NAME).await.expect("answers"));
        guard.execute("select pg_advisory_unlock_all()").await.expect("given back");
    }
    over.store(true, Ordering::Relaxed);
    asking.await.expect("ends");
    assert!(!rebuild::is_running(&home, NAME).await.expect("answers"));
    mart.stop().await;
}
