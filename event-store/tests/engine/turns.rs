//! Writers take turns: while one commits the next inserts behind it, and follows it or takes its place.

use event_store::{Log, feed};
use sqlx::{Connection, Executor, PgConnection};
use tokio::task::JoinHandle;

use crate::account::{bus, log, new_id};
use crate::failing::{deposit, until};

/// One event at a version, appended as the engine does it.
const APPENDED: &str = r#"
    select outcome from event_store.append(
        array['account'], array[$1], array[$2], array[1], array[1], array[null]::uuid[], array[null]::text[],
        array[null]::bytea[], array[false], array[null]::text[], array[false],
        array[1], array[$2 + 1], array['MoneyDeposited'], array['1.0'],
        array['{"MoneyDeposited": {"amount": 1}}'::json], array['{}'::json], array[event_store.partition_of($1)],
        '{}', '{}', '{}', '{}', null, null, false)"#;

/// The first events of two streams, in a batch that comes alone.
const TWO_ALONE: &str = r#"
    select outcome from event_store.append(
        array['account', 'account'], array[$1, $2], array[0, 0]::bigint[], array[1, 1], array[1, 2],
        array[null, null]::uuid[], array[null, null]::text[], array[null, null]::bytea[], array[false, false],
        array[null, null]::text[], array[false, false],
        array[1, 2], array[1, 1]::bigint[], array['MoneyDeposited', 'MoneyDeposited'], array['1.0', '1.0'],
        array['{"MoneyDeposited": {"amount": 1}}', '{"MoneyDeposited": {"amount": 1}}']::json[],
        array['{}', '{}']::json[], array[event_store.partition_of($1), event_store.partition_of($2)],
        '{}', '{}', '{}', '{}', null, null, true)"#;

/// How many wait to be let in.
const WAITING_TO_INSERT: &str = "
    select count(*) from pg_locks
    where locktype = 'advisory' and not granted
      and (classid::bigint << 32) + objid::bigint = event_store.insert_lock()
      and database = (select oid from pg_database where datname = current_database())";

/// What becomes of a command.
const APPENDED_WELL: i16 = 0;
const CONFLICT: i16 = 2;

/// Who has inserted what it appends, and waits for its turn to commit.
const WAITING_TO_COMMIT: &str = "
    select waiting.pid
    from pg_locks waiting join pg_locks inserting using (pid)
    where not waiting.granted and inserting.granted
      and waiting.locktype = 'advisory' and inserting.locktype = 'advisory'
      and (waiting.classid::bigint << 32) + waiting.objid::bigint = event_store.log_lock()
      and (inserting.classid::bigint << 32) + inserting.objid::bigint = event_store.insert_lock()
      and waiting.database = (select oid from pg_database where datname = current_database())
      and inserting.database = waiting.database";

/// Appends an event in a transaction that stays open, as if its commit took long.
async fn commits_slowly(connection: &mut PgConnection, id: &str, version: i64) {
    connection.execute("begin").await.expect("begun");
    sqlx::query(APPENDED).bind(id).bind(version).execute(connection).await.expect("appended");
}

/// Appends an event as one of several batches that are under way. Gives what became of it, and the session, which
/// goes on.
async fn appends(url: &str, id: &str, version: i64) -> JoinHandle<(PgConnection, sqlx::Result<i16>)> {
    let mut connection = PgConnection::connect(url).await.expect("connected");
    let id = id.to_owned();
    tokio::spawn(async move {
        let outcome = sqlx::query_scalar(APPENDED).bind(id).bind(version).fetch_one(&mut connection).await;
        (connection, outcome)
    })
}

async fn outcome(appending: JoinHandle<(PgConnection, sqlx::Result<i16>)>) -> i16 {
    appending.await.expect("it ends").1.expect("answered")
}

async fn waits_to_commit(log: &Log) -> i32 {
    let mut waiting = None;
    until("a writer has inserted and waits for its turn to commit", async || {
        waiting =
            sqlx::query_scalar(WAITING_TO_COMMIT).fetch_optional(log.database()).await.expect("answered");
        waiting.is_some()
    })
    .await;
    waiting.expect("it was found")
}

/// The aggregates of all events, in the order of their positions.
async fn written(log: &Log) -> Vec<String> {
    let events = feed::read(log.database(), log.source(), 0, 1_000).await.expect("no hole");
    events.into_iter().map(|event| event.aggregate_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_inserted_while_another_commits_follows_it() {
    let (database, log) = log().await;
    let (first, second, third) = (new_id(), new_id(), new_id());
    let mut slow = PgConnection::connect(&database.url).await.expect("connected");
    commits_slowly(&mut slow, &first, 0).await;
    let behind = appends(&database.url, &second, 0).await;
    waits_to_commit(&log).await;
    assert_eq!(written(&log).await, [] as [String; 0], "nothing is seen before its turn");

    slow.execute("commit").await.expect("committed");
    assert_eq!(outcome(behind).await, APPENDED_WELL);
    deposit(&log, &third, 1).await;
    assert_eq!(written(&log).await, [first, second, third]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_inserted_behind_something_that_comes_to_nothing_takes_its_place() {
    let (database, log) = log().await;
    let ids = [new_id(), new_id(), new_id(), new_id()];
    deposit(&log, &ids[0], 1).await;
    let mut slow = PgConnection::connect(&database.url).await.expect("connected");
    commits_slowly(&mut slow, &new_id(), 0).await;
    let behind = appends(&database.url, &ids[1], 0).await;
    waits_to_commit(&log).await;

    slow.execute("rollback").await.expect("rolled back");
    assert_eq!(outcome(behind).await, APPENDED_WELL);
    deposit(&log, &ids[2], 1).await;
    assert_eq!(outcome(appends(&database.url, &ids[3], 0).await).await, APPENDED_WELL);
    assert_eq!(written(&log).await, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_to_a_stream_behind_an_event_that_is_not_yet_committed_finds_the_conflict() {
    let (database, log) = log().await;
    let id = new_id();
    deposit(&log, &id, 1).await;
    let mut slow = PgConnection::connect(&database.url).await.expect("connected");
    commits_slowly(&mut slow, &id, 1).await;
    let behind = appends(&database.url, &id, 1).await;
    until("the writer waits for the event before its own", async || {
        let waiting = "select exists (select from pg_locks join pg_stat_activity using (pid)
             where locktype = 'transactionid' and not granted and datname = current_database())";
        sqlx::query_scalar(waiting).fetch_one(log.database()).await.expect("answered")
    })
    .await;
    slow.execute("commit").await.expect("committed");
    assert_eq!(outcome(behind).await, CONFLICT);
    deposit(&log, &id, 1).await;
    assert_eq!(written(&log).await, [id.clone(), id.clone(), id.clone()]);
    assert_eq!(bus(&log).load(&id).await.expect("loaded").aggregate.balance, 3);
}

/// The lock under which it inserted is the session's, which goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_cancelled_keeps_nobody_out() {
    let (database, log) = log().await;
    let id = new_id();
    let mut holder = PgConnection::connect(&database.url).await.expect("connected");
    holder.execute("select pg_advisory_lock(event_store.log_lock())").await.expect("locked");
    let cancelled = appends(&database.url, &new_id(), 0).await;
    let pid = waits_to_commit(&log).await;
    sqlx::query("select pg_cancel_backend($1)").bind(pid).execute(&mut holder).await.expect("asked");
    let (_session, outcome_of_cancelled) = cancelled.await.expect("it ends");
    outcome_of_cancelled.expect_err("it was cancelled");

    let next = appends(&database.url, &id, 0).await;
    assert_ne!(waits_to_commit(&log).await, pid, "another one inserts");
    holder.execute("select pg_advisory_unlock(event_store.log_lock())").await.expect("unlocked");
    assert_eq!(outcome(next).await, APPENDED_WELL);
    assert_eq!(written(&log).await, [id]);
}

/// Whoever asks what became of a batch must not get in between its failure and what it does about it.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_comes_alone_lets_nobody_in_before_its_good_commands_are_written() {
    let (database, log) = log().await;
    let (taken, good) = (new_id(), new_id());
    deposit(&log, &taken, 1).await;
    let mut holder = PgConnection::connect(&database.url).await.expect("connected");
    holder.execute("select pg_advisory_lock(event_store.insert_lock())").await.expect("locked");
    let until_waiting = async |writers: i64| {
        until("writers wait for the lock", async || {
            let waiting: i64 =
                sqlx::query_scalar(WAITING_TO_INSERT).fetch_one(log.database()).await.expect("answered");
            waiting == writers
        })
        .await;
    };
    let mut writer = PgConnection::connect(&database.url).await.expect("connected");
    let ids = (taken.clone(), good.clone());
    let appending = tokio::spawn(async move {
        sqlx::query_scalar(TWO_ALONE).bind(ids.0).bind(ids.1).fetch_all(&mut writer).await
    });
    until_waiting(1).await;
    let mut asking = PgConnection::connect(&database.url).await.expect("connected");
    let asked = tokio::spawn(async move {
        asking.execute("begin; select event_store.keep_writers_out()").await.expect("locked");
        let written = "select exists (select from event_store.events where aggregate_id = $1)";
        sqlx::query_scalar::<_, bool>(written).bind(good).fetch_one(&mut asking).await
    });
    until_waiting(2).await;
    holder.execute("select pg_advisory_unlock(event_store.insert_lock())").await.expect("unlocked");
    assert!(
        asked.await.expect("it ends").expect("answered"),
        "what it appends is there for who asks after it"
    );
    let outcomes: Vec<i16> = appending.await.expect("it ends").expect("answered");
    assert_eq!(outcomes, [CONFLICT, APPENDED_WELL]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_wrong_is_set_right() {
    let (database, log) = log().await;
    let mut ids = Vec::new();
    for wrong in [0_i64, 1, 2, 1_000, 1_000_000] {
        sqlx::query("select setval('event_store.head', $1)")
            .bind(wrong)
            .execute(log.database())
            .await
            .expect("set");
        ids.push(new_id());
        deposit(&log, ids.last().expect("just pushed"), 1).await;
        ids.push(new_id());
        let appending = appends(&database.url, ids.last().expect("just pushed"), 0).await;
        assert_eq!(outcome(appending).await, APPENDED_WELL);
        let head: i64 = sqlx::query_scalar("select last_value from event_store.head")
            .fetch_one(log.database())
            .await
            .expect("it is there");
        assert_eq!(head, ids.len() as i64);
    }
    assert_eq!(written(&log).await, ids);
}
