//! What emitted code holds that depends on where things lie, and what has to be done to it when the code is moved.
//!
//! Blocks refer to little by address: to stubs, between their two sections, to instructions that a helper is given, and
//! to their mode's salt. All of it is emitted by the functions here and by labels, each of which leaves a
//! [`Relocation`]. So a finished block can be stripped of its place ([`Asm::strip`]) and be put anywhere, in another
//! process too ([`Asm::adopt`]; see [`crate::kept`]).

use super::{Asm, Reg, Section};

/// What a place in code holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// A displacement of 32 bits to this address outside the code.
    Near(u64),
    /// A displacement of 32 bits to the other section.
    Across,
    /// The address of the block's so-many-th remembered instruction.
    Instruction(u8),
    /// 32 bits that set a mode's jump-cache slots apart.
    Salt(u32),
}

/// A place in code that has to be looked after when the code moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The section that it is in, and its offset there.
    section: Section,
    at: u32,
    holds: Holds,
}

/// The same without addresses, as four bytes: offset, number, kind and section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Code(u32);

impl Code {
    const NEAR: u8 = 0;
    const ACROSS: u8 = 1;
    const INSTRUCTION: u8 = 2;
    const SALT: u8 = 3;

    fn new(section: Section, at: u16, kind: u8, number: u8) -> Self {
        Self(u32::from(at) | u32::from(number) << 16 | u32::from(kind) << 24 | (section as u32) << 31)
    }

    fn section(self) -> Section {
        if self.0 >> 31 == 0 { Section::Hot } else { Section::Cold }
    }

    fn at(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    fn kind(self) -> u8 {
        (self.0 >> 24) as u8 & 0x7f
    }

    fn number(self) -> usize {
        usize::from((self.0 >> 16) as u8)
    }
}

/// Where things are that a block refers to.
pub struct Places<'a> {
    /// What is referred to by displacement: each by its number here.
    pub near: &'a [u64],
    /// The salts of the modes that the block knows.
    pub salts: &'a [u32],
    /// Remembered instructions.
    pub instructions: &'a [u64],
}

impl Relocation {
    pub(super) fn across(section: Section, at: u32) -> Self {
        Self { section, at, holds: Holds::Across }
    }

    /// As four bytes that are good in any process. `None`: code with this cannot be moved.
    pub fn encode(self, places: &Places<'_>) -> Option<u32> {
        let at = u16::try_from(self.at).ok()?;
        let (kind, number) = match self.holds {
            Holds::Near(address) => (Code::NEAR, places.near.iter().position(|&other| other == address)?),
            Holds::Across => (Code::ACROSS, 0),
            Holds::Instruction(number) => (Code::INSTRUCTION, number.into()),
            Holds::Salt(salt) => (Code::SALT, places.salts.iter().position(|&other| other == salt)?),
        };
        Some(Code::new(self.section, at, kind, u8::try_from(number).ok()?).0)
    }

    /// The highest number of a near place, and of a salt, that encoded relocations name.
    pub fn highest(codes: impl Iterator<Item = u32>) -> (usize, usize) {
        codes.map(Code).fold((0, 0), |(near, salt), code| match code.kind() {
            Code::NEAR => (near.max(code.number()), salt),
            Code::SALT => (near, salt.max(code.number())),
            _ => (near, salt),
        })
    }

    /// Bytes that the place has.
    fn size(self) -> usize {
        if matches!(self.holds, Holds::Instruction(_)) { 8 } else { 4 }
    }
}

impl Asm {
    fn note(&mut self, holds: Holds) {
        let relocation = Relocation { section: self.section, at: self.code.len() as u32, holds };
        self.relocations.push(relocation);
    }

    /// The displacement of a branch to `target`, in this code or elsewhere, whose opcode has been emitted.
    pub fn displacement_to(&mut self, target: u64) {
        let within = |base: u64, length: usize| target.wrapping_sub(base) <= length as u64;
        if within(self.other.1, self.other.0.len()) {
            self.note(Holds::Across);
        } else if !within(self.base, self.code.len()) {
            self.note(Holds::Near(target));
        }
        let rel = target.wrapping_sub(self.here() + 4) as i64;
        let rel = i32::try_from(rel).expect("code within one cache is within reach");
        self.bytes(&rel.to_le_bytes());
    }

    pub fn jmp_to(&mut self, target: u64) {
        self.byte(0xe9);
        self.displacement_to(target);
    }

    pub fn call_to(&mut self, target: u64) {
        self.byte(0xe8);
        self.displacement_to(target);
    }

    /// A register = an address in the cache.
    pub fn lea_to(&mut self, to: Reg, target: u64) {
        self.bytes(&[0x48 | (to.0 >> 3) << 2, 0x8d, 0x05 | (to.0 & 7) << 3]);
        self.displacement_to(target);
    }

    /// A register = the address of the block's remembered instruction `number`.
    pub fn mov_instruction(&mut self, to: Reg, number: usize, address: u64) {
        self.byte(0x48 | to.0 >> 3);
        self.byte(0xb8 | to.0 & 7);
        self.note(Holds::Instruction(u8::try_from(number).expect("a block has fewer instructions")));
        self.bytes(&address.to_le_bytes());
    }

    /// `lea to, [base + index << scale + salt]`, 32-bit. No flags.
    pub fn lea32_salt(&mut self, to: Reg, base: Reg, (index, scale): (Reg, u8), salt: u32) {
        self.salted(0x40, to, base, (index, scale), salt);
    }

    /// `lea to, [base + index + salt]`, 64-bit; the salt is less than two to the power of 31. No flags.
    pub fn lea_salt(&mut self, to: Reg, base: Reg, index: Reg, salt: u32) {
        self.salted(0x48, to, base, (index, 0), salt);
    }

    fn salted(&mut self, width: u8, to: Reg, base: Reg, (index, scale): (Reg, u8), salt: u32) {
        let rex = width | (to.0 >> 3) << 2 | (index.0 >> 3) << 1 | base.0 >> 3;
        if rex != 0x40 {
            self.byte(rex);
        }
        // Always of 32 bits, whatever the salt.
        self.bytes(&[0x8d, 0x84 | (to.0 & 7) << 3, scale << 6 | (index.0 & 7) << 3 | base.0 & 7]);
        self.note(Holds::Salt(salt));
        self.bytes(&salt.to_le_bytes());
    }

    /// Has finished code refer to other remembered instructions.
    pub fn point_at(&mut self, instructions: &[u64]) {
        for relocation in &self.relocations {
            let Holds::Instruction(number) = relocation.holds else { continue };
            let code = if relocation.section == self.section { &mut self.code } else { &mut self.other.0 };
            let at = relocation.at as usize;
            code[at..at + 8].copy_from_slice(&instructions[usize::from(number)].to_le_bytes());
        }
    }

    /// What of the finished code depends on where things lie.
    pub fn relocations(&self) -> &[Relocation] {
        &self.relocations
    }

    /// Appends the finished code as it were with both sections at zero and with nothing of this process in it.
    pub fn strip(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.code);
        out.extend_from_slice(&self.other.0);
        let split = start + self.code.len();
        for relocation in &self.relocations {
            let (base, other, begin) = match relocation.section {
                Section::Hot => (self.base, self.other.1, start),
                Section::Cold => (self.other.1, self.base, split),
            };
            let at = begin + relocation.at as usize;
            let cell = &mut out[at..at + relocation.size()];
            if relocation.holds == Holds::Across {
                let old = u32::from_le_bytes([cell[0], cell[1], cell[2], cell[3]]);
                let moved = old.wrapping_sub(other as u32).wrapping_add(base as u32);
                cell.copy_from_slice(&moved.to_le_bytes());
            } else {
                cell.fill(0);
            }
        }
    }

    /// Takes over code that was stripped, for where this assembler was last started: all that `relocations` name is made
    /// to fit `places`. The code is then [`Asm::finished`]. `None`: they do not fit the code.
    pub fn adopt(
        &mut self,
        code: (&[u8], &[u8]),
        relocations: impl Iterator<Item = u32>,
        places: &Places<'_>,
    ) -> Option<()> {
        self.switch(Section::Hot);
        self.code.extend_from_slice(code.0);
        self.other.0.extend_from_slice(code.1);
        let bases = [self.base, self.other.1];
        for code in relocations.map(Code) {
            let bytes = match code.section() {
                Section::Hot => &mut self.code,
                Section::Cold => &mut self.other.0,
            };
            let base = bases[code.section() as usize];
            let at = code.at();
            if code.kind() == Code::INSTRUCTION {
                let address = places.instructions.get(code.number())?;
                bytes.get_mut(at..at + 8)?.copy_from_slice(&address.to_le_bytes());
                continue;
            }
            let cell: &mut [u8; 4] = bytes.get_mut(at..at + 4)?.try_into().ok()?;
            let value = match code.kind() {
                Code::NEAR => (*places.near.get(code.number())?).wrapping_sub(base + at as u64 + 4) as u32,
                Code::ACROSS => {
                    let other = bases[1 - code.section() as usize];
                    u32::from_le_bytes(*cell).wrapping_add(other.wrapping_sub(base) as u32)
                }
                Code::SALT => *places.salts.get(code.number())?,
                _ => return None,
            };
            *cell = value.to_le_bytes();
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{R11, RAX, RCX, RDX};
    use super::*;

    /// Code with a reference of each kind, emitted for these places.
    fn emit(hot: u64, cold: u64, places: &Places<'_>) -> Asm {
        let mut asm = Asm::new(0);
        asm.restart(hot, cold);
        let (out, back) = (asm.label(), asm.label());
        let site = asm.here();
        asm.jmp(out);
        asm.bind(back);
        asm.jmp_to(site);
        asm.call_to(places.near[0]);
        asm.lea_to(RCX, places.near[1]);
        asm.mov_instruction(R11, 0, places.instructions[0]);
        asm.lea32_salt(RDX, RDX, (R11, 2), places.salts[0]);
        asm.lea32_salt(RDX, RAX, (R11, 1), places.salts[1]);
        asm.lea_salt(RCX, RCX, R11, places.salts[1]);
        asm.switch(Section::Cold);
        asm.bind(out);
        asm.jmp(back);
        asm.jmp_to(places.near[1]);
        asm.displacement_to(site);
        asm.finish();
        asm
    }

    fn bytes(asm: &Asm) -> (Vec<u8>, Vec<u8>) {
        let (hot, cold) = asm.finished();
        (hot.to_vec(), cold.to_vec())
    }

    #[test]
    fn code_that_was_moved_is_as_if_emitted_there() {
        let first = Places { near: &[0x7000_0040, 0x7000_0080], salts: &[0, 77], instructions: &[0x5555_0000_1234] };
        let asm = emit(0x7000_1000, 0x7100_2000, &first);
        let codes: Vec<u32> = asm.relocations().iter().map(|relocation| relocation.encode(&first).unwrap()).collect();
        assert_eq!(codes.len(), 10);
        assert_eq!(Relocation::highest(codes.iter().copied()), (1, 1));
        let mut stripped = Vec::new();
        asm.strip(&mut stripped);
        // Nothing of where it was is left.
        let second = Places { near: &[0x6000_0010, 0x6000_0090], salts: &[3, 9], instructions: &[8] };
        let elsewhere = emit(0x6000_0000, 0x6500_0008, &second);
        let mut other = Vec::new();
        elsewhere.strip(&mut other);
        assert_eq!(stripped, other);

        let third = Places { near: &[0x4000_0000, 0x4000_0020], salts: &[5, 6], instructions: &[0x1_0000_0000] };
        let (hot, cold) = (0x4000_0010, 0x4200_0008);
        let mut moved = Asm::new(0);
        moved.restart(hot, cold);
        let split = asm.finished().0.len();
        moved.adopt((&stripped[..split], &stripped[split..]), codes.iter().copied(), &third).unwrap();
        assert_eq!(bytes(&moved), bytes(&emit(hot, cold, &third)));
    }

    #[test]
    fn what_is_not_known_is_not_moved_and_nonsense_is_refused() {
        let places = Places { near: &[0x1000], salts: &[1], instructions: &[] };
        let relocation = |holds| Relocation { section: Section::Cold, at: 0xfedc, holds };
        assert_eq!(relocation(Holds::Near(0x1000)).encode(&places), Some(0x8000_fedc));
        assert_eq!(relocation(Holds::Near(0x1001)).encode(&places), None);
        assert_eq!(relocation(Holds::Salt(2)).encode(&places), None);
        assert_eq!(Relocation::across(Section::Hot, 0x1_0000).encode(&places), None);

        let adopt = |code: u32| {
            let mut asm = Asm::new(0);
            asm.restart(0, 0x1000);
            asm.adopt((&[0; 5], &[]), [code].into_iter(), &places)
        };
        let code = |at, kind, number| Code::new(Section::Hot, at, kind, number).0;
        assert_eq!(adopt(code(1, Code::ACROSS, 0)), Some(()));
        assert_eq!(adopt(code(2, Code::ACROSS, 0)), None, "outside");
        assert_eq!(adopt(code(0, Code::INSTRUCTION, 0)), None, "outside, and unknown");
        assert_eq!(adopt(code(0, Code::NEAR, 1)), None);
        assert_eq!(adopt(code(0, Code::SALT, 1)), None);
        assert_eq!(adopt(code(0, 4, 0)), None);
        assert_eq!(adopt(Code::new(Section::Cold, 0, Code::ACROSS, 0).0), None);
    }
}
