//! Processes that clean up after ours, however ours ends.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// A shell that reads a pipe from this process. The system closes the pipe when this process ends, by whatever
/// end; then, or when this value is dropped, the shell does the rest of its script.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts `script`, with `folder` as its first argument.
    pub(super) fn start(script: &str, folder: &Path) -> io::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", script, "guard"])
            .arg(folder)
            // Apart from our group, a Ctrl-C at the terminal does not reach it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// Says the process to end: the last one said counts, and none after `None`.
    pub(super) fn watch(&mut self, process_id: Option<u32>) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let line = process_id.map(|id| id.to_string()).unwrap_or_default();
        writeln!(pipe, "{line}")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.child.wait();
    }
}
