//! Linking blocks when they are made, rather than when control first passes from one to the other.
//!
//! A chained exit leads to code of the same page and mode whoever takes it, so it does not matter when it is chained:
//! at first use, by the dispatcher ([`Code::chain`]), or here as soon as both blocks are there. With a block that was
//! kept ([`crate::kept`]) come those of its page that were made next when it was: where one is run again those mostly
//! are, too, and each need not be asked for.

use crate::memory::{PAGE, Ram};
use crate::mode::Mode;
use crate::translate::{Code, Fetched};

/// Most blocks that come with one.
const COMPANY: usize = 16;

impl Code {
    /// Links the exits of block `id`, and of those that come with it, to the blocks that they lead to. Whether
    /// anyone writes to its page or, in a large one, to the next 4 KiB, the caller knows.
    pub(crate) fn link(&mut self, ram: &Ram, id: u32, was_kept: bool) {
        let mut ids = vec![id];
        if was_kept {
            let (gpa, mode, page_offset) = self.block_place(id);
            let company = std::iter::from_fn(|| self.load_next(ram, gpa, mode, page_offset));
            ids.extend(company.take(COMPANY));
        }
        for id in ids {
            self.link_exits(id);
        }
    }

    fn link_exits(&mut self, id: u32) {
        let (gpa, mode, page_offset) = self.block_place(id);
        let Some(mode) = linked_mode(mode) else { return };
        for record in self.exits(id) {
            let Some(exit) = self.exit(record).filter(|exit| !exit.plain && !exit.far) else { continue };
            let target = gpa - page_offset + u64::from(exit.target);
            if let Some(found) = self.find(target, mode).filter(|found| found.second.is_none()) {
                self.chain(exit, &found);
            }
        }
    }

    /// Takes the kept block that was made behind the one that was last found, if it is of the same 4 KiB and mode as the
    /// block at `gpa` and not there yet.
    fn load_next(&mut self, ram: &Ram, gpa: u64, mode: Mode, page_offset: u64) -> Option<u32> {
        let (next_mode, next_offset) = self.kept.as_mut()?.peek()?;
        let next = gpa - page_offset + next_offset;
        let fits = next_mode == mode && !mode.has(Mode::HOW) && next & !(PAGE - 1) == gpa & !(PAGE - 1);
        if !fits || !self.has_room() || self.find(next, mode).is_some() {
            return None;
        }
        let own = self.mode_stubs(mode)?;
        let fetched = Fetched::of(ram, next, mode, next_offset, None);
        let made = self.load(mode, own, next_offset, &fetched)?;
        self.add(ram, next, mode, made, None).ok()
    }
}

/// The mode of what a block of this mode leads to, if all of its exits lead to one that is known beforehand. Outside
/// 64-bit mode there are limits to be checked.
fn linked_mode(mode: Mode) -> Option<Mode> {
    (mode.is_64() && !mode.has(Mode::HOW)).then_some(Mode(mode.0 & !Mode::PLAIN))
}
