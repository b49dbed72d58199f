//! Device facets, the buses that reach them, interrupt lines, and guest time.
//!
//! * A [`Device`] offers facets, each optional: ports ([`PortDevice`]), memory-mapped registers ([`MmioDevice`]), PCI
//!   configuration space ([`PciFunction`]), reset ([`ResetDevice`]) and saved state ([`SaveDevice`]).
//! * [`PortBus`] and [`MmioBus`] find the device behind an address without taking a lock, split accesses into the
//!   widths that the device takes, and answer all ones where nobody does. Ranges can move at run time (PCI BARs).
//! * [`IrqLine`] is a wire to an interrupt controller, [`MsiTarget`] where message-signalled interrupts go.
//! * [`Clock`] is guest time; [`Timers`] calls a device back at a moment of it.
//! * [`SystemControl`] is how a device ends or restarts the whole machine, [`MemoryControl`] how it changes its memory map.
//!
//! # Lock order
//!
//! Devices are shared by vCPU threads and I/O threads, and lock themselves. A thread that holds a lock may only take
//! locks further down this list:
//!
//! 1. a device's registers (one device at a time; a PCI function before the bus tables that its BARs move)
//! 2. the PCI interrupt router
//! 3. I/O APIC, then the 8259A pair, then local APICs (one at a time)
//! 4. the timer queue, the bus tables' writer lock
//!
//! Timer call-backs and [`SystemControl`] are called with none of the above held by the caller's service; a device may
//! call [`SystemControl`] while it holds its own lock, so an implementation only takes note and returns.
#![forbid(unsafe_code)]

mod clock;
mod device;
mod irq;
mod memory;
mod mmio;
mod port;
mod system;
mod table;
mod timers;

pub use clock::{Clock, HostClock, MockClock};
pub use device::{
    AccessError, Device, MmioDevice, MmioRange, MmioWidths, PauseDevice, PciAddress, PciFunction, PortDevice,
    PortRange, PortWidths, ResetDevice, SaveDevice, StateError,
};
pub use irq::{IrqLine, IrqSink, MsiTarget, NoMsi};
pub use lodge_engine_api::{MemoryChange, Reach, Width};
pub use memory::{AddressLine20, FixedMemory, MemoryControl, MemoryMapping, MemoryPlace};
pub use mmio::{MmioBus, MmioMapping};
pub use port::{PortBus, PortMapping};
pub use system::SystemControl;
pub use table::MapError;
pub use timers::{Timer, Timers};
