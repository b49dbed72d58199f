//! [`Profile`]: what is known of one operating system, as the data give it.
//!
//! Lists are in order of preference: the first is what a machine for the system gets. What is listed is what the system
//! can use with drivers of its own; a virtio disk is not listed for a Windows, which would need more drivers first.

use serde::{Deserialize, Serialize};

use crate::{Pattern, Size};

/// What is known of one operating system.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Profile {
    /// What it is called on the command line: `debian-12`.
    pub id: String,
    /// Its name with version.
    pub name: String,
    /// What it belongs to: `Debian`. The data file says it once.
    pub family: String,
    /// Its version as its makers write it; empty for one that is always the newest.
    pub version: String,
    /// Other words that a search should find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// When it came out: a year, month or day (ISO 8601).
    #[serde(default)]
    pub released: Option<String>,
    /// The last day, month or year with updates for everybody; `None` if it is not set or not known.
    #[serde(default)]
    pub ends: Option<String>,
    /// Processors that it runs on; best first.
    pub architectures: Vec<Architecture>,
    /// The least that it can be installed on.
    pub minimum: Resources,
    /// What it is to be given where nothing else is said.
    pub recommended: Resources,
    /// Firmware that it boots from.
    pub firmware: Vec<Firmware>,
    /// Buses for its disk.
    pub disks: Vec<DiskBus>,
    /// Network cards; none if it has no use for one.
    pub nics: Vec<Nic>,
    /// Graphics cards.
    pub graphics: Vec<Graphics>,
    /// Pointers.
    pub pointers: Vec<Pointer>,
    /// Sound cards; none if it has no driver for any.
    pub sound: Vec<Sound>,
    /// Its installer can be started over the network with nothing but PXE.
    pub pxe: bool,
    /// How it is installed without questions.
    pub unattended: Unattended,
    /// How its media are recognised: any one of these rules.
    pub media: Vec<MediaRule>,
    /// How far lodge is known to run it.
    pub support: Support,
    /// Why it does not work, or what has to be known.
    #[serde(default)]
    pub note: Option<String>,
    /// The whole-VM test that shows it (`FILE::TEST` in `tests/tests`), for one that is tested.
    #[serde(default)]
    pub proof: Option<String>,
    /// Where the requirements were taken from.
    #[serde(default)]
    pub source: Option<String>,
}

/// Hardware in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Resources {
    /// RAM.
    pub memory: Size,
    /// Space on the disk; zero for a system that is not installed.
    pub disk: Size,
    /// Processors.
    #[serde(default = "one")]
    pub cpus: u32,
}

fn one() -> u32 {
    1
}

/// How the media of an operating system are recognised: all that is given has to hold.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct MediaRule {
    /// The volume's label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<Pattern>,
    /// System identifier (ISO 9660, 8.4.5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<Pattern>,
    /// Publisher identifier (ISO 9660, 8.4.20).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publisher: Option<Pattern>,
    /// Application identifier (ISO 9660, 8.4.22).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<Pattern>,
    /// Files and folders that are there, without regard to case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Files and folders that are not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
    /// The first line of `.disk/info`, which Debian and its kin have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_info: Option<Pattern>,
    /// The family that `.treeinfo` names, which Fedora and its kin have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree_family: Option<Pattern>,
    /// The version that `.treeinfo` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree_version: Option<Pattern>,
    /// The build of the first Windows in `sources/install.wim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows_build: Option<Pattern>,
    /// Its product type: `WinNT` for desktops, `ServerNT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows_product: Option<Pattern>,
    /// A floppy's OEM name, in its boot sector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oem: Option<Pattern>,
    /// Text in a floppy's boot sector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_text: Option<String>,
}

/// Defines an enumeration whose values have names, in data, in output and for `Display`.
macro_rules! named {
    ($(#[$outer:meta])* $type:ident { $($(#[$inner:meta])* $value:ident = $name:literal,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
        pub enum $type { $($(#[$inner])* #[serde(rename = $name)] $value,)* }

        impl $type {
            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$value => $name,)* }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

named! {
    /// A processor as software sees it; each runs what is for those before it.
    Architecture {
        /// 16 bits, real mode alone.
        I8086 = "i8086",
        /// 16 bits with protected mode.
        I286 = "i286",
        /// 32 bits.
        I386 = "i386",
        /// 64 bits.
        X86_64 = "x86_64",
    }
}

named! {
    /// Firmware.
    Firmware {
        /// A PC's BIOS.
        Bios = "bios",
        /// UEFI.
        Uefi = "uefi",
    }
}

named! {
    /// A disk's bus.
    DiskBus {
        /// A virtio disk.
        Virtio = "virtio",
        /// A virtio SCSI host.
        Scsi = "scsi",
        /// AHCI.
        Sata = "sata",
        /// NVMe.
        Nvme = "nvme",
        /// IDE; also what works through the BIOS alone.
        Ide = "ide",
    }
}

named! {
    /// A network card.
    Nic {
        /// A virtio network card.
        Virtio = "virtio",
        /// Intel's 82540EM.
        E1000 = "e1000",
        /// Realtek's RTL8139.
        Rtl8139 = "rtl8139",
        /// An NE2000.
        Ne2k = "ne2k",
    }
}

named! {
    /// A graphics card.
    Graphics {
        /// A VGA with Bochs' modes.
        Std = "std",
        /// The same with a virtio GPU.
        Virtio = "virtio",
    }
}

named! {
    /// What moves the pointer.
    Pointer {
        /// A PS/2 mouse.
        Ps2 = "ps2",
        /// A virtio tablet.
        Tablet = "tablet",
    }
}

named! {
    /// A sound card.
    Sound {
        /// AC'97.
        Ac97 = "ac97",
        /// Sound Blaster 16.
        Sb16 = "sb16",
    }
}

named! {
    /// How an operating system is installed without questions.
    Unattended {
        /// It is not, or not by answers that lodge writes.
        None = "none",
        /// Debian's preseeding.
        Preseed = "preseed",
        /// Ubuntu's autoinstall.
        Autoinstall = "autoinstall",
        /// Anaconda's kickstart.
        Kickstart = "kickstart",
        /// Windows' answer file.
        Autounattend = "autounattend",
    }
}

named! {
    /// How far lodge is known to run an operating system.
    Support {
        /// A test of lodge's runs it each time.
        Tested = "tested",
        /// It needs nothing that lodge is known to lack; nobody has shown that it runs.
        Expected = "expected",
        /// It is known not to work; the note says why.
        Broken = "broken",
    }
}

impl MediaRule {
    /// How sure one can be of a rule that holds: what a medium says of itself counts first, then the files on it. The
    /// greater of two knows better; a rule that asks for nothing has zero.
    pub fn certainty(&self) -> (usize, usize) {
        let patterns = [
            &self.label,
            &self.system,
            &self.publisher,
            &self.application,
            &self.disk_info,
            &self.tree_family,
            &self.tree_version,
            &self.windows_build,
            &self.windows_product,
            &self.oem,
        ];
        let said = patterns.iter().filter(|pattern| pattern.is_some()).count() + usize::from(self.boot_text.is_some());
        (said, self.files.len())
    }
}
