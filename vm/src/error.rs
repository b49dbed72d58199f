//! Why a machine cannot be built or go on.

use lodge_boot::LoadError;
use lodge_engine_api::EngineError;
use lodge_x86::cpuid::Missing;

/// Why a machine cannot be built or go on.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The memory asked for is too little or too much.
    #[error("a machine can have {} MiB to {} GiB of memory, not {}; say for example --memory 512M", crate::MEMORY_MIN >> 20, crate::MEMORY_MAX >> 30, size(*.bytes))]
    MemorySize {
        /// Bytes asked for.
        bytes: u64,
    },
    /// There is no card with so much video memory.
    #[error("a graphics card can have 1 MiB to 256 MiB of video memory, a power of two, not {}", size(*.bytes))]
    VideoMemorySize {
        /// Bytes asked for.
        bytes: u64,
    },
    /// The engine cannot run so many processors.
    #[error("a machine can have 1 to {most} processors here, not {asked}; say --cpus {most} or less")]
    ProcessorCount {
        /// Asked for.
        asked: u32,
        /// What the engine can do.
        most: u32,
    },
    /// The host gave no memory for the guest.
    #[error("the host gives no {mib} MiB for the guest's memory: {source}")]
    Memory {
        /// MiB asked for.
        mib: u64,
        /// The host's answer.
        source: std::io::Error,
    },
    /// The host's processor will not do.
    #[error(transparent)]
    Processor(#[from] Missing),
    /// More drives than the IDE channels have room for.
    #[error("there is room for four drives on IDE, CD drives among them; use bus=sata or bus=scsi for others")]
    TooManyDrives,
    /// More floppy drives than a controller has.
    #[error("there is room for two floppy drives; leave out the others")]
    TooManyFloppies,
    /// The kernel cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The firmware cannot be loaded.
    #[error(transparent)]
    Firmware(#[from] crate::firmware::ImageError),
    /// The engine refuses or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The host gave no thread, timer or the like.
    #[error("the host gives no {what}: {source}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
    /// A device could not be put on the bus. A fault in lodge.
    #[error("internal fault: device '{device}' does not fit the machine: {cause}")]
    Device {
        /// Its name.
        device: String,
        /// Why.
        cause: String,
    },
    /// A thread of lodge's own panicked.
    #[error("internal fault: {0}")]
    Internal(String),
}

impl VmError {
    /// The exit status that stands for it: 2 where the user can mend it, 5 where lodge or the host failed.
    pub fn status(&self) -> u8 {
        if self.is_users() { 2 } else { 5 }
    }

    /// Whether the user's command or files are to blame, rather than the host or lodge.
    pub fn is_users(&self) -> bool {
        matches!(
            self,
            Self::MemorySize { .. }
                | Self::VideoMemorySize { .. }
                | Self::ProcessorCount { .. }
                | Self::Load(_)
                | Self::Firmware(_)
                | Self::TooManyDrives
                | Self::TooManyFloppies
        )
    }
}

/// Bytes in the largest unit that holds them whole.
fn size(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        _ if bytes == 0 => "none".into(),
        30.. => format!("{} GiB", bytes >> 30),
        20.. => format!("{} MiB", bytes >> 20),
        10.. => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}
