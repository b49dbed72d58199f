//! Engines, partitions and virtual processors.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use lodge_x86::CpuState;

use crate::{CpuIo, CpuidTable, GuestMemory};

/// What an engine can do on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Most vCPUs in one partition.
    pub max_vcpus: u32,
    /// Bits of physical address that the guest may use.
    pub physical_address_bits: u8,
    /// It can map guest programs' memory at the guest's own addresses, where the process has nothing else there.
    pub maps_at_guest_addresses: bool,
}

/// Whether an engine can be used on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works; the text says how well was looked.
    Usable(String),
    /// It does not; the cause, and what would mend it.
    Unusable {
        /// Why not.
        cause: String,
        /// What to do about it.
        remedy: Option<String>,
    },
}

/// What a partition shall be.
#[derive(Clone, Debug)]
pub struct PartitionSpec {
    /// Guest RAM and where it lies. All else is MMIO.
    pub memory: GuestMemory,
    /// How many vCPUs.
    pub vcpus: u32,
    /// What CPUID answers.
    pub cpuid: CpuidTable,
    /// The host's time-stamp counter frequency.
    pub tsc_hz: u64,
    /// Most bytes of generated code that the engine may keep, for engines that generate any.
    pub code_cache: usize,
    /// Whether the memory of guest programs may be mapped into this process, for engines that gain by it.
    pub mirroring: Mirroring,
    /// Where such engines keep code from one run to the next. `None`: nowhere.
    pub kept_code: Option<KeptCode>,
}

/// Whether guest programs' pages are shown in the host process at the programs' own linear addresses, so that their
/// loads and stores need no look at a table. That takes a process whose own memory all lies in one stretch of addresses,
/// and leaves all others free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mirroring {
    /// Nothing is mapped.
    #[default]
    Never,
    /// Where a program runs long enough to gain by it.
    Auto,
    /// For each program at once: for tests.
    Always,
}

/// Where generated code is kept from one run to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCode {
    /// A folder that is its user's alone; made where there is none. What is in it is run as code.
    pub folder: PathBuf,
    /// Guests of one name share a file. It serves to find code that is likely to fit; whether it does is looked at.
    pub name: String,
    /// Whatever is taken from there is compared with what would be generated anew, and a difference is a panic: for
    /// tests of the engine.
    pub verify: bool,
}

/// What accesses of vCPUs to a page of guest memory reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// The memory.
    #[default]
    Memory,
    /// The memory where they read or fetch; what is written goes to [`CpuIo::mmio_write`].
    ReadOnly,
    /// Not the memory: [`CpuIo::mmio_read`] and [`CpuIo::mmio_write`].
    Devices,
}

/// A change of what guest physical addresses are. Addresses and lengths are multiples of 4 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryChange {
    /// Accesses to a range of guest memory reach something else than before. What is not memory stays as it is.
    Reach {
        /// Guest physical addresses.
        range: Range<u64>,
        /// What they reach from now on.
        reach: Reach,
    },
    /// Bit 20 of all addresses that processors put out passes, or is zero, as it is for programs that count on addresses
    /// wrapping at 1 MiB (SDM 3A 9.1.3, 22.34).
    AddressLine20 {
        /// It passes, as it does at the start.
        open: bool,
    },
    /// A region is found somewhere else.
    Move {
        /// The region's number in [`PartitionSpec::memory`].
        region: usize,
        /// Where it begins from now on; `None`: nowhere. It must not overlap others.
        to: Option<u64>,
    },
}

/// Why an engine refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The spec asks for what the engine cannot do.
    #[error("the {engine} engine cannot do this: {what}")]
    Unsupported {
        /// The engine's name.
        engine: &'static str,
        /// What was asked.
        what: String,
    },
    /// The host did not give what the engine needs.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
    /// The engine itself went wrong.
    #[error("internal fault: {0}")]
    Internal(String),
}

/// What a guest that crashed beyond its own help was doing.
#[derive(Clone, Debug)]
pub struct CrashReport {
    /// The last exceptions, oldest first, as text.
    pub cause: String,
    /// The processor at the crash.
    pub state: Box<CpuState>,
    /// The last instructions, oldest first: address and text.
    pub instructions: Vec<(u64, String)>,
}

/// Why [`Vcpu::run`] came back.
#[derive(Clone, Debug)]
pub enum Exit {
    /// [`Notifier::stop`] was called. Calling `run` again goes on.
    Stopped,
    /// A triple fault: the guest is beyond its own help. Calling `run` again says so again, until [`crate::Event::Init`] is
    /// there to be taken.
    TripleFault(CrashReport),
}

/// Counters of one partition since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Named counts, in a fixed order.
    pub counters: Vec<(&'static str, u64)>,
    /// How often the engine carried out each kind of instruction by hand, the most frequent first.
    pub helped: Vec<(String, u64)>,
    /// Bytes of generated code now held.
    pub code_bytes: u64,
}

/// A way to execute guest instructions.
pub trait Engine: Send + Sync {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// Whether it can be used here. May take up to 200 ms.
    fn probe(&self) -> Verdict;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Makes a partition, or says why not.
    fn create(&self, spec: PartitionSpec) -> Result<Arc<dyn Partition>, EngineError>;
}

/// One guest's processors and memory.
pub trait Partition: Send + Sync {
    /// Binds vCPU `index` to the calling thread, in the state after RESET; vCPUs other than 0 wait for a start-up IPI.
    /// Each index can be bound once.
    fn bind_vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, EngineError>;

    /// The way to get vCPU `index`'s attention.
    fn notifier(&self, index: u32) -> Option<Arc<dyn Notifier>>;

    /// Changes what physical addresses are, for each access that begins after the instruction that has caused the call,
    /// on any vCPU. May be called by [`CpuIo`]'s methods, and by other threads.
    fn change_memory(&self, change: MemoryChange);

    /// Counters.
    fn statistics(&self) -> Statistics;

    /// No vCPU will run any more: keep what is worth it ([`PartitionSpec::kept_code`]). Engines that keep nothing do
    /// nothing.
    fn retire(&self);
}

/// A virtual processor on its thread.
pub trait Vcpu {
    /// Its state, between runs.
    fn state(&self) -> CpuState;

    /// Replaces its state, between runs.
    fn set_state(&mut self, state: &CpuState) -> Result<(), EngineError>;

    /// Runs guest code until there is something that `io` cannot settle.
    fn run(&mut self, io: &dyn CpuIo) -> Result<Exit, EngineError>;
}

/// Gets a vCPU's attention from any thread. Neither method blocks.
pub trait Notifier: Send + Sync {
    /// [`CpuIo::take_event`] has something new. A vCPU that runs asks within microseconds; one that is inside
    /// [`CpuIo::halt`] is the machine's to wake.
    fn notify(&self);

    /// [`Vcpu::run`] shall return [`Exit::Stopped`], now or, if it is not running, at its next call.
    fn stop(&self);
}
