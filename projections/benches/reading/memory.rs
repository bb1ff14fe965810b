//! The memory that this process takes at most.

use std::fs;

use figures::Failure;

/// Forgets what was the most so far.
pub(crate) fn begin() -> Result<(), Failure> {
    // See proc(5): 5 sets the peak back to what is taken now.
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}

/// The most since then, in MiB.
pub(crate) fn peak_mib() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("the system tells no peak")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}
