//! Saved state of the NVMe controller, of a machine that is paused: no command is half done.

use lodge_pci::{ConfigState, MsixState};
use lodge_savestate::Saved;
use serde::{Deserialize, Serialize};

use super::registers::*;

/// A submission queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubmissionState {
    /// Where it lies.
    pub base: u64,
    /// Entries.
    pub entries: u32,
    /// The controller's end.
    pub head: u32,
    /// Its completion queue.
    pub completion: u16,
}

/// A completion queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompletionState {
    /// Where it lies.
    pub base: u64,
    /// Entries.
    pub entries: u32,
    /// The guest's end.
    pub head: u32,
    /// The controller's end.
    pub tail: u32,
    /// The phase of what is written next.
    pub phase: bool,
    /// Its vector.
    pub vector: u16,
    /// It interrupts.
    pub interrupts: bool,
    /// Entries that are kept for commands under way.
    #[serde(skip)]
    pub reserved: u32,
    /// A submission queue waits for room.
    pub stalled: bool,
}

impl Default for CompletionState {
    fn default() -> Self {
        Self {
            base: 0,
            entries: 2,
            head: 0,
            tail: 0,
            phase: true,
            vector: 0,
            interrupts: false,
            reserved: 0,
            stalled: false,
        }
    }
}

/// An error that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorState {
    /// Which error it was.
    pub count: u64,
    /// The command's queue.
    pub queue: u16,
    /// What told the command from others.
    pub id: u16,
    /// Its status.
    pub status: u16,
    /// Its first block.
    pub lba: u64,
    /// Its namespace.
    pub namespace: u32,
}

/// What admin commands change: features, events, errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminState {
    /// Feature: arbitration.
    pub arbitration: u32,
    /// Feature: threshold of temperature.
    pub temperature: u32,
    /// Feature: error recovery.
    pub recovery: u32,
    /// Feature: writes may be in a cache when they end.
    pub write_cache: bool,
    /// Feature: coalescing of interrupts.
    pub coalescing: u32,
    /// Feature: vectors without it.
    pub uncoalesced: u128,
    /// Feature: atomic writes.
    pub atomicity: u32,
    /// Feature: events.
    pub event_mask: u32,
    /// Commands that wait for events.
    pub requests: Vec<u16>,
    /// Events that wait for commands.
    pub pending: u32,
    /// An event has been told, and its log not been read.
    pub reported: bool,
    /// Errors, the latest first.
    pub errors: Vec<ErrorState>,
    /// How many there were.
    pub error_count: u64,
}

impl Default for AdminState {
    fn default() -> Self {
        Self {
            arbitration: 0,
            // What a warning comes at.
            temperature: 343,
            recovery: 0,
            write_cache: true,
            coalescing: 0,
            uncoalesced: 0,
            atomicity: 0,
            event_mask: 0,
            requests: Vec::new(),
            pending: 0,
            reported: false,
            errors: Vec::new(),
            error_count: 0,
        }
    }
}

/// A pair of queues, each of which may be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PairState {
    /// The submission queue.
    pub submission: Option<SubmissionState>,
    /// The guest's end of it.
    pub tail: u32,
    /// The completion queue.
    pub completion: Option<CompletionState>,
}

/// The controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NvmeState {
    /// Configuration space.
    pub config: ConfigState,
    /// Messages.
    pub msix: MsixState,
    /// Interrupts that are masked.
    pub mask: u32,
    /// Completion queues whose entries wait.
    pub waiting: u128,
    /// Configuration.
    pub cc: u32,
    /// Status, but for what is known otherwise.
    pub csts: u32,
    /// Sizes of the admin queues.
    pub aqa: u32,
    /// Admin submission queue.
    pub asq: u64,
    /// Admin completion queue.
    pub acq: u64,
    /// A reset waits for commands to end.
    pub resetting: bool,
    /// A shutdown waits for its thread.
    pub shutting: bool,
    /// Memory was not where it should be.
    pub fatal: bool,
    /// The queues.
    pub pairs: Vec<PairState>,
    /// What admin commands change.
    pub admin: AdminState,
    /// Commands and bytes for the health log.
    pub counts: [u64; 4],
}

impl Saved for NvmeState {
    const KIND: &'static str = "nvme";
    const VERSION: u16 = 1;
}

impl NvmeState {
    /// Whether a controller with so many pairs of queues can be in it.
    pub(super) fn is_sound(&self, pairs: usize) -> bool {
        let sized = |entries: u32| (2..=4096).contains(&entries);
        let completions: Vec<bool> = self.pairs.iter().map(|pair| pair.completion.is_some()).collect();
        let pair = |pair: &PairState| {
            let submission = pair.submission.as_ref().is_none_or(|queue| {
                let there = completions.get(usize::from(queue.completion)).copied().unwrap_or(false);
                sized(queue.entries) && queue.head < queue.entries && pair.tail < queue.entries && there
            });
            let completion = pair
                .completion
                .as_ref()
                .is_none_or(|queue| sized(queue.entries) && queue.head < queue.entries && queue.tail < queue.entries);
            submission && completion
        };
        let admin = self.admin.requests.len() <= EVENTS && self.admin.errors.len() <= ERRORS;
        self.pairs.len() == pairs
            && self.pairs.iter().all(pair)
            && admin
            && (self.csts & CSTS_RDY == 0 || (self.cc >> 7 & 15) <= MPS_MOST)
    }
}
