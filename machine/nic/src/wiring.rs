//! What cards for PCI are made of and connected to.

use std::sync::Arc;

use lodge_bus::{MmioBus, PortBus, Timers};
use lodge_engine_api::GuestMemory;
use lodge_pci::Router;

/// What a card is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardConfig {
    /// Its name in the machine ("net0").
    pub name: String,
    /// Its expansion ROM, from which firmware boots off the network; empty for none.
    pub rom: Vec<u8>,
}

/// What a card is connected to, but for its cable.
#[derive(Clone)]
pub struct PciWiring {
    /// Where its rings and buffers are.
    pub memory: GuestMemory,
    /// Where its registers are.
    pub mmio: MmioBus,
    /// Where its registers are, too.
    pub ports: PortBus,
    /// Where its interrupt goes.
    pub router: Arc<Router>,
    /// What it waits with.
    pub timers: Timers,
}

/// Bytes of an expansion ROM; what is beyond its end reads as ones.
pub(crate) fn read_rom(rom: &[u8], offset: u64, bytes: usize) -> u64 {
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    let byte = |n: usize| at.checked_add(n).and_then(|at| rom.get(at)).copied().unwrap_or(0xff);
    (0..bytes.min(8)).fold(0, |value, n| value | u64::from(byte(n)) << (8 * n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rom_reads_as_ones_behind_its_end() {
        let rom = [0x55, 0xaa, 3];
        assert_eq!(read_rom(&rom, 0, 4), 0xff03_aa55);
        assert_eq!(read_rom(&rom, 1, 2), 0x03aa);
        assert_eq!(read_rom(&rom, u64::MAX, 8), u64::MAX);
    }
}
