//! Frames between controller and drive (SATA 3.0 10.3), and the guest's structures that hold them (AHCI 4.2).

use lodge_engine_api::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::registers::*;
use crate::ata::Task;
use crate::ata::packet::PACKET;
use crate::regions::Regions;

/// A command as the guest has put it into its list and table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    pub flags: u32,
    frame: [u8; 16],
    table: u64,
    regions: u64,
    header: u64,
}

impl Command {
    /// Reads slot `slot` of the list at `list`; `None`: it is not in memory.
    pub fn read(memory: &GuestMemory, list: u64, slot: u32) -> Option<Self> {
        let header = list.checked_add(u64::from(slot) * HEADER)?;
        let mut words = [0; 16];
        memory.read_slice(&mut words, GuestAddress(header)).ok()?;
        let word = |at: usize| u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
        let flags = word(0);
        let table = u64::from(word(8) & !0x7f) | u64::from(word(12)) << 32;
        let mut frame = [0; 16];
        memory.read_slice(&mut frame, GuestAddress(table)).ok()?;
        Some(Self { flags, frame, table, regions: u64::from(flags >> 16), header })
    }

    /// Whether it is a frame that a drive takes.
    pub fn is_frame(&self) -> bool {
        // Five double words.
        self.frame[0] == frame::COMMAND && self.flags & 0x1f >= 4
    }

    /// Whether it is a command, rather than for the device control register.
    pub fn is_command(&self) -> bool {
        self.frame[1] & frame::IS_COMMAND != 0
    }

    /// The command register.
    pub fn code(&self) -> u8 {
        self.frame[2]
    }

    /// The device control register.
    pub fn control(&self) -> u8 {
        self.frame[15]
    }

    /// The other registers.
    pub fn task(&self) -> Task {
        let [_, _, _, f0, l0, l1, l2, device, l3, l4, l5, f1, c0, c1, _, _] = self.frame;
        Task {
            features: u16::from_le_bytes([f0, f1]),
            count: u16::from_le_bytes([c0, c1]),
            lba: u64::from_le_bytes([l0, l1, l2, l3, l4, l5, 0, 0]),
            device,
        }
    }

    /// The packet.
    pub fn packet(&self, memory: &GuestMemory) -> Option<[u8; PACKET]> {
        let mut packet = [0; PACKET];
        memory.read_slice(&mut packet, GuestAddress(self.table.checked_add(TABLE_PACKET)?)).ok()?;
        Some(packet)
    }

    /// Its regions, and whether one asks for an interrupt; `None`: the table is not in memory.
    pub fn regions(&self, memory: &GuestMemory) -> Option<(Regions, bool)> {
        let mut regions = Regions::default();
        let mut interrupt = false;
        for n in 0..self.regions {
            let mut words = [0; 16];
            let at = self.table.checked_add(TABLE_REGIONS + n * REGION)?;
            memory.read_slice(&mut words, GuestAddress(at)).ok()?;
            let [a0, a1, a2, a3, a4, a5, a6, a7, _, _, _, _, n0, n1, n2, n3] = words;
            let address = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]) & !1;
            let length = u32::from_le_bytes([n0, n1, n2, n3]);
            regions.push(address, ((length & 0x3f_ffff) as usize | 1) + 1);
            interrupt |= length & REGION_INTERRUPT != 0;
        }
        Some((regions, interrupt))
    }

    /// Says in its header how many bytes have moved.
    pub fn moved(&self, memory: &GuestMemory, bytes: u64) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // It has been read from there.
        let _ = memory.write_obj(bytes.to_le(), GuestAddress(self.header + 4));
    }
}

/// A drive's registers as a frame (10.3.5).
pub(super) fn registers(task: &Task, status: u8, error: u8, interrupt: bool) -> [u8; 20] {
    let mut bytes = [0; 20];
    let [l0, l1, l2, l3, l4, l5, ..] = task.lba.to_le_bytes();
    let [c0, c1] = task.count.to_le_bytes();
    let flags = if interrupt { frame::INTERRUPT } else { 0 };
    bytes[..8].copy_from_slice(&[frame::REGISTERS, flags, status, error, l0, l1, l2, task.device]);
    bytes[8..14].copy_from_slice(&[l3, l4, l5, 0, c0, c1]);
    bytes
}

/// The beginning of PIO (10.3.10): status before and after it, and bytes.
pub(super) fn pio(task: &Task, before: u8, after: u8, to_host: bool, interrupt: bool, bytes: u64) -> [u8; 20] {
    let mut frame = registers(task, before, 0, interrupt);
    frame[0] = frame::PIO_SETUP;
    frame[1] |= if to_host { frame::TO_HOST } else { 0 };
    frame[15] = after;
    frame[16..18].copy_from_slice(&(bytes.min(0xfffe) as u16).to_le_bytes());
    frame
}

/// The beginning of a queued command's data (10.3.8).
pub(super) fn dma_setup(tag: u32, to_host: bool, bytes: u64) -> [u8; 28] {
    let mut frame = [0; 28];
    (frame[0], frame[1]) = (frame::DMA_SETUP, if to_host { frame::TO_HOST } else { 0 });
    frame[4] = tag as u8;
    frame[20..24].copy_from_slice(&u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes());
    frame
}

/// Queued commands have ended (10.3.6).
pub(super) fn bits(status: u8, error: u8, ended: u32) -> [u8; 8] {
    let [b0, b1, b2, b3] = ended.to_le_bytes();
    // Bits 3 and 7 of the status are not the frame's to change.
    [frame::BITS, frame::INTERRUPT, status & 0x77, error, b0, b1, b2, b3]
}
