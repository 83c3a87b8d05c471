//! What the process used: CPU time, memory; and what it ran on.

use std::{fs, path::Path, process::Command, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::slices::Slice;

/// CPU time of all threads of this process.
pub(crate) fn process_cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// What one slice of the engine used: CPU time, and memory at its peak. The baseline's slices between are not in it.
#[derive(Debug)]
pub(crate) struct Meter {
    cpu_before: Duration,
}

impl Meter {
    pub(crate) fn start() -> Self {
        // Where the peak cannot be reset it is that of the whole run so far: more, never less.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self {
            cpu_before: process_cpu(),
        }
    }

    pub(crate) fn stop(self, slice: &mut Slice) {
        slice.cpu = process_cpu().saturating_sub(self.cpu_before);
        slice.peak_rss_mib = peak_rss_mib();
    }
}

/// The largest resident set in MiB since it was reset; nothing where `/proc` does not tell.
fn peak_rss_mib() -> Option<f64> {
    Some(status_kib("VmHWM:")? / 1_024.0)
}

/// The resident set now, in KiB; nothing where `/proc` does not tell.
pub(crate) fn resident_kib() -> Option<f64> {
    status_kib("VmRSS:")
}

/// How many pages were given to this process so far that needed no read; 0 where `/proc` does not tell.
pub(crate) fn minor_faults() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses, which may hold anything: the state is the first field.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let faults = fields.split_whitespace().nth(7);
    faults.and_then(|faults| faults.parse().ok()).unwrap_or(0)
}

fn status_kib(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Where a figure was measured: none is quoted without it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: Option<f64>,
    kernel: String,
    filesystem: String,
}

impl Machine {
    /// The machine, and the file system of `dir`.
    pub(crate) fn of(dir: &Path) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib: Option<f64> = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: cpu.to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory_kib.map(|kib| (kib / 1_048_576.0 * 10.0).round() / 10.0),
            kernel: kernel.trim().to_owned(),
            filesystem: filesystem(dir).unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

/// The type of the mount with the longest path above `dir`.
fn filesystem(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(mount, _)| dir.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len())
        .map(|(_, kind)| kind.to_owned())
}

/// The commit that was measured, `-dirty` with changes on top; `unknown` outside a checkout.
pub(crate) fn commit() -> String {
    Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR")])
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_the_cpu_time_of_thread_and_process() {
        let (process, thread) = (process_cpu(), thread_cpu());
        let mut sum = 0u64;
        while thread_cpu() - thread < Duration::from_millis(2) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(process_cpu() - process >= Duration::from_millis(2));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_machine_is_named() {
        assert!(peak_rss_mib().unwrap() > 0.0);
        let machine = Machine::of(Path::new("."));
        assert!(!machine.kernel.is_empty());
        assert_ne!(machine.filesystem, "unknown");
    }
}
