//! What is known of a host address in emitted code.

use super::{Block, Code};
use crate::emit::record::MapEntry;
use crate::mode::Mode;

impl Code {
    /// The block whose code holds host address `pc`, and whether that is cold code. Both kinds are handed out front to
    /// back, so blocks lie in their order.
    pub(super) fn block_at(&self, pc: u64) -> Option<(&Block, bool)> {
        let offset = pc.checked_sub(self.cache.range().start)? as u32;
        let is_cold = pc >= self.cache.cold_start();
        let begins = |block: &Block| if is_cold { block.cold } else { block.host };
        let after = self.blocks.partition_point(|block| begins(block) <= offset);
        Some((self.blocks[..after].last()?, is_cold))
    }

    /// The mode of the block that has the code at host address `pc`.
    pub fn mode_at(&self, pc: u64) -> Option<Mode> {
        Some(self.block_at(pc)?.0.mode)
    }

    /// The guest instruction, as an offset in its page, that the code at host address `pc` belongs to.
    pub fn instruction_at(&self, pc: u64) -> Option<u64> {
        let (block, is_cold) = self.block_at(pc)?;
        let base = self.cache.range().start;
        let header = self.header(block);
        let [hot_entries, cold_entries] = header.map_entries.map(usize::from);
        let length = (hot_entries + cold_entries) * MapEntry::SIZE;
        let map = self.cache.read(base + u64::from(block.cold) + u64::from(header.map), length);
        let (entries, _) = map.as_chunks::<{ MapEntry::SIZE }>();
        let (hot, cold) = entries.split_at(hot_entries);
        let (entries, begin) = if is_cold { (cold, block.cold) } else { (hot, block.host) };
        let offset = (pc - base - u64::from(begin)) as u16;
        let after = entries.partition_point(|&entry| MapEntry::from_bytes(entry).host <= offset);
        let guest = entries[..after].last().map_or(0, |&entry| MapEntry::from_bytes(entry).guest);
        Some(block.page_offset() + u64::from(guest))
    }

    /// Whether the host instruction at `pc` accesses memory through the stack window: it has a prefix for FS.
    pub fn is_through_window(&self, pc: u64) -> bool {
        const FS: u8 = 0x64;
        let known = self.cache.range().contains(&pc);
        let start = if known { self.cache.read(pc, 2) } else { &[] };
        start.iter().take_while(|byte| matches!(**byte, FS | 0x66 | 0xf2 | 0xf3)).any(|&byte| byte == FS)
    }

    /// Whether the host instruction at `pc` is a repeated string instruction.
    pub fn is_repeated(&self, pc: u64) -> bool {
        let known = self.cache.range().contains(&pc);
        let start = if known { self.cache.read(pc, 3) } else { &[] };
        let opcode = start.iter().skip(1).find(|byte| !matches!(**byte, 0x48 | 0x66));
        start.first() == Some(&0xf3) && matches!(opcode, Some(0xa4 | 0xa5 | 0xaa | 0xab))
    }

    /// Code that makes the flags again which the code at host address `pc` has let go, and leaves.
    pub fn remake_at(&self, pc: u64) -> Option<u64> {
        let (block, _) = self.block_at(pc)?;
        let header = self.header(block);
        let guest = self.instruction_at(pc)?.wrapping_sub(block.page_offset());
        let void = header.remake != 0 && guest >= u64::from(header.remake_from);
        let cold = self.cache.range().start + u64::from(block.cold);
        void.then_some(cold + u64::from(header.remake))
    }
}
