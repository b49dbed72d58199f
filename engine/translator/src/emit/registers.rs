//! Which host register stands for which guest register.
//!
//! Guest RSP lives in host R9 and guest RCX in host R10; R9, R10 and R11 of the guest, which programs name least, are
//! *parked* in memory; all others are where they are on the host, because so many instructions name RAX, RDX, RBX, RSI
//! and RDI implicitly. Host RCX and R11 are scratch: RCX because JRCXZ, the one branch that reads no flags, tests it.

use iced_x86::Register;

use crate::asm::{R9, R10, Reg};

/// Where guest register `number` lives: `None` for a parked one.
pub fn host(number: u8) -> Option<Reg> {
    match number {
        1 => Some(R10),
        4 => Some(R9),
        9..=11 | 16.. => None,
        other => Some(Reg(other)),
    }
}

/// The host registers that hold guest registers while emitted code runs, with the guest's number.
pub fn pinned() -> impl Iterator<Item = (Reg, u8)> {
    (0..16).filter_map(|number| host(number).map(|reg| (reg, number)))
}

/// A general-purpose register of some width: its number, and how to name another number in the same width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GprOperand {
    /// 0 to 15.
    pub number: u8,
    /// 1, 2, 4 or 8.
    pub bytes: u8,
    /// AH, CH, DH or BH.
    pub high: bool,
}

impl GprOperand {
    /// What `register` is, if it is a general-purpose one.
    pub fn of(register: Register) -> Option<Self> {
        if !register.is_gpr() {
            return None;
        }
        let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
        Some(Self { number: register.full_register().number() as u8, bytes: register.size() as u8, high })
    }

    /// The host register `reg` in this width.
    pub fn on(self, reg: Reg) -> Register {
        let base = match (self.bytes, self.high) {
            (_, true) => {
                debug_assert!(reg.0 < 4, "a high byte needs one of the first four registers");
                return Register::AH + u32::from(reg.0);
            }
            (1, _) => Register::AL,
            (2, _) => Register::AX,
            (4, _) => Register::EAX,
            _ => Register::RAX,
        };
        // In iced's order AH to BH follow BL, and SPL follows them.
        let skip = if self.bytes == 1 && reg.0 >= 4 { 4 } else { 0 };
        base + (u32::from(reg.0) + skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asm::{RBP, RDX, RSI};

    #[test]
    fn names_registers_by_width() {
        let of = |r| GprOperand::of(r).unwrap();
        assert_eq!(of(Register::ECX), GprOperand { number: 1, bytes: 4, high: false });
        assert_eq!(of(Register::BH), GprOperand { number: 3, bytes: 1, high: true });
        assert_eq!(of(Register::ECX).on(R10), Register::R10D);
        assert_eq!(of(Register::CL).on(R10), Register::R10L);
        assert_eq!(of(Register::SPL).on(R9), Register::R9L);
        assert_eq!(of(Register::AL).on(RSI), Register::SIL);
        assert_eq!(of(Register::AX).on(RBP), Register::BP);
        assert_eq!(of(Register::AH).on(RDX), Register::DH);
        assert_eq!(GprOperand::of(Register::XMM1), None);
    }

    #[test]
    fn two_host_registers_are_scratch_and_one_is_the_engines() {
        let used: Vec<u8> = pinned().map(|(reg, _)| reg.0).collect();
        for free in [1, 4, 11] {
            assert!(!used.contains(&free));
        }
        assert_eq!(used.len(), 13);
    }
}
