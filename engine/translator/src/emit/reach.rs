//! Emits what [`super::plan`] has decided: checks, and accesses that rely on them.

use super::Emitter;
use super::cold::Cold;
use super::plan::{Covers, Reach};
use super::probe::{Ea, argument};
use super::record::Exit;
use crate::asm::{Mem, R9, R11, RCX, Reg, Size, at, cond, gs};
use crate::cpu::{Cpu, off};
use crate::mode::Mode;

/// Where an access is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// So far from the host address in R11.
    Host(i32),
    /// So far from the stack pointer, in the window.
    Window(i32),
    /// At the program's own address, which is also the host's ([`super::mirrored`]).
    Own(Mem),
}

impl Emitter<'_> {
    /// Emits the checks that stand before the current instruction.
    pub(super) fn checks(&mut self) {
        while let Some(check) = self.plan.checks.get(self.checked).copied()
            && check.before == self.number
        {
            self.checked += 1;
            if self.keep_flags && self.may_park {
                self.release_flags();
            }
            debug_assert!(!self.keep_flags, "a check stands where flags are free");
            match check.covers {
                Covers::Window { low, length } => self.check_window(low, length),
                Covers::Group { number, from, length, write, keep } => {
                    self.check_group(number, &from, length, write, keep);
                }
            }
        }
    }

    fn check_window(&mut self, low: i32, length: u32) {
        let (enter, back) = (self.asm.label(), self.asm.label());
        self.asm.load(RCX, gs(off::WINDOW));
        self.asm.lea(RCX, Mem { gs: false, base: Some(RCX), index: Some((R9, 0)), disp: low });
        self.asm.cmp_imm(RCX, 4096 - length as i32);
        self.asm.jcc(cond::A, enter);
        self.asm.bind(back);
        self.was_held = None;
        let exit = self.plain_exit();
        self.cold.push(Cold::Window { enter, back, low, length, exit, guest: self.guest, remat: self.let_go });
    }

    fn check_group(&mut self, number: u8, from: &Ea, length: u32, write: bool, keep: bool) {
        // Whether each access is aligned is seen when it is made.
        let argument = self.argument(from, length, write, true) & !argument::ALIGNED | argument::TRY;
        let (enter, back) = (self.asm.label(), self.asm.label());
        self.effective(from);
        self.add_base(from.segment);
        self.probe_page(length, write, enter);
        self.asm.bind(back);
        if keep {
            self.asm.store(gs(off::group(number)), R11);
        }
        self.was_held = Some(number);
        let exit = self.plain_exit();
        self.cold.push(Cold::Group { enter, back, from: *from, argument, exit, guest: self.guest, remat: self.let_go });
    }

    /// An exit to the current instruction, without shared checks.
    pub(super) fn plain_exit(&mut self) -> usize {
        let target = self.offset as u32;
        self.exits.push(Exit {
            site: 0,
            target,
            source: Cpu::NO_SOURCE,
            polled: false,
            parked: self.parked,
            plain: true,
            far: false,
            mirrored: self.mode.has(Mode::MIRRORED),
        });
        self.exits.len() - 1
    }

    /// The jump of an exit that is emitted where it is taken, and what it leads to at first.
    pub(super) fn exit_code(&mut self, exit: usize) -> Cold {
        let enter = self.asm.label();
        self.align_displacement(1);
        self.asm.byte(0xe9);
        self.exits[exit].site = self.asm.here();
        self.asm.displacement(enter);
        Cold::Chain { enter, exit }
    }

    /// Where the current instruction's memory operand is.
    pub(super) fn operand_place(&mut self, ea: &Ea, size: u32, write: bool, read: bool) -> Place {
        if self.is_mirrored() {
            return self.mirrored_place(ea);
        }
        match self.plan.reaches.get(self.number).map(|reaches| reaches.operand) {
            Some(Reach::Window) => {
                self.held = self.was_held;
                Place::Window(ea.displacement as i32)
            }
            Some(Reach::Group { number, offset }) => {
                if self.was_held != Some(number) {
                    debug_assert!(self.is_kept(number), "a group's address is where it was put, or was never lost");
                    self.asm.load(R11, gs(off::group(number)));
                }
                self.held = Some(number);
                Place::Host(offset)
            }
            _ => {
                self.once = !write;
                self.probe_as(ea, size, write, read);
                self.once = false;
                Place::Host(0)
            }
        }
    }

    /// Whether the last check for a group has kept the address.
    fn is_kept(&self, number: u8) -> bool {
        self.plan.checks[..self.checked].iter().rev().find_map(|check| match check.covers {
            Covers::Group { number: other, keep, .. } if other == number => Some(keep),
            _ => None,
        }) == Some(true)
    }

    /// Where the current instruction's push or pop is, so far from the stack pointer.
    pub(super) fn stack_place(&mut self, displacement: i64, size: usize, write: bool) -> Place {
        if self.is_mirrored() {
            return self.mirrored_stack_place(displacement as i32);
        }
        if let Some(Reach::Window) = self.plan.reaches.get(self.number).map(|reaches| reaches.stack) {
            return Place::Window(displacement as i32);
        }
        let slot = self.stack_slot(displacement);
        self.probe_as(&slot, size as u32, write, !write);
        Place::Host(0)
    }

    /// Loads `size` bytes, zero-extended. No flags.
    pub(super) fn load_place(&mut self, place: Place, size: usize, to: Reg) {
        match place {
            Place::Host(offset) => self.asm.load_sized(Size::of(size), to, at(R11, offset)),
            Place::Window(displacement) => {
                self.asm.byte(FS);
                self.asm.load_sized(Size::of(size), to, at(R9, displacement));
            }
            Place::Own(mem) => self.asm.load_sized(Size::of(size), to, mem),
        }
    }

    /// Stores the low `size` bytes. No flags.
    pub(super) fn store_place(&mut self, place: Place, size: usize, from: Reg) {
        match place {
            Place::Host(offset) => self.asm.store_sized(Size::of(size), at(R11, offset), from),
            Place::Window(displacement) => {
                self.asm.byte(FS);
                self.asm.store_sized(Size::of(size), at(R9, displacement), from);
            }
            Place::Own(mem) => self.asm.store_sized(Size::of(size), mem, from),
        }
    }
}

/// The prefix for FS, whose base makes an address in the window a host address.
const FS: u8 = 0x64;
