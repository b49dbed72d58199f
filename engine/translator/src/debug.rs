//! Breakpoints by debug register (SDM 3B 17.2), and the end of the code segment: what needs a look at each instruction.
//!
//! While a breakpoint is enabled the dispatcher runs one instruction at a time, with its accesses through the bounce
//! buffer where data are watched. Guests that use neither pay one test per entry.

use iced_x86::{Decoder, DecoderError, DecoderOptions};
use lodge_x86::bits::rflags;

use crate::access::Privilege;
use crate::cpu::Cpu;
use crate::mode::Mode;

/// What a breakpoint watches: bits 1:0 of its field in DR7.
mod kind {
    pub const EXECUTE: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const IO: u64 = 2;
}

/// DR6: single step.
pub const DR6_BS: u64 = 1 << 14;

impl Cpu {
    /// The enabled breakpoints: number, kind, linear address, length in bytes.
    fn breakpoints(&self) -> impl Iterator<Item = (usize, u64, u64, u64)> + use<> {
        let (dr, dr7) = (self.dr, self.dr[7]);
        (0..4).filter(move |n| dr7 >> (2 * n) & 3 != 0).map(move |n| {
            let field = dr7 >> (16 + 4 * n);
            let length = match field >> 2 & 3 {
                2 => 8,
                other => other + 1,
            };
            (n, field & 3, dr[n], length)
        })
    }

    /// How instructions have to be run for the sake of breakpoints: bits of [`Mode::HOW`].
    pub fn debug_how(&self) -> u32 {
        if self.dr[7] & 0xff == 0 {
            return 0;
        }
        self.breakpoints().fold(0, |how, (_, kind, ..)| {
            how | Mode::SINGLE | if kind == kind::EXECUTE || kind == kind::IO { 0 } else { Mode::BOUNCE }
        })
    }

    /// The bits of DR6 for breakpoints on the instruction at [`Cpu::lip`]; none while RF is set.
    pub fn instruction_breakpoints(&self) -> u64 {
        if self.system_flags & rflags::RF != 0 {
            return 0;
        }
        let lip = self.lip;
        self.breakpoints()
            .fold(0, |hits, (n, kind, at, _)| hits | if kind == kind::EXECUTE && at == lip { 1 << n } else { 0 })
    }

    /// Notes the breakpoints that an access to data meets.
    pub fn note_access(&mut self, linear: u64, length: u64, write: bool) {
        if self.dr[7] & 0xff == 0 {
            return;
        }
        let hits = self.breakpoints().fold(0, |hits, (n, kind, at, size)| {
            let watches = kind == kind::WRITE && write || kind == 3;
            let start = at & !(size - 1);
            let meets = linear < start.saturating_add(size) && start < linear.saturating_add(length);
            hits | if watches && meets { 1 << n } else { 0 }
        });
        self.context().debug_hits |= hits;
    }

    /// Notes the breakpoints that an access to a port meets.
    pub fn note_port(&mut self, port: u16, length: u16) {
        if self.dr[7] & 0xff == 0 || self.cr4 & lodge_x86::bits::cr4::DE == 0 {
            return;
        }
        let (first, end) = (u64::from(port), u64::from(port) + u64::from(length));
        let hits = self.breakpoints().fold(0, |hits, (n, kind, at, size)| {
            let start = at & !(size - 1);
            hits | if kind == kind::IO && first < start + size && start < end { 1 << n } else { 0 }
        });
        self.context().debug_hits |= hits;
    }

    /// Whether blocks from here on may run over the end of the code segment.
    pub fn is_near_code_end(&self) -> bool {
        let limit = self.segment[1].segment.limit;
        !self.is_64() && limit != u32::MAX && self.rip().saturating_add(1024) > u64::from(limit)
    }

    /// Whether the instruction here goes on beyond the end of the code segment.
    pub fn passes_code_end(&mut self) -> bool {
        let limit = u64::from(self.segment[1].segment.limit);
        let Some(room) = (limit + 1).checked_sub(self.rip()).filter(|&room| room > 0) else { return true };
        let mut bytes = [0; crate::translate::MAX_LENGTH];
        let mut have = 0;
        while have < bytes.len() && (have as u64) < room {
            let linear = self.lip.wrapping_add(have as u64) & 0xffff_ffff;
            let mut one = [0];
            if self.read_linear(linear, &mut one, Privilege::System).is_err() {
                // The fetch will fault by itself.
                return false;
            }
            bytes[have] = one[0];
            have += 1;
        }
        let bits = Mode(self.mode).code_bits();
        let mut decoder = Decoder::new(bits, &bytes[..have], DecoderOptions::NONE);
        let ins = decoder.decode();
        ins.is_invalid() && decoder.last_error() == DecoderError::NoMoreBytes
    }
}
