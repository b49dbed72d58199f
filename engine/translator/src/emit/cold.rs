//! Code that is run rarely, emitted behind the block into the cold section.

use super::Emitter;
use super::probe::Ea;
use super::record::MapEntry;
use super::remat::Remat;
use crate::asm::{Label, R9, R11, RCX, cond};

/// Code that is run rarely and emitted behind the block.
pub(super) enum Cold {
    Memory {
        enter: Label,
        back: Label,
        ea: Ea,
        argument: u32,
        guest: u16,
        /// Live flags are not in the flags but put aside, and a fault must show them.
        saved: bool,
        /// They have been let go.
        remat: Option<Remat>,
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
        remat: Option<Remat>,
    },
    /// The stack is not where the window is.
    Window {
        enter: Label,
        back: Label,
        low: i32,
        length: u32,
        exit: usize,
        guest: u16,
        remat: Option<Remat>,
    },
    /// An address lies where lodge's own memory does.
    Plain {
        enter: Label,
        exit: usize,
        remat: Option<Remat>,
    },
    /// The code, whose address is in R11, lies where lodge's own memory does.
    Place {
        enter: Label,
    },
    /// The stack pointer lies where lodge's own memory does.
    Stack {
        enter: Label,
        place: u64,
        remat: Option<Remat>,
    },
    /// To a target outside the page.
    Far {
        enter: Label,
        target: i64,
        /// Where it can be linked.
        exit: Option<usize>,
    },
    Poll {
        enter: Label,
    },
    /// An exception that is found out off the hot path.
    Raise {
        enter: Label,
        vector: u8,
        place: u64,
        guest: u16,
        remat: Option<Remat>,
    },
    /// A system instruction off the hot path.
    System {
        enter: Label,
        back: Label,
        instruction: usize,
        guest: u16,
    },
}

impl Emitter<'_> {
    /// Emits the cold code; the labels of the exits' records, which are to be bound.
    pub(super) fn cold_code(&mut self) -> Vec<Label> {
        let records: Vec<Label> = self.exits.iter().map(|_| self.asm.label()).collect();
        let mut all = std::collections::VecDeque::from(std::mem::take(&mut self.cold));
        while let Some(cold) = all.pop_front() {
            let host = self.asm.offset() as u16;
            match cold {
                Cold::Memory { enter, back, ea, argument, guest, saved, remat } => {
                    self.cold_map.push(MapEntry { host, guest });
                    self.asm.bind(enter);
                    self.restore_flags(saved);
                    self.make_flags(remat);
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
                Cold::Group { enter, back, from, argument, exit, guest, remat } => {
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
                    self.make_flags(remat);
                    all.push_back(self.exit_code(exit));
                }
                Cold::Window { enter, back, low, length, exit, guest, remat } => {
                    self.cold_map.push(MapEntry { host, guest });
                    self.asm.bind(enter);
                    self.asm.lea(R11, crate::asm::at(R9, low));
                    self.asm.mov_imm32(RCX, length);
                    self.asm.call_to(self.window);
                    let plain = self.asm.label();
                    self.asm.test(RCX, RCX);
                    self.asm.jcc(cond::NE, plain);
                    self.asm.jmp(back);
                    self.asm.bind(plain);
                    self.make_flags(remat);
                    all.push_back(self.exit_code(exit));
                }
                Cold::Plain { enter, exit, remat } => {
                    self.asm.bind(enter);
                    self.make_flags(remat);
                    all.push_back(self.exit_code(exit));
                }
                Cold::Place { enter } => {
                    self.asm.bind(enter);
                    self.asm.jmp_to(self.stubs.leave_lookup);
                }
                Cold::Stack { enter, place, remat } => {
                    self.asm.bind(enter);
                    self.make_flags(remat);
                    self.linear(place as i64);
                    self.asm.jmp_to(self.stubs.leave_lookup);
                }
                Cold::Far { enter, target, exit } => {
                    self.asm.bind(enter);
                    self.linear(target);
                    match exit {
                        Some(exit) => all.push_back(self.exit_code(exit)),
                        None => self.asm.jmp_to(self.indirect),
                    }
                }
                Cold::Poll { enter } => {
                    self.asm.bind(enter);
                    self.linear(self.start as i64);
                    self.asm.jmp_to(self.stubs.leave_poll);
                }
                Cold::Raise { enter, vector, place, guest, remat } => {
                    self.cold_map.push(MapEntry { host, guest });
                    self.asm.bind(enter);
                    self.make_flags(remat);
                    self.asm.mov_imm(RCX, place);
                    self.asm.mov_imm32(R11, u32::from(vector));
                    self.asm.call_to(self.stubs.raise);
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
