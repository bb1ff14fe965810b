//! Nothing outlives the harness: a small shell waits until its pipe is closed, by whatever end of its owner, and
//! then ends the whole process group and the database server.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

/// What it does when the pipe is closed.
const SCRIPT: &str = r#"
read _
test -s "$1/postgres/postmaster.pid" && kill -INT "$(head -n 1 "$1/postgres/postmaster.pid")"
kill -KILL 0
"#;

/// The guard of a run.
#[derive(Debug)]
pub struct Guard {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Guards the server with its data below `postgres_folder`, and all that join the group.
    ///
    /// # Errors
    /// When there is no shell.
    pub fn start(postgres_folder: &Path) -> Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "guard"])
            .arg(postgres_folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("there is no shell")?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// The group that ends with the harness.
    pub fn group(&self) -> i32 {
        self.shell.id().cast_signed()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}
