//! Which memory accesses of a block share a check.
//!
//! Accesses off one base that lie close together are a *group*: one probe of the soft TLB for all of them, before the
//! first; their host address is then the group's plus a constant. Accesses off the stack pointer go through the
//! *window*, the host address of the page that the stack pointer is in, which the FS base keeps from block to block:
//! checking that the block's stack accesses lie in it takes one comparison.
//!
//! A check that fails, because what it covers crosses a page or cannot be reached as a whole, leaves for a translation
//! of the same code without any sharing ([`Mode::PLAIN`]), from the instruction before which it stands. Nothing has
//! happened by then that is not to happen anyway, so faults stay precise. What a check permits stays permitted to the
//! end of the block: mappings change only outside emitted code.
//!
//! [`Plan::of`] looks at a block's instructions before any is emitted; [`super::Emitter`] emits what it decides.

use iced_x86::{Code, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::classify::{is_string, is_system};
use super::operands::{access_size, is_masked, is_read, is_write, may_not_store};
use super::probe::Ea;
use super::registers::GprOperand;
use crate::mode::Mode;

/// Most bytes that one check covers: a longer range would cross pages too often.
const SPAN: i64 = 256;
/// Groups that are open at a time; each has a place in the vCPU's state.
pub const GROUPS: usize = 4;
/// How many instructions ahead of its first access a check may stand, to be where flags are free.
const AHEAD: usize = 8;
const RSP: u8 = 4;

/// How an access is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reach {
    /// By a probe of its own.
    #[default]
    Probe,
    /// Through the window.
    Window,
    /// So many bytes behind the address that a group's check has found.
    Group { number: u8, offset: i32 },
}

/// A check, and the instruction that it stands before.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    pub before: usize,
    pub covers: Covers,
}

/// What a check covers.
#[derive(Clone, Copy, Debug)]
pub enum Covers {
    /// Bytes from an offset to the stack pointer on.
    Window { low: i32, length: u32 },
    /// Bytes from an effective address on. `keep`: they are not all accessed in a row.
    Group { number: u8, from: Ea, length: u32, write: bool, keep: bool },
}

/// The accesses of one instruction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reaches {
    /// Its push or pop.
    pub stack: Reach,
    /// Its memory operand.
    pub operand: Reach,
}

/// What is decided for a block.
#[derive(Debug, Default)]
pub struct Plan {
    /// For each instruction.
    pub reaches: Vec<Reaches>,
    /// In the order of the instructions.
    pub checks: Vec<Check>,
    /// The general-purpose registers that each instruction may write, a bit each.
    pub written: Vec<u32>,
    /// And those that they read.
    pub read: Vec<u32>,
}

/// One access that may share a check.
#[derive(Clone, Copy)]
struct Access {
    at: usize,
    /// It is the instruction's push or pop.
    stack: bool,
    low: i64,
    high: i64,
    write: bool,
}

/// Accesses off one base.
struct Group {
    /// Without displacement.
    base: Ea,
    /// From which instruction on base and index are what they are.
    since: usize,
    members: Vec<Access>,
}

/// A group that has been decided on.
struct Decided {
    before: usize,
    base: Ea,
    low: i64,
    high: i64,
    members: Vec<Access>,
}

/// Accesses off the stack pointer; their places are relative to it as it was at `since`.
struct Window {
    since: usize,
    /// What the stack pointer has moved by since then, before each instruction from `since` on.
    moved: Vec<i64>,
    members: Vec<Access>,
    /// Where the check for them may stand at the earliest.
    earliest: usize,
    /// Behind the last access that an earlier check covers: until then the window must stay where it is.
    over: usize,
}

impl Window {
    fn new(since: usize) -> Self {
        Self { since, moved: vec![0], members: Vec::new(), earliest: since, over: since }
    }
}

struct Planner<'a> {
    plan: Plan,
    /// Whether a check before an instruction may write flags.
    free: &'a [bool],
    groups: Vec<Group>,
    decided: Vec<Decided>,
    window: Window,
    /// The instruction behind the last that wrote each register.
    written: [usize; 16],
    /// Nothing from here on may be checked before it: it may not be reached.
    fence: usize,
}

impl Plan {
    /// Decides for a block. `free[n]`: flags may be written before instruction `n`.
    pub fn of(mode: Mode, instructions: &[Instruction], free: &[bool], info: &mut InstructionInfoFactory) -> Self {
        let mut plan = Self { reaches: vec![Reaches::default(); instructions.len()], ..Self::default() };
        if mode.has(Mode::MIRRORED) {
            (plan.written, plan.read) = instructions.iter().map(|ins| used_registers(ins, info)).unzip();
        }
        let sharing = mode.is_64() && !mode.has(Mode::HOW | Mode::PLAIN | Mode::ALIGN);
        if !sharing || mode.is_mirrored() {
            return plan;
        }
        (plan.written, plan.read) = instructions.iter().map(|ins| used_registers(ins, info)).unzip();
        let (groups, decided, window) = (Vec::new(), Vec::new(), Window::new(0));
        let mut planner = Planner { plan, free, groups, decided, window, written: [0; 16], fence: 0 };
        for (n, ins) in instructions.iter().enumerate() {
            planner.instruction(n, ins, info);
        }
        planner.close_all(instructions.len());
        planner.number_groups();
        let mut plan = planner.plan;
        plan.checks.sort_by_key(|check| check.before);
        plan.keep_what_is_lost(instructions);
        plan
    }
}

impl Plan {
    /// Groups whose address does not stay in its register from access to access have to be kept.
    fn keep_what_is_lost(&mut self, instructions: &[Instruction]) {
        let places: Vec<usize> = self.checks.iter().map(|check| check.before).collect();
        for check in &mut self.checks {
            let Covers::Group { number, keep, .. } = &mut check.covers else { continue };
            let mine = |n: usize| matches!(self.reaches[n].operand, Reach::Group { number: m, .. } if m == *number);
            let last = (check.before..instructions.len()).take_while(|&n| mine(n)).last().unwrap_or(check.before);
            let lost = |n: usize| stack_access(&instructions[n]).is_some() || places.contains(&(n + 1));
            *keep |=
                places.iter().filter(|&&place| place == check.before).count() > 1 || (check.before..last).any(lost);
        }
    }
}

impl Planner<'_> {
    fn instruction(&mut self, n: usize, ins: &Instruction, info: &mut InstructionInfoFactory) {
        let moved = self.window.moved.last().copied().unwrap_or(0);
        if is_system(ins) || is_string(ins) {
            return self.close_all(n + 1);
        }
        let push = stack_access(ins);
        if let Some((low, high, write)) = push {
            self.stack(Access { at: n, stack: true, low: moved + low, high: moved + high, write });
        }
        if let Some((ea, size, write)) = operand_access(ins, info) {
            let high = ea.displacement + i64::from(size);
            let access = Access { at: n, stack: false, low: ea.displacement, high, write };
            if ea.base == Some(RSP) && ea.index.is_none() && ea.segment < 4 {
                self.stack(Access { low: moved + access.low, high: moved + access.high, ..access });
            } else {
                self.operand(ea, access);
            }
        }
        match ins.flow_control() {
            FlowControl::Next => {}
            FlowControl::ConditionalBranch => self.fence = n + 1,
            _ => return self.close_all(n + 1),
        }
        let written = self.plan.written[n];
        if written != 0 {
            let uses = |group: &Group| {
                let used = |number: Option<u8>| number.is_some_and(|number| written & 1 << number != 0);
                used(group.base.base) || used(group.base.index.map(|(number, _)| number))
            };
            while let Some(index) = self.groups.iter().position(uses) {
                let group = self.groups.swap_remove(index);
                self.close_group(group);
            }
        }
        for (_, place) in self.written.iter_mut().enumerate().filter(|(number, _)| written & 1 << number != 0) {
            *place = n + 1;
        }
        match stack_movement(ins, written) {
            Some(by) => self.window.moved.push(moved + by),
            None => self.close_window(n + 1),
        }
    }

    fn close_all(&mut self, next: usize) {
        for group in std::mem::take(&mut self.groups) {
            self.close_group(group);
        }
        self.close_window(next);
        self.fence = next;
    }

    /// Where a check for a first access at `first` stands, with its base as it is since `since`.
    fn place(&self, since: usize, first: usize) -> Option<usize> {
        (since.max(first.saturating_sub(AHEAD))..=first).rev().find(|&n| self.free[n])
    }

    fn stack(&mut self, access: Access) {
        let window = &mut self.window;
        let low = window.members.iter().map(|m| m.low).min().unwrap_or(access.low).min(access.low);
        let high = window.members.iter().map(|m| m.high).max().unwrap_or(access.high).max(access.high);
        if high - low > SPAN {
            self.check_window();
        }
        if self.window.members.is_empty() {
            self.window.earliest = self.window.since.max(self.fence).max(self.window.over);
            if self.window.earliest > access.at || self.place(self.window.earliest, access.at).is_none() {
                return;
            }
        }
        if access.high - access.low <= SPAN {
            self.window.members.push(access);
        }
    }

    /// Decides on the accesses that the window has collected.
    fn check_window(&mut self) {
        let members = std::mem::take(&mut self.window.members);
        let (Some(first), Some(last)) = (members.first(), members.last()) else { return };
        self.window.over = last.at + 1;
        let Some(before) = self.place(self.window.earliest, first.at) else { return };
        let low = members.iter().map(|m| m.low).min().unwrap_or(0);
        let high = members.iter().map(|m| m.high).max().unwrap_or(0);
        let moved = self.window.moved[before - self.window.since];
        let Ok(from) = i32::try_from(low - moved) else { return };
        self.plan.checks.push(Check { before, covers: Covers::Window { low: from, length: (high - low) as u32 } });
        for member in members {
            let reaches = &mut self.plan.reaches[member.at];
            *(if member.stack { &mut reaches.stack } else { &mut reaches.operand }) = Reach::Window;
        }
    }

    fn close_window(&mut self, next: usize) {
        self.check_window();
        self.window = Window::new(next);
    }

    fn operand(&mut self, ea: Ea, access: Access) {
        let base = Ea { displacement: 0, ..ea };
        if let Some(index) = self.groups.iter().position(|group| group.base == base) {
            let group = &mut self.groups[index];
            let low = group.members.iter().map(|m| m.low).min().unwrap_or(access.low).min(access.low);
            let high = group.members.iter().map(|m| m.high).max().unwrap_or(access.high).max(access.high);
            if high - low <= SPAN {
                return group.members.push(access);
            }
            let group = self.groups.swap_remove(index);
            self.close_group(group);
        }
        if self.groups.len() == GROUPS {
            let oldest = self.groups.remove(0);
            self.close_group(oldest);
        }
        let since = |number: Option<u8>| number.map_or(0, |number| self.written[usize::from(number)]);
        let since = since(base.base).max(since(base.index.map(|(number, _)| number))).max(self.fence);
        self.groups.push(Group { base, since, members: vec![access] });
    }

    /// Decides on a group: one probe of its own is as good as a check for one access.
    fn close_group(&mut self, group: Group) {
        // Accesses at the front that have no place for the check go by themselves.
        let mut members = &group.members[..];
        let mut before = None;
        while let Some(first) = members.first() {
            before = self.place(group.since, first.at);
            if before.is_some() {
                break;
            }
            members = &members[1..];
        }
        let (Some(before), [_, _, ..]) = (before, members) else { return };
        let low = members.iter().map(|m| m.low).min().unwrap_or(0);
        let high = members.iter().map(|m| m.high).max().unwrap_or(0);
        self.decided.push(Decided { before, base: group.base, low, high, members: members.to_vec() });
    }

    /// Gives each group a place for its address that no other uses from its check to its last access; one that finds
    /// none goes without.
    fn number_groups(&mut self) {
        let mut decided = std::mem::take(&mut self.decided);
        decided.sort_by_key(|group| group.before);
        let mut until = [0; GROUPS];
        for group in decided {
            let (Some(first), Some(last)) = (group.members.first(), group.members.last()) else { continue };
            let Some(number) = until.iter().position(|&until| until <= group.before) else { continue };
            until[number] = last.at + 1;
            let number = number as u8;
            let in_a_row =
                group.before == first.at && group.members.windows(2).all(|pair| pair[1].at <= pair[0].at + 1);
            let covers = Covers::Group {
                number,
                from: Ea { displacement: group.low, ..group.base },
                length: (group.high - group.low) as u32,
                write: group.members.iter().any(|m| m.write),
                keep: !in_a_row,
            };
            self.plan.checks.push(Check { before: group.before, covers });
            for member in &group.members {
                let offset = (member.low - group.low) as i32;
                self.plan.reaches[member.at].operand = Reach::Group { number, offset };
            }
        }
    }
}

/// Where a push or pop accesses memory, relative to the stack pointer before it, and whether it writes.
fn stack_access(ins: &Instruction) -> Option<(i64, i64, bool)> {
    let by = i64::from(ins.stack_pointer_increment());
    match ins.mnemonic() {
        Mnemonic::Push | Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => Some((by, 0, true)),
        Mnemonic::Call => Some((by, 0, true)),
        Mnemonic::Pop => Some((0, by, false)),
        Mnemonic::Ret => {
            let size = if ins.code() == Code::Retnw || ins.code() == Code::Retnw_imm16 { 2 } else { 8 };
            Some((0, size, false))
        }
        _ => None,
    }
}

/// By how much the stack pointer moves; `None`: nobody knows.
pub(super) fn stack_movement(ins: &Instruction, written: u32) -> Option<i64> {
    if written & 1 << RSP == 0 {
        return Some(0);
    }
    let immediate = || matches!(ins.op1_kind(), OpKind::Immediate8to64 | OpKind::Immediate32to64);
    let to_rsp = ins.op0_kind() == OpKind::Register && ins.op0_register() == Register::RSP;
    match ins.mnemonic() {
        Mnemonic::Push | Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => {
            Some(ins.stack_pointer_increment().into())
        }
        Mnemonic::Pop if !(ins.op0_register().is_gpr() && ins.op0_register().full_register() == Register::RSP) => {
            Some(ins.stack_pointer_increment().into())
        }
        Mnemonic::Sub if to_rsp && immediate() => Some((ins.immediate(1) as i64).wrapping_neg()).filter(is_small),
        Mnemonic::Add if to_rsp && immediate() => Some(ins.immediate(1) as i64).filter(is_small),
        Mnemonic::Lea if to_rsp && ins.memory_base() == Register::RSP && ins.memory_index() == Register::None => {
            Some(ins.memory_displacement64() as i64).filter(is_small)
        }
        _ => None,
    }
}

/// Whether the stack pointer may be anywhere after an instruction. What is emitted as a push or pop at the program's own
/// address touches the stack where it leaves it.
pub(super) fn moves_stack_freely(ins: &Instruction, written: u32, mode: Mode) -> bool {
    let to = ins.op0_register();
    let pops = ins.mnemonic() == Mnemonic::Pop && !to.is_segment_register() && to.full_register() != Register::RSP;
    let touches = mode.is_mirrored() && (pops || ins.mnemonic() == Mnemonic::Push);
    written & 1 << RSP != 0 && !touches
}

fn is_small(by: &i64) -> bool {
    by.unsigned_abs() < 1 << 24
}

/// The memory operand of an instruction whose accesses may share a check: where, how many bytes, whether it writes.
fn operand_access(ins: &Instruction, info: &mut InstructionInfoFactory) -> Option<(Ea, u32, bool)> {
    let operand = (0..ins.op_count()).find(|&n| ins.op_kind(n) == OpKind::Memory)?;
    match ins.mnemonic() {
        // They touch nothing, or not just what they name.
        Mnemonic::Lea
        | Mnemonic::Nop
        | Mnemonic::Reservednop
        | Mnemonic::Prefetch
        | Mnemonic::Prefetchw
        | Mnemonic::Prefetchnta
        | Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2
        | Mnemonic::Clflush
        | Mnemonic::Clflushopt => return None,
        // What is emitted for them looks for its operand by itself.
        Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr => return None,
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc if ins.op1_kind() == OpKind::Register => {
            return None;
        }
        // Its address counts from the stack pointer after it.
        Mnemonic::Pop => return None,
        _ => {}
    }
    // Beside a high byte there can be no REX prefix, which the shared addresses need.
    let high =
        |n: u32| ins.op_kind(n) == OpKind::Register && GprOperand::of(ins.op_register(n)).is_some_and(|gpr| gpr.high);
    if is_masked(ins) || ins.memory_index().is_vector_register() || (0..ins.op_count()).any(high) {
        return None;
    }
    let ea = Ea::of(ins);
    if ea.bits != 64 || i32::try_from(ea.displacement).is_err() {
        return None;
    }
    let access = info.info(ins).op_access(operand);
    let write = is_write(access);
    if !write && !is_read(access) || access == OpAccess::NoMemAccess {
        return None;
    }
    // What may come of an x87 error is seen to where the access is made by itself.
    if write && may_not_store(ins) {
        return None;
    }
    Some((ea, access_size(ins), write))
}

/// The general-purpose registers that an instruction may write, a bit each, and those that it may read.
fn used_registers(ins: &Instruction, info: &mut InstructionInfoFactory) -> (u32, u32) {
    let used = info.info(ins).used_registers();
    let all = |counts: fn(OpAccess) -> bool| {
        used.iter()
            .filter(|register| counts(register.access()))
            .filter_map(|register| GprOperand::of(register.register()))
            .fold(0, |all, gpr| all | 1 << gpr.number)
    };
    (all(is_write), all(is_read))
}
