//! A mart that has data and nothing to do.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use features::TestMart;
use figures::{Failure, Options, Row};
use tokio::time::{Instant, sleep};

/// How long it is watched at a time.
const WATCHED: Duration = Duration::from_secs(10);
/// How often it is watched at most, until the database server has cleaned up what was changed before: it looks for that
/// once a minute.
const WATCHED_AT_MOST: usize = 12;
/// How often it is looked whether the server cleans up.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The same in a quick run.
const QUICK_WATCHED: Duration = Duration::from_secs(1);
/// How long it has after its start to get done what it begins with.
const SETTLES: Duration = Duration::from_secs(5);
/// The system's unit of processor time, a hundredth of a second on all that Linux runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the rounds measured.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    start_seconds: Vec<f64>,
    mart_percent: Vec<f64>,
    both_percent: Vec<f64>,
    /// While the server cleaned up.
    cleaning_percent: Vec<f64>,
    memory_mb: Vec<f64>,
}

impl Rounds {
    /// Starts the mart anew with its data, and watches it.
    pub(crate) async fn play(&mut self, mart: &mut TestMart, options: &Options) -> Result<(), Failure> {
        mart.stop().await;
        let started = Instant::now();
        mart.start().await;
        self.start_seconds.push(started.elapsed().as_secs_f64());
        let watched = if options.quick { QUICK_WATCHED } else { WATCHED };
        sleep(SETTLES.min(watched)).await;
        let own = mart.process_id();
        let server = server(mart)?;
        let mut last = watch(own, server, watched).await;
        let mut has_cleaned = last.is_cleaning;
        for _ in 1..if options.quick { 1 } else { WATCHED_AT_MOST } {
            if last.is_cleaning {
                self.cleaning_percent.push(last.both_percent);
            } else if has_cleaned {
                break;
            }
            last = watch(own, server, watched).await;
            has_cleaned |= last.is_cleaning;
        }
        self.mart_percent.push(last.mart_percent);
        self.both_percent.push(last.both_percent);
        self.memory_mb.push(resident_mb(own)?);
        Ok(())
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        if self.start_seconds.is_empty() {
            return Vec::new();
        }
        let mut watched = format!("the mart {:.1} %", figures::median(&self.mart_percent));
        if !self.cleaning_percent.is_empty() {
            let cleaning = figures::median(&self.cleaning_percent);
            watched.push_str(&format!("; {cleaning:.1} % while PostgreSQL cleans up"));
        }
        vec![
            Row::new("start with data", "s", &self.start_seconds).at_most(3.0),
            Row::new("idle processor, with PostgreSQL", "% of a core", &self.both_percent)
                .at_most(5.0)
                .note(watched),
            Row::new("idle memory, beside PostgreSQL", "MB", &self.memory_mb).at_most(150.0),
        ]
    }
}

/// What was seen of a mart and its database server for a while.
struct Seen {
    mart_percent: f64,
    both_percent: f64,
    is_cleaning: bool,
}

async fn watch(own: u32, server: u32, lasting: Duration) -> Seen {
    let before = (ticks(own), all_ticks(server));
    let begun = Instant::now();
    let mut is_cleaning = false;
    while begun.elapsed() < lasting {
        is_cleaning |= children(server).into_iter().any(is_vacuum);
        sleep(LOOK_EVERY).await;
    }
    let after = (ticks(own), all_ticks(server));
    let seconds = begun.elapsed().as_secs_f64();
    let percent = |before: f64, after: f64| (after - before) / TICKS_PER_SECOND / seconds * 100.0;
    let mart_percent = percent(before.0, after.0);
    Seen { mart_percent, both_percent: mart_percent + percent(before.1, after.1), is_cleaning }
}

/// Whether it is a process of the server that cleans up.
fn is_vacuum(process: u32) -> bool {
    let title = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
    title.contains("autovacuum worker")
}

/// The number of the mart's database server.
fn server(mart: &TestMart) -> Result<u32, Failure> {
    let file = fs::read_to_string(mart.setup().data_dir().join("postgres/postmaster.pid"))?;
    Ok(file.lines().next().unwrap_or_default().trim().parse()?)
}

/// The fields of `/proc/<pid>/stat` behind the name, which may hold anything: the state is the first (see proc(5)).
fn stat(process: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// The processor time of a process and of its children that have ended; nothing for one that is gone.
fn ticks(process: u32) -> f64 {
    let fields = stat(process).unwrap_or_default();
    // utime, stime, cutime, cstime.
    (11..15).filter_map(|index| fields.get(index)?.parse::<f64>().ok()).sum()
}

/// The processor time of a process and all that it has started.
fn all_ticks(process: u32) -> f64 {
    ticks(process) + children(process).into_iter().map(ticks).sum::<f64>()
}

/// What a process has started and still runs.
fn children(process: u32) -> BTreeSet<u32> {
    let mut children = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let parent = number.and_then(stat).and_then(|fields| fields.get(1)?.parse::<u32>().ok());
        if let Some(number) = number
            && parent == Some(process)
        {
            children.insert(number);
        }
    }
    children
}

/// The memory of a process that lies in the machine's.
fn resident_mb(process: u32) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("the system tells no memory")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1_024.0 / 1_000_000.0)
}
