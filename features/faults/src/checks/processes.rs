//! What the processes say of themselves: read models that equal their events, nothing parked, no panic.

use anyhow::Result;
use features::databases::SERVICES;
use sqlx::Row;

use super::Checked;
use crate::postgres::Postgres;
use crate::world::World;

/// What is said of a read model that is as it should be.
const ALL_EQUAL: &str = "all equal to the live ones";

pub(super) async fn read_models_equal_their_events(world: &World) -> Result<Checked> {
    let mut checked = Checked::new("every read model equals its rebuild");
    let output = world.command(&["verify", "all"]).await?;
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let last = told.lines().last().unwrap_or_default().to_owned();
    checked.looked_at = last.split(' ').find_map(|word| word.parse().ok()).unwrap_or(0);
    if !output.status.success() {
        let differences: Vec<&str> = told.lines().filter(|line| !line.contains(ALL_EQUAL)).collect();
        checked.wrong.push(differences.join("\n"));
    }
    Ok(checked)
}

pub(super) async fn nothing_is_parked(postgres: &Postgres) -> Result<Checked> {
    let mut checked = Checked::new("nothing is parked");
    for service in SERVICES {
        let mut connection = postgres.connect(service).await?;
        let rows = sqlx::query(
            "select subscription, source, position, event_type, error from event_store.parked \
             order by subscription, source, position limit 100",
        )
        .fetch_all(&mut connection)
        .await?;
        checked.looked_at += 1;
        for row in rows {
            let (subscription, source): (String, String) =
                (row.try_get("subscription")?, row.try_get("source")?);
            let (position, event): (i64, String) = (row.try_get("position")?, row.try_get("event_type")?);
            let error: String = row.try_get("error")?;
            checked.wrong.push(format!("{subscription} has parked {event} {source}:{position}: {error}"));
        }
    }
    Ok(checked)
}

pub(super) fn nobody_panicked(world: &World) -> Checked {
    let mut checked = Checked::new("nobody panicked");
    for mart in &world.marts {
        let path = world.folder.join(format!("{}.log", mart.name));
        let log = std::fs::read(&path).unwrap_or_default();
        checked.looked_at += 1;
        let panics = String::from_utf8_lossy(&log);
        let panics = panics.lines().filter(|line| line.contains("panicked at"));
        checked.wrong.extend(panics.map(|line| format!("{}: {line}", mart.name)));
    }
    checked
}
