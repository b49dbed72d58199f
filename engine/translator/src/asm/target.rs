//! What code refers to by address, and what has to be done to such references when the code is moved.
//!
//! [`Asm`] takes no bare address: a jump goes to a [`super::Label`] or to a [`Target`], which says what it is. So each
//! reference that depends on where code or data lie leaves a [`Relocation`], and finished code can be put anywhere, in
//! another process too ([`crate::kept`]). Code that refers to a [`Symbol::Fixed`] cannot.

use super::{Asm, Reg, Section};

/// What a [`Target`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Symbol {
    /// Some place that has no name: only code that stays where it is may refer to it.
    #[default]
    Fixed,
    /// The stubs by these names ([`crate::stubs::Stubs`]).
    LeaveLookup,
    LeaveChain,
    LeavePoll,
    Memory,
    MemoryChecked,
    BounceBegin,
    BounceEnd,
    System,
    Syscall,
    Sysret,
    String,
    Raise,
    /// The stubs of the block's mode ([`crate::translate::ModeStubs`]).
    OwnIndirect,
    OwnUnderflow,
    OwnWindow,
    /// Those of the mode that STAC or CLAC leads to.
    OtherIndirect,
    OtherUnderflow,
    OtherWindow,
}

impl Symbol {
    /// All of them, by number.
    const ALL: [Self; 19] = [
        Self::Fixed,
        Self::LeaveLookup,
        Self::LeaveChain,
        Self::LeavePoll,
        Self::Memory,
        Self::MemoryChecked,
        Self::BounceBegin,
        Self::BounceEnd,
        Self::System,
        Self::Syscall,
        Self::Sysret,
        Self::String,
        Self::Raise,
        Self::OwnIndirect,
        Self::OwnUnderflow,
        Self::OwnWindow,
        Self::OtherIndirect,
        Self::OtherUnderflow,
        Self::OtherWindow,
    ];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    fn other(self) -> Self {
        match self {
            Self::OwnIndirect => Self::OtherIndirect,
            Self::OwnUnderflow => Self::OtherUnderflow,
            Self::OwnWindow => Self::OtherWindow,
            same => same,
        }
    }
}

/// A place in code that was emitted before, and what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    address: u64,
    symbol: Symbol,
}

impl Target {
    /// The place by this name.
    #[must_use]
    pub fn named(self, symbol: Symbol) -> Self {
        Self { symbol, ..self }
    }

    /// A mode's stub as that of the other mode.
    #[must_use]
    pub fn of_other(self) -> Self {
        self.named(self.symbol.other())
    }

    /// Where it is.
    pub fn address(self) -> u64 {
        self.address
    }
}

/// What sets a mode's jump-cache slots apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salt {
    /// The number.
    pub value: u32,
    /// It is that of the mode that STAC or CLAC leads to.
    other: bool,
}

impl Salt {
    /// A block's own mode's.
    pub fn new(value: u32) -> Self {
        Self { value, other: false }
    }

    /// The same as that of the other mode.
    #[must_use]
    pub fn of_other(self) -> Self {
        Self { other: true, ..self }
    }
}

/// What a place in code holds that depends on where things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// A displacement of 32 bits to a symbol.
    Near(Symbol),
    /// A symbol's address.
    Far(Symbol),
    /// A displacement of 32 bits to the other section.
    Across,
    /// An address in a section.
    Place(Section),
    /// The address of the block's so-many-th remembered instruction.
    Instruction(u8),
    /// A [`Salt`] of 32 bits, the other mode's or not.
    Salt { other: bool },
}

/// A place in code that has to be looked after when the code moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The section that it is in, and its offset there.
    pub section: Section,
    pub at: u32,
    pub holds: Holds,
}

impl Relocation {
    /// As four bytes. `None`: code with this cannot be moved.
    pub fn encode(self) -> Option<u32> {
        let at = u16::try_from(self.at).ok()?;
        let (kind, argument) = match self.holds {
            Holds::Near(Symbol::Fixed) | Holds::Far(Symbol::Fixed) => return None,
            Holds::Near(symbol) => (0, symbol as u8),
            Holds::Far(symbol) => (1, symbol as u8),
            Holds::Across => (2, 0),
            Holds::Place(section) => (3, section as u8),
            Holds::Instruction(number) => (4, number),
            Holds::Salt { other } => (5, u8::from(other)),
        };
        Some(u32::from(at) | u32::from(argument) << 16 | kind << 24 | (self.section as u32) << 31)
    }

    /// Reads what [`Relocation::encode`] wrote.
    pub fn decode(code: u32) -> Option<Self> {
        let section = |number: u32| if number == 0 { Section::Hot } else { Section::Cold };
        let argument = (code >> 16) as u8;
        let symbol = Symbol::ALL.get(usize::from(argument)).copied().filter(|symbol| *symbol != Symbol::Fixed);
        let holds = match code >> 24 & 0x7f {
            0 => Holds::Near(symbol?),
            1 => Holds::Far(symbol?),
            2 => Holds::Across,
            3 => Holds::Place(section(argument.into())),
            4 => Holds::Instruction(argument),
            5 => Holds::Salt { other: argument != 0 },
            _ => return None,
        };
        Some(Self { section: section(code >> 31), at: code & 0xffff, holds })
    }

    /// Whether it is about the mode that STAC or CLAC leads to.
    pub fn is_of_other(self) -> bool {
        match self.holds {
            Holds::Near(symbol) | Holds::Far(symbol) => {
                matches!(symbol, Symbol::OtherIndirect | Symbol::OtherUnderflow | Symbol::OtherWindow)
            }
            Holds::Salt { other } => other,
            _ => false,
        }
    }

    /// Bytes that the place has.
    fn size(self) -> usize {
        match self.holds {
            Holds::Near(_) | Holds::Across | Holds::Salt { .. } => 4,
            Holds::Far(_) | Holds::Place(_) | Holds::Instruction(_) => 8,
        }
    }
}

/// Where things are.
pub struct Places<'a> {
    /// The two sections.
    pub hot: u64,
    pub cold: u64,
    /// Symbols by number.
    pub symbols: &'a [u64; Symbol::COUNT],
    /// The salts of the block's mode and of the other.
    pub salts: [u32; 2],
    /// Remembered instructions.
    pub instructions: &'a [u64],
}

impl Asm {
    /// The next byte as something to jump to from other code.
    pub fn target(&self) -> Target {
        Target { address: self.here(), symbol: Symbol::Fixed }
    }

    fn note(&mut self, holds: Holds) {
        let relocation = Relocation { section: self.section, at: self.code.len() as u32, holds };
        self.relocations.push(relocation);
    }

    fn rel32_to(&mut self, target: Target) {
        self.note(Holds::Near(target.symbol));
        let rel = target.address.wrapping_sub(self.here() + 4) as i64;
        let rel = i32::try_from(rel).expect("code within one cache is within reach");
        self.bytes(&rel.to_le_bytes());
    }

    pub fn jmp_to(&mut self, target: Target) {
        self.byte(0xe9);
        self.rel32_to(target);
    }

    pub fn call_to(&mut self, target: Target) {
        self.byte(0xe8);
        self.rel32_to(target);
    }

    fn mov_imm64(&mut self, to: Reg, value: u64, holds: Holds) {
        self.byte(0x48 | to.0 >> 3);
        self.byte(0xb8 | to.0 & 7);
        self.note(holds);
        self.bytes(&value.to_le_bytes());
    }

    /// A register = the target's address.
    pub fn mov_target(&mut self, to: Reg, target: Target) {
        self.mov_imm64(to, target.address, Holds::Far(target.symbol));
    }

    /// A register = the address of remembered instruction `number`.
    pub fn mov_instruction(&mut self, to: Reg, number: usize, address: u64) {
        // A block has fewer.
        let holds = u8::try_from(number).map_or(Holds::Far(Symbol::Fixed), Holds::Instruction);
        self.mov_imm64(to, address, holds);
    }

    /// The eight bytes of an address in the code that is being emitted.
    pub fn address(&mut self, address: u64) {
        let (here, there) = ((self.base, self.code.len()), (self.other.1, self.other.0.len()));
        let within = |(base, length): (u64, usize)| (base..base + length as u64).contains(&address);
        let other = if self.section == Section::Hot { Section::Cold } else { Section::Hot };
        self.note(if within(here) {
            Holds::Place(self.section)
        } else if within(there) {
            Holds::Place(other)
        } else {
            Holds::Far(Symbol::Fixed)
        });
        self.bytes(&address.to_le_bytes());
    }

    /// `lea to, [base + index << scale + salt]`, 32-bit. No flags.
    pub fn lea32_salt(&mut self, to: Reg, base: Reg, (index, scale): (Reg, u8), salt: Salt) {
        let rex = 0x40 | (to.0 >> 3) << 2 | (index.0 >> 3) << 1 | base.0 >> 3;
        if rex != 0x40 {
            self.byte(rex);
        }
        self.bytes(&[0x8d, 0x84 | (to.0 & 7) << 3, scale << 6 | (index.0 & 7) << 3 | base.0 & 7]);
        self.note(Holds::Salt { other: salt.other });
        self.bytes(&salt.value.to_le_bytes());
    }

    /// What of the finished code depends on where it lies.
    pub fn relocations(&self) -> &[Relocation] {
        &self.relocations
    }

    /// Takes over code that was emitted elsewhere, for where this assembler was last started: all that `relocations`
    /// name is made to fit `places`. The code is then [`Asm::finished`]. `None`: they do not fit the code.
    pub fn adopt(
        &mut self,
        code: (&[u8], &[u8]),
        relocations: impl Iterator<Item = u32>,
        places: &Places<'_>,
    ) -> Option<()> {
        self.switch(Section::Hot);
        self.bytes(code.0);
        self.switch(Section::Cold);
        self.bytes(code.1);
        self.switch(Section::Hot);
        for relocation in relocations {
            let relocation = Relocation::decode(relocation)?;
            let (code, base) = match relocation.section {
                Section::Hot => (&mut self.code, places.hot),
                Section::Cold => (&mut self.other.0, places.cold),
            };
            let other = places.hot.wrapping_add(places.cold).wrapping_sub(base);
            let at = relocation.at as usize;
            let cell = code.get_mut(at..at + relocation.size())?;
            let next = base + at as u64 + 4;
            // What it held where both sections lay at zero.
            let old = u64::from(u32::from_le_bytes([cell[0], cell[1], cell[2], cell[3]]));
            let value = match relocation.holds {
                Holds::Near(symbol) => places.symbols[symbol as usize].wrapping_sub(next),
                Holds::Far(symbol) => places.symbols[symbol as usize],
                Holds::Across => old.wrapping_add(other).wrapping_sub(base),
                Holds::Place(Section::Hot) => places.hot + old,
                Holds::Place(Section::Cold) => places.cold + old,
                Holds::Instruction(number) => *places.instructions.get(usize::from(number))?,
                Holds::Salt { other } => places.salts[usize::from(other)].into(),
            };
            let bytes = value.to_le_bytes();
            cell.copy_from_slice(&bytes[..cell.len()]);
        }
        Some(())
    }

    /// The opposite: copies the finished code as it were with both sections at zero and nothing of this process in it.
    pub fn strip(&self, hot: &mut Vec<u8>) -> usize {
        let start = hot.len();
        hot.extend_from_slice(&self.code);
        hot.extend_from_slice(&self.other.0);
        let split = start + self.code.len();
        for relocation in &self.relocations {
            let (base, other, begin) = match relocation.section {
                Section::Hot => (self.base, self.other.1, start),
                Section::Cold => (self.other.1, self.base, split),
            };
            let at = begin + relocation.at as usize;
            let cell = &mut hot[at..at + relocation.size()];
            let old = u64::from(u32::from_le_bytes([cell[0], cell[1], cell[2], cell[3]]));
            let value = match relocation.holds {
                Holds::Across => old.wrapping_sub(other).wrapping_add(base),
                Holds::Place(section) => {
                    let base = if section == Section::Hot { self.base } else { self.other.1 };
                    let mut whole = [0; 8];
                    whole.copy_from_slice(cell);
                    u64::from_le_bytes(whole).wrapping_sub(base)
                }
                _ => 0,
            };
            let bytes = value.to_le_bytes();
            cell.copy_from_slice(&bytes[..cell.len()]);
        }
        split
    }
}

#[cfg(test)]
mod tests {
    use super::super::{R11, RAX, RCX, RDX};
    use super::*;

    /// Code with a reference of each kind, emitted for these places.
    fn emit(hot: u64, cold: u64, stub: u64, salts: [u32; 2], instruction: u64) -> Asm {
        let mut asm = Asm::new(0);
        asm.restart(hot, cold);
        let target = |symbol| Target { address: stub, symbol };
        let (out, back) = (asm.label(), asm.label());
        let site = asm.here();
        asm.jmp(out);
        asm.bind(back);
        asm.call_to(target(Symbol::Memory));
        asm.mov_target(RCX, target(Symbol::OtherUnderflow));
        asm.mov_instruction(R11, 0, instruction);
        asm.lea32_salt(RDX, RDX, (R11, 2), Salt::new(salts[0]));
        asm.lea32_salt(RDX, RAX, (R11, 1), Salt::new(salts[1]).of_other());
        asm.switch(Section::Cold);
        asm.bind(out);
        asm.jmp(back);
        asm.jmp_to(target(Symbol::LeaveChain));
        asm.address(site);
        asm.finish();
        asm
    }

    fn bytes(asm: &mut Asm) -> (Vec<u8>, Vec<u8>) {
        let (hot, cold) = asm.finished();
        (hot.to_vec(), cold.to_vec())
    }

    #[test]
    fn code_that_was_moved_is_as_if_emitted_there() {
        let asm = emit(0x7000_1000, 0x7100_2000, 0x7000_0040, [0, 77], 0x5555_0000_1234);
        let codes: Vec<u32> = asm.relocations().iter().map(|relocation| relocation.encode().unwrap()).collect();
        assert_eq!(codes.len(), 9);
        let mut stripped = Vec::new();
        let split = asm.strip(&mut stripped);
        // Nothing of where it was is left.
        let elsewhere = emit(0x6000_0000, 0x6500_0008, 0x6000_0010, [3, 9], 8);
        let mut other = Vec::new();
        elsewhere.strip(&mut other);
        assert_eq!(stripped, other);

        let (hot, cold) = (0x4000_0010, 0x4200_0008);
        let mut moved = Asm::new(0);
        moved.restart(hot, cold);
        let symbols = [0x4000_0000; Symbol::COUNT];
        let places = Places { hot, cold, symbols: &symbols, salts: [5, 6], instructions: &[0x1_0000_0000] };
        moved.adopt((&stripped[..split], &stripped[split..]), codes.iter().copied(), &places).unwrap();
        assert_eq!(bytes(&mut moved), bytes(&mut emit(hot, cold, 0x4000_0000, [5, 6], 0x1_0000_0000)));
    }

    #[test]
    fn relocations_survive_encoding_and_nonsense_is_refused() {
        for section in [Section::Hot, Section::Cold] {
            for holds in [
                Holds::Near(Symbol::Raise),
                Holds::Far(Symbol::OtherWindow),
                Holds::Across,
                Holds::Place(Section::Cold),
                Holds::Instruction(63),
                Holds::Salt { other: true },
            ] {
                let relocation = Relocation { section, at: 0xfedc, holds };
                assert_eq!(Relocation::decode(relocation.encode().unwrap()), Some(relocation));
            }
        }
        let fixed = Relocation { section: Section::Hot, at: 0, holds: Holds::Near(Symbol::Fixed) };
        assert_eq!(fixed.encode(), None);
        assert_eq!(Relocation { at: 0x1_0000, holds: Holds::Across, ..fixed }.encode(), None);
        assert_eq!(Relocation::decode(0), None, "nothing jumps to what has no name");
        assert_eq!(Relocation::decode(19 << 16), None);
        assert_eq!(Relocation::decode(6 << 24), None);
        for (n, symbol) in Symbol::ALL.into_iter().enumerate() {
            assert_eq!(symbol as usize, n);
        }
        let mut asm = Asm::new(0);
        asm.restart(0, 0x1000);
        let places = Places { hot: 0, cold: 0x1000, symbols: &[0; Symbol::COUNT], salts: [0; 2], instructions: &[] };
        let outside = Relocation { section: Section::Hot, at: 2, holds: Holds::Across }.encode().unwrap();
        assert_eq!(asm.adopt((&[0; 5], &[]), [outside].into_iter(), &places), None);
    }
}
