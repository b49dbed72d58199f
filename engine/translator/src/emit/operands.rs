//! Ordinary instructions, emitted again with their registers renamed and their memory operand made a host address.

use iced_x86::{EncodingKind, Instruction, MemorySize, Mnemonic, OpAccess, OpKind, Register};

use super::Emitter;
use super::classify::is_shift;
use super::cold::Cold;
use super::mirrored::{general_form, put};
use super::probe::Ea;
use super::reach::Place;
use super::registers::{GprOperand, host};
use crate::asm::{Mem, R9, R10, R11, RBP, RBX, RCX, RDI, RDX, RSI, Reg, Size, at, gs};
use crate::cpu::off;
use crate::features::{Needs, needs};

/// Host registers that may be borrowed for one instruction, those without REX first.
const LENDERS: [Reg; 8] = [RDX, RBX, RSI, RDI, RBP, Reg(8), Reg(12), Reg(13)];

/// Where an instruction's guest registers are for its own duration.
#[derive(Default)]
struct Plan {
    /// Guest register -> host register, for those that are not at home.
    moved: Vec<(u8, Reg)>,
    /// Host registers borrowed, with the spill slot that keeps their content.
    borrowed: Vec<(Reg, u8)>,
    /// Guest RCX is in host RCX.
    counter: bool,
}

impl Plan {
    fn host(&self, number: u8) -> Option<Reg> {
        self.moved.iter().find(|(n, _)| *n == number).map(|(_, reg)| *reg).or_else(|| host(number))
    }
}

/// Parked registers of which a copy is in a scratch register, from one instruction to the next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copies {
    in_rcx: Option<u8>,
    in_r11: Option<u8>,
}

impl Copies {
    fn place(self, number: u8) -> Option<Reg> {
        match () {
            () if self.in_r11 == Some(number) => Some(R11),
            () if self.in_rcx == Some(number) => Some(RCX),
            () => None,
        }
    }

    fn content(self, reg: Reg) -> Option<u8> {
        if reg == R11 { self.in_r11 } else { self.in_rcx }
    }

    /// What is left of them beside what an instruction needs.
    fn left(self, needs: &Scratch) -> Self {
        let &Scratch { counter, high, rcx_lost, r11_lost, .. } = needs;
        Self {
            in_rcx: self.in_rcx.filter(|_| !counter && !rcx_lost && !high),
            in_r11: self.in_r11.filter(|_| !r11_lost && !high),
        }
    }

    /// What is left behind an instruction that changes nothing but one register, and no scratch.
    fn but(self, number: u8) -> Self {
        let kept = |other: &u8| *other != number;
        Self { in_rcx: self.in_rcx.filter(kept), in_r11: self.in_r11.filter(kept) }
    }

    /// What is left of them behind an instruction: not where it has put others, and none of what it may have changed.
    fn without(self, plan: &Plan) -> Self {
        let kept = |reg: Reg, number: &u8| plan.moved.iter().all(|(other, place)| *place != reg && other != number);
        Self {
            in_rcx: self.in_rcx.filter(|number| kept(RCX, number)),
            in_r11: self.in_r11.filter(|number| kept(R11, number)),
        }
    }

    fn note(&mut self, reg: Reg, number: u8) {
        match reg {
            R11 => self.in_r11 = Some(number),
            RCX => self.in_rcx = Some(number),
            _ => {}
        }
    }
}

/// What an instruction needs of the scratch registers.
struct Scratch {
    /// RCX is to be the guest's.
    counter: bool,
    /// It names a high byte.
    high: bool,
    /// It has an operand in memory.
    memory: bool,
    /// RCX is in use for that, and R11.
    rcx: bool,
    r11: bool,
    /// What they held before is no longer there.
    rcx_lost: bool,
    r11_lost: bool,
}

fn takes(place: Place, reg: Reg) -> bool {
    match place {
        Place::Own(mem) => mem.base == Some(reg) || mem.index.is_some_and(|(index, _)| index == reg),
        _ => reg == R11,
    }
}

/// What computing the address of a memory operand may use of [`Copies`], and what it has done to them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AddressUse {
    /// The copies that may be where the address is computed from.
    may: Copies,
    /// It has not written RCX, as it may otherwise do.
    pub(super) calm: bool,
    /// A parked register that is the base, and where it is.
    pub(super) base: Option<(Reg, u8)>,
}

impl AddressUse {
    /// Where a parked base register is already.
    pub(super) fn place(&self, number: u8) -> Option<Reg> {
        self.may.place(number)
    }
}

/// Whether an instruction gives a register a value, all of it, that does not depend on what was there.
fn is_made(ins: &Instruction, accesses: &[OpAccess], number: u8) -> bool {
    // These may leave it alone.
    if matches!(ins.mnemonic(), Mnemonic::Bsf | Mnemonic::Bsr | Mnemonic::Lar | Mnemonic::Lsl) {
        return false;
    }
    let mut made = false;
    for (n, access) in (0..ins.op_count()).zip(accesses) {
        if ins.op_kind(n) == OpKind::Register
            && let Some(gpr) = GprOperand::of(ins.op_register(n))
            && gpr.number == number
        {
            if *access != OpAccess::Write || gpr.bytes < 4 {
                return false;
            }
            made = true;
        }
    }
    made
}

impl Emitter<'_> {
    /// Emits an ordinary instruction.
    pub(super) fn plain(&mut self, ins: &Instruction) {
        let operands = 0..ins.op_count();
        let memory = operands.clone().find(|&n| ins.op_kind(n) == OpKind::Memory);
        let gprs: Vec<GprOperand> = operands
            .clone()
            .filter(|&n| ins.op_kind(n) == OpKind::Register)
            .filter_map(|n| GprOperand::of(ins.op_register(n)))
            .collect();
        let implicit_counter = uses_counter(ins);
        let simple = memory.is_none()
            && !implicit_counter
            && gprs.iter().all(|g| host(g.number).is_some() && !g.high && g.number != 1);
        if simple {
            let mut out = *ins;
            self.rename(ins, &mut out, &Plan::default());
            self.encode(&out);
            self.held = self.was_held;
            self.copies = self.old_copies;
            return;
        }
        if self.moved(ins) {
            return;
        }

        let info = self.info.info(ins);
        let accesses: Vec<OpAccess> = operands.clone().map(|n| info.op_access(n)).collect();
        let mut used = 0u32;
        for register in info.used_registers() {
            if let Some(gpr) = GprOperand::of(register.register()) {
                used |= 1 << gpr.number;
            }
        }
        let high = gprs.iter().any(|g| g.high);
        let names_counter = gprs.iter().any(|g| g.number == 1);
        let counter = implicit_counter
            || gprs.iter().any(|g| g.number == 1 && (g.high || high))
            || (names_counter && is_shift(ins));

        let (size, writes, reads) = match memory {
            Some(n) => {
                let access = accesses[n as usize];
                (access_size(ins), is_write(access), is_read(access) || may_not_store(ins))
            }
            None => (0, false, false),
        };
        self.probes = memory.is_some() && !self.names_few(ins, counter);
        let may = if high || counter { Copies::default() } else { self.old_copies };
        self.address = AddressUse { may, calm: memory.is_none(), base: None };
        let place = memory.map(|_| self.operand_place(&Ea::of(ins), size, writes, reads));
        let AddressUse { calm, base, .. } = std::mem::take(&mut self.address);
        let made = |number: u8| is_made(ins, &accesses, number);
        let taken = |reg: Reg| place.is_some_and(|place| takes(place, reg));
        let was_there = |reg: Reg| base.is_some_and(|(place, number)| place == reg && may.place(number) == Some(reg));
        let needs = Scratch {
            counter,
            high,
            memory: memory.is_some(),
            rcx: taken(RCX),
            r11: taken(R11),
            rcx_lost: !calm,
            r11_lost: taken(R11) && !was_there(R11),
        };
        let mut copies = self.old_copies.left(&needs);
        if let Some((reg, number)) = base.filter(|_| !high && !counter) {
            copies.note(reg, number);
        }
        let plan = self.plan(&gprs, used, &needs, copies, made);
        let mut out = *ins;
        if let Some(place) = place {
            place_memory(ins, &mut out, place, &plan, high);
        }
        self.rename(ins, &mut out, &plan);
        self.encode(&out);
        self.restore(&gprs, ins, &accesses, &plan, copies);
        if writes {
            self.commit();
        }
        self.probes = false;
    }

    /// Decides where parked registers go, and brings them there unless they are `made` by the instruction from nothing.
    fn plan(
        &mut self,
        gprs: &[GprOperand],
        used: u32,
        needs: &Scratch,
        copies: Copies,
        made: impl Fn(u8) -> bool,
    ) -> Plan {
        let &Scratch { counter, high, memory, rcx, r11, .. } = needs;
        let mut plan = Plan { counter, ..Plan::default() };
        let mut free = Vec::new();
        let base_in_rcx = high && memory && !counter;
        if !counter && !base_in_rcx && !rcx {
            free.push(RCX);
        }
        if !r11 && !high {
            free.push(R11);
        }
        if counter {
            plan.moved.push((1, RCX));
            self.asm.mov(RCX, R10);
        }
        let mut slot = 4;
        for gpr in gprs {
            // Beside a high byte there can be no REX prefix, which RSP's place needs.
            if plan.host(gpr.number).is_some_and(|reg| !high || reg.0 < 8) {
                continue;
            }
            let copy = copies.place(gpr.number).filter(|copy| free.contains(copy));
            let wanted = |number: u8| gprs.iter().any(|other| other.number == number);
            let spare = || {
                // Rather not where another register is that the instruction names, or that is soon read.
                let worth = |reg: &Reg| match copies.content(*reg) {
                    Some(number) if number != gpr.number && wanted(number) => 0,
                    Some(number) => self.next_read(number),
                    None => usize::MAX,
                };
                (0..free.len()).max_by_key(|&n| worth(&free[n]))
            };
            let place = copy.and_then(|copy| free.iter().position(|reg| *reg == copy)).or_else(spare);
            let reg = place.map(|place| free.remove(place)).unwrap_or_else(|| {
                let taken = |reg: Reg| plan.borrowed.iter().any(|(r, _)| *r == reg);
                let lender = LENDERS.into_iter().find(|&reg| used & 1 << reg.0 == 0 && !taken(reg));
                let reg = lender.unwrap_or(RDX);
                self.asm.store(gs(off::spill(slot)), reg);
                plan.borrowed.push((reg, slot));
                slot += 1;
                reg
            });
            match host(gpr.number) {
                Some(home) => self.asm.mov(reg, home),
                None if copy == Some(reg) || made(gpr.number) => {}
                None => self.asm.load(reg, gs(off::gpr(gpr.number))),
            }
            plan.moved.push((gpr.number, reg));
        }
        if base_in_rcx {
            self.asm.mov(RCX, R11);
        } else if high && memory {
            // A high byte allows no REX prefix, RCX is taken, so the address needs one of the low registers.
            self.asm.store(gs(off::spill(slot)), RDX);
            self.asm.mov(RDX, R11);
            plan.borrowed.push((RDX, slot));
        }
        plan
    }

    /// How many instructions from here a register is read, as it is after the current one; many if it is not.
    fn next_read(&self, number: u8) -> usize {
        const FAR: usize = 1000;
        let bit = 1 << number;
        let rest = self.number + 1..self.plan.read.len();
        let next = rest.clone().find(|&n| (self.plan.read[n] | self.plan.written[n]) & bit != 0);
        next.filter(|&n| self.plan.read[n] & bit != 0).map_or(FAR, |n| n - self.number)
    }

    /// Emits a move between whole registers of which one is parked, if that takes no scratch register; whether it did.
    fn moved(&mut self, ins: &Instruction) -> bool {
        /// A copy is worth an instruction if it is used so soon.
        const SOON: usize = 6;
        if !matches!(ins.code(), iced_x86::Code::Mov_r64_rm64 | iced_x86::Code::Mov_rm64_r64)
            || ins.op1_kind() != OpKind::Register
            || ins.op0_kind() != OpKind::Register
        {
            return false;
        }
        let (Some(to), Some(from)) = (GprOperand::of(ins.op0_register()), GprOperand::of(ins.op1_register())) else {
            return false;
        };
        let copies = self.old_copies;
        let there = host(from.number).or_else(|| copies.place(from.number));
        match (host(to.number), there) {
            (Some(home), Some(reg)) => self.asm.mov(home, reg),
            (Some(home), None) => self.asm.load(home, gs(off::gpr(from.number))),
            (None, Some(reg)) if self.next_read(to.number) > SOON => self.asm.store(gs(off::gpr(to.number)), reg),
            _ => return false,
        }
        self.held = self.was_held;
        self.copies = copies.but(to.number);
        true
    }

    fn rename(&self, ins: &Instruction, out: &mut Instruction, plan: &Plan) {
        for n in 0..ins.op_count() {
            if ins.op_kind(n) == OpKind::Register
                && let Some(gpr) = GprOperand::of(ins.op_register(n))
                && let Some(reg) = plan.host(gpr.number)
            {
                out.set_op_register(n, gpr.on(reg));
            }
        }
    }

    /// Brings registers that were moved for the instruction back home. No flags.
    fn restore(&mut self, gprs: &[GprOperand], ins: &Instruction, accesses: &[OpAccess], plan: &Plan, copies: Copies) {
        let written = |number: u8| {
            (0..ins.op_count()).any(|n| {
                ins.op_kind(n) == OpKind::Register
                    && is_write(accesses[n as usize])
                    && GprOperand::of(ins.op_register(n)).is_some_and(|g| g.number == number)
            })
        };
        for &(number, reg) in &plan.moved {
            match host(number) {
                Some(home) if written(number) || writes_counter(ins) => self.asm.mov(home, reg),
                None if written(number) => self.asm.store(gs(off::gpr(number)), reg),
                _ => {}
            }
        }
        debug_assert!(plan.moved.len() <= gprs.len() + 1);
        self.copies = copies.without(plan);
        for &(number, reg) in plan.moved.iter().filter(|(number, _)| host(*number).is_none()) {
            self.copies.note(reg, number);
        }
        for &(reg, slot) in &plan.borrowed {
            self.asm.load(reg, gs(off::spill(slot)));
        }
    }

    /// Encodes an instruction whose operands are all the host's.
    pub(super) fn encode(&mut self, out: &Instruction) {
        match self.encoder.encode(out, self.asm.here()) {
            Ok(_) => {
                let code = self.encoder.take_buffer();
                self.asm.bytes(&code);
                let mut code = code;
                code.clear();
                self.encoder.set_buffer(code);
            }
            Err(error) => {
                // What was decoded can be encoded; a gap would be a fault of the renaming.
                tracing::error!(%error, code = ?out.code(), "instruction cannot be emitted; it will raise #UD");
                let partial = self.encoder.take_buffer();
                drop(partial);
                self.raise(lodge_x86::exception::vector::INVALID_OPCODE);
            }
        }
    }

    /// LEA computes without touching memory.
    pub(super) fn lea(&mut self, ins: &Instruction) {
        let ea = Ea::of(ins);
        let Some(to) = GprOperand::of(ins.op0_register()) else { return };
        if ins.op1_kind() != OpKind::Memory {
            return self.raise(lodge_x86::exception::vector::INVALID_OPCODE);
        }
        // The common case needs no detour.
        let copies = self.old_copies;
        let there = |n: u8| host(n).or_else(|| copies.place(n));
        let simple = to.bytes == 8 && ea.bits == 64 && !ea.relative && i32::try_from(ea.displacement).is_ok();
        if simple
            && let Some(reg) = host(to.number)
            && ea.base.is_none_or(|n| there(n).is_some())
            && ea.index.is_none_or(|(n, _)| there(n).is_some())
        {
            let base = ea.base.and_then(there);
            let index = ea.index.and_then(|(n, scale)| there(n).map(|r| (r, scale)));
            self.copies = copies;
            self.held = self.was_held;
            return self.asm.lea(reg, Mem { gs: false, base, index, disp: ea.displacement as i32 });
        }
        self.effective(&ea);
        if host(to.number).is_none() && to.bytes >= 4 {
            self.copies.note(R11, to.number);
        }
        match (host(to.number), to.bytes) {
            (Some(reg), 8) => self.asm.mov(reg, R11),
            (Some(reg), 4) => self.asm.mov32(reg, R11),
            (Some(reg), _) => self.asm.mov16(reg, R11),
            (None, 8) => self.asm.store(gs(off::gpr(to.number)), R11),
            (None, 4) => {
                self.asm.mov32(R11, R11);
                self.asm.store(gs(off::gpr(to.number)), R11);
            }
            (None, _) => self.asm.store_sized(Size::B2, gs(off::gpr(to.number)), R11),
        }
    }

    /// Brings a guest register of some width into a scratch register, sign-extended. No flags.
    fn read_signed(&mut self, gpr: GprOperand, to: Reg) {
        let from = match host(gpr.number) {
            Some(reg) => reg,
            None => {
                self.asm.load(to, gs(off::gpr(gpr.number)));
                to
            }
        };
        self.asm.movsx(Size::of(gpr.bytes.into()), to, from);
    }

    /// BT and its kin on a bit string in memory: the register selects a bit anywhere around the operand
    /// (SDM 2 chapter 3, BT).
    pub(super) fn bit_string(&mut self, ins: &Instruction) {
        let Some(gpr) = GprOperand::of(ins.op1_register()) else { return };
        let ea = Ea::of(ins);
        let bits = gpr.bytes.trailing_zeros() as u8 + 3;
        // Spill 1: the distance in bytes of the operand that holds the bit, a multiple of its size.
        self.read_signed(gpr, RCX);
        if self.keep_flags {
            self.asm.pushfq();
        }
        self.asm.sar_imm(RCX, bits);
        self.asm.shl_imm(RCX, bits - 3);
        if self.keep_flags {
            self.asm.popfq();
        }
        self.asm.store(gs(off::spill(1)), RCX);
        // The address of that operand goes through a register that no guest register can be: a parked slot of ours.
        self.effective(&ea);
        self.asm.load(RCX, gs(off::spill(1)));
        let sum = Mem { gs: false, base: Some(R11), index: Some((RCX, 0)), disp: 0 };
        match ea.bits {
            64 => self.asm.lea(R11, sum),
            32 => self.asm.lea32(R11, sum),
            _ => {
                self.asm.lea32(R11, sum);
                self.asm.movzx16(R11, R11);
            }
        }
        self.asm.store(gs(off::gpr(EXTRA)), R11);
        let moved = Ea { base: Some(EXTRA), index: None, displacement: 0, relative: false, ..ea };
        let write = ins.mnemonic() != Mnemonic::Bt;
        self.probe(&moved, gpr.bytes.into(), write);
        // The instruction adds the distance itself; take it off again.
        self.asm.load(RCX, gs(off::spill(1)));
        self.asm.not(RCX);
        self.asm.lea(R11, Mem { gs: false, base: Some(R11), index: Some((RCX, 0)), disp: 1 });
        let mut out = *ins;
        out.set_memory_base(Register::R11);
        out.set_memory_index(Register::None);
        out.set_memory_index_scale(1);
        out.set_memory_displacement64(0);
        out.set_memory_displ_size(0);
        out.set_segment_prefix(Register::None);
        let reg = host(gpr.number).unwrap_or(RCX);
        if reg == RCX {
            self.asm.load(RCX, gs(off::gpr(gpr.number)));
        }
        // In 64-bit form always: a 16-bit guest's register may hold more above its width.
        out.set_op_register(1, gpr.on(reg));
        self.encode(&out);
        if write {
            self.commit();
        }
    }

    /// LDMXCSR: bits that the guest's MXCSR_MASK does not have raise #GP(0), whatever the host's has (SDM 1 11.6.6).
    pub(super) fn load_mxcsr(&mut self, ins: &Instruction) {
        const _: () = assert!(crate::fpu::MXCSR_MASK == 0xffff);
        self.probe(&Ea::of(ins), 4, false);
        // What was looked at is loaded, not memory once more: another processor may write it in between.
        self.fetch(4, RCX);
        self.asm.store(gs(off::spill(1)), RCX);
        self.asm.rorx(RCX, RCX, 16);
        self.asm.movzx16(RCX, RCX);
        let enter = self.asm.label();
        self.asm.unless_rcx_zero(|asm| asm.jmp(enter));
        let (vector, remat) = (lodge_x86::exception::vector::GENERAL_PROTECTION, self.let_go);
        self.cold.push(Cold::Raise { enter, vector, place: self.place_and_length(), guest: self.guest, remat });
        self.asm.ldmxcsr(gs(off::spill(1)));
    }

    /// Loads guest register `number` whole into `to`. No flags.
    pub(super) fn read_gpr(&mut self, number: u8, to: Reg) {
        match host(number) {
            Some(reg) => self.asm.mov(to, reg),
            None => self.asm.load(to, gs(off::gpr(number))),
        }
    }

    /// Writes the low `bytes` of `from` to guest register `number` as an instruction of that width would. No flags.
    pub(super) fn write_gpr(&mut self, number: u8, bytes: usize, from: Reg) {
        match (host(number), bytes) {
            (Some(reg), 8) => self.asm.mov(reg, from),
            (Some(reg), 4) => self.asm.mov32(reg, from),
            (Some(reg), _) => self.asm.mov16(reg, from),
            (None, 8) => self.asm.store(gs(off::gpr(number)), from),
            (None, 4) => {
                self.asm.mov32(from, from);
                self.asm.store(gs(off::gpr(number)), from);
            }
            (None, _) => self.asm.store_sized(Size::B2, gs(off::gpr(number)), from),
        }
    }

    /// Loads `size` bytes at the host address in R11 into `to`, zero-extended.
    pub(super) fn fetch(&mut self, size: usize, to: Reg) {
        self.asm.load_sized(Size::of(size), to, at(R11, 0));
    }
}

/// Makes the memory operand a host address.
fn place_memory(ins: &Instruction, out: &mut Instruction, place: Place, plan: &Plan, high: bool) {
    out.set_code(general_form(ins.code()));
    let base = match (high, plan.counter) {
        (false, _) => R11,
        (true, false) => RCX,
        (true, true) => RDX,
    };
    match place {
        Place::Host(offset) => put(out, at(base, offset)),
        Place::Window(displacement) => {
            put(out, at(R9, displacement));
            out.set_segment_prefix(Register::FS);
        }
        Place::Own(mem) => put(out, mem),
    }
}

/// A slot behind the guest's registers, for addresses that are computed in two steps.
pub const EXTRA: u8 = 16;

/// Bytes that the instruction's memory operand spans.
pub(super) fn access_size(ins: &Instruction) -> u32 {
    match ins.memory_size() {
        MemorySize::FpuEnv14 => 14,
        MemorySize::FpuEnv28 => 28,
        MemorySize::FpuState94 => 94,
        MemorySize::FpuState108 => 108,
        size => (size.size() as u32).max(1),
    }
}

/// Whether a memory operand that is not aligned raises #GP (SDM 2A 2.4, types 1 and 2; SDM 1 10.4.1.1).
pub(super) fn must_be_aligned(ins: &Instruction) -> bool {
    use Mnemonic as M;
    match ins.mnemonic() {
        M::Cmpxchg16b
        | M::Vmovaps
        | M::Vmovapd
        | M::Vmovdqa
        | M::Vmovntps
        | M::Vmovntpd
        | M::Vmovntdq
        | M::Vmovntdqa => true,
        M::Movups
        | M::Movupd
        | M::Movdqu
        | M::Lddqu
        | M::Pcmpestri
        | M::Pcmpestrm
        | M::Pcmpistri
        | M::Pcmpistrm
        | M::Pcmpestri64
        | M::Pcmpestrm64 => false,
        // Processors differ: AMD's check no alignment here.
        M::Sha1msg1 | M::Sha1msg2 | M::Sha1nexte | M::Sha1rnds4 | M::Sha256msg1 | M::Sha256msg2 | M::Sha256rnds2 => {
            false
        }
        _ => ins.code().encoding() == EncodingKind::Legacy && ins.memory_size().size() == 16,
    }
}

/// Whether the instruction may leave the operand that it writes as it was: an x87 store does on an exception that is
/// not masked, which the next x87 instruction reports.
pub(super) fn may_not_store(ins: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(ins.mnemonic(), M::Fst | M::Fstp | M::Fist | M::Fistp | M::Fisttp | M::Fbstp)
}

/// Whether the instruction raises #MF for an x87 exception that is pending, before it looks at its operand.
pub(super) fn reports_x87_errors(ins: &Instruction) -> bool {
    use Mnemonic as M;
    // Some that SSE brought have MMX registers too.
    let mmx = ins.op0_register().is_mm() || ins.op1_register().is_mm();
    (mmx || needs(ins) == Needs::X87) && !matches!(ins.mnemonic(), M::Fnstcw | M::Fnstsw)
}

/// Whether the instruction reaches only those elements of its operand that a mask selects, so that the operand as a
/// whole may lie where nothing is.
pub(super) fn is_masked(ins: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(ins.mnemonic(), M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq)
}

pub(super) fn is_write(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

pub(super) fn is_read(access: OpAccess) -> bool {
    matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// Whether the instruction uses RCX without naming it.
fn uses_counter(ins: &Instruction) -> bool {
    matches!(ins.mnemonic(), Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b) || writes_counter(ins)
}

/// Whether the instruction writes RCX without naming it.
fn writes_counter(ins: &Instruction) -> bool {
    matches!(
        ins.mnemonic(),
        Mnemonic::Pcmpestri
            | Mnemonic::Pcmpistri
            | Mnemonic::Vpcmpestri
            | Mnemonic::Vpcmpistri
            | Mnemonic::Pcmpestri64
            | Mnemonic::Vpcmpestri64
    )
}
