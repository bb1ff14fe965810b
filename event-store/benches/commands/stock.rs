//! The baseline's share of a run, on a runtime of its own: each of the two has the one that suits it better. The engine
//! keeps half of the cores and leaves the others to the server, which works at the same time; stock waits for the server
//! with each command, and is slower with less than all of them.

use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::Failure;
use crate::cell::{self, Measured, Workload};
use crate::database::RoundDatabase;
use crate::engine::Engine;
use crate::options::Options;

/// Where stock's commands are given.
pub(crate) struct Stock {
    runtime: Handle,
}

/// The runtime of the engine's commands.
pub(crate) fn runtime_for_engine() -> Result<Runtime, Failure> {
    runtime(available_parallelism()?.get() / 2)
}

/// The runtime of stock's commands.
pub(crate) fn runtime_for_stock() -> Result<Runtime, Failure> {
    runtime(available_parallelism()?.get())
}

fn runtime(threads: usize) -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread().worker_threads(threads.max(1)).enable_all().build()?)
}

impl Stock {
    pub(crate) fn on(runtime: &Runtime) -> Self {
        Self { runtime: runtime.handle().clone() }
    }

    /// Runs a cell of stock with a pool of so many connections.
    pub(crate) async fn run(
        &self,
        database: &RoundDatabase,
        connections: u32,
        workload: Workload,
        in_flight: usize,
        options: &Options,
    ) -> Result<Measured, Failure> {
        let (url, options) = (database.url.clone(), options.clone());
        let running = self.runtime.spawn(async move {
            let pool = RoundDatabase::pool(&url, connections).await?;
            let measured = cell::run(&Engine::stock(pool.clone()), workload, in_flight, &options).await;
            pool.close().await;
            Ok(measured)
        });
        running.await?
    }
}
