//! The other floor: the server itself adds events to the log, one batch after the other in one session, as many as
//! come together when a thousand commands are in flight. Nothing comes over a connection, nothing is parsed, decided or
//! answered, nobody waits for the log's lock. As the events of a log follow one another without a hole, a second session
//! would have to wait for the first.

use std::time::{Duration, Instant};

use event_store::feed;
use sqlx::Executor;

use crate::Failure;
use crate::database::RoundDatabase;
use crate::parcel::ParcelScanned;

/// How many events are added by one commit.
const BATCH_EVENTS: usize = 512;
/// Beyond all that the aggregates have, so that other cells can go on with them.
const SEQUENCES_FROM: i64 = 1_000_000;

/// Events per second that the server adds to streams of these aggregates, durably.
pub(crate) async fn run(
    database: &RoundDatabase,
    ids: &[String],
    measured: Duration,
) -> Result<f64, Failure> {
    let mut connection = RoundDatabase::pool(&database.url, 1).await?.acquire().await?.detach();
    connection.execute("create temporary table streams (n integer primary key, id text)").await?;
    sqlx::query("insert into streams select n, id from unnest($1::text[]) with ordinality as s(id, n)")
        .bind(ids)
        .execute(&mut connection)
        .await?;
    connection.execute("analyze streams").await?;
    let before = feed::head(database.log.database()).await?;
    let seconds = measured.as_secs_f64();
    let payload = serde_json::to_string(&ParcelScanned::new(0))?;
    let metadata = r#"{"event_id": "01890a5d-ac96-774b-bcce-b302a9e8f7aa"}"#;
    let (count, last) = (ids.len(), ids.len() - 1);
    let program = format!(
        "do $program$
         declare
             ends timestamptz := clock_timestamp() + make_interval(secs => {seconds});
             head bigint;
             batch bigint := {SEQUENCES_FROM};
         begin
             while clock_timestamp() < ends loop
                 perform event_store.keep_writers_out();
                 select coalesce(max(position), 0) into head from event_store.events;
                 batch := batch + 1;
                 insert into event_store.events
                 select head + row_number() over (), 'parcel', s.id, batch, 'ParcelScanned', '1.0',
                        $json${payload}$json$, $json${metadata}$json$, 3, clock_timestamp()
                 from (select id from streams
                       where n in (select 1 + (random() * {last})::integer % {count}
                                   from generate_series(1, {BATCH_EVENTS}))
                       order by id collate \"C\") s;
                 commit;
             end loop;
         end
         $program$"
    );
    let began = Instant::now();
    connection.execute(program.as_str()).await?;
    let elapsed = began.elapsed();
    let added = feed::head(database.log.database()).await? - before;
    Ok(added as f64 / elapsed.as_secs_f64())
}
