//! Commands that look after the databases: migrate, seed, admin, replay, verify, parked.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use comfy_table::Table;
use event_store::{Log, parked};
use indicatif::{ProgressBar, ProgressStyle};
use projections::projector::Sources;
use projections::rebuild::{Options, Outcome, Progress, Until};
use projections::registry;
use tokio_util::sync::CancellationToken;

use crate::cli::{ParkedCommand, ReplayOptions, VerifyOptions};
use crate::config::{Selection, Service, StorageOptions};
use crate::running::Databases;
use crate::stop_signals::{NO_SIGNALS, StopSignals};
use crate::{keys, open, work};

/// How often progress is printed when it does not go to a terminal.
const PRINTED_EVERY: Duration = Duration::from_secs(2);

/// The logs of a mart, for a command that ends.
pub(super) struct Maintenance {
    pub(super) sources: Sources,
    databases: Databases,
}

impl Maintenance {
    pub(super) async fn begin(storage: &StorageOptions, services: &[Service]) -> anyhow::Result<Self> {
        open::data_dir(storage)?;
        let master_key = keys::master_key(&storage.master_key())?;
        let databases = Databases::find(storage).await?;
        let logs = open::logs(&databases.urls, &[], services, master_key).await?;
        Ok(Self { sources: Sources { logs, broker: None }, databases })
    }

    fn log(&self, service: &str) -> anyhow::Result<&Log> {
        self.sources.logs.get(service).with_context(|| format!("there is no log of {service}"))
    }

    pub(super) async fn end(self) {
        drop(self.sources);
        self.databases.close().await;
    }
}

/// Makes and upgrades the databases.
///
/// # Errors
/// In one sentence that says what to do.
pub async fn migrate(storage: StorageOptions) -> anyhow::Result<()> {
    let maintenance = Maintenance::begin(&storage, &Service::ALL).await?;
    open::migrate(&maintenance.sources.logs).await?;
    println!("the databases of {} services are up to date", maintenance.sources.logs.len());
    maintenance.end().await;
    Ok(())
}

/// Builds read models anew.
///
/// # Errors
/// In one sentence that says what to do; the live read models are then as they were.
pub async fn replay(options: ReplayOptions) -> anyhow::Result<()> {
    let names: Vec<String> = if options.all {
        registry::all_names().into_iter().map(str::to_owned).collect()
    } else {
        options.read_models.clone()
    };
    if let Some(unknown) = names.iter().find(|name| registry::home_of(name).is_none()) {
        bail!("there is no read model `{unknown}`: name some of {}", registry::all_names().join(", "));
    }
    let maintenance = Maintenance::begin(&options.storage, &Service::ALL).await?;
    open::migrate(&maintenance.sources.logs).await?;
    let rebuild = Options {
        verify: options.verify,
        to: options.to.as_deref().map(until).transpose()?,
        drop_old: options.drop_old,
    };
    let stop = stop_on_ctrl_c()?;
    let mut different = 0;
    for name in &names {
        different += usize::from(!rebuild_one(&maintenance, name, &rebuild, &stop).await?);
    }
    maintenance.end().await;
    if different > 0 {
        bail!("{different} read models differ from their events: replay them without --verify");
    }
    Ok(())
}

/// Folds all events again and compares.
///
/// # Errors
/// When something differs, or the databases do not answer.
pub async fn verify(options: VerifyOptions) -> anyhow::Result<()> {
    let maintenance = Maintenance::begin(&options.storage, &Service::ALL).await?;
    open::migrate(&maintenance.sources.logs).await?;
    let rebuild = Options { verify: true, ..Options::default() };
    let stop = stop_on_ctrl_c()?;
    let (mut checked, mut different) = (0, Vec::new());
    for service in Selection::services(&options.services) {
        for name in registry::names(service.name()) {
            checked += 1;
            if !rebuild_one(&maintenance, name, &rebuild, &stop).await? {
                different.push(name);
            }
        }
    }
    maintenance.end().await;
    if let Some(path) = &options.report {
        std::fs::write(path, different.join("\n"))
            .with_context(|| format!("the report {} cannot be written", path.display()))?;
    }
    if !different.is_empty() {
        bail!(
            "{} of {checked} read models differ from their events: {}",
            different.len(),
            different.join(", ")
        );
    }
    println!("all {checked} read models equal their events");
    Ok(())
}

/// Rebuilds one read model and says what came of it. False: it differs.
async fn rebuild_one(
    maintenance: &Maintenance,
    name: &str,
    options: &Options,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    let service = registry::home_of(name).with_context(|| format!("there is no read model `{name}`"))?;
    let home = maintenance.log(service)?;
    let bar = Bar::new();
    let outcome = registry::rebuild(name, home, &maintenance.sources, options, &bar, stop)
        .await
        .with_context(|| format!("{name} could not be rebuilt; the live one is as it was"))?;
    bar.finish();
    match outcome {
        Outcome::Switched(generation) => println!("{name}: {} is live", generation.schema()),
        Outcome::Equal { rows } => println!("{name}: {rows} rows, all equal to the live ones"),
        Outcome::Kept(generation) => {
            println!("{name}: the past stands in schema {} of mart_{service}", generation.schema());
        }
        Outcome::Different { rows, keys } => {
            println!("{name}: {rows} rows differ from the events, among them {}", keys.join(", "));
            return Ok(false);
        }
        Outcome::Stopped => bail!("stopped; {name} is as it was"),
    }
    Ok(true)
}

fn until(text: &str) -> anyhow::Result<Until> {
    if let Ok(position) = text.parse::<i64>() {
        return Ok(Until::Position(position));
    }
    let time: DateTime<Utc> = text.parse().map_err(|_| {
        anyhow::anyhow!("--to takes a position, or a time such as 2026-01-31T12:00:00Z, and not `{text}`")
    })?;
    Ok(Until::Time(time))
}

fn stop_on_ctrl_c() -> anyhow::Result<CancellationToken> {
    let mut asked_to_stop = StopSignals::listen().context(NO_SIGNALS)?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        asked_to_stop.received().await;
        token.cancel();
    });
    Ok(stop)
}

/// A bar on a terminal, plain lines elsewhere.
struct Bar {
    bar: ProgressBar,
    plain: bool,
    state: Mutex<Plain>,
}

struct Plain {
    name: String,
    done: u64,
    all: u64,
    since: Instant,
    printed: Instant,
}

impl Bar {
    fn new() -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bar = if plain { ProgressBar::hidden() } else { ProgressBar::new(0) };
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix} [{bar:32}] {human_pos}/{human_len} events, {per_sec}, {eta} left {msg}",
        ) {
            bar.set_style(style.progress_chars("=> "));
        }
        let now = Instant::now();
        let state = Plain { name: String::new(), done: 0, all: 0, since: now, printed: now };
        Self { bar, plain, state: Mutex::new(state) }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn begins(&self, read_model: &str, events: u64) {
        self.bar.set_prefix(read_model.to_owned());
        self.bar.set_length(events);
        if let Ok(mut state) = self.state.lock() {
            state.name = read_model.to_owned();
            state.all = events;
        }
    }

    fn advances(&self, events: u64) {
        self.bar.inc(events);
        let Ok(mut state) = self.state.lock() else { return };
        state.done += events;
        if self.plain && state.printed.elapsed() >= PRINTED_EVERY {
            state.printed = Instant::now();
            let milliseconds = u64::try_from(state.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
            let rate = state.done.saturating_mul(1000) / milliseconds;
            let left = state.all.saturating_sub(state.done) / rate.max(1);
            eprintln!("{}: {}/{} events, {rate}/s, {left} s left", state.name, state.done, state.all);
        }
    }

    fn does(&self, what: &str) {
        self.bar.set_message(format!("({what})"));
    }
}

/// Looks at parked events, or puts them back in order.
///
/// # Errors
/// When the databases do not answer, or a stream still cannot go on.
pub async fn parked_events(command: ParkedCommand) -> anyhow::Result<()> {
    match command {
        ParkedCommand::List { services, storage } => {
            list_parked(&Selection::services(&services), &storage).await
        }
        ParkedCommand::Retry { service, storage } => retry_parked(service, &storage).await,
    }
}

/// The most parked events that are listed of a service.
const LISTED_PARKED: i64 = 1_000;

async fn list_parked(services: &[Service], storage: &StorageOptions) -> anyhow::Result<()> {
    let maintenance = Maintenance::begin(storage, services).await?;
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header([
        "subscription",
        "source",
        "position",
        "event",
        "aggregate",
        "attempts",
        "parked at",
        "error",
    ]);
    let mut count = 0;
    for log in maintenance.sources.logs.values() {
        for event in parked::list(log.database(), None, LISTED_PARKED).await? {
            count += 1;
            let error = if event.error.is_empty() { "waits behind the one before" } else { &event.error };
            table.add_row([
                event.subscription.as_str(),
                &event.source,
                &event.position.to_string(),
                &event.event_type,
                &format!("{} {}", event.aggregate_type, event.aggregate_id),
                &event.attempts.to_string(),
                &event.parked_at.to_rfc3339(),
                error,
            ]);
        }
    }
    maintenance.end().await;
    if count == 0 {
        println!("nothing is parked");
    } else {
        println!("{table}");
    }
    Ok(())
}

async fn retry_parked(service: Service, storage: &StorageOptions) -> anyhow::Result<()> {
    let maintenance = Maintenance::begin(storage, &Service::ALL).await?;
    let home = maintenance.log(service.name())?.clone();
    let mut stuck: BTreeMap<String, String> = BTreeMap::new();
    let mut applied = 0;
    for name in registry::names(service.name()) {
        let retried = registry::retry_parked(name, &home, &maintenance.sources).await?;
        applied += retried.applied;
        stuck.extend(retried.stuck);
    }
    let services = open::for_maintenance(&maintenance.sources, storage)?;
    let retried = work::retry_waiting(service, &services, &maintenance.sources).await?;
    drop(services);
    applied += retried.applied;
    stuck.extend(retried.stuck);
    maintenance.end().await;
    println!("{applied} events were applied");
    if stuck.is_empty() {
        return Ok(());
    }
    for (stream, error) in &stuck {
        eprintln!("{stream} still waits: {error}");
    }
    bail!("{} streams still wait", stuck.len())
}

/// Reads a password from standard input: one line.
///
/// # Errors
/// When there is none.
pub(super) fn password_from_stdin() -> anyhow::Result<secrecy::SecretString> {
    if std::io::stdin().is_terminal() {
        eprint!("password: ");
    }
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .context("the password cannot be read from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("a password is needed on standard input");
    }
    Ok(password.to_owned().into())
}
