//! What a bench measures: [`Work`]s, each of a [`Class`] that has a goal, in a [`Suite`].

use clap::ValueEnum;

use super::{full, small};

/// Which works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Every class of work that a guest may do, and the machine's own: booting, idling
    Full,
    /// Thirteen everyday programs
    Small,
}

impl Suite {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Small => "small",
        }
    }

    /// Its works.
    pub fn works(self) -> &'static [Work] {
        match self {
            Self::Full => full::WORKS,
            Self::Small => small::WORKS,
        }
    }

    /// What it ought to have and does not: row, what, and why.
    pub fn left_out(self) -> &'static [(u8, &'static str, &'static str)] {
        match self {
            Self::Full => full::LEFT_OUT,
            Self::Small => &[],
        }
    }
}

/// What a processor or machine is tried at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Integer,
    Simd,
    Float,
    Interpreter,
    Jit,
    Compile,
    Syscall,
    Fork,
    Switch,
    Fault,
    Signal,
    Bandwidth,
    Latency,
    Smp,
    Patching,
    Disk,
    Network,
    Server,
    Boot,
    Idle,
}

impl Class {
    /// All, in the order of tables.
    pub const ALL: &[Self] = &[
        Self::Integer,
        Self::Simd,
        Self::Float,
        Self::Interpreter,
        Self::Jit,
        Self::Compile,
        Self::Syscall,
        Self::Fork,
        Self::Switch,
        Self::Fault,
        Self::Signal,
        Self::Bandwidth,
        Self::Latency,
        Self::Smp,
        Self::Patching,
        Self::Disk,
        Self::Network,
        Self::Server,
        Self::Boot,
        Self::Idle,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer loops",
            Self::Simd => "SIMD and crypto",
            Self::Float => "x87 and floating point",
            Self::Interpreter => "interpreters",
            Self::Jit => "JITs",
            Self::Compile => "compile",
            Self::Syscall => "system calls",
            Self::Fork => "fork and exec",
            Self::Switch => "context switch",
            Self::Fault => "page faults",
            Self::Signal => "signals",
            Self::Bandwidth => "memory bandwidth",
            Self::Latency => "memory latency",
            Self::Smp => "two processors",
            Self::Patching => "kernel text patching",
            Self::Disk => "disk",
            Self::Network => "network",
            Self::Server => "server",
            Self::Boot => "boot",
            Self::Idle => "idle",
        }
    }

    /// How many times native its works may take, if there is a goal.
    pub fn goal(self) -> Option<f64> {
        match self {
            Self::Integer | Self::Interpreter | Self::Syscall => Some(3.0),
            Self::Simd | Self::Float | Self::Bandwidth => Some(1.5),
            Self::Jit | Self::Compile | Self::Switch | Self::Signal | Self::Latency => Some(4.0),
            Self::Fork | Self::Fault => Some(5.0),
            Self::Smp | Self::Patching | Self::Disk | Self::Network | Self::Server | Self::Boot | Self::Idle => None,
        }
    }

    /// Whether it tries the processor rather than the kernel or a device: these make the geometric means.
    pub fn is_of_processor(self) -> bool {
        matches!(
            self,
            Self::Integer
                | Self::Simd
                | Self::Float
                | Self::Interpreter
                | Self::Jit
                | Self::Compile
                | Self::Bandwidth
                | Self::Latency
        )
    }
}

/// What is done.
#[derive(Clone, Copy, Debug)]
pub enum Doing {
    /// Shell scripts, run by `sh -e` in a folder of memory. What `run` prints has to be the same for all contenders.
    Script {
        /// Before each contender's first run, not timed.
        set_up: &'static str,
        /// What is timed.
        run: &'static str,
    },
    /// iperf3 from the host to a machine, through a forwarded port of a network in user mode, or back; on the bare host over
    /// its loopback interface.
    Transfer {
        /// From the machine to the host.
        back: bool,
    },
    /// Booting to init, or to the end of the process that runs the machine.
    Boot {
        /// To the end.
        to_end: bool,
    },
    /// The way through the firmware, from the start of the process to the first instruction that it has read from a disk.
    Firmware,
    /// Nothing: the processor time that this takes is scaled to a minute.
    Idle {
        /// More for the kernel's command line.
        append: &'static str,
    },
}

/// One work.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The row of the suite that it belongs to; a row may have several.
    pub row: u8,
    /// Its short name, unique, and fit for a file's.
    pub key: &'static str,
    /// What it is, for tables: the program, and how much of what.
    pub what: &'static str,
    /// Its class.
    pub class: Class,
    /// What is done.
    pub doing: Doing,
    /// The bare host can do it too.
    pub native: bool,
    /// Virtual processors. With one, each contender is pinned to one of the host's.
    pub cpus: u32,
    /// Part of a quick bench.
    pub quick: bool,
}

impl Work {
    /// A script for one processor that the bare host runs too.
    pub const fn script(
        row: u8,
        key: &'static str,
        class: Class,
        what: &'static str,
        set_up: &'static str,
        run: &'static str,
    ) -> Self {
        Self { row, key, what, class, doing: Doing::Script { set_up, run }, native: true, cpus: 1, quick: false }
    }

    /// The same, also in a quick bench.
    pub const fn quick(self) -> Self {
        Self { quick: true, ..self }
    }

    /// The same, for guests only.
    pub const fn guests_only(self) -> Self {
        Self { native: false, ..self }
    }

    /// The same, on two processors.
    pub const fn on_two(self) -> Self {
        Self { cpus: 2, ..self }
    }

    /// Whether a word given by the user means it.
    pub fn is_meant_by(&self, part: &str) -> bool {
        [self.key, self.what, self.class.name()].iter().any(|text| text.contains(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_fit_for_files() {
        for suite in [Suite::Full, Suite::Small] {
            let mut keys: Vec<_> = suite.works().iter().map(|work| work.key).collect();
            assert!(keys.iter().all(|key| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')), "{keys:?}");
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), suite.works().len());
        }
    }

    #[test]
    fn every_row_is_measured_or_its_absence_explained() {
        let rows = |suite: Suite| -> Vec<u8> {
            let mut rows: Vec<_> = suite.works().iter().map(|work| work.row).collect();
            rows.extend(suite.left_out().iter().map(|(row, ..)| *row));
            rows.sort_unstable();
            rows.dedup();
            rows
        };
        assert_eq!(rows(Suite::Full), (1..=26).collect::<Vec<_>>());
        assert_eq!(rows(Suite::Small), (1..=15).collect::<Vec<_>>());
    }

    #[test]
    fn a_quick_bench_tries_every_class_with_a_goal() {
        for class in Class::ALL.iter().filter(|class| class.goal().is_some()) {
            assert!(full::WORKS.iter().any(|work| work.quick && work.class == *class), "{class:?}");
        }
    }
}
