//! What this process has used.

use std::fs;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// CPU time of all threads so far, in milliseconds.
pub fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 * 1e-6
}

/// Resident memory in bytes: now.
pub fn resident() -> Result<u64> {
    status("VmRSS:")
}

/// Resident memory in bytes: at most, so far.
pub fn resident_peak() -> Result<u64> {
    status("VmHWM:")
}

fn status(field: &str) -> Result<u64> {
    let path = "/proc/self/status";
    let text = fs::read_to_string(path)
        .with_context(|| format!("reading {path}; memory is measured on Linux only"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no {field} in {path}"))? * 1024)
}
