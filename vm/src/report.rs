//! How a machine ended, and what it took.

use std::time::Duration;

use lodge_engine_api::{CrashReport, Statistics};

use crate::VmError;

/// How a machine ended.
#[derive(Debug)]
pub enum Outcome {
    /// The guest switched it off.
    PoweredOff,
    /// The guest reset it, and a reset was to end it.
    Rebooted,
    /// The guest ended it with this status through the debug exit port.
    Exited(u8),
    /// A triple fault.
    Crashed(Box<CrashReport>),
    /// The time was up.
    TimedOut,
    /// The user ended it.
    Quit,
    /// lodge itself, or the host under it, failed.
    Failed(VmError),
}

impl Outcome {
    /// The exit status that stands for it: 0 for an orderly end, 2 where the user's files are to blame, 3 for a crash, 4
    /// for the timeout, 5 for a fault of lodge's own, and the guest's own status from the debug exit port.
    pub fn status(&self) -> u8 {
        match self {
            Self::PoweredOff | Self::Rebooted | Self::Quit => 0,
            Self::Exited(status) => *status,
            Self::Crashed(_) => 3,
            Self::TimedOut => 4,
            Self::Failed(error) => error.status(),
        }
    }

    /// A name for it in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PoweredOff => "powered-off",
            Self::Rebooted => "rebooted",
            Self::Exited(_) => "debug-exit",
            Self::Crashed(_) => "crashed",
            Self::TimedOut => "timeout",
            Self::Quit => "quit",
            Self::Failed(_) => "failed",
        }
    }
}

/// When things happened, since the machine's start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// The first processor entered the kernel.
    pub kernel: Option<Duration>,
    /// The guest wrote its first byte to a serial port.
    pub first_output: Option<Duration>,
    /// The machine ended.
    pub exit: Duration,
}

/// What is known of a machine after its end.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// The engine's name.
    pub engine: &'static str,
    /// When things happened.
    pub times: Times,
    /// How often the guest was reset.
    pub resets: u64,
    /// The engine's counters, of the time since the last reset.
    pub statistics: Statistics,
    /// The most physical memory that the process had, in bytes; guest RAM is in it as far as it was touched.
    pub peak_memory: u64,
}

/// The most physical memory that this process had, in bytes (VmHWM in proc(5)); 0 where the host does not tell.
pub(crate) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_some_memory() {
        assert!(super::peak_memory() > 100 << 10);
    }
}
