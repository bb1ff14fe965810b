//! The tables of the engine, numbered and reversible.

use std::borrow::Cow;

use sqlx::PgPool;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::Result;

/// Version, name, the way up, the way down.
const MIGRATIONS: [(i64, &str, &str, &str); 3] = [
    (
        1,
        "event store",
        include_str!("../migrations/0001_event_store.up.sql"),
        include_str!("../migrations/0001_event_store.down.sql"),
    ),
    (
        2,
        "append",
        include_str!("../migrations/0002_append.up.sql"),
        include_str!("../migrations/0002_append.down.sql"),
    ),
    (
        3,
        "streams",
        include_str!("../migrations/0003_streams.up.sql"),
        include_str!("../migrations/0003_streams.down.sql"),
    ),
];

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.iter().flat_map(|(version, name, up, down)| {
        [(MigrationType::ReversibleUp, up), (MigrationType::ReversibleDown, down)].map(|(kind, sql)| {
            Migration::new(*version, Cow::Borrowed(*name), kind, Cow::Borrowed(*sql), false)
        })
    });
    Migrator { migrations: Cow::Owned(migrations.collect()), ..Migrator::DEFAULT }
}

/// Brings the event store of one database to the newest version.
///
/// # Errors
/// When the database is unreachable, or holds a version this binary does not know.
pub async fn up(database: &PgPool) -> Result<()> {
    migrator().run(database).await?;
    Ok(())
}

/// Takes the event store of one database back to `version` (0: nothing is left).
///
/// # Errors
/// When the database is unreachable, or a step back fails.
pub async fn down(database: &PgPool, version: i64) -> Result<()> {
    migrator().undo(database, version).await?;
    Ok(())
}

/// The versions there are, oldest first.
pub fn versions() -> Vec<i64> {
    MIGRATIONS.iter().map(|(version, ..)| *version).collect()
}
