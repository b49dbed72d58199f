//! Memory operands: effective addresses, segments, and the inline TLB probe.

use iced_x86::{Instruction, Register};

use super::Emitter;
use super::cold::Cold;
use super::registers::host;
use crate::asm::{Label, Mem, R11, RCX, RDX, Reg, at, cond, gs, gs_at, gs_index};
use crate::cpu::{TLB_OFFSET, off};
use crate::mode::Mode;
use crate::tlb::{HOST_OFFSET, TLB_ENTRIES, tag_offset};

/// A memory operand in terms of guest registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ea {
    pub base: Option<u8>,
    /// Register and log2 of the scale.
    pub index: Option<(u8, u8)>,
    pub displacement: i64,
    /// Relative to the page that the code lies in, rather than absolute.
    pub relative: bool,
    /// Segment register number.
    pub segment: u8,
    /// 16, 32 or 64.
    pub bits: u8,
}

impl Ea {
    /// The instruction's memory operand.
    pub fn of(ins: &Instruction) -> Self {
        let base = ins.memory_base();
        let index = ins.memory_index();
        let relative = matches!(base, Register::RIP | Register::EIP);
        let number = |r: Register| r.full_register().number() as u8;
        let width = if base != Register::None { base.size() } else { index.size() };
        let bits = match (width, ins.memory_displ_size()) {
            (2, _) | (0, 2) => 16,
            (4, _) | (0, 4) => 32,
            _ => 64,
        };
        let displacement = ins.memory_displacement64() as i64;
        Self {
            base: (base != Register::None && !relative).then(|| number(base)),
            index: (index != Register::None && !index.is_vector_register())
                .then(|| (number(index), ins.memory_index_scale().trailing_zeros() as u8)),
            displacement,
            relative,
            segment: segment_of(ins, stack_or_data(base)),
            bits,
        }
    }

    /// `[register + displacement]` in a segment.
    pub fn simple(register: u8, displacement: i64, segment: u8, bits: u32) -> Self {
        Self { base: Some(register), index: None, displacement, relative: false, segment, bits: bits as u8 }
    }
}

/// The segment that a base register implies.
fn stack_or_data(base: Register) -> u8 {
    let stack = matches!(base.full_register(), Register::RSP | Register::RBP);
    if stack { 2 } else { 3 }
}

/// The segment of an operand that is in `default` without a prefix. In 64-bit mode prefixes but those of FS and GS mean
/// nothing (SDM 1 3.4.2.1).
pub fn segment_of(ins: &Instruction, default: u8) -> u8 {
    let prefix = ins.segment_prefix();
    let number = segment_number(prefix);
    let ignored = number < 4 && ins.code_size() == iced_x86::CodeSize::Code64;
    if prefix == Register::None || ignored { default } else { number }
}

/// The number of a segment register, DS where there is none.
pub fn segment_number(register: Register) -> u8 {
    if register.is_segment_register() { register.number() as u8 } else { 3 }
}

/// What the slow path is told of an access (`crate::access` decodes it).
pub mod argument {
    /// The size's mask.
    pub const SIZE: u32 = 0xfff;
    /// It writes (and perhaps reads).
    pub const WRITE: u32 = 1 << 12;
    /// R11 is an offset in the segment, and the segment must be checked.
    pub const OFFSET: u32 = 1 << 13;
    /// It also reads what it writes.
    pub const READ: u32 = 1 << 14;
    /// An address that is not a multiple of the size raises #GP, even where there is no page.
    pub const ALIGNED: u32 = 1 << 15;
    /// What follows in the page may be written, too.
    pub const RUN: u32 = 1 << 19;
    /// Only parts of it are reached: where the whole raises a fault, look again part by part.
    pub const MASKED: u32 = 1 << 20;
    /// An x87 exception that is pending comes before any fault of the access.
    pub const WAITS: u32 = 1 << 21;
    /// Only try: never a fault, nor a way around; R11 becomes 0 where the access cannot be made as it is.
    pub const TRY: u32 = 1 << 22;
    /// The address is used by one instruction, once: that of a copy will do.
    pub const ONCE: u32 = 1 << 23;
    /// Where the number of the tag in a TLB entry is that the access has to match.
    pub const CONTEXT_SHIFT: u32 = 24;
    /// Where the segment's number is.
    pub const SEGMENT_SHIFT: u32 = 16;
}

impl Emitter<'_> {
    /// R11 = the effective address, in its width. Writes RCX, no flags.
    pub(super) fn effective(&mut self, ea: &Ea) {
        if ea.relative {
            self.linear(ea.displacement);
            if ea.bits == 32 {
                self.asm.mov32(R11, R11);
            }
            return;
        }
        let displacement = match i32::try_from(ea.displacement) {
            Ok(small) => small,
            Err(_) if ea.bits != 64 => ea.displacement as i32,
            Err(_) => return self.effective_far(ea),
        };
        let there = |number: u8, scratch: Reg| {
            host(number).or_else(|| self.address.place(number).filter(|place| *place == scratch))
        };
        // A copy that is where the other would be loaded to is not used.
        let base = ea.base.map(|number| (number, there(number, R11)));
        let index = ea.index.map(|(number, scale)| (number, there(number, RCX), scale));
        let mut reach = |number: u8, place: Option<Reg>, scratch: Reg| {
            place.unwrap_or_else(|| {
                self.asm.load(scratch, gs(off::gpr(number)));
                scratch
            })
        };
        let base = base.map(|(number, place)| reach(number, place, R11));
        let index = index.map(|(number, place, scale)| (reach(number, place, RCX), scale));
        let mem = Mem { gs: false, base, index, disp: displacement };
        match (base, index, ea.bits) {
            (None, None, 64) => self.asm.mov_imm(R11, i64::from(displacement) as u64),
            (None, None, 32) => self.asm.mov_imm32(R11, displacement as u32),
            (None, None, _) => self.asm.mov_imm32(R11, displacement as u32 & 0xffff),
            (Some(base), None, 64) if displacement == 0 => self.asm.mov(R11, base),
            (_, _, 64) => self.asm.lea(R11, mem),
            (_, _, 32) => self.asm.lea32(R11, mem),
            _ => {
                self.asm.lea32(R11, mem);
                self.asm.movzx16(R11, R11);
            }
        }
    }

    /// The same with a displacement of more than 32 bits, which has come of an addition.
    fn effective_far(&mut self, ea: &Ea) {
        self.asm.mov_imm(R11, ea.displacement as u64);
        for (number, scale) in ea.base.map(|number| (number, 0)).into_iter().chain(ea.index) {
            self.read_gpr(number, RCX);
            self.asm.lea(R11, Mem { gs: false, base: Some(R11), index: Some((RCX, scale)), disp: 0 });
        }
    }

    /// Whether offsets in `segment` need no check in this mode.
    fn is_open(&self, segment: u8) -> bool {
        self.mode.is_64()
            || match segment {
                1 => false,
                4 => self.mode.has(Mode::FS_OPEN),
                5 => self.mode.has(Mode::GS_OPEN),
                _ => self.mode.has(Mode::DATA_FLAT),
            }
    }

    /// Whether the segment's base has to be added.
    fn has_base(&self, segment: u8) -> bool {
        segment >= 4 || !self.is_open(segment)
    }

    /// R11 += the segment's base. Writes RCX, no flags.
    pub(super) fn add_base(&mut self, segment: u8) {
        if !self.has_base(segment) {
            return;
        }
        self.asm.load(RCX, gs(off::segment_base(segment)));
        let sum = Mem { gs: false, base: Some(R11), index: Some((RCX, 0)), disp: 0 };
        if self.mode.is_64() { self.asm.lea(R11, sum) } else { self.asm.lea32(R11, sum) }
    }

    /// R11 = what the slow path wants: the linear address, or the offset where the segment is still to be checked.
    pub(super) fn address_for_slow_path(&mut self, ea: &Ea) {
        self.effective(ea);
        if self.is_open(ea.segment) {
            self.add_base(ea.segment);
        }
    }

    pub(super) fn argument(&self, ea: &Ea, size: u32, write: bool, read: bool) -> u32 {
        size | if write { argument::WRITE } else { 0 }
            | if read { argument::READ } else { 0 }
            | if self.aligned { argument::ALIGNED } else { 0 }
            | if self.masked { argument::MASKED } else { 0 }
            | if self.waits { argument::WAITS } else { 0 }
            | if self.once { argument::ONCE } else { 0 }
            | if self.run { argument::RUN } else { 0 }
            | if self.is_open(ea.segment) { 0 } else { argument::OFFSET }
            | u32::from(ea.segment) << argument::SEGMENT_SHIFT
            | (tag_offset(self.mode.tlb_context(), write) as u32 / 8) << argument::CONTEXT_SHIFT
    }

    /// R11 = a host address at which `size` bytes may be accessed; leaves to the slow path where the TLB does not know.
    /// Writes RCX, and flags unless they are live.
    pub(super) fn probe(&mut self, ea: &Ea, size: u32, write: bool) {
        self.probe_as(ea, size, write, true);
    }

    /// As [`Emitter::probe`], saying whether an access that writes also reads.
    pub(super) fn probe_as(&mut self, ea: &Ea, size: u32, write: bool, read: bool) {
        let argument = self.argument(ea, size, write, read || !write);
        if self.mode.has(Mode::BOUNCE) {
            self.address_for_slow_path(ea);
            self.asm.mov_imm32(RCX, argument);
            self.asm.call_to(self.stubs.bounce_begin);
            return;
        }
        if self.is_mirrored() {
            return self.mirrored_address(ea);
        }
        if self.mode.has(Mode::ALIGN) {
            // The slow path checks each access; programs that ask for this are few.
            self.address_for_slow_path(ea);
            self.asm.mov_imm32(RCX, argument);
            self.asm.call_to(self.stubs.memory_checked);
            return;
        }
        if self.keep_flags && self.may_park {
            self.release_flags();
        }
        let (enter, back) = (self.asm.label(), self.asm.label());
        self.effective(ea);
        if !self.is_open(ea.segment) {
            if self.keep_flags {
                self.asm.pushfq();
            }
            self.asm.lea(RCX, at(R11, size as i32));
            self.asm.cmp_mem(RCX, gs(off::segment_end(ea.segment, write)));
            if self.keep_flags {
                let inside = self.asm.label();
                self.asm.jcc(6, inside);
                self.asm.popfq();
                self.asm.jmp(enter);
                self.asm.bind(inside);
                self.asm.popfq();
            } else {
                self.asm.jcc(cond::A, enter);
            }
        }
        self.add_base(ea.segment);
        let tag = TLB_OFFSET as i32 + tag_offset(self.mode.tlb_context(), write);
        let page = TLB_OFFSET as i32 + HOST_OFFSET;
        if self.keep_flags {
            // Index times 8 in 16 bits, so that MOVZX masks it; times 8 again by the scale.
            const _: () = assert!(TLB_ENTRIES == 1 << 13);
            self.asm.store(gs(off::spill(0)), RDX);
            self.asm.rorx(RDX, R11, 12);
            self.asm.lea32(RDX, Mem { gs: false, base: None, index: Some((RDX, 3)), disp: 0 });
            self.asm.movzx16(RDX, RDX);
            self.asm.load(RCX, gs_index(RDX, 3, tag));
            self.asm.load(RDX, gs_index(RDX, 3, page));
            self.asm.lea(RCX, Mem { gs: false, base: Some(RCX), index: Some((R11, 0)), disp: 0 });
            self.asm.lea(R11, Mem { gs: false, base: Some(RCX), index: Some((RDX, 0)), disp: 0 });
            // Zero if and only if the last byte is in the page.
            self.asm.lea(RCX, at(RCX, size as i32 - 1));
            self.asm.mov_imm32(RDX, 12);
            self.asm.shrx(RCX, RCX, RDX);
            self.asm.load(RDX, gs(off::spill(0)));
            self.asm.unless_rcx_zero(|asm| asm.jmp(enter));
        } else {
            self.probe_page(size, write, enter);
        }
        self.asm.bind(back);
        let saved = self.flags_saved;
        self.cold.push(Cold::Memory { enter, back, ea: *ea, argument, guest: self.guest, saved, remat: self.let_go });
    }

    /// From the linear address in R11 to the host address, where `size` bytes in one page are known; else to `enter`.
    /// Writes RCX and flags.
    pub(super) fn probe_page(&mut self, size: u32, write: bool, enter: Label) {
        let tag = TLB_OFFSET as i32 + tag_offset(self.mode.tlb_context(), write);
        self.asm.rorx(RCX, R11, 6);
        self.asm.and32_imm(RCX, ((TLB_ENTRIES - 1) << 6) as i32);
        self.asm.add_mem(R11, gs_at(RCX, tag));
        self.asm.cmp_imm(R11, 4096 - size as i32);
        self.asm.jcc(cond::A, enter);
        self.asm.add_mem(R11, gs_at(RCX, TLB_OFFSET as i32 + HOST_OFFSET));
    }

    /// Ends a write that [`Emitter::probe`] began. No flags.
    pub(super) fn commit(&mut self) {
        if self.mode.has(Mode::BOUNCE) {
            self.asm.call_to(self.stubs.bounce_end);
        }
    }
}
