//! From decoded guest instructions to host code.
//!
//! [`Emitter`] walks a block's instructions once. Ordinary ones are emitted again almost as they stand
//! ([`operands`]): registers renamed ([`registers`]), the memory operand replaced by a host address that an inline TLB
//! probe found ([`probe`]). Control flow ([`control`]), the stack ([`stack`]) and single string instructions
//! ([`string`]) are written by hand; system instructions become a call into [`crate::system`].
//!
//! ```text
//! hot section    poll entry:   is something pending? -> cold
//!                entry:        5-byte NOP, 8-aligned     (becomes a jump when the block dies or is replaced)
//!                              instruction ...           each recorded in the map: host offset -> guest offset
//!                              exits                     rel32 in one aligned 8-byte cell each, first to a cold stub
//! cold section   indirect:     the page, from the address in R11
//!                parked entry: flags that were put aside come back, if they are live; then to the poll
//!                              TLB misses, chain stubs, the poll's exit
//!                dead end:     asks for the block at the same address
//!                              records of exits, the map
//! ```
//!
//! Flags that are live only because the block does not overwrite them are *parked* at the first probe: put aside in
//! memory, to be brought back by the next block if it wants them, which few do.
//!
//! **Flags.** A probe by comparison costs least but writes flags. Where the guest's flags are live before an
//! instruction, a longer form without flags is used. Flags that the program provably overwrites before reading them
//! are unspecified in the frame of a fault that happens in between.

pub mod control;
pub mod operands;
pub mod plan;
pub mod probe;
pub mod reach;
pub mod registers;
pub mod stack;
pub mod state;
pub mod string;
pub mod system;

use iced_x86::{
    Code, Encoder, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register, RflagsBits,
};

use crate::asm::{Asm, Label, R11, R15, RCX, Salt, Section, Target, cond, gs};
use crate::cpu::{Cpu, off};
use crate::features::{self, Obstacle};
use crate::mode::Mode;
use crate::stubs::Stubs;
use crate::translate::ModeStubs;
use lodge_x86::exception::vector;
use plan::Plan;
use probe::Ea;

/// The flags that arithmetic writes, as `iced-x86` names them.
const ARITHMETIC: u32 =
    RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

/// A place where a block leaves for a target known when it was translated. Its record lies behind the block's code,
/// where the cold stub that asks for the target points to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Address of the displacement to patch.
    pub site: u64,
    /// Target, relative to the start of the page that the block lies in.
    pub target: u32,
    /// Where in the page the branch is, or [`Cpu::NO_SOURCE`]: what is at fault if the target is.
    pub source: u32,
    /// Enter the target by its polling entry.
    pub polled: bool,
    /// Flags may be parked: enter the target where that is looked at.
    pub parked: bool,
    /// The target is to be the translation without shared checks.
    pub plain: bool,
}

impl Exit {
    /// Bytes of a record.
    pub const SIZE: usize = 24;

    /// A record but for the site, which comes first.
    fn record(self) -> [u8; Self::SIZE - 8] {
        let mut record = [0; Self::SIZE - 8];
        record[..4].copy_from_slice(&self.target.to_le_bytes());
        record[4..8].copy_from_slice(&self.source.to_le_bytes());
        record[8] = u8::from(self.polled);
        record[9] = u8::from(self.parked);
        record[10] = u8::from(self.plain);
        record
    }

    /// Reads a record.
    pub fn from_record(record: &[u8]) -> Option<Self> {
        Some(Self {
            site: u64::from_le_bytes(record.get(..8)?.try_into().ok()?),
            target: u32::from_le_bytes(record.get(8..12)?.try_into().ok()?),
            source: u32::from_le_bytes(record.get(12..16)?.try_into().ok()?),
            polled: *record.get(16)? != 0,
            parked: *record.get(17)? != 0,
            plain: *record.get(18)? != 0,
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

/// Code that is run rarely and emitted behind the block.
enum Cold {
    Memory {
        enter: Label,
        back: Label,
        ea: Ea,
        argument: u32,
        guest: u16,
        /// Live flags are not in the flags but put aside, and a fault must show them.
        saved: bool,
    },
    Chain {
        enter: Label,
        exit: usize,
    },
    /// A group's check found nothing.
    Group {
        enter: Label,
        back: Label,
        from: Ea,
        argument: u32,
        exit: usize,
        guest: u16,
    },
    /// The stack is not where the window is.
    Window {
        enter: Label,
        back: Label,
        low: i32,
        length: u32,
        exit: usize,
        guest: u16,
    },
    /// To a target outside the page.
    Far {
        enter: Label,
        target: i64,
    },
    Poll {
        enter: Label,
    },
    /// A system instruction off the hot path.
    System {
        enter: Label,
        back: Label,
        instruction: usize,
        guest: u16,
    },
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

/// What came of a block. The polling entry is where its hot code begins.
pub struct Emitted {
    /// Offset in the hot code of the entry.
    pub entry: u16,
    /// Offset in the cold code of the entry with the linear address in R11.
    pub indirect_entry: u16,
    /// Offset in the cold code of the entry where flags may be parked.
    pub parked_entry: u16,
    /// Offset in the cold code of what the entry becomes when the block dies.
    pub dead_end: u16,
    /// Offset in the cold code of the records of exits, which end where the map begins.
    pub records: u16,
    /// Offset in the cold code of the map from host to guest, which lies behind it.
    pub map: u16,
    /// It leads to blocks of another mode.
    pub switches: bool,
    /// Its entries for hot code, and those for cold code behind them.
    pub map_entries: [u16; 2],
    /// Instructions that emitted code points at.
    #[expect(clippy::vec_box, reason = "emitted code holds their addresses")]
    pub system: Vec<Box<Instruction>>,
}

/// Emits one block.
pub struct Emitter<'a> {
    asm: &'a mut Asm,
    encoder: &'a mut Encoder,
    info: &'a mut InstructionInfoFactory,
    stubs: &'a Stubs,
    mode: Mode,
    /// The code that finds the block for an address in R11.
    indirect: Target,
    /// Moves the stack window ([`crate::stubs::Stubs::emit_window`]).
    window: Target,
    /// What sets the mode's jump-cache slots apart.
    salt: Salt,
    /// The stubs of the mode that STAC or CLAC leads to.
    other: Option<ModeStubs>,
    /// Bytes of the page that the block lies in: 4 KiB, or 2 MiB for large ones.
    page: i64,
    start: u64,
    exits: Vec<Exit>,
    map: Vec<MapEntry>,
    cold_map: Vec<MapEntry>,
    cold: Vec<Cold>,
    #[expect(clippy::vec_box, reason = "emitted code holds their addresses")]
    system: Vec<Box<Instruction>>,
    plan: Plan,
    /// Checks that have been emitted.
    checked: usize,
    /// The instruction's number.
    number: usize,
    /// The group whose address is in R11.
    held: Option<u8>,
    /// The same, before the instruction.
    was_held: Option<u8>,
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
    /// They have been put aside and are yet to be brought back.
    flags_saved: bool,
    /// The instruction's memory operand must be aligned.
    aligned: bool,
    /// The instruction reaches only parts of its memory operand.
    masked: bool,
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
}

impl<'a> Emitter<'a> {
    /// Emits `instructions`, decoded with their offset in the page as address, into the assembler.
    pub fn block(tools: Tools<'a>, mode: Mode, own: ModeStubs, instructions: &[Instruction]) -> Emitted {
        let start = instructions.first().map_or(0, Instruction::ip);
        let single = mode.has(Mode::HOW);
        let mut emitter = Emitter {
            indirect: if single { tools.stubs.leave_lookup } else { own.indirect },
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
            guest: 0,
            offset: start,
            next: start,
            keep_flags: true,
            may_park: false,
            parked: false,
            flags_saved: false,
            aligned: false,
            masked: false,
            waits: false,
        };
        let live = liveness(instructions);
        let live_in = live.first().copied().unwrap_or(ARITHMETIC) != 0;
        // A cell of its own, as at the entry: when the block dies its poll, which may write flags, must not be run.
        let poll_entry = emitter.asm.label();
        emitter.asm.bind(poll_entry);
        if !single {
            emitter.poll(live_in);
        }
        emitter.asm.align(8, 0);
        let entry = emitter.asm.offset() as u16;
        emitter.asm.bytes(&[0x0f, 0x1f, 0x44, 0x00, 0x00]);
        let mut open = true;
        let passes = flags_pass(instructions);
        let free: Vec<bool> = live.iter().zip(&passes).map(|(&live, &passes)| live == 0 || passes).collect();
        emitter.plan = Plan::of(mode, instructions, &free, emitter.info);
        for (n, instruction) in instructions.iter().enumerate() {
            emitter.number = n;
            emitter.begin(instruction, live[n] != 0, passes[n] && !single);
            open = emitter.instruction(instruction);
            if !open {
                break;
            }
        }
        if open {
            let next = emitter.next;
            emitter.exit_direct(next as i64, false);
        }
        emitter.asm.switch(Section::Cold);
        let (indirect_entry, parked_entry) = emitter.outer_entries(live_in, poll_entry);
        let records = emitter.cold_code();
        let dead_end = emitter.asm.offset() as u16;
        emitter.linear(start as i64);
        // Not `emitter.indirect`, which STAC may have changed.
        emitter.asm.jmp_to(if single { emitter.stubs.leave_lookup } else { own.indirect });
        let first_record = emitter.asm.offset() as u16;
        for (exit, label) in emitter.exits.iter().zip(records) {
            emitter.asm.bind(label);
            emitter.asm.address(exit.site);
            emitter.asm.bytes(&exit.record());
        }
        let map = emitter.asm.offset() as u16;
        for entry in emitter.map.iter().chain(&emitter.cold_map) {
            emitter.asm.bytes(&entry.host.to_le_bytes());
            emitter.asm.bytes(&entry.guest.to_le_bytes());
        }
        Emitted {
            entry,
            indirect_entry,
            parked_entry,
            dead_end,
            records: first_record,
            map,
            switches: emitter.other.is_some(),
            map_entries: [emitter.map.len() as u16, emitter.cold_map.len() as u16],
            system: emitter.system,
        }
    }

    /// The entries that are taken less often than the block is run, behind it: with the address in R11, and with flags
    /// perhaps parked.
    fn outer_entries(&mut self, live_in: bool, poll_entry: Label) -> (u16, u16) {
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
        self.unpark(live_in);
        self.asm.jmp(poll_entry);
        (indirect, parked)
    }

    fn begin(&mut self, instruction: &Instruction, keep_flags: bool, may_park: bool) {
        self.offset = instruction.ip();
        self.next = instruction.next_ip();
        self.guest = (self.offset - self.start) as u16;
        self.keep_flags = keep_flags && !self.parked;
        self.may_park = may_park;
        self.aligned = operands::must_be_aligned(instruction);
        self.masked = operands::is_masked(instruction);
        self.waits = operands::reports_x87_errors(instruction);
        self.map.push(MapEntry { host: self.asm.offset() as u16, guest: self.guest });
        self.was_held = self.held.take();
        self.checks();
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
            Mnemonic::Sti if self.mode.has(Mode::IF_FREE) => {
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
                self.probe(&ea, 1, false);
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

    fn call_system(&mut self, number: usize, stub: Target) {
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
        if self.chains_to(target) {
            let enter = self.chain(target, backward);
            self.asm.align(8, 3);
            self.asm.byte(0xe9);
            self.patchable(enter, backward);
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
        self.exits.push(Exit { site: 0, target: target as u32, source, polled, parked: self.parked, plain: false });
        enter
    }

    /// The displacement of a jump whose opcode was just emitted.
    fn patchable(&mut self, enter: Label, _polled: bool) {
        let site = self.asm.here();
        debug_assert!(site.is_multiple_of(4));
        if let Some(exit) = self.exits.last_mut() {
            exit.site = site;
        }
        self.asm.displacement(enter);
    }

    /// Emits the cold code; the labels of the exits' records, which are to be bound.
    fn cold_code(&mut self) -> Vec<Label> {
        let records: Vec<Label> = self.exits.iter().map(|_| self.asm.label()).collect();
        let mut all = std::collections::VecDeque::from(std::mem::take(&mut self.cold));
        while let Some(cold) = all.pop_front() {
            let host = self.asm.offset() as u16;
            match cold {
                Cold::Memory { enter, back, ea, argument, guest, saved } => {
                    self.cold_map.push(MapEntry { host, guest });
                    self.asm.bind(enter);
                    self.restore_flags(saved);
                    self.address_for_slow_path(&ea);
                    self.asm.mov_imm32(RCX, argument);
                    self.asm.call_to(self.stubs.memory);
                    self.asm.jmp(back);
                }
                Cold::Chain { enter, exit } => {
                    self.asm.bind(enter);
                    self.asm.lea_label(RCX, records[exit]);
                    self.asm.jmp_to(self.stubs.leave_chain);
                }
                Cold::Group { enter, back, from, argument, exit, guest } => {
                    self.cold_map.push(MapEntry { host, guest });
                    self.asm.bind(enter);
                    self.address_for_slow_path(&from);
                    self.asm.mov_imm32(RCX, argument);
                    self.asm.call_to(self.stubs.memory);
                    let plain = self.asm.label();
                    self.asm.test(R11, R11);
                    self.asm.jcc(cond::E, plain);
                    self.asm.jmp(back);
                    self.asm.bind(plain);
                    all.push_back(self.plain_exit_code(exit));
                }
                Cold::Window { enter, back, low, length, exit, guest } => {
                    self.cold_map.push(MapEntry { host, guest });
                    self.asm.bind(enter);
                    self.asm.lea(R11, crate::asm::at(R15, low));
                    self.asm.mov_imm32(RCX, length);
                    self.asm.call_to(self.window);
                    let plain = self.asm.label();
                    self.asm.test(RCX, RCX);
                    self.asm.jcc(cond::NE, plain);
                    self.asm.jmp(back);
                    self.asm.bind(plain);
                    all.push_back(self.plain_exit_code(exit));
                }
                Cold::Far { enter, target } => {
                    self.asm.bind(enter);
                    self.linear(target);
                    self.asm.jmp_to(self.indirect);
                }
                Cold::Poll { enter } => {
                    self.asm.bind(enter);
                    self.linear(self.start as i64);
                    self.asm.jmp_to(self.stubs.leave_poll);
                }
                Cold::System { enter, back, instruction, guest } => {
                    self.cold_map.push(MapEntry { host, guest });
                    self.asm.bind(enter);
                    self.offset = self.start + u64::from(guest);
                    self.next = self.system[instruction].next_ip();
                    self.call_system(instruction, self.stubs.system);
                    self.asm.jmp(back);
                }
            }
        }
        records
    }
}

/// For each instruction, the flags that are live before it.
fn liveness(instructions: &[Instruction]) -> Vec<u32> {
    let mut live = vec![0; instructions.len()];
    let mut after = ARITHMETIC;
    for (ins, slot) in instructions.iter().zip(&mut live).rev() {
        let killed = if may_leave_flags(ins) { 0 } else { ins.rflags_modified() & ARITHMETIC };
        let observed = is_system(ins) || ins.flow_control() != FlowControl::Next;
        let read = if observed && !is_plain_branch(ins) { ARITHMETIC } else { ins.rflags_read() & ARITHMETIC };
        after = after & !killed | read;
        *slot = after;
    }
    live
}

/// For each instruction, whether flags pass untouched from before it to the end of the block.
fn flags_pass(instructions: &[Instruction]) -> Vec<bool> {
    let mut passes = vec![false; instructions.len()];
    let mut open = true;
    for (ins, slot) in instructions.iter().zip(&mut passes).rev() {
        let touches = (ins.rflags_read() | ins.rflags_modified()) & ARITHMETIC != 0;
        let branches = ins.is_jcc_short_or_near() || ins.is_jcx_short() || ins.is_loop() || ins.is_loopcc();
        open &= !touches && !branches && !is_system(ins) && !is_string(ins);
        *slot = open;
    }
    passes
}

/// Branches that stay within the program: they show their flags to nobody but their condition.
fn is_plain_branch(ins: &Instruction) -> bool {
    ins.is_jcc_short_or_near() || ins.is_jmp_short_or_near()
}

/// Whether flags that the instruction is said to write may stay as they are: counts of zero.
fn may_leave_flags(ins: &Instruction) -> bool {
    match ins.mnemonic() {
        Mnemonic::Shl
        | Mnemonic::Shr
        | Mnemonic::Sar
        | Mnemonic::Rol
        | Mnemonic::Ror
        | Mnemonic::Rcl
        | Mnemonic::Rcr
        | Mnemonic::Sal
        | Mnemonic::Shld
        | Mnemonic::Shrd => true,
        _ => ins.has_rep_prefix() || ins.has_repne_prefix(),
    }
}

/// The form that is emitted in an instruction's place: INC and DEC of one byte have another meaning in 64-bit mode, and
/// MOVSXD without REX.W extends nothing, but reads four bytes on some processors even for two (SDM 2, MOVSXD).
fn other_form(ins: &Instruction) -> Instruction {
    let mut ins = *ins;
    let code = match ins.code() {
        Code::Inc_r16 => Code::Inc_rm16,
        Code::Inc_r32 => Code::Inc_rm32,
        Code::Dec_r16 => Code::Dec_rm16,
        Code::Dec_r32 => Code::Dec_rm32,
        Code::Movsxd_r16_rm16 => Code::Mov_r16_rm16,
        Code::Movsxd_r32_rm32 => Code::Mov_r32_rm32,
        other => other,
    };
    ins.set_code(code);
    ins
}

/// Whether LOCK is allowed: the instruction writes its memory operand and is of those that the architecture lists.
fn lockable(ins: &Instruction) -> bool {
    ins.op0_kind() == OpKind::Memory
        && matches!(
            ins.mnemonic(),
            Mnemonic::Add
                | Mnemonic::Adc
                | Mnemonic::And
                | Mnemonic::Btc
                | Mnemonic::Btr
                | Mnemonic::Bts
                | Mnemonic::Cmpxchg
                | Mnemonic::Cmpxchg8b
                | Mnemonic::Cmpxchg16b
                | Mnemonic::Dec
                | Mnemonic::Inc
                | Mnemonic::Neg
                | Mnemonic::Not
                | Mnemonic::Or
                | Mnemonic::Sbb
                | Mnemonic::Sub
                | Mnemonic::Xor
                | Mnemonic::Xadd
                | Mnemonic::Xchg
        )
        || (ins.mnemonic() == Mnemonic::Xchg && ins.op1_kind() == OpKind::Memory)
}

/// String instructions, and XLAT.
pub fn is_string(ins: &Instruction) -> bool {
    matches!(
        ins.mnemonic(),
        Mnemonic::Movsb
            | Mnemonic::Movsw
            | Mnemonic::Movsq
            | Mnemonic::Stosb
            | Mnemonic::Stosw
            | Mnemonic::Stosd
            | Mnemonic::Stosq
            | Mnemonic::Lodsb
            | Mnemonic::Lodsw
            | Mnemonic::Lodsd
            | Mnemonic::Lodsq
            | Mnemonic::Scasb
            | Mnemonic::Scasw
            | Mnemonic::Scasd
            | Mnemonic::Scasq
            | Mnemonic::Cmpsb
            | Mnemonic::Cmpsw
            | Mnemonic::Cmpsq
    ) || matches!(ins.code(), Code::Movsd_m32_m32 | Code::Cmpsd_m32_m32)
}

/// After these the same bytes may translate differently, or be other bytes: the block must end.
fn changes_translation(ins: &Instruction) -> bool {
    match ins.mnemonic() {
        Mnemonic::Mov => ins.op0_register().is_cr() || ins.op0_register().is_dr(),
        Mnemonic::Lmsw
        | Mnemonic::Clts
        | Mnemonic::Invlpg
        | Mnemonic::Wrmsr
        | Mnemonic::Xsetbv
        | Mnemonic::Invpcid
        | Mnemonic::Cpuid => true,
        _ => false,
    }
}

/// Whether the instruction is carried out by [`crate::system`].
pub fn is_system(ins: &Instruction) -> bool {
    use Mnemonic as M;
    match ins.mnemonic() {
        M::Mov => {
            let special = |r: Register| r.is_cr() || r.is_dr() || r.is_segment_register();
            special(ins.op0_register()) || special(ins.op1_register())
        }
        M::Push | M::Pop => ins.op0_register().is_segment_register(),
        M::Jmp | M::Call => {
            ins.is_jmp_far() || ins.is_call_far() || ins.is_jmp_far_indirect() || ins.is_call_far_indirect()
        }
        M::Cli
        | M::Sti
        | M::Cld
        | M::Std
        | M::Hlt
        | M::Int
        | M::Int1
        | M::Int3
        | M::Into
        | M::Bound
        | M::Iret
        | M::Iretd
        | M::Iretq
        | M::Retf
        | M::Syscall
        | M::Sysret
        | M::Sysretq
        | M::Sysenter
        | M::Sysexit
        | M::Sysexitq
        | M::Rsm
        | M::Swapgs
        | M::Popf
        | M::Popfd
        | M::Popfq
        | M::Enter
        | M::Cpuid
        | M::Rdtsc
        | M::Rdtscp
        | M::Rdpmc
        | M::Rdpid
        | M::Rdrand
        | M::Rdseed
        | M::Rdmsr
        | M::Wrmsr
        | M::In
        | M::Out
        | M::Insb
        | M::Insw
        | M::Insd
        | M::Outsb
        | M::Outsw
        | M::Outsd
        | M::Lgdt
        | M::Lidt
        | M::Lldt
        | M::Ltr
        | M::Sgdt
        | M::Sidt
        | M::Sldt
        | M::Str
        | M::Lmsw
        | M::Smsw
        | M::Clts
        | M::Invd
        | M::Wbinvd
        | M::Invlpg
        | M::Invpcid
        | M::Verr
        | M::Verw
        | M::Lar
        | M::Lsl
        | M::Arpl
        | M::Lds
        | M::Les
        | M::Lfs
        | M::Lgs
        | M::Lss
        | M::Xgetbv
        | M::Xsetbv
        | M::Xsave
        | M::Xsave64
        | M::Xrstor
        | M::Xrstor64
        | M::Fxsave
        | M::Fxsave64
        | M::Fxrstor
        | M::Fxrstor64
        | M::Fnstenv
        | M::Fnsave
        | M::Stac
        | M::Clac
        | M::Rdfsbase
        | M::Rdgsbase
        | M::Wrfsbase
        | M::Wrgsbase
        | M::Aaa
        | M::Aas
        | M::Aad
        | M::Aam
        | M::Daa
        | M::Das
        | M::Salc
        | M::Xlatb => true,
        M::Vpgatherdd
        | M::Vpgatherdq
        | M::Vpgatherqd
        | M::Vpgatherqq
        | M::Vgatherdps
        | M::Vgatherdpd
        | M::Vgatherqps
        | M::Vgatherqpd
        | M::Maskmovdqu
        | M::Vmaskmovdqu
        | M::Maskmovq => true,
        _ => false,
    }
}
