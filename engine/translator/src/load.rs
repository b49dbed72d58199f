//! Blocks to and from what is kept between runs ([`crate::kept`]).
//!
//! A block that was emitted is told to [`crate::kept::Kept`] as a stripped one, and one that is found there is put where
//! the next block goes, as if it had been emitted. That it is the very same is looked at where the partition was asked to
//! ([`lodge_engine_api::KeptCode::verify`]).

use iced_x86::Instruction;

use crate::asm::{Places, Relocation};
use crate::emit::Pointed;
use crate::emit::record::Header;
use crate::kept::{Fresh, Origin, Record};
use crate::mode::Mode;
use crate::stubs::Stubs;
use crate::translate::{Code, Fetched, Made, ModeStubs, decode};

/// Where a block finds the stubs that it refers to: those of all modes, of its own, and of the one that STAC or CLAC leads
/// to.
struct Surroundings {
    near: [u64; Self::OTHER + ModeStubs::PLACES],
    salts: [u32; 2],
    has_other: bool,
}

impl Surroundings {
    /// Numbers of the first place of the block's own mode, and of the other one.
    const OWN: usize = Stubs::PLACES;
    const OTHER: usize = Self::OWN + ModeStubs::PLACES;

    fn new(stubs: &Stubs, own: &ModeStubs, other: Option<&ModeStubs>) -> Self {
        let mut near = [0; Self::OTHER + ModeStubs::PLACES];
        near[..Self::OWN].copy_from_slice(&stubs.places());
        near[Self::OWN..Self::OTHER].copy_from_slice(&own.places());
        if let Some(other) = other {
            near[Self::OTHER..].copy_from_slice(&other.places());
        }
        Self { near, salts: [own.salt, other.map_or(0, |other| other.salt)], has_other: other.is_some() }
    }

    /// Whether code with these relocations refers to another mode's stubs.
    fn needs_other(relocations: impl Iterator<Item = u32>) -> bool {
        let (near, salt) = Relocation::highest(relocations);
        near >= Self::OTHER || salt > 0
    }

    fn places<'a>(&'a self, instructions: &'a [u64]) -> Places<'a> {
        let (near, salts) = if self.has_other { (self.near.len(), 2) } else { (Self::OTHER, 1) };
        Places { near: &self.near[..near], salts: &self.salts[..salts], instructions }
    }
}

impl Code {
    /// Keeps the block that was just emitted.
    pub(crate) fn keep_made(
        &mut self,
        made: &Made,
        instructions: &[Instruction],
        (mode, page_offset, fetched): (Mode, u64, &Fetched),
        (own, other): (ModeStubs, Option<ModeStubs>),
    ) {
        let Some(kept) = &mut self.kept else { return };
        let surroundings = Surroundings::new(&self.stubs, &own, other.as_ref());
        let origin = Origin { mode, page_offset, bytes: fetched.bytes() };
        let block = Fresh {
            length: made.length as usize,
            asm: &self.asm,
            pointed: &made.pointed,
            instructions,
            places: surroundings.places(&[]),
        };
        kept.add(&origin, &block);
    }

    /// Has the assembler hold the block at the front of what was fetched, if it is kept.
    pub(crate) fn load(&mut self, mode: Mode, own: ModeStubs, page_offset: u64, fetched: &Fetched) -> Option<Made> {
        let mut kept = self.kept.take()?;
        let origin = Origin { mode, page_offset, bytes: fetched.bytes() };
        let verify = kept.verify;
        if verify && mode.has(Mode::SMAP) {
            // Emitting the block may want these, and they are code: had they to be made between, it would lie elsewhere.
            self.stubs_of(mode.other_access());
        }
        let loaded = kept.find(&origin, |record| self.adopt(own, &origin, record));
        self.kept = Some(kept);
        let made = loaded?;
        self.counts.loaded += 1;
        if verify {
            self.verify(&made, mode, own, page_offset, fetched);
        }
        Some(made)
    }

    fn adopt(&mut self, own: ModeStubs, origin: &Origin<'_>, record: &Record<'_>) -> Option<Made> {
        // Before it is asked where the next code goes: they are code, too.
        let needs_other = origin.mode.has(Mode::SMAP) && Surroundings::needs_other(record.relocations());
        let other = needs_other.then(|| self.stubs_of(origin.mode.other_access()));
        let surroundings = Surroundings::new(&self.stubs, &own, other.as_ref());
        let pointed = record.pointed(origin);
        let (hot, cold) = self.next();
        self.asm.restart(hot, cold);
        self.asm.adopt(record.code, record.relocations(), &surroundings.places(&addresses(&pointed)))?;
        Some(Made { length: record.length as u64, instructions: record.count as u64, pointed })
    }

    /// Panics unless what the assembler holds is what emitting the block anew gives.
    fn verify(&mut self, made: &Made, mode: Mode, own: ModeStubs, page_offset: u64, fetched: &Fetched) {
        let (hot, cold) = self.asm.finished();
        let (hot, cold) = (hot.to_vec(), cold.to_vec());
        let instructions = decode(mode, page_offset, fetched).unwrap_or_default();
        let afar = Header::from_bytes(&cold).is_some_and(|header| header.outer_is_hot);
        let (fresh, _) = self.emit_decoded(mode, own, page_offset, &instructions, afar);
        self.asm.point_at(&addresses(&made.pointed));
        let same_pointed = made.pointed.len() == fresh.pointed.len()
            && made.pointed.iter().zip(&fresh.pointed).all(|(a, b)| a.eq_all_bits(b));
        let same = (made.length, made.instructions) == (fresh.length, fresh.instructions) && same_pointed;
        let place = format!("mode {:#x}, offset {page_offset:#x}, {:02x?}", mode.0, fetched.bytes());
        assert!(same, "a kept translation is of other instructions: {place}");
        assert!(self.asm.finished() == (&hot, &cold), "a kept translation is not what is emitted: {place}");
    }

    /// Keeps translations for the next run. None is kept after that.
    pub fn keep(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.finish();
        }
    }
}

fn addresses(pointed: &Pointed) -> Vec<u64> {
    pointed.iter().map(|ins| &raw const **ins as u64).collect()
}
