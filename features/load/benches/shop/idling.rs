//! A mart that has data and nothing to do.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use features::TestMart;
use figures::{Failure, Options, Row};
use tokio::time::{Instant, sleep};

/// How long it is watched in each round.
const WATCHED: Duration = Duration::from_secs(10);
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
    server_percent: Vec<f64>,
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
        let before = (ticks(own), all_ticks(server));
        sleep(watched).await;
        let after = (ticks(own), all_ticks(server));
        let percent =
            |before: f64, after: f64| (after - before) / TICKS_PER_SECOND / watched.as_secs_f64() * 100.0;
        self.mart_percent.push(percent(before.0, after.0));
        self.server_percent.push(percent(before.1, after.1));
        self.memory_mb.push(resident_mb(own)?);
        Ok(())
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        if self.start_seconds.is_empty() {
            return Vec::new();
        }
        let both: Vec<f64> =
            self.mart_percent.iter().zip(&self.server_percent).map(|(mart, server)| mart + server).collect();
        let watched = format!("the mart {:.1} %", figures::median(&self.mart_percent));
        vec![
            Row::new("start with data", "s", &self.start_seconds).at_most(3.0),
            Row::new("idle processor, with PostgreSQL", "% of a core", &both).at_most(5.0).note(watched),
            Row::new("idle memory, beside PostgreSQL", "MB", &self.memory_mb).at_most(150.0),
        ]
    }
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
    ticks(process) + children.into_iter().map(ticks).sum::<f64>()
}

/// The memory of a process that lies in the machine's.
fn resident_mb(process: u32) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("the system tells no memory")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1_024.0 / 1_000_000.0)
}
