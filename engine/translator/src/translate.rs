//! The table of translations: finding, making and dropping blocks.
//!
//! Blocks are keyed by the guest *physical* address of their first byte and the [`Mode`], so they survive CR3 writes,
//! exec and fork, and serve every address at which a page is mapped. Each page that holds translated code is watched
//! at the grain of 64 bytes ([`crate::memory::Ram::watch`]); a write to a watched chunk drops the blocks it touches.
//!
//! A dropped block's entry becomes a jump to its *dead end*, which looks for the block at the same address in the jump
//! cache; its entry for the jump cache becomes a jump to the dispatcher, which puts the new block there. So nothing
//! that leads to a block (chained exits, jump caches of all vCPUs) has to be found when it dies.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault};

use hashbrown::HashTable;
use iced_x86::{Decoder, DecoderOptions, Encoder, FlowControl, Instruction, InstructionInfoFactory, Mnemonic};
use rustc_hash::FxHasher;

use crate::asm::Asm;
use crate::branch_table::SALTS;
use crate::cache::CodeCache;
use crate::emit::record::{Exit, Header};
use crate::emit::{Emitter, Pointed, Tools};
use crate::kept::Kept;
use crate::memory::{PAGE, Ram};
use crate::mode::Mode;
use crate::perf::PerfMap;
use crate::stubs::{Helpers, Stubs};
use lodge_engine_api::chunk_mask;

type Map<K, V> = HashMap<K, V, BuildHasherDefault<FxHasher>>;

mod locate;

/// Most instructions of a block.
const MAX_INSTRUCTIONS: usize = 64;
/// Longest instruction (SDM 2 2.3.11).
pub const MAX_LENGTH: usize = 15;
/// Code that one block may need at most, cold parts included.
const ROOM: usize = 64 << 10;

/// One translation. There are many, so what is seldom asked for is in a [`Header`] in the code cache.
#[derive(Clone, Copy)]
struct Block {
    /// Guest physical address of its first byte: number of the page, offset in it.
    page: u32,
    offset: u16,
    /// Bytes of guest code, with [`Block::CROSSES`] and [`Block::DROPPED`].
    length: u16,
    /// Its mode.
    mode: Mode,
    /// Where its hot and its cold code begin, from the start of the cache. The cold code's header comes first.
    host: u32,
    cold: u32,
}

impl Block {
    /// Part of it lies on a second, unrelated page ([`Code::seconds`]).
    const CROSSES: u16 = 1 << 15;
    /// It is not to be used any more.
    const DROPPED: u16 = 1 << 14;

    fn gpa(&self) -> u64 {
        u64::from(self.page) * PAGE + u64::from(self.offset)
    }

    fn key(&self) -> (u64, u32) {
        (self.gpa(), self.mode.0)
    }

    fn length(&self) -> u64 {
        u64::from(self.length & !(Self::CROSSES | Self::DROPPED))
    }

    fn crosses(&self) -> bool {
        self.length & Self::CROSSES != 0
    }

    fn live(&self) -> bool {
        self.length & Self::DROPPED == 0
    }

    /// Offset of its first byte in its page: small pages and large ones are aligned alike in both address spaces.
    fn page_offset(&self) -> u64 {
        self.gpa() % if self.mode.has(Mode::LARGE) { 2 << 20 } else { PAGE }
    }
}

/// What a lookup gives.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Where to enter with the linear address in R11.
    pub indirect_entry: u64,
    /// The same where the address has not been looked for in any table.
    pub far_entry: u64,
    /// Where to enter with flags perhaps parked.
    pub parked_entry: u64,
    /// Where to enter.
    pub poll_entry: u64,
    /// Where to enter without a poll.
    pub entry: u64,
    /// The part on a second page.
    pub second: Option<u64>,
    /// The block's mode.
    pub mode: u32,
}

/// Why no block could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The code cache is used up: stop all vCPUs, [`Code::reset`] and try again.
    Full,
    /// The instruction goes on in the next page: say where that is.
    NeedsSecond,
}

/// Counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Blocks made.
    pub translations: u64,
    /// Blocks taken from what was kept of an earlier run.
    pub loaded: u64,
    /// Guest instructions in them.
    pub instructions: u64,
    /// Exits patched.
    pub chained: u64,
    /// Blocks dropped because their code was written.
    pub dropped: u64,
    /// Times that a page's code was dropped because data beside it are written too often.
    pub tired: u64,
    /// Times the cache was emptied.
    pub resets: u64,
}

/// What each mode has of its own.
#[derive(Clone, Copy, Debug)]
pub struct ModeStubs {
    /// Finds the block for the address in R11.
    pub indirect: u64,
    /// A return from the empty stack of frames.
    pub underflow: u64,
    /// Moves the stack window.
    pub window: u64,
    /// What sets the mode's jump-cache slots apart.
    pub salt: u32,
}

/// All code of a partition.
pub struct Code {
    cache: CodeCache,
    /// The stubs.
    pub stubs: Stubs,
    blocks: Vec<Block>,
    /// Live blocks by their key: numbers only, for there are many.
    by_key: HashTable<u32>,
    by_page: Map<u64, Vec<u32>>,
    /// Second pages of blocks that have one.
    seconds: Map<u32, u64>,
    /// Instructions that emitted code points at.
    system: Pointed,
    /// Pages whose data are written beside code: how often since their code was last dropped, and how often before it
    /// is dropped again.
    mixed: Map<u64, (u32, u32)>,
    /// Far exits that lead straight to code: where their displacement lies, and what they led to at first.
    linked: Map<u64, u64>,
    /// Stubs of each mode.
    indirect: Map<u32, ModeStubs>,
    /// Counts up at each reset: numbers of exits are valid in one generation.
    pub generation: u64,
    /// Counters.
    pub counts: Counts,
    perf_map: Option<PerfMap>,
    /// Blocks that have been told to it.
    named: usize,
    pub(crate) kept: Option<Kept>,
    pub(crate) asm: Asm,
    encoder: Encoder,
    info: InstructionInfoFactory,
}

/// A block that the assembler holds.
pub(crate) struct Made {
    /// Bytes of guest code.
    pub length: u64,
    pub instructions: u64,
    pub pointed: Pointed,
}

impl ModeStubs {
    /// How many addresses they are.
    pub const PLACES: usize = 3;

    /// The addresses, in an order of their own.
    pub fn places(&self) -> [u64; Self::PLACES] {
        let &Self { indirect, underflow, window, salt: _ } = self;
        [indirect, underflow, window]
    }
}

/// Bytes of code in a small block. Room for tables of so many is reserved, which costs next to nothing until they come:
/// tables that grow leave holes behind.
const BLOCK_BYTES: usize = 256;

impl Code {
    /// Makes an empty table with stubs that call `helpers`. `avx`: the host has YMM registers.
    pub fn new(size: usize, helpers: &Helpers, avx: bool, kept: Option<Kept>) -> std::io::Result<Self> {
        let mut cache = CodeCache::new(size.max(8 * ROOM))?;
        let mut asm = Asm::new(cache.next().0);
        let stubs = Stubs::emit(&mut asm, helpers, avx);
        cache.push(asm.finish());
        let perf_map = PerfMap::wanted(cache.range().start..cache.next().0);
        cache.keep();
        Ok(Self {
            cache,
            stubs,
            blocks: Vec::with_capacity(size / BLOCK_BYTES),
            by_key: HashTable::with_capacity(size / BLOCK_BYTES / 16),
            by_page: Map::default(),
            seconds: Map::default(),
            system: Vec::new(),
            mixed: Map::default(),
            linked: Map::default(),
            indirect: Map::default(),
            generation: 0,
            counts: Counts::default(),
            perf_map,
            named: 0,
            kept,
            asm,
            encoder: Encoder::new(64),
            info: InstructionInfoFactory::new(),
        })
    }

    /// Where emitted code may be.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.cache.range()
    }

    /// Bytes of code held.
    pub fn bytes(&self) -> usize {
        self.cache.used()
    }

    /// Forgets all blocks. No vCPU may be in emitted code, and each has to empty its jump caches.
    pub fn reset(&mut self, ram: &Ram) {
        for &page in self.by_page.keys() {
            ram.rewatch(page, 0);
        }
        if let Some(kept) = &mut self.kept {
            kept.close();
        }
        self.cache.reset();
        self.blocks.clear();
        self.named = 0;
        self.by_key.clear();
        self.by_page.clear();
        self.seconds.clear();
        self.system.clear();
        self.mixed.clear();
        self.linked.clear();
        self.indirect.clear();
        self.generation += 1;
        self.counts.resets += 1;
        if let Some(map) = &mut self.perf_map {
            map.restart();
        }
    }

    /// What is kept of a block in its cold code.
    fn header(&self, block: &Block) -> Header {
        let bytes = self.cache.read(self.cache.range().start + u64::from(block.cold), Header::SIZE);
        Header::from_bytes(bytes).unwrap_or_default()
    }

    pub(crate) fn found(&self, id: u32) -> Found {
        let block = &self.blocks[id as usize];
        let header = self.header(block);
        let base = self.cache.range().start;
        let (hot, cold) = (base + u64::from(block.host), base + u64::from(block.cold));
        let [indirect_entry, parked_entry] = header.outer_entries(hot, cold);
        Found {
            indirect_entry,
            far_entry: indirect_entry - u64::from(header.far_distance),
            parked_entry,
            poll_entry: header.poll_entry(hot, cold),
            entry: hot + u64::from(header.entry),
            second: if block.crosses() { self.seconds.get(&id).copied() } else { None },
            mode: block.mode.0,
        }
    }

    /// The block for a key, if there is one.
    pub fn find(&self, gpa: u64, mode: Mode) -> Option<Found> {
        let same = |&id: &u32| self.blocks[id as usize].key() == (gpa, mode.0);
        self.by_key.find(hash((gpa, mode.0)), same).map(|&id| self.found(id))
    }

    /// Whether what a lookup found has not been dropped since.
    pub fn is_current(&self, found: &Found) -> bool {
        self.block_at(found.entry).is_some_and(|(block, _)| block.live())
    }

    /// A mode's own stubs, if it has any block.
    pub fn mode_stubs(&self, mode: Mode) -> Option<ModeStubs> {
        self.indirect.get(&mode.without_page().0).copied()
    }

    /// The exit whose record lies at `address`.
    pub fn exit(&self, address: u64) -> Option<Exit> {
        let known = self.cache.range().contains(&address);
        known.then(|| Exit::from_record(address, self.cache.read(address, Exit::SIZE))).flatten()
    }

    /// Has an exit lead straight to its target's code, or, where the target's second page has to be checked each time,
    /// to the jump cache.
    pub fn chain(&mut self, exit: Exit, target: &Found) {
        if exit.far {
            return self.chain_far(exit, target);
        }
        if exit.plain && target.second.is_some() {
            // The jump cache leads to the translation that has just been left.
            return;
        }
        let to = if target.second.is_some() {
            let Some(stub) = self.emit_far(exit.target.into(), Mode(target.mode)) else { return };
            stub
        } else if exit.parked {
            target.parked_entry
        } else if exit.polled {
            target.poll_entry
        } else {
            target.entry
        };
        self.lead(exit.site, to);
        self.counts.chained += 1;
    }

    /// Has the jump whose displacement lies at `site` lead to `to`; where it has led.
    fn lead(&mut self, site: u64, to: u64) -> u64 {
        let cell = site & !7;
        let at = (site - cell) as usize;
        let mut bytes = self.cache.peek(cell);
        let relative = to.wrapping_sub(site + 4) as u32;
        let old = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        bytes[at..at + 4].copy_from_slice(&relative.to_le_bytes());
        self.cache.patch(cell, bytes);
        (site + 4).wrapping_add_signed(i64::from(old as i32))
    }

    /// Has a far exit lead straight to what now lies at its target, until [`Code::sever`]; where the target's second page
    /// has to be checked each time, to the jump cache.
    fn chain_far(&mut self, exit: Exit, target: &Found) {
        let Some(own) = self.mode_stubs(Mode(target.mode)) else { return };
        if target.second.is_some() || Mode(target.mode).has(Mode::LARGE) {
            self.lead(exit.site, own.indirect);
        } else {
            let before = self.lead(exit.site, target.far_entry);
            // What another vCPU has linked meanwhile did not lead there at first.
            self.linked.entry(exit.site).or_insert(before);
        }
        self.counts.chained += 1;
    }

    /// Takes all far exits' links away: what they lead to may no longer lie where it did.
    pub fn sever(&mut self) {
        for (site, before) in std::mem::take(&mut self.linked) {
            self.lead(site, before);
        }
    }

    /// Code that goes to a place in the current page by way of the jump cache.
    fn emit_far(&mut self, target: i64, mode: Mode) -> Option<u64> {
        let own = self.mode_stubs(mode)?;
        let (hot, cold) = self.cache.next();
        self.asm.restart(hot, cold);
        let stub = self.asm.here();
        emit_linear(&mut self.asm, target, mode);
        self.asm.jmp_to(own.indirect);
        self.cache.push(self.asm.finish()).then_some(stub)
    }

    /// A mode's own stubs, made where there are none yet.
    pub(crate) fn stubs_of(&mut self, mode: Mode) -> ModeStubs {
        if let Some(own) = self.mode_stubs(mode) {
            return own;
        }
        let (hot, cold) = self.cache.next();
        self.asm.restart(hot, cold);
        let salt = (self.indirect.len() as u32).wrapping_mul(1031) % SALTS;
        let indirect = self.stubs.emit_indirect(&mut self.asm, salt, mode.without_page());
        let underflow = self.stubs.emit_underflow(&mut self.asm, indirect);
        let window = self.stubs.emit_window(&mut self.asm, crate::tlb::tag_offset(mode.tlb_context(), true));
        self.cache.push(self.asm.finish());
        let own = ModeStubs { indirect, underflow, window, salt };
        self.indirect.insert(mode.without_page().0, own);
        own
    }

    /// Makes the block at `gpa`. `page_offset` is its offset in the page it lies in; `second` is where the next page
    /// is, if it has been asked for. The chunks are watched before they are read: the caller looks afterwards whether
    /// anyone may be writing to the pages, or has seen to it before that none is. `afar`: it is entered by branches from
    /// elsewhere.
    pub fn translate(
        &mut self,
        ram: &Ram,
        gpa: u64,
        mode: Mode,
        page_offset: u64,
        second: Option<u64>,
        afar: bool,
    ) -> Result<Found, Trouble> {
        if !self.has_room() {
            return Err(Trouble::Full);
        }
        let own = self.stubs_of(mode);
        let fetched = Fetched::of(ram, gpa, mode, page_offset, second);
        let loaded = self.load(mode, own, page_offset, &fetched);
        let was_kept = loaded.is_some();
        let made = match loaded {
            Some(loaded) => loaded,
            None => self.emit(mode, own, page_offset, &fetched, afar)?,
        };
        let id = self.add(ram, gpa, mode, made, second)?;
        self.link(ram, id, was_kept);
        Ok(self.found(id))
    }

    /// Emits the block whose bytes were fetched.
    fn emit(
        &mut self,
        mode: Mode,
        own: ModeStubs,
        page_offset: u64,
        fetched: &Fetched,
        afar: bool,
    ) -> Result<Made, Trouble> {
        let instructions = decode(mode, page_offset, fetched)?;
        let (made, other) = self.emit_decoded(mode, own, page_offset, &instructions, afar);
        self.counts.translations += 1;
        self.keep_made(&made, &instructions, (mode, page_offset, fetched), (own, other));
        Ok(made)
    }

    /// Emits these instructions; beside it the stubs of the mode that STAC or CLAC leads to, if they are in it.
    pub(crate) fn emit_decoded(
        &mut self,
        mode: Mode,
        own: ModeStubs,
        page_offset: u64,
        instructions: &[Instruction],
        afar: bool,
    ) -> (Made, Option<ModeStubs>) {
        let length = instructions.last().map_or(1, |last| last.next_ip() - page_offset);
        let crosses_access = |ins: &Instruction| matches!(ins.mnemonic(), Mnemonic::Stac | Mnemonic::Clac);
        let switches = mode.has(Mode::SMAP) && instructions.iter().any(crosses_access);
        let other = switches.then(|| self.stubs_of(mode.other_access()));
        let (hot, cold) = self.cache.next();
        self.asm.restart(hot, cold);
        let tools = Tools {
            asm: &mut self.asm,
            encoder: &mut self.encoder,
            info: &mut self.info,
            stubs: &self.stubs,
            other,
            afar,
        };
        let pointed = Emitter::block(tools, mode, own, instructions);
        self.asm.finish();
        (Made { length, instructions: instructions.len() as u64, pointed }, other)
    }

    /// Adds the block that the assembler holds; its number.
    pub(crate) fn add(
        &mut self,
        ram: &Ram,
        gpa: u64,
        mode: Mode,
        made: Made,
        second: Option<u64>,
    ) -> Result<u32, Trouble> {
        let Made { length, instructions, pointed } = made;
        let (host, cold) = self.cache.next();
        if !self.cache.push(self.asm.finished()) {
            return Err(Trouble::Full);
        }
        self.counts.instructions += instructions;
        // A piece of the first page only is used where no second one was needed after all.
        let second = second.filter(|_| length > PAGE - gpa % PAGE);
        let Ok(page) = u32::try_from(gpa / PAGE) else { return Err(Trouble::Full) };
        let block = Block {
            page,
            offset: (gpa % PAGE) as u16,
            length: length as u16 | if second.is_some() { Block::CROSSES } else { 0 },
            mode,
            host: (host - self.cache.range().start) as u32,
            cold: (cold - self.cache.range().start) as u32,
        };
        let id = self.blocks.len() as u32;
        for (page, chunks) in pieces(&block, second) {
            ram.watch(page, chunks);
            self.by_page.entry(page).or_default().push(id);
        }
        self.blocks.push(block);
        let blocks = &self.blocks;
        self.by_key.insert_unique(hash(block.key()), id, |&id| hash(blocks[id as usize].key()));
        self.system.extend(pointed);
        if let Some(second) = second {
            self.seconds.insert(id, second);
        }
        Ok(id)
    }

    /// Whether another block is sure to fit.
    pub(crate) fn has_room(&self) -> bool {
        // Salts tell modes apart, as long as each has its own.
        self.cache.left() >= 2 * ROOM && self.indirect.len() + 2 < SALTS as usize
    }

    /// Where the next hot and cold code will run.
    pub(crate) fn next(&self) -> (u64, u64) {
        self.cache.next()
    }

    /// A block's address, mode, and offset in the page.
    pub(crate) fn block_place(&self, id: u32) -> (u64, Mode, u64) {
        let block = &self.blocks[id as usize];
        (block.gpa(), block.mode, block.page_offset())
    }

    /// Where the records of a block's exits are.
    pub(crate) fn exits(&self, id: u32) -> impl Iterator<Item = u64> + use<> {
        let block = &self.blocks[id as usize];
        let header = self.header(block);
        let map = self.cache.range().start + u64::from(block.cold) + u64::from(header.map);
        let first = map - u64::from(header.exits) * Exit::SIZE as u64;
        (first..map).step_by(Exit::SIZE)
    }

    /// Tells a profiler of the blocks that were just made, the first of which is at linear address `lip`.
    pub fn name_new(&mut self, lip: u64) {
        let from = std::mem::replace(&mut self.named, self.blocks.len());
        let (Some(map), Some(new)) = (&mut self.perf_map, self.blocks.get(from..)) else { return };
        let base = self.cache.range().start;
        let page = lip.wrapping_sub(new.first().map_or(0, Block::page_offset));
        let place = |block: &Block| (base + u64::from(block.host), base + u64::from(block.cold));
        for (n, block) in new.iter().enumerate() {
            let ((hot, cold), end) = (place(block), new.get(n + 1).map_or_else(|| self.cache.next(), place));
            let linear = page.wrapping_add(block.page_offset());
            map.note(hot..end.0, cold..end.1, block.mode, linear, block.gpa());
        }
    }

    /// Counts a store into a page that holds code, beside the code; whether to drop the page's code rather than go on
    /// seeing each store. Code that is still run comes back, and is then kept for longer.
    pub fn tires_of(&mut self, gpa: u64) -> bool {
        const FIRST: u32 = 64;
        const LAST: u32 = 1 << 16;
        let (count, most) = self.mixed.entry(gpa & !(PAGE - 1)).or_insert((0, FIRST));
        *count += 1;
        let tired = *count >= *most;
        if tired {
            self.counts.tired += 1;
            *count = 0;
            *most = (*most * 4).min(LAST);
        }
        tired
    }

    /// Drops the blocks that hold a byte of the range, and watches only what is left. Whether any was dropped.
    pub fn drop_range(&mut self, ram: &Ram, gpa: u64, length: u64) -> bool {
        let mut any = false;
        let end = gpa.saturating_add(length);
        let mut page = gpa & !(PAGE - 1);
        while page < end {
            let from = gpa.max(page);
            any |= self.drop_in_page(ram, page, from, end.min(page + PAGE));
            page += PAGE;
        }
        any
    }

    fn drop_in_page(&mut self, ram: &Ram, page: u64, from: u64, to: u64) -> bool {
        let Some(ids) = self.by_page.get(&page) else {
            // Looked at when code was decoded, but none of it is here.
            ram.rewatch(page, 0);
            return false;
        };
        let touched = chunk_mask((from - page) as usize, (to - from) as usize);
        let doomed: Vec<u32> = ids
            .iter()
            .copied()
            .filter(|&id| {
                let block = &self.blocks[id as usize];
                block.live()
                    && pieces(block, self.seconds.get(&id).copied())
                        .any(|(p, chunks)| p == page && chunks & touched != 0)
            })
            .collect();
        for &id in &doomed {
            self.kill(id);
        }
        let mut left = 0;
        if let Some(ids) = self.by_page.get_mut(&page) {
            let blocks = &self.blocks;
            ids.retain(|&id| blocks[id as usize].live());
            for &id in ids.iter() {
                left |= pieces(&blocks[id as usize], self.seconds.get(&id).copied())
                    .filter(|(p, _)| *p == page)
                    .fold(0, |all, (_, c)| all | c);
            }
            if ids.is_empty() {
                self.by_page.remove(&page);
            }
        }
        ram.rewatch(page, left);
        !doomed.is_empty()
    }

    fn kill(&mut self, id: u32) {
        let block = &mut self.blocks[id as usize];
        block.length |= Block::DROPPED;
        let block = *block;
        let header = self.header(&block);
        self.counts.dropped += 1;
        let key = block.key();
        let base = self.cache.range().start;
        let (hot, cold) = (base + u64::from(block.host), base + u64::from(block.cold));
        let dead_end = cold + u64::from(header.dead_end);
        let [indirect, parked] = header.outer_entries(hot, cold);
        for (place, to) in [
            (parked, dead_end),
            (header.poll_entry(hot, cold), dead_end),
            (hot + u64::from(header.entry), dead_end),
            (indirect, self.stubs.leave_lookup),
        ] {
            let mut bytes = self.cache.peek(place);
            bytes[0] = 0xe9;
            let relative = to.wrapping_sub(place + 5) as u32;
            bytes[1..5].copy_from_slice(&relative.to_le_bytes());
            self.cache.patch(place, bytes);
        }
        if let Ok(entry) = self.by_key.find_entry(hash(key), |&other| other == id) {
            entry.remove();
        }
    }
}

/// R11 = the linear address of an offset in the current page, which is below 2 GiB. No flags.
fn emit_linear(asm: &mut Asm, offset: i64, mode: Mode) {
    use crate::asm::{R11, at, gs};
    asm.load(R11, gs(crate::cpu::off::CODE_BASE));
    let place = at(R11, offset as i32);
    if mode.is_64() { asm.lea(R11, place) } else { asm.lea32(R11, place) }
}

fn hash(key: (u64, u32)) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one(key)
}

/// The pages that a block's bytes lie in, with the chunks of each.
fn pieces(block: &Block, second: Option<u64>) -> impl Iterator<Item = (u64, u64)> + use<> {
    let (gpa, length) = (block.gpa(), block.length());
    let first = length.min(PAGE - gpa % PAGE);
    let rest = length - first;
    let page = gpa & !(PAGE - 1);
    let head = (page, chunk_mask((gpa % PAGE) as usize, first as usize));
    let next = second.map_or(page + PAGE, |second| second & !(PAGE - 1));
    let tail = (rest > 0).then(|| (next, chunk_mask(0, rest.min(PAGE) as usize)));
    std::iter::once(head).chain(tail)
}

/// The bytes that a block may be of.
pub(crate) struct Fetched {
    bytes: [u8; MAX_INSTRUCTIONS * MAX_LENGTH],
    have: usize,
    /// They go on in a page that is known.
    has_next: bool,
}

impl Fetched {
    /// Reads them, and watches them before.
    pub(crate) fn of(ram: &Ram, gpa: u64, mode: Mode, page_offset: u64, second: Option<u64>) -> Self {
        let want = if mode.has(Mode::HOW) { MAX_LENGTH } else { MAX_INSTRUCTIONS * MAX_LENGTH };
        // Where there is no RAM an empty bus answers ones: FF FF is an undefined opcode.
        let mut bytes = [0xffu8; MAX_INSTRUCTIONS * MAX_LENGTH];
        let here = want.min((PAGE - gpa % PAGE) as usize);
        // Watch before reading: a write from now on is seen.
        ram.watch(gpa, chunk_mask((gpa % PAGE) as usize, here));
        ram.read(gpa, &mut bytes[..here]);
        let mut have = here;
        let in_large = mode.has(Mode::LARGE) && (page_offset + here as u64) < (2 << 20);
        let next_page = if in_large { Some(gpa + here as u64) } else { second };
        if let Some(next) = next_page
            && have < want
        {
            let more = want - have;
            let more = if mode.has(Mode::LARGE) { more } else { more.min(MAX_LENGTH) };
            ram.watch(next, chunk_mask(0, more));
            if ram.read(next, &mut bytes[have..have + more]) {
                have += more;
            }
        }
        Self { bytes, have, has_next: next_page.is_some() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.have]
    }
}

/// Decodes a block's instructions, with their offset in the page as address.
pub(crate) fn decode(mode: Mode, page_offset: u64, fetched: &Fetched) -> Result<Vec<Instruction>, Trouble> {
    let single = mode.has(Mode::HOW);
    let mut decoder = Decoder::with_ip(mode.code_bits(), fetched.bytes(), page_offset, DecoderOptions::NONE);
    let mut instructions = Vec::with_capacity(16);
    let limit = if single { 1 } else { MAX_INSTRUCTIONS };
    while instructions.len() < limit && decoder.can_decode() {
        let ins = decoder.decode();
        let cut = ins.is_invalid() && decoder.last_error() == iced_x86::DecoderError::NoMoreBytes;
        if cut {
            // It goes on beyond what was read.
            if !instructions.is_empty() {
                break;
            }
            if !fetched.has_next {
                return Err(Trouble::NeedsSecond);
            }
        }
        // A crossing instruction stands alone: its second page may change without the first.
        let page_size = if mode.has(Mode::LARGE) { 2 << 20 } else { PAGE };
        let crosses = ins.next_ip() > page_size;
        if crosses && !instructions.is_empty() {
            break;
        }
        instructions.push(ins);
        if crosses || ends_block(&ins) && !goes_on(mode, &ins) {
            break;
        }
    }
    Ok(instructions)
}

/// Whether a branch leaves from the midst of its block, which has the way that goes straight on.
fn goes_on(mode: Mode, ins: &Instruction) -> bool {
    mode.is_64() && !mode.has(Mode::HOW | Mode::PLAIN) && ins.is_jcc_short_or_near()
}

fn ends_block(ins: &Instruction) -> bool {
    match ins.flow_control() {
        FlowControl::Next => false,
        // INTO and BOUND fall through unless they trap.
        FlowControl::Interrupt => !matches!(ins.mnemonic(), Mnemonic::Into),
        _ => true,
    }
}
