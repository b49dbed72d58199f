//! What a device offers: facets, each optional.
//!
//! [`Device`] lists the facets; each facet is a small trait of its own. An [`AccessError`] is the answer "nobody took
//! this access", which the bus turns into all ones; it is not a fault of the device, and no facet method can fail in a
//! way that would stop the machine.

use std::sync::Arc;

use lodge_engine_api::Width;
use lodge_savestate::Saved;

/// Why a device did not take an access. The bus answers a read with all ones and drops a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// There is no register there.
    #[error("no register at this offset")]
    Nobody,
    /// There is one, but it can't be accessed in this width or at this alignment.
    #[error("the register does not take this width")]
    Width,
}

/// A device of the virtual PC. Everything is reached through facets.
///
/// Methods take `&self`: a device is shared by the vCPU threads and locks itself, briefly.
pub trait Device: Send + Sync {
    /// A short name, unique in the machine, for logs and for saved state ("pit", "uart0").
    fn name(&self) -> &str;

    /// Its I/O ports.
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
        None
    }

    /// Its memory-mapped registers, other than those behind PCI BARs.
    fn mmio(self: Arc<Self>) -> Option<Arc<dyn MmioDevice>> {
        None
    }

    /// Its PCI configuration space.
    fn pci(self: Arc<Self>) -> Option<Arc<dyn PciFunction>> {
        None
    }

    /// What it does at a machine reset.
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        None
    }

    /// What it does when the machine is paused.
    fn pausable(self: Arc<Self>) -> Option<Arc<dyn PauseDevice>> {
        None
    }

    /// Its saved state.
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        None
    }
}

/// The widest access that a range of ports takes whole. The bus splits wider ones into pieces of this width, each of
/// which goes to whoever owns its own port, as an ISA bridge does.
pub type PortWidths = Width;

/// Ports that a device owns from power-on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first port.
    pub base: u16,
    /// How many ports.
    pub length: u16,
    /// The device's own number for this range, passed back with each access.
    pub region: u8,
    /// The widest access taken whole.
    pub widths: PortWidths,
}

/// A device with I/O ports.
pub trait PortDevice: Send + Sync {
    /// The ports it owns from power-on. Those behind PCI BARs are not among them.
    fn port_ranges(&self) -> Vec<PortRange> {
        Vec::new()
    }

    /// Reads at `offset` into `region`. Bits above `width` are ignored by the bus.
    ///
    /// # Errors
    /// Nobody takes the access; the guest reads all ones.
    fn port_read(&self, region: u8, offset: u16, width: Width) -> Result<u32, AccessError>;

    /// Writes at `offset` into `region`. Bits of `value` above `width` are zero.
    ///
    /// # Errors
    /// Nobody takes the access; nothing happens.
    fn port_write(&self, region: u8, offset: u16, width: Width, value: u32) -> Result<(), AccessError>;
}

/// The widths, in bytes, that a range of memory-mapped registers takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioWidths {
    /// The narrowest: narrower reads are cut out of one of this width, narrower writes are refused.
    pub narrowest: u8,
    /// The widest, at most 8: wider accesses are split into naturally aligned pieces of at most this width.
    pub widest: u8,
}

impl MmioWidths {
    /// Any of 1, 2, 4 and 8 bytes.
    pub const ANY: Self = Self { narrowest: 1, widest: 8 };
    /// 1, 2 or 4 bytes.
    pub const UP_TO_DWORD: Self = Self { narrowest: 1, widest: 4 };
    /// Only 4 bytes.
    pub const DWORD: Self = Self { narrowest: 4, widest: 4 };
    /// 4 or 8 bytes.
    pub const DWORD_OR_QWORD: Self = Self { narrowest: 4, widest: 8 };
}

/// Physical addresses that a device owns from power-on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioRange {
    /// The first address.
    pub base: u64,
    /// How many bytes.
    pub length: u64,
    /// The device's own number for this range, passed back with each access.
    pub region: u8,
    /// The widths it takes.
    pub widths: MmioWidths,
}

/// A device with memory-mapped registers. Accesses arrive naturally aligned, in one of the widths of the range.
pub trait MmioDevice: Send + Sync {
    /// The addresses it owns from power-on. Those behind PCI BARs are not among them.
    fn mmio_ranges(&self) -> Vec<MmioRange> {
        Vec::new()
    }

    /// Reads `bytes` (1, 2, 4 or 8) at `offset` into `region`.
    ///
    /// # Errors
    /// Nobody takes the access; the guest reads all ones.
    fn mmio_read(&self, region: u8, offset: u64, bytes: usize) -> Result<u64, AccessError>;

    /// Writes `bytes` (1, 2, 4 or 8) at `offset` into `region`. Higher bits of `value` are zero.
    ///
    /// # Errors
    /// Nobody takes the access; nothing happens.
    fn mmio_write(&self, region: u8, offset: u64, bytes: usize, value: u64) -> Result<(), AccessError>;
}

/// Where a PCI function sits: all are on bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

/// A PCI function's configuration space: 256 bytes, as 64 double words.
pub trait PciFunction: Send + Sync {
    /// Where it wants to sit; `None` for wherever there is room.
    fn pci_address(&self) -> Option<PciAddress> {
        None
    }

    /// Reads the double word that holds byte `offset` (a multiple of 4 below 256).
    fn config_read(&self, offset: u8) -> u32;

    /// Writes those bits of the double word at `offset` that are set in `mask` (made of whole bytes).
    fn config_write(&self, offset: u8, mask: u32, value: u32);

    /// Told once, when the function has been given its place.
    fn placed(&self, _address: PciAddress) {}

    /// The size in bytes and kind of each BAR it has, so that a machine without firmware can assign addresses:
    /// (BAR register, size, is I/O space).
    fn bars(&self) -> Vec<(u8, u64, bool)> {
        Vec::new()
    }
}

/// A device that a machine reset changes.
pub trait ResetDevice: Send + Sync {
    /// Returns to the state after power-on. Wiring and configuration stay.
    fn reset(&self);
}

/// A device that acts on threads of its own, and has to stop doing so while the machine is paused.
pub trait PauseDevice: Send + Sync {
    /// Stops; on return nothing of the device touches guest memory or raises interrupts. May wait for I/O.
    fn pause(&self);

    /// Goes on.
    fn resume(&self);
}

/// Why saved state can't be loaded.
#[derive(Debug, thiserror::Error)]
#[error("the state of {device} can't be loaded: {cause}")]
pub struct StateError {
    /// The device's name.
    pub device: String,
    /// What is wrong with the bytes.
    pub cause: String,
}

impl StateError {
    /// Reads a record as the state of the device with this name.
    ///
    /// # Errors
    /// The record is of another kind, from a later version, or damaged.
    pub fn read<T: Saved>(device: &str, record: &[u8]) -> Result<T, Self> {
        lodge_savestate::from_record(record)
            .map_err(|error| Self { device: device.to_owned(), cause: error.to_string() })
    }
}

/// A device whose state is saved.
pub trait SaveDevice: Send + Sync {
    /// Its state as one self-describing record (the format is `lodge-savestate`'s). The machine is paused.
    fn save(&self) -> Vec<u8>;

    /// Replaces its state. The machine is paused.
    ///
    /// # Errors
    /// The record is of another kind, of a version from the future, or damaged; the device is unchanged.
    fn restore(&self, record: &[u8]) -> Result<(), StateError>;
}
