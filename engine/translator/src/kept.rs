//! Translations that are kept from one run to the next.
//!
//! A block's code, as it was emitted and with nothing of its place in it ([`crate::asm::Relocation`]), is a record of a
//! [`Vault`]; it is found by mode, place in the page and the first bytes of guest code, and fits where *all* bytes of
//! guest code are the same: a hit is what translating would give, since that depends on nothing else. What it also
//! depends on is the file's identity: this build of the translator, the processor that the guest is shown, and the
//! host's. In a file that does not verify, or that anyone but its user could have written, nothing is found.
//!
//! Key types: [`Kept`], [`Record`]. Neighbours: [`crate::load`] asks and tells; `lodge_vault` keeps.

use std::hash::Hasher;
use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, Instruction};
use lodge_engine_api::{CpuidTable, KeptCode};
use lodge_vault::{Folder, Identity, Limits, Outcome, Place, Problem, Vault, Writer};
use rustc_hash::FxHasher;

use crate::asm::{Asm, Places};
use crate::emit::Pointed;
use crate::mode::Mode;

/// How much is kept: in one file, and in a folder.
const LIMITS: Limits = Limits { file: 64 << 20, folder: 256 << 20 };
/// Bytes of guest code by which a record is looked for.
const BEGINNING: usize = 16;
/// Records that are looked at for one block. More than one has the same beginning where what follows was changed.
const CANDIDATES: usize = 8;
/// Records that are kept for one place in a large page, by all runs but the first: code before and after the guest patched
/// it.
const VARIANTS: usize = 2;
/// Bits of a key, the highest, that stand for the place alone, where it is in a large page.
const PLACE_BITS: u32 = 32;
/// Numbers of 16 bits that a record begins with, behind mode and place.
const NUMBERS: usize = 6;

/// What is kept, and what is to be.
pub struct Kept {
    vault: Option<Vault>,
    writer: Option<Writer>,
    /// Nothing is added any more.
    closed: bool,
    /// The record behind the one that was found last: what was made in this order is mostly asked for in this order.
    next: Option<Place>,
    complained: bool,
    /// Whatever is found is compared with what is emitted anew.
    pub verify: bool,
}

/// What a block is a translation of.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    pub mode: Mode,
    /// Offset in the page.
    pub page_offset: u64,
    /// The guest's code, and what was fetched behind it.
    pub bytes: &'a [u8],
}

impl Origin<'_> {
    fn hash(&self, length: usize) -> u64 {
        let mut hasher = FxHasher::default();
        hasher.write_u64(u64::from(self.mode.0) | self.page_offset << 32);
        let bytes = &self.bytes[..length.min(self.bytes.len())];
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            hasher.write_u64(u64::from_le_bytes(word));
        }
        hasher.finish()
    }

    /// By what its record is found. In large pages there are as many places as there is code in them, and all variants
    /// of one are beside each other.
    fn key(&self) -> u64 {
        let whole = self.hash(BEGINNING);
        let place = if self.mode.has(Mode::LARGE) { self.hash(0) } else { whole };
        place >> (64 - PLACE_BITS) << (64 - PLACE_BITS) | whole >> PLACE_BITS
    }
}

/// A record: numbers, relocations, places of remembered instructions, guest code, hot code, cold code.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    relocations: &'a [u8],
    remembered: &'a [u8],
    /// Hot and cold code.
    pub code: (&'a [u8], &'a [u8]),
    /// Bytes of guest code.
    pub length: usize,
    /// Guest instructions.
    pub count: usize,
}

/// A block that was just emitted.
pub struct Fresh<'a> {
    /// Bytes of guest code.
    pub length: usize,
    pub asm: &'a Asm,
    pub pointed: &'a Pointed,
    pub instructions: &'a [Instruction],
    /// Where things are that it refers to.
    pub places: Places<'a>,
}

impl<'a> Record<'a> {
    const HEAD: usize = 8 + 2 * NUMBERS;

    /// Reads a record, if it is for this origin.
    fn read(bytes: &'a [u8], origin: &Origin<'_>) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(Self::HEAD)?;
        let (mode, head) = head.split_first_chunk()?;
        let (place, head) = head.split_first_chunk()?;
        if u32::from_le_bytes(*mode) != origin.mode.0 || u64::from(u32::from_le_bytes(*place)) != origin.page_offset {
            return None;
        }
        let (words, _) = head.as_chunks::<2>();
        let mut numbers = [0; NUMBERS];
        for (number, word) in numbers.iter_mut().zip(words) {
            *number = u16::from_le_bytes(*word);
        }
        let [length, count, hot, cold, relocations, remembered] = numbers.map(usize::from);
        let (relocations, rest) = rest.split_at_checked(4 * relocations)?;
        let (remembered, rest) = rest.split_at_checked(2 * remembered)?;
        let (guest, rest) = rest.split_at_checked(length)?;
        if !origin.bytes.starts_with(guest) || length == 0 {
            return None;
        }
        let (hot, cold) = rest.split_at_checked(hot).filter(|(_, rest)| rest.len() == cold)?;
        Some(Self { relocations, remembered, code: (hot, cold), length, count })
    }

    /// Relocations.
    pub fn relocations(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.relocations.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// The instructions that emitted code points at, decoded anew.
    pub fn pointed(&self, origin: &Origin<'_>) -> Pointed {
        let places = self.remembered.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
        places
            .map(|at| {
                let bytes = &origin.bytes[usize::from(at).min(self.length)..self.length];
                let ip = origin.page_offset + u64::from(at);
                Box::new(Decoder::with_ip(origin.mode.code_bits(), bytes, ip, DecoderOptions::NONE).decode())
            })
            .collect()
    }

    /// Writes a record of `block`. `None`: it cannot be kept.
    fn write(out: &mut Vec<u8>, origin: &Origin<'_>, block: &Fresh<'_>) -> Option<()> {
        let Fresh { length, asm, pointed, instructions, .. } = *block;
        let (hot, cold) = asm.finished();
        let numbers: [usize; NUMBERS] =
            [length, instructions.len(), hot.len(), cold.len(), asm.relocations().len(), pointed.len()];
        out.extend_from_slice(&origin.mode.0.to_le_bytes());
        out.extend_from_slice(&u32::try_from(origin.page_offset).ok()?.to_le_bytes());
        for number in numbers {
            out.extend_from_slice(&u16::try_from(number).ok()?.to_le_bytes());
        }
        for relocation in asm.relocations() {
            out.extend_from_slice(&relocation.encode(&block.places)?.to_le_bytes());
        }
        for remembered in pointed {
            // What is decoded again must be what was remembered.
            let same = |ins: &&Instruction| ins.eq_all_bits(remembered);
            let original = instructions.iter().find(same).filter(|ins| !ins.is_invalid())?;
            let at = u16::try_from(original.ip() - origin.page_offset).ok()?;
            out.extend_from_slice(&at.to_le_bytes());
        }
        out.extend_from_slice(origin.bytes.get(..length)?);
        asm.strip(out);
        Some(())
    }
}

impl Kept {
    /// What is kept for this name, for a guest that is shown this processor. `None`: the folder cannot be used, which
    /// was said.
    pub fn open(wanted: &KeptCode, cpuid: &CpuidTable, avx: bool) -> Option<Self> {
        let folder = match Folder::open(&wanted.folder) {
            Ok(folder) => Arc::new(folder),
            Err(problem) => {
                tracing::warn!(folder = %wanted.folder.display(), %problem, "translations are not kept");
                return None;
            }
        };
        let identity = identity(cpuid, avx);
        let vault = match Vault::open(&folder, &wanted.name, &identity) {
            Ok(vault) => vault,
            Err(problem @ Problem::Stale) => {
                tracing::info!(name = wanted.name, %problem, "kept translations are made anew");
                None
            }
            Err(problem) => {
                tracing::warn!(name = wanted.name, %problem, "kept translations are ignored and made anew");
                None
            }
        };
        let writer = Some(Writer::new(folder, &wanted.name, identity, LIMITS));
        Some(Self { vault, writer, closed: false, next: None, complained: false, verify: wanted.verify })
    }

    /// Mode and offset in the page of the block behind the one that was found last.
    pub fn peek(&mut self) -> Option<(Mode, u64)> {
        let bytes = self.vault.as_mut()?.record(self.next?)?;
        let (mode, rest) = bytes.split_first_chunk()?;
        let (place, _) = rest.split_first_chunk()?;
        Some((Mode(u32::from_le_bytes(*mode)), u32::from_le_bytes(*place).into()))
    }

    /// Gives `take` the record for the code at the front of `origin`, if there is one. Of what `take` gives, `None`
    /// means that it was of no use.
    pub fn find<T>(&mut self, origin: &Origin<'_>, take: impl FnOnce(&Record<'_>) -> Option<T>) -> Option<T> {
        let vault = self.vault.as_mut()?;
        let mut fits = |place: &Place| vault.record(*place).is_some_and(|bytes| Record::read(bytes, origin).is_some());
        let place = self.next.filter(&mut fits).or_else(|| {
            let mut places = [None; CANDIDATES];
            for (slot, place) in places.iter_mut().zip(vault.find(origin.key())) {
                *slot = Some(place);
            }
            let mut fits =
                |place: &Place| vault.record(*place).is_some_and(|bytes| Record::read(bytes, origin).is_some());
            places.into_iter().flatten().find(&mut fits)
        });
        if vault.damaged() > 0 && !self.complained {
            self.complained = true;
            tracing::warn!("a part of the kept translations is damaged; it is ignored and made anew");
        }
        let place = place?;
        vault.note_use(place);
        let bytes = vault.record(place)?;
        self.next = Some(Vault::after(place, bytes.len()));
        take(&Record::read(bytes, origin)?)
    }

    /// Keeps a block.
    pub fn add(&mut self, origin: &Origin<'_>, block: &Fresh<'_>) {
        let Some(writer) = self.writer.as_mut().filter(|_| !self.closed) else { return };
        let key = origin.key();
        // A kernel that chooses its address anew at each start has other code at the same places each time, as far as its
        // own address is in it: that is not worth keeping over and over.
        let is_enough = |vault: &Vault| vault.has_like(key, PLACE_BITS, VARIANTS);
        if origin.mode.has(Mode::LARGE) && self.vault.as_ref().is_some_and(is_enough) {
            return;
        }
        writer.add_with(key, |out| Record::write(out, origin, block).is_some());
    }

    /// Has nothing added any more: what is made from now on was mostly made before, and a table that told whether costs
    /// more than it is worth.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Makes the file. Nothing is kept after that.
    pub fn finish(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        let bytes = writer.bytes();
        match writer.finish(self.vault.as_ref()) {
            Ok(Outcome::Left) => {}
            Ok(Outcome::Made(records)) => tracing::info!(records, bytes, "translations are kept"),
            Err(problem) => tracing::warn!(%problem, "translations are not kept"),
        }
    }
}

/// What kept translations depend on beside the guest's code.
fn identity(cpuid: &CpuidTable, avx: bool) -> Identity {
    let mut text = Vec::new();
    text.extend_from_slice(env!("LODGE_TRANSLATOR_BUILD").as_bytes());
    text.push(avx.into());
    // Features, without what tells one processor of a guest from another.
    let features = [cpuid.lookup(1, 0), cpuid.lookup(7, 0), cpuid.lookup(0x8000_0001, 0)];
    for register in features.iter().flat_map(|&[eax, _, ecx, edx]| [eax, ecx, edx]) {
        text.extend_from_slice(&register.to_le_bytes());
    }
    text.extend_from_slice(&cpuid.lookup(7, 0)[1].to_le_bytes());
    // A changed dependency that the source does not show is another program.
    if let Ok(program) = std::fs::metadata("/proc/self/exe") {
        use std::os::unix::fs::MetadataExt;
        for number in [program.size() as i64, program.mtime(), program.mtime_nsec()] {
            text.extend_from_slice(&number.to_le_bytes());
        }
    }
    lodge_vault::identity(&text)
}
