//! A case's page tables, built in guest memory.

use lodge_engine_api::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::Failure;
use crate::case::{Case, EntryName, Paging};
use crate::layout;

/// Present.
pub const P: u64 = 1 << 0;
/// Writable.
pub const RW: u64 = 1 << 1;
/// User.
pub const US: u64 = 1 << 2;
/// Accessed.
pub const A: u64 = 1 << 5;
/// Dirty.
pub const D: u64 = 1 << 6;
/// Page size.
pub const PS: u64 = 1 << 7;
/// Global.
pub const G: u64 = 1 << 8;
/// No execute.
pub const NX: u64 = 1 << 63;

/// One address space's tables.
pub struct Tables<'a> {
    memory: &'a GuestMemory,
    paging: Paging,
    root: u64,
    next: u64,
}

impl<'a> Tables<'a> {
    /// Empty tables.
    pub fn new(memory: &'a GuestMemory, paging: Paging, space: usize) -> Self {
        let root = layout::ROOTS[space & 1];
        let mut tables = Self { memory, paging, root, next: root + 0x1000 };
        if paging == Paging::Pae {
            // The four entries of the top level must lead somewhere: they are looked at when CR3 is loaded.
            for number in 0..4 {
                let table = tables.room();
                let _ = tables.write(root + number * 8, table | P);
            }
        }
        tables
    }

    fn room(&mut self) -> u64 {
        let table = self.next;
        self.next += 0x1000;
        table
    }

    fn levels(&self) -> u32 {
        match self.paging {
            Paging::None => 0,
            Paging::Bits32 => 2,
            Paging::Pae => 3,
            Paging::FourLevel => 4,
        }
    }

    /// Bits of a linear address that a level consumes, and bytes of an entry.
    fn shape(&self) -> (u32, u64) {
        if self.paging == Paging::Bits32 { (10, 4) } else { (9, 8) }
    }

    fn read(&self, at: u64) -> Result<u64, Failure> {
        let at = GuestAddress(at);
        let value = match self.shape().1 {
            4 => self.memory.read_obj::<u32>(at).map(u64::from),
            _ => self.memory.read_obj::<u64>(at),
        };
        value.map_err(Failure::setup)
    }

    fn write(&self, at: u64, value: u64) -> Result<(), Failure> {
        let address = GuestAddress(at);
        match self.shape().1 {
            4 => self.memory.write_obj(value as u32, address),
            _ => self.memory.write_obj(value, address),
        }
        .map_err(Failure::setup)
    }

    /// Where the entry of `level` for `linear` lies. Missing tables are made if `make`.
    fn entry(&mut self, linear: u64, level: u32, make: bool) -> Result<u64, Failure> {
        let (bits, size) = self.shape();
        let mut table = self.root;
        let mut at_level = self.levels();
        loop {
            let index = linear >> (12 + bits * (at_level - 1)) & ((1 << bits) - 1);
            let at = table + index * size;
            if at_level <= level {
                return Ok(at);
            }
            let entry = self.read(at)?;
            table = entry & 0xffff_ffff_f000;
            if entry & P == 0 {
                if !make {
                    return Err(Failure::Setup(format!("no entry of level {level} for {linear:#x}")));
                }
                table = self.room();
                self.write(at, table | P | RW | US)?;
            }
            at_level -= 1;
        }
    }

    /// Maps.
    pub fn map(&mut self, linear: u64, physical: u64, bits: u64, level: u32) -> Result<(), Failure> {
        let at = self.entry(linear, level, true)?;
        self.write(at, physical | bits)
    }

    /// The board's own mappings.
    pub fn board(&mut self, user: bool) -> Result<(), Failure> {
        let who = if user { US } else { 0 };
        for page in 0..layout::PLAY / 0x1000 {
            let at = page * 0x1000;
            // Descriptors and handlers are the system's, but for what a case runs in.
            let who = if at < layout::CODE { 0 } else { who };
            self.map(at, at, P | RW | who, 1)?;
        }
        self.map(layout::MMIO, layout::MMIO, P | RW | who, 1)
    }

    /// Changes an entry.
    pub fn change(&mut self, name: EntryName, clear: u64, set: u64) -> Result<(), Failure> {
        let at = self.entry(name.linear, name.level, false)?;
        let old = self.read(at)?;
        self.write(at, old & !clear | set)
    }
}

/// What an entry of a case's tables holds.
pub fn look(memory: &GuestMemory, case: &Case, name: EntryName) -> Result<u64, Failure> {
    let root = layout::ROOTS[name.space & 1];
    let mut tables = Tables { memory, paging: case.paging, root, next: 0 };
    let at = tables.entry(name.linear, name.level, false)?;
    tables.read(at)
}

/// Builds a case's tables.
pub fn build(memory: &GuestMemory, case: &Case) -> Result<(), Failure> {
    if case.paging == Paging::None {
        return Ok(());
    }
    for space in 0..layout::ROOTS.len() {
        let used = space == 0 || case.maps.iter().any(|map| map.space == space);
        if !used {
            continue;
        }
        let mut tables = Tables::new(memory, case.paging, space);
        tables.board(case.cpl == 3)?;
        for map in case.maps.iter().filter(|map| map.space == space) {
            tables.map(map.linear, map.physical, map.bits, map.level)?;
        }
        for (name, clear, set) in case.entries.iter().filter(|(name, ..)| name.space == space) {
            tables.change(*name, *clear, *set)?;
        }
    }
    Ok(())
}
