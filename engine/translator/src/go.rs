//! Going on from a helper without the dispatcher.
//!
//! A helper that changed where control is (an exception delivered, IRET, a write of CR3) used to leave emitted code, so
//! that the dispatcher looked at everything that may be asked of a vCPU and found the next block. Mostly nothing is
//! asked, and the block is in the jump cache. [`Cpu::go`] checks the former and has the stub look for the latter.
//!
//! ```text
//! helper --STAY--> back into the block
//!        --GO----> jump cache of the mode that is now ([`Ways`]) --miss--> dispatcher
//!        --LEAVE-> dispatcher
//! ```
//!
//! What [`Cpu::go`] need not look at: requests of others and interrupts that can be delivered have set
//! [`Cpu::pending`], which the next block polls.
#![expect(unsafe_code, reason = "a change of address space moves the GS base")]
// UNSAFETY: one write of the GS base, to a region of the same vCPU.

use lodge_x86::bits::rflags;
use lodge_x86::exception::Exception;

use crate::context::After;
use crate::cpu::Cpu;
use crate::mode::Mode;
use crate::translate::ModeStubs;

/// A helper's answer: go on in the block.
pub const STAY: u64 = 0;
/// Leave for the dispatcher.
pub const LEAVE: u64 = 1;
/// Go on at [`Cpu::lip`], by way of [`Cpu::go_indirect`].
pub const GO: u64 = 2;

/// Modes whose stubs are remembered.
const SLOTS: usize = 32;

/// The stubs of the modes that a vCPU meets, so that they are found without a lock.
#[derive(Default)]
pub struct Ways([Option<(u32, ModeStubs)>; SLOTS]);

impl Ways {
    fn slot(mode: Mode) -> usize {
        (mode.0.wrapping_mul(0x9e37_79b1) >> 27) as usize % SLOTS
    }

    /// A mode's stubs.
    pub fn get(&self, mode: Mode) -> Option<ModeStubs> {
        let mode = mode.without_page();
        self.0[Self::slot(mode)].filter(|(known, _)| *known == mode.0).map(|(_, own)| own)
    }

    /// Remembers them.
    pub fn learn(&mut self, mode: Mode, own: ModeStubs) {
        let mode = mode.without_page();
        self.0[Self::slot(mode)] = Some((mode.0, own));
    }

    /// Forgets all: the code is gone.
    pub fn forget(&mut self) {
        self.0 = Default::default();
    }
}

impl Cpu {
    /// The answer of a helper after which control goes on at [`Cpu::lip`].
    pub fn go(&mut self) -> u64 {
        if !self.may_go() {
            return LEAVE;
        }
        let mode = Mode(self.mode);
        let Some(own) = self.context().ways.get(mode) else { return LEAVE };
        (self.go_indirect, self.go_underflow) = (own.indirect, own.underflow);
        self.system_flags &= !rflags::RF;
        self.source = Self::NO_SOURCE;
        let region = self.context().regions.cpu();
        if region != std::ptr::from_mut(self) {
            let base = region as u64 + crate::cpu::STATE_SIZE as u64;
            // SAFETY: FSGSBASE was checked when the engine was made; every region shows this state.
            unsafe { std::arch::asm!("wrgsbase {}", in(reg) base, options(nostack, preserves_flags)) };
        }
        GO
    }

    /// Whether nothing but a block is wanted next.
    fn may_go(&mut self) -> bool {
        let plain = self.how == 0
            && self.latched == 0
            && self.system_flags & (rflags::TF | rflags::VIP) == 0
            && self.dr[7] & 0xff == 0
            && !(self.mirrored && crate::mirror::in_arena(self.gpr[4]))
            && (self.is_64() || self.segment[1].segment.limit == u32::MAX);
        let context = self.context();
        let changed = context.shared.memory_changed.load(std::sync::atomic::Ordering::Relaxed);
        plain && context.after == After::Continue && !context.shadow && !changed
    }

    /// The answer of a helper whose instruction, at [`Cpu::lip`], raised an exception.
    pub fn raise_and_go(&mut self, exception: Exception) -> u64 {
        if self.how != 0 || self.latched != 0 {
            self.context().after = After::Raise(exception);
            return LEAVE;
        }
        if !self.raise_noted(exception) {
            self.context().after = After::Shutdown;
            return LEAVE;
        }
        self.go()
    }

    /// Delivers an exception, and notes it for a crash report; `false`: a triple fault.
    pub fn raise_noted(&mut self, exception: Exception) -> bool {
        let lip = self.lip;
        let context = self.context();
        context.counts.exceptions += 1;
        let log = &mut context.exceptions;
        if log.len() == 8 {
            log.pop_front();
        }
        log.push_back((lip, exception));
        self.raise(exception)
    }
}
