//! What a machine shall be.

use std::path::PathBuf;
use std::time::Duration;

use lodge_engine_api::{KeptCode, Mirroring};

use crate::BootOrder;

/// What a machine shall be. Everything is checked before it gets here, but for what only building can tell.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which PC it is.
    pub machine: MachineType,
    /// RAM in bytes.
    pub memory: u64,
    /// How many vCPUs.
    pub vcpus: u32,
    /// What is booted.
    pub boot: Boot,
    /// A graphics card is there without firmware, too. With firmware there always is one.
    pub display: bool,
    /// Which graphics card that is.
    pub graphics: GraphicsCard,
    /// The graphics card's own BIOS (`vgabios-stdvga.bin`, `vgabios-virtio.bin`); empty: none, which old systems and firmware cannot do without.
    pub vga_bios: Vec<u8>,
    /// Bytes of video memory, a power of two from 1 MiB to 256 MiB; [`crate::VIDEO_MEMORY`] is what most have. 0: there is no
    /// card, whatever else is said.
    pub video_memory: u64,
    /// The sound card, if there is one. It, and the PC speaker, are heard where the back ends say.
    pub sound: Option<SoundCard>,
    /// There is a virtio tablet, which has the pointer while the guest has a driver for it.
    pub tablet: bool,
    /// The debug exit port is there.
    pub debug_exit: bool,
    /// What a reset by the guest does.
    pub on_reboot: OnReboot,
    /// When the machine is ended, in time since its start.
    pub timeout: Option<Duration>,
    /// Most bytes of generated code that an engine may keep.
    pub code_cache: usize,
    /// Whether guest programs' memory may be mapped into this process.
    pub mirroring: Mirroring,
    /// Where it keeps some from one run to the next.
    pub kept_code: Option<KeptCode>,
}

impl Config {
    /// Bytes of the graphics card's memory; 0: there is no card.
    pub(crate) fn card_memory(&self) -> u64 {
        if self.display || self.boot.firmware().is_some() { self.video_memory } else { 0 }
    }
}

/// A version of the PC: which chips it has, where they are, and what firmware is told. What a guest sees of one never
/// changes; what has to comes with the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MachineType {
    /// i440FX and PIIX, devices as [`crate::slots`] has them.
    #[default]
    Pc1,
}

impl MachineType {
    /// All of them, the newest last.
    pub const ALL: [Self; 1] = [Self::Pc1];

    /// What users, and the guest's SMBIOS tables, call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pc1 => "pc-1",
        }
    }

    /// The one of that name; `pc` is the newest.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "pc" {
            return Some(Self::default());
        }
        Self::ALL.into_iter().find(|machine| machine.name() == name)
    }
}

/// Which graphics card a machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GraphicsCard {
    /// A VGA with Bochs' extension, as QEMU's "standard VGA".
    #[default]
    Standard,
    /// The same with a virtio GPU as its other half, as QEMU's `virtio-vga`.
    Virtio,
}

/// Which sound card a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoundCard {
    /// Intel's AC'97 controller, behind PCI.
    Ac97,
    /// Sound Blaster 16 at port 220h, interrupt 5, DMA channels 1 and 5.
    Sb16,
}

impl SoundCard {
    /// Frames a second of what it plays mostly, at which a recording has them as they are.
    pub fn rate(self) -> u32 {
        match self {
            Self::Ac97 => 48_000,
            Self::Sb16 => 44_100,
        }
    }
}

/// What is booted.
#[derive(Clone, Debug)]
pub enum Boot {
    /// A kernel, without firmware.
    Kernel(Kernel),
    /// What firmware finds.
    Firmware(Firmware),
}

impl Boot {
    /// The firmware, if there is any.
    pub fn firmware(&self) -> Option<&Firmware> {
        match self {
            Self::Kernel(_) => None,
            Self::Firmware(firmware) => Some(firmware),
        }
    }
}

/// A kernel that is entered directly.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The kernel's file.
    pub path: PathBuf,
    /// The initial RAM disk's file.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub command_line: String,
}

/// Firmware that the machine starts with.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// The file of its image, which ends where physical addresses of 32 bits do.
    pub image: PathBuf,
    /// What it tries to boot from.
    pub order: BootOrder,
    /// Text that firmware and boot loaders show goes to the first serial port, too, and what is typed there comes from it.
    pub serial_console: bool,
    /// A Linux kernel that it is to start instead. UEFI alone does.
    pub kernel: Option<Kernel>,
}

/// What a reset by the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReboot {
    /// The machine starts anew.
    Restart,
    /// The machine ends.
    End,
}
