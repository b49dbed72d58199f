//! PIIX3's IDE function, with two channels of two drives each (82371SB sections 2.7 and 3.5; ATA/ATAPI-7).
//!
//! [`Ide`] is the PCI function and the ports, which stay where the AT had them. A [`channel`] holds the registers that its drives
//! share and the thread that does their I/O; the drives' commands are [`crate::ata`]'s.
//!
//! ```text
//!   0x1f0, 0x3f6 --> channel 0 --> disk or CD drive, twice --> interrupt 14
//!   0x170, 0x376 --> channel 1 -->        "                --> interrupt 15
//!   BAR 4 ---------> bus masters of both
//! ```

mod channel;
mod master;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use channel::Channel;
use lodge_bus::{
    AccessError, Device, IrqLine, PauseDevice, PciAddress, PciFunction, PortBus, PortDevice, PortRange, ResetDevice,
    SaveDevice, StateError, Width,
};
use lodge_engine_api::GuestMemory;
use lodge_pci::bridges::registers::{INTEL, SUBSYSTEM};
use lodge_pci::{BarTarget, ConfigSpace, ConfigSpec};
use parking_lot::Mutex;
use registers::*;
pub use state::{ChannelState, IdeState};

use crate::ata::Drive;

/// Regions of ports: the command block and the control of each channel, and the bus masters.
const REGION_COMMANDS: [u8; 2] = [0, 1];
const REGION_CONTROLS: [u8; 2] = [2, 3];
const REGION_MASTERS: u8 = 4;

/// What the function is connected to.
pub struct IdeWiring {
    /// Where its ports are.
    pub ports: PortBus,
    /// Where bus masters find their data.
    pub memory: GuestMemory,
    /// ISA interrupts 14 and 15.
    pub interrupts: [IrqLine; 2],
}

/// The function.
pub struct Ide {
    // wiring
    channels: [Arc<Channel>; 2],
    // volatile
    config: Mutex<ConfigSpace>,
}

impl Ide {
    /// The function with up to four drives: the first and second of channel 0, then those of channel 1.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(drives: [Option<Drive>; 4], wiring: IdeWiring) -> std::io::Result<Arc<Self>> {
        let IdeWiring { ports, memory, interrupts: [first, second] } = wiring;
        let [a, b, c, d] = drives;
        let channels =
            [Channel::new("ide0", [a, b], first, memory.clone())?, Channel::new("ide1", [c, d], second, memory)?];
        Ok(Arc::new_cyclic(|this: &Weak<Self>| {
            let spec = ConfigSpec {
                vendor: INTEL,
                device: PIIX3_IDE,
                // Bus master; both channels where the AT had them.
                class: [1, 1, 0x80],
                subsystem: SUBSYSTEM,
                ..ConfigSpec::default()
            };
            let mut config = ConfigSpace::new(&spec);
            config.allow(TIMING, &[0xff; 4]);
            let range = PortRange { base: 0, length: 2 * MASTER_PORTS, region: REGION_MASTERS, widths: Width::Byte };
            let face: Weak<dyn PortDevice> = this.clone();
            config.add_bar(4, range.length.into(), BarTarget::Ports(ports.mapping(face, range)));
            Self { channels, config: Mutex::new(config) }
        }))
    }

    fn channel(&self, region: u8) -> &Channel {
        &self.channels[usize::from(region & 1)]
    }
}

impl Drop for Ide {
    fn drop(&mut self) {
        self.channels.iter().for_each(|channel| channel.end());
    }
}

impl Device for Ide {
    fn name(&self) -> &str {
        "ide"
    }
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
        Some(self)
    }
    fn pci(self: Arc<Self>) -> Option<Arc<dyn PciFunction>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn pausable(self: Arc<Self>) -> Option<Arc<dyn PauseDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl PortDevice for Ide {
    fn port_ranges(&self) -> Vec<PortRange> {
        let mut ranges = Vec::new();
        for n in 0..2 {
            let commands = COMMAND_BLOCKS[n];
            ranges.push(PortRange { base: commands, length: 8, region: REGION_COMMANDS[n], widths: Width::Dword });
            ranges.push(PortRange { base: CONTROLS[n], length: 1, region: REGION_CONTROLS[n], widths: Width::Byte });
        }
        ranges
    }

    fn port_read(&self, region: u8, offset: u16, width: Width) -> Result<u32, AccessError> {
        match region {
            0 | 1 if offset == DATA || width == Width::Byte => Ok(self.channel(region).read(offset, width.bytes())),
            // Wider accesses to the other registers are several narrower ones.
            0 | 1 => {
                let bytes = (0..width.bytes() as u16).filter(|n| offset + n <= STATUS);
                Ok(bytes.map(|n| self.channel(region).read(offset + n, 1) << (8 * n)).sum())
            }
            2 | 3 => Ok(self.channel(region).alternate_status().into()),
            _ => Ok(self.channels[usize::from(offset >= MASTER_PORTS)].read_master(offset % MASTER_PORTS).into()),
        }
    }

    fn port_write(&self, region: u8, offset: u16, width: Width, value: u32) -> Result<(), AccessError> {
        match region {
            0 | 1 if offset == DATA || width == Width::Byte => {
                self.channel(region).write(offset, width.bytes(), value);
            }
            0 | 1 => {
                for n in (0..width.bytes() as u16).filter(|n| offset + n <= STATUS) {
                    self.channel(region).write(offset + n, 1, value >> (8 * n) & 0xff);
                }
            }
            2 | 3 => self.channel(region).control(value as u8),
            _ => self.channels[usize::from(offset >= MASTER_PORTS)].write_master(offset % MASTER_PORTS, value as u8),
        }
        Ok(())
    }
}

impl PciFunction for Ide {
    fn pci_address(&self) -> Option<PciAddress> {
        Some(PciAddress { device: 1, function: 1 })
    }

    fn config_read(&self, offset: u8) -> u32 {
        self.config.lock().read(offset)
    }

    fn config_write(&self, offset: u8, mask: u32, value: u32) {
        self.config.lock().write(offset, mask, value);
    }

    fn bars(&self) -> Vec<(u8, u64, bool)> {
        self.config.lock().bars()
    }
}

impl ResetDevice for Ide {
    fn reset(&self) {
        self.config.lock().reset();
        self.channels.iter().for_each(|channel| channel.reset());
    }
}

impl PauseDevice for Ide {
    fn pause(&self) {
        // The threads do only what was asked of them, and nobody asks while the processors are held.
        self.channels.iter().for_each(|channel| channel.pause());
    }

    fn resume(&self) {
        self.channels.iter().for_each(|channel| channel.resume());
    }
}

impl SaveDevice for Ide {
    fn save(&self) -> Vec<u8> {
        let channels = [0, 1].map(|n: usize| ChannelState::of(&self.channels[n]));
        lodge_savestate::to_record(&IdeState { config: self.config.lock().state(), channels })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: IdeState = StateError::read("ide", record)?;
        for (channel, saved) in self.channels.iter().zip(&state.channels) {
            if !saved.is_sound(&channel.state.lock()) {
                let cause = "a channel is in a state that its drives cannot be in".into();
                return Err(StateError { device: "ide".into(), cause });
            }
        }
        self.config.lock().set_state(&state.config);
        for (channel, saved) in self.channels.iter().zip(state.channels) {
            channel.reset();
            saved.put(channel);
        }
        Ok(())
    }
}
