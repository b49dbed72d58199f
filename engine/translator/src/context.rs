//! What belongs to a vCPU but only Rust needs: the way to the world, paging, and what a helper wants to happen next.
#![expect(unsafe_code, reason = "the world is borrowed for the length of a run")]
// UNSAFETY: one pointer, set by the owner before any use and valid as long as the vCPU.

use std::collections::VecDeque;
use std::sync::Arc;

use iced_x86::Mnemonic;
use lodge_engine_api::CpuIo;
use lodge_x86::exception::Exception;
use lodge_x86::paging::PagingContext;
use lodge_x86::state::Activity;

use crate::go::Ways;
use crate::kvmclock::KvmClock;
use crate::partition::Shared;
use crate::tlb::Regions;
use crate::worth::Met;

/// What the dispatcher is to do after a helper has left the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// Go on at [`crate::cpu::Cpu::lip`].
    #[default]
    Continue,
    /// Deliver an exception; the instruction at [`crate::cpu::Cpu::lip`] raised it (or the one before, for a trap).
    Raise(Exception),
    /// Run the instruction at [`crate::cpu::Cpu::lip`] again with its accesses through the bounce buffer.
    Bounce,
    /// HLT.
    Halt,
    /// A triple fault.
    Shutdown,
}

/// A piece of an access: physical address and bytes.
pub type Piece = (u64, usize);

/// An access that goes through the bounce buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounced {
    /// Where it lies: one piece per page.
    pub pieces: [Option<Piece>; 2],
}

/// A vCPU's cold state.
pub struct Context {
    /// The partition.
    pub shared: Arc<Shared>,
    /// Its number.
    pub index: u32,
    /// The world; set while it runs.
    pub io: Option<*const dyn CpuIo>,
    /// TLBs and jump caches.
    pub regions: Regions,
    /// Stubs by mode.
    pub ways: Ways,
    /// Emitted code, or a helper of it, is running: pages that it may be writing to do not come to hold code meanwhile.
    pub in_code: bool,
    /// Digest of the control registers.
    pub paging: PagingContext,
    /// What a helper wants.
    pub after: After,
    /// The write that is in the bounce buffer.
    pub bounced: Bounced,
    /// Breakpoints on data or ports that the current instruction has met, as bits of DR6.
    pub debug_hits: u64,
    /// Interrupts wait for one instruction: STI, or a load of SS, came just before.
    pub shadow: bool,
    /// The current instruction has written over translated code, perhaps what follows it in its own block.
    pub code_hit: bool,
    /// No single-step trap after this instruction: it loaded SS, or it is a SYSCALL that took TF away (SDM 3A 6.8.3;
    /// APM 3 "SYSCALL").
    pub no_step: bool,
    /// Running, halted or waiting.
    pub activity: Activity,
    /// The paravirtual clock.
    pub clock: KvmClock,
    /// Machine-check and other MSRs that hold what was written.
    pub plain_msrs: Vec<(u32, u64)>,
    /// Last exceptions, for the crash report.
    pub exceptions: VecDeque<(u64, Exception)>,
    /// Counters.
    pub counts: Counts,
    /// The last page that the mirror was asked for, and how often in a row.
    pub asked: (u64, u32),
    /// The program that interrupts meet.
    pub met: Met,
    /// How often a helper carried out each kind of instruction, by its number in iced.
    pub helped: Helped,
}

/// Counts of instructions by mnemonic.
pub struct Helped(Box<[u64]>);

impl Default for Helped {
    fn default() -> Self {
        Self(vec![0; Mnemonic::values().len()].into())
    }
}

impl Helped {
    /// Counts one.
    pub fn count(&mut self, mnemonic: Mnemonic) {
        self.0[mnemonic as usize] += 1;
    }

    /// Gives what was counted, and starts over.
    pub fn take(&mut self) -> impl Iterator<Item = (Mnemonic, u64)> {
        let counts = Mnemonic::values().zip(self.0.iter_mut());
        counts.filter(|(_, count)| **count != 0).map(|(mnemonic, count)| (mnemonic, std::mem::take(count)))
    }
}

/// Counters of one vCPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Entries into emitted code.
    pub entries: u64,
    /// Slow memory accesses.
    pub memory: u64,
    /// Page walks.
    pub walks: u64,
    /// Accesses through the bounce buffer.
    pub bounced: u64,
    /// System instructions.
    pub system: u64,
    /// Repeated string instructions.
    pub strings: u64,
    /// Exceptions delivered.
    pub exceptions: u64,
    /// Interrupts delivered.
    pub interrupts: u64,
    /// Exits that asked for a block by address.
    pub lookups: u64,
    /// Exits that were not chained yet.
    pub unchained: u64,
    /// Exits at a safepoint.
    pub polls: u64,
    /// Exits on behalf of a helper.
    pub helper_exits: u64,
    /// Exits by a signal of the host.
    pub host_faults: u64,
    /// Exceptions that emitted code raised by itself.
    pub raised: u64,
    /// Stores into pages that hold translated code.
    pub code_writes: u64,
    /// Pages shown at a program's own address, and those around them ([`crate::mirror`]).
    pub shown: u64,
}

impl Context {
    /// The world.
    pub fn io(&self) -> &dyn CpuIo {
        let io = self.io.expect("a vCPU calls the world only while it runs");
        // SAFETY: set by `run` to a reference that outlives it, and cleared at its end.
        unsafe { &*io }
    }
}
