//! Linking blocks when they are made, rather than when control first passes from one to the other.
//!
//! A chained exit leads to code of the same page and mode whoever takes it, so it does not matter when it is chained:
//! at first use, by the dispatcher ([`Code::chain`]), or here as soon as both blocks are there. What was kept of an
//! earlier run ([`crate::kept`]) is loaded here by the page: with a block come those that its exits lead to, for where
//! one is run again the others mostly are, and each need not be asked for.

use crate::memory::{PAGE, Ram};
use crate::mode::Mode;
use crate::translate::{Code, Fetched};

/// Most blocks that come with one.
const COMPANY: usize = 64;

impl Code {
    /// Links the exits of block `id` to the blocks that they lead to, after loading those that are kept. Its page and,
    /// in a large one, the next 4 KiB are not writable for anyone.
    pub(crate) fn link(&mut self, ram: &Ram, id: u32) {
        let page = self.block_place(id).0 & !(PAGE - 1);
        let mut company = 0;
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            let (gpa, mode, page_offset) = self.block_place(id);
            let start = gpa - page_offset;
            let Some(mode) = linked_mode(mode) else { continue };
            for record in self.exits(id) {
                let Some(exit) = self.exit(record) else { continue };
                if exit.plain {
                    continue;
                }
                let target = start + u64::from(exit.target);
                let known = self.find(target, mode);
                let found = known.or_else(|| {
                    let may = company < COMPANY && target & !(PAGE - 1) == page && self.has_room();
                    let id = if may { self.load_at(ram, target, mode, exit.target.into())? } else { return None };
                    company += 1;
                    waiting.push(id);
                    Some(self.found(id))
                });
                if let Some(found) = found.filter(|found| found.second.is_none()) {
                    self.chain(exit, &found);
                }
            }
        }
    }

    /// Takes the block at `gpa` from what is kept.
    fn load_at(&mut self, ram: &Ram, gpa: u64, mode: Mode, page_offset: u64) -> Option<u32> {
        if !self.keeps() {
            return None;
        }
        let own = self.mode_stubs(mode)?;
        let fetched = Fetched::of(ram, gpa, mode, page_offset, None);
        let made = self.load(mode, own, page_offset, &fetched)?;
        self.add(ram, gpa, mode, made, None).ok()
    }
}

/// The mode of what a block of this mode leads to, if all of its exits lead to one that is known beforehand. Outside
/// 64-bit mode there are limits to be checked; STAC and CLAC, which change the mode, are left to first use.
fn linked_mode(mode: Mode) -> Option<Mode> {
    (mode.is_64() && !mode.has(Mode::HOW)).then_some(Mode(mode.0 & !Mode::PLAIN))
}
