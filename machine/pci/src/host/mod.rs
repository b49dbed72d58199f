//! Bus 0: the functions on it, configuration mechanism #1, reset control, and the assignment of addresses.
//!
//! [`PciHost`] finds a function's configuration space. On a machine without firmware [`PciHost::assign`] does what firmware
//! would have: give BARs addresses, route interrupts, enable decoding.

pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use lodge_bus::{
    AccessError, Device, PciAddress, PciFunction, PortBus, PortDevice, PortRange, ResetDevice, SaveDevice, StateError,
    SystemControl, Width,
};
use parking_lot::{Mutex, RwLock};
use registers::*;
pub use state::HostState;

use crate::bridges::registers::{IDE_DECODE, IDE_TIMING, PIRQ, PM_BASE, PM_MISC};
use crate::config::registers::{BAR0, COMMAND, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, INTERRUPT};
use crate::router::{DEFAULT_ROUTES, wire_of};

/// Addresses that BARs may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciWindow {
    /// The first address of the memory window, below 4 GiB.
    pub memory_base: u64,
    /// The address after its last.
    pub memory_end: u64,
    /// The first port of the I/O window.
    pub io_base: u16,
}

/// Why a function can't be added or given addresses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PciError {
    /// Its place is taken.
    #[error("there is already a PCI function at {device:02x}.{function}")]
    Taken {
        /// Device number.
        device: u8,
        /// Function number.
        function: u8,
    },
    /// All 32 device numbers are taken.
    #[error("the PCI bus is full")]
    Full,
    /// The window has no room for a BAR.
    #[error("the PCI window has no room for {size:#x} bytes more")]
    Window {
        /// Bytes wanted.
        size: u64,
    },
}

/// PCI bus 0.
pub struct PciHost {
    // wiring
    system: Arc<dyn SystemControl>,
    functions: RwLock<BTreeMap<PciAddress, Arc<dyn PciFunction>>>,
    // volatile
    state: Mutex<HostState>,
}

impl PciHost {
    /// An empty bus.
    pub fn new(system: Arc<dyn SystemControl>) -> Arc<Self> {
        Arc::new(Self { system, functions: RwLock::default(), state: Mutex::default() })
    }

    /// Puts a function where it wants to be, or at the first free device number from 2 on.
    ///
    /// # Errors
    /// Its place, or all places, are taken.
    pub fn add(&self, function: Arc<dyn PciFunction>) -> Result<PciAddress, PciError> {
        self.add_among(function, 2..=31)
    }

    /// Puts a function where it wants to be, or at the first free device number of `places`, or of all from 31 down.
    ///
    /// # Errors
    /// Its place, or all places, are taken.
    pub fn add_among(
        &self,
        function: Arc<dyn PciFunction>,
        places: RangeInclusive<u8>,
    ) -> Result<PciAddress, PciError> {
        let mut functions = self.functions.write();
        let address = match function.pci_address() {
            Some(address) => address,
            None => {
                let all = places.chain((2..32).rev());
                let free = all.into_iter().find(|device| !functions.keys().any(|taken| taken.device == *device));
                PciAddress { device: free.ok_or(PciError::Full)?, function: 0 }
            }
        };
        if address.device > 31 || address.function > 7 || functions.contains_key(&address) {
            return Err(PciError::Taken { device: address.device, function: address.function });
        }
        functions.insert(address, function.clone());
        drop(functions);
        function.placed(address);
        Ok(address)
    }

    /// All functions, in order.
    pub fn functions(&self) -> Vec<(PciAddress, Arc<dyn PciFunction>)> {
        self.functions.read().iter().map(|(address, function)| (*address, function.clone())).collect()
    }

    /// Does what firmware would: routes the interrupt wires to 10 and 11 and makes those level-triggered, maps the
    /// power-management block at `pm_base`, has the IDE function's channels decoded, gives all BARs addresses from the window and switches decoding on.
    ///
    /// # Errors
    /// The window is too small.
    pub fn assign(&self, window: PciWindow, pm_base: u16, ports: &PortBus) -> Result<(), PciError> {
        let routes = u32::from_le_bytes(DEFAULT_ROUTES);
        let piix3 = self.function(PciAddress { device: 1, function: 0 });
        if let Some(piix3) = piix3 {
            piix3.config_write(PIRQ, u32::MAX, routes);
        }
        if let Some(pm) = self.function(PciAddress { device: 1, function: 3 }) {
            pm.config_write(PM_BASE, 0xffff, pm_base.into());
            pm.config_write(PM_MISC, 0xff, 1);
        }
        if let Some(ide) = self.function(PciAddress { device: 1, function: 1 }) {
            ide.config_write(IDE_TIMING, u32::MAX, IDE_DECODE);
        }
        // Edge/level control: interrupts 9 (the SCI), 10 and 11.
        ports.write(0x4d1, Width::Byte, 0x0e);
        let mut memory = window.memory_base;
        let mut io = u64::from(window.io_base);
        for (address, function) in self.functions() {
            let mut bars = function.bars();
            // The largest first, so that alignment wastes nothing.
            bars.sort_by_key(|(_, size, _)| std::cmp::Reverse(*size));
            for (register, size, is_io) in bars {
                let (cursor, end) = if is_io { (&mut io, 0x1_0000) } else { (&mut memory, window.memory_end) };
                // A page each at least, so that a guest can hand one to a nested guest or a process.
                let step = if is_io { size } else { size.max(0x1000) };
                let base = cursor.checked_next_multiple_of(step).ok_or(PciError::Window { size })?;
                *cursor = base.checked_add(step).filter(|next| *next <= end).ok_or(PciError::Window { size })?;
                function.config_write(register, u32::MAX, base as u32);
                let is_64 = !is_io && function.config_read(register) & 0b110 == 0b100;
                if is_64 && register < BAR0 + 20 {
                    function.config_write(register + 4, u32::MAX, (base >> 32) as u32);
                }
            }
            let pin = (function.config_read(INTERRUPT) >> 8) as u8;
            if (1..=4).contains(&pin) {
                let line = DEFAULT_ROUTES[wire_of(address.device, pin - 1)];
                function.config_write(INTERRUPT, 0xff, line.into());
            }
            let command = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER;
            function.config_write(COMMAND, 0xffff, command.into());
        }
        Ok(())
    }

    fn function(&self, address: PciAddress) -> Option<Arc<dyn PciFunction>> {
        self.functions.read().get(&address).cloned()
    }

    /// The function and register that the configuration address names.
    fn selected(&self, address: u32) -> Option<(Arc<dyn PciFunction>, u8)> {
        let bus = (address >> 16) as u8;
        if address & ENABLE == 0 || bus != 0 {
            return None;
        }
        let place = PciAddress { device: (address >> 11) as u8 & 31, function: (address >> 8) as u8 & 7 };
        Some((self.function(place)?, address as u8 & 0xfc))
    }

    fn write_reset(&self, value: u8) {
        let mut state = self.state.lock();
        let rising = value & !state.reset_control & RESET_CPU != 0;
        state.reset_control = value & (RESET_HARD | RESET_CPU);
        drop(state);
        match (rising, value & RESET_HARD != 0) {
            (false, _) => {}
            (true, false) => self.system.reset_processors(),
            (true, true) => self.system.reset(),
        }
    }
}

impl Device for PciHost {
    fn name(&self) -> &str {
        "pci"
    }
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl PortDevice for PciHost {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![PortRange { base: ADDRESS, length: 8, region: 0, widths: Width::Dword }]
    }

    fn port_read(&self, _region: u8, offset: u16, width: Width) -> Result<u32, AccessError> {
        if offset < DATA_OFFSET {
            return match (offset, width) {
                (0, Width::Dword) => Ok(self.state.lock().address),
                (RESET_OFFSET, Width::Byte) => Ok(self.state.lock().reset_control.into()),
                _ => Err(AccessError::Width),
            };
        }
        let address = self.state.lock().address;
        let (function, register) = self.selected(address).ok_or(AccessError::Nobody)?;
        let within = u32::from(offset & 3);
        Ok(function.config_read(register) >> (8 * within))
    }

    fn port_write(&self, _region: u8, offset: u16, width: Width, value: u32) -> Result<(), AccessError> {
        if offset < DATA_OFFSET {
            match (offset, width) {
                (0, Width::Dword) => self.state.lock().address = value & 0x80ff_fffc,
                (RESET_OFFSET, Width::Byte) => self.write_reset(value as u8),
                _ => return Err(AccessError::Width),
            }
            return Ok(());
        }
        let address = self.state.lock().address;
        let (function, register) = self.selected(address).ok_or(AccessError::Nobody)?;
        let shift = 8 * u64::from(offset & 3);
        let mask = (u64::from(width.ones()) << shift) as u32;
        function.config_write(register, mask, (u64::from(value) << shift) as u32);
        Ok(())
    }
}

impl ResetDevice for PciHost {
    fn reset(&self) {
        *self.state.lock() = HostState::default();
    }
}

impl SaveDevice for PciHost {
    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&*self.state.lock())
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        *self.state.lock() = StateError::read("pci", record)?;
        Ok(())
    }
}
