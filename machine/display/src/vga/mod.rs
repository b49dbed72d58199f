//! A VGA with Bochs' extension, on PCI: QEMU's "standard VGA".
//!
//! [`Vga`] owns the ports and the window at 0xa0000 from power-on, and three BARs: video memory, registers, the ROM with
//! the VGA BIOS. Those can be another function's, of which the card is then a half, as in QEMU's `virtio-vga`. What ports do is in [`ports`](self) and `dispi`, what the window does in `planar`, what is seen in `crtc`,
//! `render` and `text`.
//!
//! ```text
//!   0x3b4..0x3df ------> registers <------ BAR 2 + 0x400
//!   0x1ce, 0x1cf ------> extension <------ BAR 2 + 0x500
//!   0xa0000..0xbffff --> planes, latches --> video memory <------ BAR 0, at full speed
//! ```

mod crtc;
mod dispi;
pub mod edid;
mod memory;
mod planar;
mod ports;
pub mod registers;
mod render;
mod state;
#[cfg(test)]
mod tests;
mod text;

use std::sync::{Arc, Weak};

use lodge_bus::{
    AccessError, Clock, Device, MemoryMapping, MmioBus, MmioDevice, MmioMapping, MmioRange, MmioWidths, PciFunction,
    PortDevice, PortRange, ResetDevice, SaveDevice, StateError, Width,
};
use lodge_pci::{BarTarget, ConfigSpace, ConfigSpec, read_rom};
pub use memory::{VIDEO_MEMORY_SIZES, VideoAperture, VideoMemory, VideoMemoryError};
use parking_lot::Mutex;
use registers::pci;
pub use state::{Registers, VgaState};

use crate::screen::{Frame, Look, Mode, Screen};

/// Region of ports: Bochs' extension. A VGA's own ranges are numbered from 0 on, as in [`registers::PORTS`].
const REGION_DISPI: u8 = 16;
/// Regions of memory: the window, the registers behind BAR 2, the ROM.
const REGION_WINDOW: u8 = 0;
const REGION_REGISTERS: u8 = 1;
const REGION_ROM: u8 = 2;
/// Most bytes of a ROM that fit below 0xe0000, where a BIOS copies it.
const ROM_MOST: usize = 128 << 10;

/// What a card is made of.
#[derive(Clone, Debug, Default)]
pub struct VgaConfig {
    /// The VGA BIOS (`vgabios-stdvga.bin`), at most 128 KiB; empty: none, for machines without firmware.
    pub rom: Vec<u8>,
}

/// What a card is connected to.
pub struct VgaWiring {
    /// Guest time, which tells when the picture is being drawn.
    pub clock: Arc<dyn Clock>,
    /// Where its registers and its ROM are mapped.
    pub mmio: MmioBus,
    /// Video memory.
    pub memory: VideoMemory,
    /// The same region's place in the guest's memory.
    pub frame_buffer: MemoryMapping,
}

/// What the PCI function has to offer of whose card another is a half ([`Vga::half`]); registers come besides.
pub struct VgaParts {
    /// Bytes of video memory.
    pub video_memory: u64,
    /// Their place in the guest's memory: BAR 0.
    pub frame_buffer: MemoryMapping,
    /// What a guest finds there.
    pub aperture: VideoAperture,
    /// The ROM, if there is one: its bytes, and where they are read.
    pub rom: Option<(u64, MmioMapping)>,
}

struct Volatile {
    registers: Registers,
    /// Counts changes of registers.
    changes: u64,
}

/// The card.
pub struct Vga {
    // configuration
    rom: Vec<u8>,
    edid: [u8; edid::LENGTH],
    // wiring
    clock: Arc<dyn Clock>,
    memory: VideoMemory,
    // volatile
    /// Of a function of its own.
    config: Option<Mutex<ConfigSpace>>,
    state: Mutex<Volatile>,
}

impl Vga {
    /// A card that is a PCI function.
    pub fn new(config: VgaConfig, wiring: VgaWiring) -> Arc<Self> {
        let VgaWiring { clock, mmio, memory, frame_buffer } = wiring;
        Arc::new_cyclic(|this: &Weak<Self>| {
            let spec = ConfigSpec {
                vendor: pci::VENDOR,
                device: pci::DEVICE,
                revision: pci::REVISION,
                class: [3, 0, 0],
                subsystem: pci::SUBSYSTEM,
                ..ConfigSpec::default()
            };
            let card = Self::build(config, clock, memory);
            let parts = card.parts(&mmio, frame_buffer, this);
            let mut space = ConfigSpace::new(&spec);
            space.add_bar(0, parts.video_memory, BarTarget::Prefetchable(parts.frame_buffer));
            let widths = MmioWidths::UP_TO_DWORD;
            let registers = MmioRange { base: 0, length: pci::REGISTERS, region: REGION_REGISTERS, widths };
            space.add_bar(2, registers.length, BarTarget::Memory32(mmio.mapping(this.clone(), registers)));
            if let Some((length, mapping)) = parts.rom {
                space.add_rom(length, mapping);
            }
            Self { config: Some(Mutex::new(space)), ..card }
        })
    }

    /// A card that is one half of another's PCI function, and what that function has to offer for it.
    pub fn half(config: VgaConfig, wiring: VgaWiring) -> (Arc<Self>, VgaParts) {
        let VgaWiring { clock, mmio, memory, frame_buffer } = wiring;
        let card = Arc::new(Self::build(config, clock, memory));
        let parts = card.parts(&mmio, frame_buffer, &Arc::downgrade(&card));
        (card, parts)
    }

    fn build(config: VgaConfig, clock: Arc<dyn Clock>, memory: VideoMemory) -> Self {
        let mut rom = config.rom;
        rom.truncate(ROM_MOST);
        let state = Mutex::new(Volatile { registers: Registers::default(), changes: 0 });
        Self { rom, edid: edid::block(edid::PREFERRED), clock, memory, config: None, state }
    }

    fn parts(&self, mmio: &MmioBus, frame_buffer: MemoryMapping, this: &Weak<Self>) -> VgaParts {
        let length = self.rom.len() as u64;
        let range = MmioRange { base: 0, length, region: REGION_ROM, widths: MmioWidths::ANY };
        let rom = (length > 0).then(|| (length, mmio.mapping(this.clone(), range)));
        let aperture = self.memory.aperture(frame_buffer.place());
        VgaParts { video_memory: self.memory.length(), frame_buffer, aperture, rom }
    }

    /// Reads `bytes` (1, 2, 4 or 8) of the registers that are behind BAR 2, [`registers::pci::REGISTERS`] of them.
    pub fn read_registers(&self, offset: u64, bytes: usize) -> u64 {
        self.read_register(offset, bytes.min(8))
    }

    /// Writes them. What is wider than they are goes to two.
    pub fn write_registers(&self, offset: u64, bytes: usize, value: u64) {
        if bytes == 8 {
            self.write_register(offset, 4, value & 0xffff_ffff);
            self.write_register(offset + 4, 4, value >> 32);
        } else {
            self.write_register(offset, bytes, value);
        }
    }

    fn read_port(&self, port: u16) -> Option<u8> {
        let registers = &mut self.state.lock().registers;
        let timed = matches!(port, registers::STATUS_1 | registers::STATUS_1_MONOCHROME);
        let status = if timed { registers.status_1(self.clock.now_ns()) } else { 0 };
        registers.read_port(port, status)
    }

    fn write_port(&self, port: u16, value: u8) {
        let mut state = self.state.lock();
        let changed = state.registers.write_port(port, value);
        state.changes += u64::from(changed);
    }

    fn write_dispi(&self, index: u16, value: u16) {
        let mut state = self.state.lock();
        state.registers.write_dispi(index, value, &self.memory);
        state.changes += 1;
    }

    /// Reads a byte or word of the registers behind BAR 2.
    fn read_register(&self, offset: u64, bytes: usize) -> u64 {
        let byte = |offset: u64| -> u8 {
            match offset {
                0..pci::PORTS => self.edid.get(offset as usize).copied().unwrap_or(0),
                pci::PORTS..0x420 => self.read_port(0x3c0 + (offset - pci::PORTS) as u16).unwrap_or(0xff),
                pci::DISPI..0x516 => {
                    let index = ((offset - pci::DISPI) / 2) as u16;
                    let value = self.state.lock().registers.read_dispi(index, &self.memory);
                    value.to_le_bytes()[(offset & 1) as usize]
                }
                pci::EXTENSION..0x604 => pci::EXTENSION_SIZE.to_le_bytes()[(offset & 3) as usize],
                pci::ENDIAN..0x608 => {
                    let big = self.state.lock().registers.big_endian;
                    (if big { pci::ENDIAN_BIG } else { pci::ENDIAN_LITTLE } as u8)
                }
                _ => 0,
            }
        };
        (0..bytes as u64).map(|n| u64::from(byte(offset + n)) << (8 * n)).sum()
    }

    fn write_register(&self, offset: u64, bytes: usize, value: u64) {
        match offset {
            pci::PORTS..0x420 => {
                for n in 0..bytes as u64 {
                    self.write_port(0x3c0 + (offset + n - pci::PORTS) as u16, (value >> (8 * n)) as u8);
                }
            }
            pci::DISPI..0x516 => {
                // Words; half a word leaves the other half as it is.
                let index = ((offset - pci::DISPI) / 2) as u16;
                if bytes == 1 {
                    let shift = 8 * (offset & 1) as u32;
                    let old = self.state.lock().registers.read_dispi(index, &self.memory);
                    self.write_dispi(index, old & !(0xff << shift) | (value as u16) << shift);
                } else {
                    for n in 0..(bytes / 2) as u16 {
                        self.write_dispi(index + n, (value >> (16 * n)) as u16);
                    }
                }
            }
            pci::ENDIAN if bytes == 4 => {
                let mut state = self.state.lock();
                match value as u32 {
                    pci::ENDIAN_BIG => state.registers.big_endian = true,
                    pci::ENDIAN_LITTLE => state.registers.big_endian = false,
                    _ => {}
                }
                state.changes += 1;
            }
            _ => {}
        }
    }
}

impl Device for Vga {
    fn name(&self) -> &str {
        "vga"
    }
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
        Some(self)
    }
    fn mmio(self: Arc<Self>) -> Option<Arc<dyn MmioDevice>> {
        Some(self)
    }
    fn pci(self: Arc<Self>) -> Option<Arc<dyn PciFunction>> {
        if self.config.is_some() { Some(self) } else { None }
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl PortDevice for Vga {
    fn port_ranges(&self) -> Vec<PortRange> {
        let range = |base, length, region, widths| PortRange { base, length, region, widths };
        let own = registers::PORTS.iter().zip(0..);
        let mut ranges: Vec<_> = own.map(|((base, length), n)| range(*base, *length, n, Width::Byte)).collect();
        // Words at 0x1ce, 0x1cf and 0x1d0.
        ranges.push(range(registers::dispi::PORT, 4, REGION_DISPI, Width::Word));
        ranges
    }

    fn port_read(&self, region: u8, offset: u16, width: Width) -> Result<u32, AccessError> {
        if region != REGION_DISPI {
            let (base, _) = registers::PORTS.get(usize::from(region)).ok_or(AccessError::Nobody)?;
            return self.read_port(base + offset).map(u32::from).ok_or(AccessError::Nobody);
        }
        let registers = &self.state.lock().registers;
        match (offset, width) {
            (0, Width::Word) => Ok(registers.dispi_index.into()),
            (1 | 2, Width::Word) => Ok(registers.read_dispi(registers.dispi_index, &self.memory).into()),
            _ => Err(AccessError::Width),
        }
    }

    fn port_write(&self, region: u8, offset: u16, width: Width, value: u32) -> Result<(), AccessError> {
        if region != REGION_DISPI {
            let (base, _) = registers::PORTS.get(usize::from(region)).ok_or(AccessError::Nobody)?;
            self.write_port(base + offset, value as u8);
            return Ok(());
        }
        match (offset, width) {
            (0, Width::Word) => self.state.lock().registers.dispi_index = value as u16,
            (1 | 2, Width::Word) => {
                let index = self.state.lock().registers.dispi_index;
                self.write_dispi(index, value as u16);
            }
            _ => return Err(AccessError::Width),
        }
        Ok(())
    }
}

impl MmioDevice for Vga {
    fn mmio_ranges(&self) -> Vec<MmioRange> {
        let widths = MmioWidths::ANY;
        vec![MmioRange { base: 0xa_0000, length: planar::WINDOW, region: REGION_WINDOW, widths }]
    }

    fn mmio_read(&self, region: u8, offset: u64, bytes: usize) -> Result<u64, AccessError> {
        match region {
            REGION_WINDOW => {
                let registers = &mut self.state.lock().registers;
                let mut byte = |n| registers.read_memory(&self.memory, offset + n).unwrap_or(0xff);
                Ok((0..bytes as u64).map(|n| u64::from(byte(n)) << (8 * n)).sum())
            }
            REGION_REGISTERS => Ok(self.read_register(offset, bytes)),
            _ => Ok(read_rom(&self.rom, offset, bytes)),
        }
    }

    fn mmio_write(&self, region: u8, offset: u64, bytes: usize, value: u64) -> Result<(), AccessError> {
        match region {
            REGION_WINDOW => {
                let data = &value.to_le_bytes()[..bytes.min(8)];
                self.state.lock().registers.write_memory(&self.memory, offset, data);
            }
            REGION_REGISTERS => self.write_register(offset, bytes, value),
            // A ROM.
            _ => {}
        }
        Ok(())
    }
}

impl PciFunction for Vga {
    fn config_read(&self, offset: u8) -> u32 {
        self.config.as_ref().map_or(u32::MAX, |config| config.lock().read(offset))
    }

    fn config_write(&self, offset: u8, mask: u32, value: u32) {
        if let Some(config) = &self.config {
            config.lock().write(offset, mask, value);
        }
    }

    fn bars(&self) -> Vec<(u8, u64, bool)> {
        self.config.as_ref().map(|config| config.lock().bars()).unwrap_or_default()
    }
}

impl Vga {
    fn set_registers(&self, registers: Registers) {
        let mut state = self.state.lock();
        state.registers = registers;
        state.changes += 1;
    }
}

impl ResetDevice for Vga {
    fn reset(&self) {
        if let Some(config) = &self.config {
            config.lock().reset();
        }
        self.set_registers(Registers::default());
        // As at power-on, when it is zero.
        self.memory.clear(self.memory.length());
    }
}

impl SaveDevice for Vga {
    fn save(&self) -> Vec<u8> {
        let config = self.config.as_ref().map(|config| config.lock().state()).unwrap_or_default();
        let registers = self.state.lock().registers.clone();
        lodge_savestate::to_record(&VgaState { config, registers })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: VgaState = StateError::read("vga", record)?;
        let mut registers = state.registers.sane();
        registers.fit_dispi(&self.memory);
        if let Some(config) = &self.config {
            config.lock().set_state(&state.config);
        }
        self.set_registers(registers);
        Ok(())
    }
}

impl Screen for Vga {
    fn mode(&self) -> Mode {
        self.state.lock().registers.mode()
    }

    fn look(&self, last: &mut Look) -> Option<Frame> {
        let now = self.clock.now_ns();
        let (registers, changes) = {
            let state = self.state.lock();
            (state.registers.clone(), state.changes)
        };
        let blink = registers.blink(now);
        let stamp = changes << 2 | u64::from(blink.cursor) << 1 | u64::from(blink.characters);
        let (start, length) = registers.shown();
        // Both, in any case: what is kept is what is drawn.
        let touched = self.memory.refresh(start, length, &mut last.memory);
        let other = last.stamp.replace(stamp) != Some(stamp);
        (touched || other).then(|| registers.draw(&last.memory, blink))
    }

    fn text(&self) -> Option<String> {
        let registers = self.state.lock().registers.clone();
        let mut memory = Vec::new();
        self.memory.refresh(0, render::PLANES, &mut memory);
        registers.text(&memory)
    }
}
