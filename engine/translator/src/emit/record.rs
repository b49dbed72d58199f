//! What a block leaves beside its code: where it may be led elsewhere, what its code stands for, where its entries are.

use crate::asm::Asm;

/// A place where a block leaves for a target known when it was translated. Its record lies behind the block's code,
/// where the cold stub that asks for the target points to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Address of the displacement to patch.
    pub site: u64,
    /// Target, relative to the start of the page that the block lies in; of a far exit as a signed number.
    pub target: u32,
    /// Where in the page the branch is, or [`Cpu::NO_SOURCE`]: what is at fault if the target is.
    pub source: u32,
    /// Enter the target by its polling entry.
    pub polled: bool,
    /// Flags may be parked: enter the target where that is looked at.
    pub parked: bool,
    /// The target is to be the translation without shared checks.
    pub plain: bool,
    /// The target lies in another page, and its linear address is in R11.
    pub far: bool,
    /// The block is one of a program that is mirrored.
    pub mirrored: bool,
}

impl Exit {
    /// Bytes of a record.
    pub const SIZE: usize = 16;

    /// Emits its record.
    pub(super) fn emit(self, asm: &mut Asm) {
        // Relative, so that it holds wherever the code lies.
        asm.displacement_to(self.site);
        asm.bytes(&self.target.to_le_bytes());
        asm.bytes(&self.source.to_le_bytes());
        asm.bytes(&[
            self.polled.into(),
            self.parked.into(),
            self.plain.into(),
            u8::from(self.far) | u8::from(self.mirrored) << 1,
        ]);
    }

    /// Reads the record that lies at `address`.
    pub fn from_record(address: u64, record: &[u8]) -> Option<Self> {
        let displacement = i32::from_le_bytes(record.get(..4)?.try_into().ok()?);
        Some(Self {
            site: (address + 4).wrapping_add_signed(displacement.into()),
            target: u32::from_le_bytes(record.get(4..8)?.try_into().ok()?),
            source: u32::from_le_bytes(record.get(8..12)?.try_into().ok()?),
            polled: *record.get(12)? != 0,
            parked: *record.get(13)? != 0,
            plain: *record.get(14)? != 0,
            far: *record.get(15)? & 1 != 0,
            mirrored: *record.get(15)? & 2 != 0,
        })
    }
}

/// Where in the code an instruction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// Offset from the start of the block's code.
    pub host: u16,
    /// Offset from the block's first instruction.
    pub guest: u16,
}
impl MapEntry {
    /// Bytes of an entry.
    pub const SIZE: usize = 4;

    /// Reads an entry.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [a, b, c, d] = bytes;
        Self { host: u16::from_le_bytes([a, b]), guest: u16::from_le_bytes([c, d]) }
    }
}

/// What is kept of a block at the front of its cold code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Offset of the polling entry, in the hot code if it is there, else in the cold code.
    pub poll: u16,
    pub poll_is_hot: bool,
    /// The next two are offsets in the hot code.
    pub outer_is_hot: bool,
    /// Offset in the hot code of the entry.
    pub entry: u16,
    /// Offset of the entry with the linear address in R11.
    pub indirect_entry: u16,
    /// How far before it the entry for far links is, a multiple of 8.
    pub far_distance: u16,
    /// Offset of the entry where flags may be parked.
    pub parked_entry: u16,
    /// Offset in the cold code of what the entry becomes when the block dies.
    pub dead_end: u16,
    /// Offset in the cold code of the map from host to guest, which lies behind it.
    pub map: u16,
    /// Its entries for hot code, and those for cold code behind them.
    pub map_entries: [u16; 2],
    /// Offset in the cold code of what makes flags again that have been let go, and polls; 0 where none are.
    pub remake: u16,
    /// From this offset in the guest's code on they are.
    pub remake_from: u16,
    /// How many exits' records lie before the map; 0 where not all lead to blocks of the mode.
    pub exits: u16,
}

impl Header {
    /// Its bytes, a multiple of what cells are aligned to.
    pub const SIZE: usize = 24;

    pub(super) fn to_bytes(self) -> [u8; Self::SIZE] {
        let [hot, cold] = self.map_entries;
        let fields = [
            self.poll,
            u16::from(self.poll_is_hot) | u16::from(self.outer_is_hot) << 1 | self.far_distance,
            self.entry,
            self.indirect_entry,
            self.parked_entry,
            self.dead_end,
            self.map,
            hot,
            cold,
            self.remake,
            self.remake_from,
            self.exits,
        ];
        let mut bytes = [0; Self::SIZE];
        for (to, field) in bytes.chunks_exact_mut(2).zip(fields) {
            to.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Reads one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let field = |n: usize| Some(u16::from_le_bytes(bytes.get(2 * n..2 * n + 2)?.try_into().ok()?));
        Some(Self {
            poll: field(0)?,
            poll_is_hot: field(1)? & 1 != 0,
            outer_is_hot: field(1)? & 2 != 0,
            far_distance: field(1)? & !7,
            entry: field(2)?,
            indirect_entry: field(3)?,
            parked_entry: field(4)?,
            dead_end: field(5)?,
            map: field(6)?,
            map_entries: [field(7)?, field(8)?],
            remake: field(9)?,
            remake_from: field(10)?,
            exits: field(11)?,
        })
    }

    /// Addresses of the entry with the linear address in R11, and of that where flags may be parked.
    pub fn outer_entries(&self, hot: u64, cold: u64) -> [u64; 2] {
        let base = if self.outer_is_hot { hot } else { cold };
        [self.indirect_entry, self.parked_entry].map(|offset| base + u64::from(offset))
    }

    /// Address of the polling entry of a block whose hot and cold code begin there.
    pub fn poll_entry(&self, hot: u64, cold: u64) -> u64 {
        (if self.poll_is_hot { hot } else { cold }) + u64::from(self.poll)
    }
}
