//! From decoded guest instructions to host code.
//!
//! [`Emitter`] walks a block's instructions once. Ordinary ones are emitted again almost as they stand
//! ([`operands`]): registers renamed ([`registers`]), the memory operand replaced by a host address that an inline TLB
//! probe found ([`probe`]). Control flow ([`control`]), the stack ([`stack`]) and single string instructions
//! ([`string`]) are written by hand; system instructions become a call into [`crate::system`].
//!
//! ```text
//! hot section    poll entry:   is something pending? -> cold   (in a block that loops to itself)
//!                entry:        5-byte NOP, 8-aligned     (becomes a jump when the block dies or is replaced)
//!                              instruction ...           each recorded in the map: host offset -> guest offset
//!                              exits                     rel32 in one aligned 8-byte cell each, first to a cold stub
//! cold section   far entry:    is the address in R11 where lodge's own memory is? -> cold   (in mirrored code)
//!                indirect:     the page, from the address in R11
//!                parked entry: flags that were put aside come back, if they are live
//!                poll entry:   the poll, in all other blocks; then to the entry
//!                              TLB misses, chain stubs, the poll's exit
//!                dead end:     asks for the block at the same address
//!                              records of exits, the map
//! ```
//!
//! A block goes on behind a conditional branch, to where an unconditional one, a call, a return or the page ends it.
//!
//! Flags that are live only because the block does not overwrite them are let go at the first probe, if they can be
//! made again ([`remat`]); else they are *parked*: put aside in memory, to be brought back by the next block if it wants
//! them, which few do.
//!
//! Which accesses share a probe is planned first ([`plan`], [`reach`]). Records and rarely run code are in [`record`] and
//! [`cold`].
//!
//! **Flags.** A probe by comparison costs least but writes flags. Where the guest's flags are live before an
//! instruction, a longer form without flags is used. Flags that the program provably overwrites before reading them
//! are unspecified in the frame of a fault that happens in between.

pub mod classify;
pub mod cold;
pub mod control;
pub mod mirrored;
pub mod operands;
pub mod plan;
pub mod probe;
pub mod reach;
pub mod record;
pub mod registers;
pub mod remat;
pub mod stack;
pub mod state;
pub mod string;
pub mod system;

use iced_x86::{Encoder, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind};

use crate::asm::{Asm, Label, R11, RCX, Section, cond, gs};
use crate::cpu::{Cpu, off};
use crate::features::{self, Obstacle};
use crate::mode::Mode;
use crate::stubs::Stubs;
use crate::translate::ModeStubs;
use classify::{
    ARITHMETIC, changes_translation, flags_pass, is_string, is_system, liveness, lockable, loops_to, other_form,
};
use cold::Cold;
use lodge_x86::exception::vector;
use plan::Plan;
use probe::Ea;
use record::{Exit, Header, MapEntry};
use remat::Remat;

/// Instructions that emitted code points at.
pub type Pointed = Vec<Box<Instruction>>;

/// Emits one block.
pub struct Emitter<'a> {
    asm: &'a mut Asm,
    encoder: &'a mut Encoder,
    info: &'a mut InstructionInfoFactory,
    stubs: &'a Stubs,
    mode: Mode,
    /// The code that finds the block for an address in R11.
    indirect: u64,
    /// The same where the stack of frames is of no use any more.
    underflow: u64,
    /// Moves the stack window ([`crate::stubs::Stubs::emit_window`]).
    window: u64,
    /// What sets the mode's jump-cache slots apart.
    salt: u32,
    /// The stubs of the mode that STAC or CLAC leads to.
    other: Option<ModeStubs>,
    /// Bytes of the page that the block lies in: 4 KiB, or 2 MiB for large ones.
    page: i64,
    start: u64,
    exits: Vec<Exit>,
    map: Vec<MapEntry>,
    cold_map: Vec<MapEntry>,
    cold: Vec<Cold>,
    system: Pointed,
    plan: Plan,
    /// Checks that have been emitted.
    checked: usize,
    /// The instruction's number.
    number: usize,
    /// The group whose address is in R11.
    held: Option<u8>,
    /// The same, before the instruction.
    was_held: Option<u8>,
    /// What scratch registers hold, and held before the instruction.
    copies: operands::Copies,
    old_copies: operands::Copies,
    /// While an ordinary instruction's address is computed.
    address: operands::AddressUse,
    /// The instruction's offset in the block, and in the page.
    guest: u16,
    offset: u64,
    next: u64,
    /// Flags are live before the instruction: probes must not write them.
    keep_flags: bool,
    /// Nothing from the instruction to the end of the block reads or writes flags: they can be put aside for good.
    may_park: bool,
    /// They have been.
    parked: bool,
    /// How they can be made again instead.
    remat: Option<Remat>,
    /// They have been let go, to be made again.
    let_go: Option<Remat>,
    /// The instruction from which on they are.
    let_go_from: Option<u16>,
    /// They have been put aside and are yet to be brought back.
    flags_saved: bool,
    /// The stack pointer has just been written, and may lie in the arena.
    stack_moved: bool,
    /// What is known of registers, where memory is mirrored.
    outside: mirrored::Outside,
    /// The instruction probes even so.
    probes: bool,
    /// The instruction's memory operand must be aligned.
    aligned: bool,
    /// The instruction reaches only parts of its memory operand.
    masked: bool,
    /// The operand that is being probed is only read, by this instruction alone.
    once: bool,
    /// The access is the first of a run that may go on to the end of the page.
    run: bool,
    /// The instruction reports x87 exceptions that are pending.
    waits: bool,
}

/// What a block is emitted with.
pub struct Tools<'a> {
    pub asm: &'a mut Asm,
    pub encoder: &'a mut Encoder,
    pub info: &'a mut InstructionInfoFactory,
    pub stubs: &'a Stubs,
    /// Stubs of the mode that STAC or CLAC leads to, where the block has one.
    pub other: Option<ModeStubs>,
    /// The block is entered by branches from elsewhere: its outer entries are hot.
    pub afar: bool,
}

impl<'a> Emitter<'a> {
    /// Emits `instructions`, decoded with their offset in the page as address, into the assembler. The cold code begins
    /// with the block's [`Header`].
    pub fn block(tools: Tools<'a>, mode: Mode, own: ModeStubs, instructions: &[Instruction]) -> Pointed {
        let start = instructions.first().map_or(0, Instruction::ip);
        let single = mode.has(Mode::HOW);
        let afar = tools.afar && !single;
        let mut emitter = Emitter {
            indirect: if control::asks(mode) { tools.stubs.leave_lookup } else { own.indirect },
            underflow: own.underflow,
            salt: own.salt,
            window: own.window,
            other: tools.other,
            asm: tools.asm,
            encoder: tools.encoder,
            info: tools.info,
            stubs: tools.stubs,
            mode,
            page: if mode.has(Mode::LARGE) { 2 << 20 } else { 4096 },
            start,
            exits: Vec::new(),
            map: Vec::new(),
            cold_map: Vec::new(),
            cold: Vec::new(),
            system: Vec::new(),
            plan: Plan::default(),
            checked: 0,
            number: 0,
            held: None,
            was_held: None,
            copies: operands::Copies::default(),
            old_copies: operands::Copies::default(),
            address: operands::AddressUse::default(),
            guest: 0,
            offset: start,
            next: start,
            keep_flags: true,
            may_park: false,
            parked: false,
            remat: None,
            let_go: None,
            let_go_from: None,
            flags_saved: false,
            stack_moved: false,
            outside: mirrored::Outside::default(),
            probes: false,
            aligned: false,
            masked: false,
            once: false,
            run: false,
            waits: false,
        };
        let live = liveness(instructions);
        let live_in = live.first().copied().unwrap_or(ARITHMETIC) != 0;
        // A block that loops to itself polls where it begins; others are mostly entered by no loop.
        let loops = !single && instructions.iter().any(|ins| loops_to(ins, start));
        let mut header = Header { poll_is_hot: loops || afar, outer_is_hot: afar, ..Header::default() };
        if afar {
            emitter.outer_entries(&mut header, live_in);
            emitter.asm.align(8, 0);
        }
        let hot_poll = emitter.asm.here();
        if header.poll_is_hot {
            header.poll = emitter.asm.offset() as u16;
            emitter.poll(live_in);
        }
        // A cell of its own for each entry: when the block dies its poll, which may write flags, must not be run.
        emitter.asm.align(8, 0);
        let entry_address = emitter.asm.here();
        header.entry = emitter.asm.offset() as u16;
        emitter.asm.bytes(&[0x0f, 0x1f, 0x44, 0x00, 0x00]);
        let mut open = true;
        let passes = flags_pass(instructions);
        let free: Vec<bool> = live.iter().zip(&passes).map(|(&live, &passes)| live == 0 || passes).collect();
        emitter.plan = Plan::of(mode, instructions, &free, emitter.info);
        emitter.remat = Remat::of(instructions, &passes, &emitter.plan.written);
        for (n, instruction) in instructions.iter().enumerate() {
            emitter.number = n;
            emitter.begin(instruction, live[n] != 0, passes[n] && !single);
            open = emitter.instruction(instruction);
            emitter.learn(instruction);
            if !open {
                break;
            }
        }
        if open {
            let next = emitter.next;
            emitter.keep_flags = emitter.let_go.is_none();
            emitter.check_stack(next);
            emitter.exit_direct(next as i64, false);
        }
        emitter.asm.switch(Section::Cold);
        emitter.asm.bytes(&[0; Header::SIZE]);
        if !afar {
            emitter.outer_entries(&mut header, live_in);
            if loops {
                emitter.asm.jmp_to(hot_poll);
            } else {
                emitter.asm.align(8, 0);
                header.poll = emitter.asm.offset() as u16;
                if !single {
                    emitter.poll(live_in);
                }
                emitter.asm.jmp_to(entry_address);
            }
        }
        let records = emitter.cold_code();
        header.dead_end = emitter.asm.offset() as u16;
        emitter.linear(start as i64);
        // Not `emitter.indirect`, which STAC may have changed.
        emitter.asm.jmp_to(if single { emitter.stubs.leave_lookup } else { own.indirect });
        if let Some(from) = emitter.let_go_from {
            (header.remake, header.remake_from) = (emitter.asm.offset() as u16, from);
            emitter.make_flags(emitter.remat);
            emitter.asm.jmp_to(emitter.stubs.leave_poll);
        }
        emitter.finish(header, records);
        emitter.system
    }

    /// Emits what is kept of the block: the records of its exits, the map, and the header.
    fn finish(&mut self, mut header: Header, records: Vec<Label>) {
        for (exit, label) in self.exits.iter().zip(records) {
            self.asm.bind(label);
            exit.emit(self.asm);
        }
        // STAC and CLAC lead to blocks of another mode.
        header.exits = if self.other.is_none() { self.exits.len() as u16 } else { 0 };
        header.map = self.asm.offset() as u16;
        header.map_entries = [self.map.len() as u16, self.cold_map.len() as u16];
        for entry in self.map.iter().chain(&self.cold_map) {
            self.asm.bytes(&entry.host.to_le_bytes());
            self.asm.bytes(&entry.guest.to_le_bytes());
        }
        self.asm.replace(0, &header.to_bytes());
    }

    /// The entries from elsewhere: with the address in R11, and with flags perhaps parked. The poll follows.
    fn outer_entries(&mut self, header: &mut Header, live_in: bool) {
        self.asm.align(8, 0);
        let far = self.asm.offset() as u16;
        self.check_place(live_in);
        self.asm.align(8, 0);
        let indirect = self.asm.offset() as u16;
        if self.start <= 128 {
            // The first instruction must be as long as the jump that it becomes.
            self.asm.bytes(&[0x0f, 0x1f, 0x44, 0x00, 0x00]);
        }
        self.asm.lea(RCX, crate::asm::at(R11, -(self.start as i32)));
        self.asm.store(gs(off::CODE_BASE), RCX);
        self.asm.align(8, 0);
        let parked = self.asm.offset() as u16;
        if !self.mode.has(Mode::MIRRORED) {
            self.unpark(live_in);
        }
        (header.indirect_entry, header.parked_entry) = (indirect, parked);
        header.far_distance = indirect - far;
    }

    fn begin(&mut self, instruction: &Instruction, keep_flags: bool, may_park: bool) {
        self.offset = instruction.ip();
        self.next = instruction.next_ip();
        self.guest = (self.offset - self.start) as u16;
        self.keep_flags = keep_flags && !self.parked && self.let_go.is_none();
        self.may_park = may_park;
        self.aligned = operands::must_be_aligned(instruction);
        self.masked = operands::is_masked(instruction);
        self.waits = operands::reports_x87_errors(instruction);
        self.map.push(MapEntry { host: self.asm.offset() as u16, guest: self.guest });
        self.was_held = self.held.take();
        self.old_copies = std::mem::take(&mut self.copies);
        self.check_stack(self.offset);
        let checked = self.checked;
        self.checks();
        if self.checked != checked {
            self.old_copies = operands::Copies::default();
        }
    }

    /// What a block does first where flags may be parked: brings them back if they are live, and says that they are
    /// not parked any more.
    fn unpark(&mut self, flags_live: bool) {
        use crate::asm::RAX;
        if !flags_live {
            return self.asm.store_imm32(gs(off::PARKED), 0);
        }
        self.asm.load32(RCX, gs(off::PARKED));
        self.asm.unless_rcx_zero(|asm| {
            asm.store(gs(off::spill(6)), RAX);
            asm.load(RAX, gs(off::PARKED_FLAGS));
            asm.restore_flags_from_rax();
            asm.load(RAX, gs(off::spill(6)));
            asm.store_imm32(gs(off::PARKED), 0);
        });
    }

    /// Lets probes from here on write flags that are live, but only behind the block. A mirrored program's flags are
    /// never parked: what its calls come back to does not look ([`control`]).
    fn release_flags(&mut self) {
        if self.remat.is_some() {
            self.let_go = self.remat;
            self.let_go_from = Some(self.guest);
            self.keep_flags = false;
        } else if !self.mode.has(Mode::MIRRORED) {
            self.park();
        }
    }

    /// Puts live flags aside until the next block: probes from here on may write them.
    fn park(&mut self) {
        use crate::asm::RAX;
        self.asm.store(gs(off::spill(6)), RAX);
        self.asm.save_flags_in_rax();
        self.asm.store(gs(off::PARKED_FLAGS), RAX);
        self.asm.load(RAX, gs(off::spill(6)));
        self.asm.store_imm32(gs(off::PARKED), 1);
        self.parked = true;
        self.keep_flags = false;
    }

    fn poll(&mut self, flags_live: bool) {
        let enter = self.asm.label();
        if flags_live {
            self.asm.load32(RCX, gs(off::PENDING));
            self.asm.unless_rcx_zero(|asm| asm.jmp(enter));
        } else {
            self.asm.cmp32_mem_imm8(gs(off::PENDING), 0);
            self.asm.jcc(cond::NE, enter);
        }
        self.cold.push(Cold::Poll { enter });
    }

    /// Emits one instruction; whether control goes on behind it.
    fn instruction(&mut self, ins: &Instruction) -> bool {
        if let Some(obstacle) = features::obstacle(ins, self.mode) {
            self.raise(match obstacle {
                Obstacle::InvalidOpcode => vector::INVALID_OPCODE,
                Obstacle::NotAvailable => vector::DEVICE_NOT_AVAILABLE,
            });
            return false;
        }
        if ins.has_lock_prefix() && !lockable(ins) {
            self.raise(vector::INVALID_OPCODE);
            return false;
        }
        match ins.mnemonic() {
            Mnemonic::Nop
            | Mnemonic::Reservednop
            | Mnemonic::Endbr32
            | Mnemonic::Endbr64
            | Mnemonic::Prefetchnta
            | Mnemonic::Prefetcht0
            | Mnemonic::Prefetcht1
            | Mnemonic::Prefetcht2
            | Mnemonic::Prefetchw
            | Mnemonic::Prefetch
            | Mnemonic::Cld
                if ins.mnemonic() != Mnemonic::Cld || !self.mode.has(Mode::DOWN) =>
            {
                true
            }
            Mnemonic::Lea => {
                self.lea(ins);
                true
            }
            Mnemonic::Push
            | Mnemonic::Pop
            | Mnemonic::Leave
            | Mnemonic::Pushf
            | Mnemonic::Pushfd
            | Mnemonic::Pushfq
            | Mnemonic::Pusha
            | Mnemonic::Pushad
            | Mnemonic::Popa
            | Mnemonic::Popad => self.stack(ins),
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
                if ins.op0_kind() == OpKind::Memory && ins.op1_kind() == OpKind::Register =>
            {
                self.bit_string(ins);
                true
            }
            Mnemonic::Cli if self.mode.has(Mode::IF_FREE) => {
                self.asm.store_imm32(gs(off::INTERRUPT_FLAG), 0);
                true
            }
            // The last of a block is the helper's: no poll may come before the next instruction has run.
            Mnemonic::Sti if self.mode.has(Mode::IF_FREE) && self.number + 1 < self.plan.reaches.len() => {
                self.sti(ins);
                true
            }
            Mnemonic::Rdtsc if !self.mode.has(Mode::TSC_CHECKED) => {
                self.rdtsc();
                true
            }
            Mnemonic::Inc | Mnemonic::Dec | Mnemonic::Movsxd => {
                self.plain(&other_form(ins));
                true
            }
            Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr => {
                self.load_mxcsr(ins);
                true
            }
            Mnemonic::Clflush | Mnemonic::Clflushopt => {
                let ea = Ea::of(ins);
                // Nothing is accessed that would find a fault.
                self.probes = true;
                self.probe(&ea, 1, false);
                self.probes = false;
                true
            }
            _ if is_system(ins) => self.system(ins),
            // Where the operand as a whole cannot be reached, element by element.
            _ if operands::is_masked(ins) && self.mode.has(Mode::BOUNCE) => self.system_instruction(ins),
            _ if is_string(ins) => self.string(ins),
            _ if ins.flow_control() != FlowControl::Next => self.control(ins),
            _ => {
                self.plain(ins);
                true
            }
        }
    }

    /// `mov r11, linear address of a place in the page`. No flags.
    fn linear(&mut self, offset: i64) {
        self.asm.load(R11, gs(off::CODE_BASE));
        let near = i32::try_from(offset);
        match near {
            Ok(0) if self.mode.is_64() => {}
            Ok(near) if self.mode.is_64() => self.asm.lea(R11, crate::asm::at(R11, near)),
            Ok(near) => self.asm.lea32(R11, crate::asm::at(R11, near)),
            Err(_) => {
                self.asm.mov_imm(RCX, offset as u64);
                let sum = crate::asm::Mem { gs: false, base: Some(R11), index: Some((RCX, 0)), disp: 0 };
                if self.mode.is_64() { self.asm.lea(R11, sum) } else { self.asm.lea32(R11, sum) }
            }
        }
    }

    /// What helpers are told in RCX: the instruction's place and length.
    fn place_and_length(&self) -> u64 {
        self.offset & 0xffff_ffff | (self.next - self.offset) << 32
    }

    fn place(&mut self) {
        let place = self.place_and_length();
        self.asm.mov_imm(RCX, place);
    }

    fn raise(&mut self, vector: u8) {
        self.make_flags(self.let_go);
        self.place();
        self.asm.mov_imm32(R11, u32::from(vector));
        self.asm.call_to(self.stubs.raise);
    }

    /// Calls the system helper with `ins`; whether control can go on behind it.
    fn system_instruction(&mut self, ins: &Instruction) -> bool {
        let number = self.remember(ins);
        self.call_system(number, self.stubs.system);
        let leaves = match ins.flow_control() {
            FlowControl::Next => changes_translation(ins),
            _ => true,
        };
        if leaves && ins.flow_control() == FlowControl::Next {
            // The helper always leaves after these; nothing may follow them in the block.
            return false;
        }
        !leaves || matches!(ins.mnemonic(), Mnemonic::Into | Mnemonic::Bound)
    }

    fn remember(&mut self, ins: &Instruction) -> usize {
        self.system.push(Box::new(*ins));
        self.system.len() - 1
    }

    fn call_system(&mut self, number: usize, stub: u64) {
        let pointer = &raw const *self.system[number];
        self.place();
        self.asm.mov_instruction(R11, number, pointer as u64);
        self.asm.call_to(stub);
    }

    fn sti(&mut self, ins: &Instruction) {
        let (enter, back) = (self.asm.label(), self.asm.label());
        let instruction = self.remember(ins);
        self.asm.store_imm32(gs(off::INTERRUPT_FLAG), 1);
        self.asm.load32(RCX, gs(off::LATCHED));
        self.asm.unless_rcx_zero(|asm| asm.jmp(enter));
        self.asm.bind(back);
        self.cold.push(Cold::System { enter, back, instruction, guest: self.guest });
    }

    fn rdtsc(&mut self) {
        use crate::asm::{RAX, RDX};
        self.asm.bytes(&[0x0f, 0x31]);
        // RDX:RAX to one register without flags: the sum of parts that share no bit.
        self.asm.rorx(RDX, RDX, 32);
        self.asm.load(RCX, gs(off::TSC_OFFSET));
        self.asm.lea(RAX, crate::asm::Mem { gs: false, base: Some(RAX), index: Some((RDX, 0)), disp: 0 });
        self.asm.lea(RAX, crate::asm::Mem { gs: false, base: Some(RAX), index: Some((RCX, 0)), disp: 0 });
        self.asm.rorx(RDX, RAX, 32);
        self.asm.mov32(RDX, RDX);
        self.asm.mov32(RAX, RAX);
    }

    /// Leaves for a place in or near the page: an exit to patch, or by address where it is another page.
    fn exit_direct(&mut self, target: i64, backward: bool) {
        self.settle_flags();
        if self.chains_to(target) {
            let enter = self.chain(target, backward);
            self.align_displacement(1);
            self.asm.byte(0xe9);
            self.patchable(enter);
        } else if let Some(exit) = self.far_exit(target) {
            self.linear(target);
            let cold = self.exit_code(exit);
            self.cold.push(cold);
        } else {
            self.asm.store_imm32(gs(off::SOURCE), self.source(target));
            self.linear(target);
            self.asm.jmp_to(self.indirect);
        }
    }

    /// What is at fault if `target` cannot be gone to: the branch, or nothing where control just goes on.
    fn source(&self, target: i64) -> u32 {
        if target == self.next as i64 { Cpu::NO_SOURCE } else { self.offset as u32 }
    }

    pub(super) fn chains_to(&self, target: i64) -> bool {
        !self.mode.has(Mode::HOW) && (0..self.page).contains(&target)
    }

    pub(super) fn chain(&mut self, target: i64, polled: bool) -> Label {
        let enter = self.asm.label();
        self.cold.push(Cold::Chain { enter, exit: self.exits.len() });
        let source = self.source(target);
        self.exits.push(Exit {
            site: 0,
            target: target as u32,
            source,
            polled,
            parked: self.parked,
            plain: false,
            far: false,
            mirrored: self.mode.has(Mode::MIRRORED),
        });
        enter
    }

    /// An exit to a place in another page that can be linked to what lies there: as long as it does, which is known of
    /// programs that are mirrored ([`crate::mirror`]).
    pub(super) fn far_exit(&mut self, target: i64) -> Option<usize> {
        let linkable = self.mode.is_mirrored() && !self.mode.has(Mode::LARGE);
        let near = i32::try_from(target).ok().filter(|_| linkable)?;
        let source = self.source(target);
        let (target, parked) = (near as u32, self.parked);
        self.exits.push(Exit {
            site: 0,
            target,
            source,
            polled: false,
            parked,
            plain: false,
            far: true,
            mirrored: true,
        });
        Some(self.exits.len() - 1)
    }

    /// Has the displacement of a jump with an opcode of `opcode` bytes lie in one aligned cell of eight.
    pub(super) fn align_displacement(&mut self, opcode: u64) {
        let at = (self.asm.here() + opcode) % 8;
        if at > 4 {
            self.asm.align(8, (8 - opcode) % 8);
        }
    }

    /// The displacement of a jump whose opcode was just emitted.
    fn patchable(&mut self, enter: Label) {
        let site = self.asm.here();
        debug_assert!(site % 8 <= 4, "a displacement lies in one cell");
        if let Some(exit) = self.exits.last_mut() {
            exit.site = site;
        }
        self.asm.displacement(enter);
    }
}
