//! What this process uses, as the system tells.

use serde::Serialize;

/// Memory, processor time and open files. What the system does not tell is 0.
#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize)]
pub(super) struct Usage {
    pub(super) resident_bytes: u64,
    pub(super) resident_bytes_peak: u64,
    pub(super) cpu_seconds: f64,
    pub(super) threads: u64,
}

impl Usage {
    pub(super) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Self {
            resident_bytes: field(&status, "VmRSS:") * 1024,
            resident_bytes_peak: field(&status, "VmHWM:") * 1024,
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            threads: field(&status, "Threads:"),
        }
    }
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_missing_or_no_number_is_0() {
        let status = "Name:\tx\nVmRSS:\t  12 kB\nThreads:\tmany\n";
        let found = ["VmRSS:", "Threads:", "VmHWM:"].map(|name| field(status, name));
        assert_eq!(found, [12, 0, 0]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_something() {
        let usage = Usage::now();
        assert!(usage.resident_bytes > 0 && usage.threads > 0, "{usage:?}");
        assert!(usage.resident_bytes_peak >= usage.resident_bytes);
    }
}
