//! The 88E1011 PHY that is on the chip (317453, section 13.4.7.1; registers are IEEE 802.3's, clause 22, and Marvell's).

use serde::{Deserialize, Serialize};

/// Where it answers.
pub(super) const ADDRESS: u32 = 1;

/// Control.
pub(super) const CONTROL: usize = 0;
/// Status.
pub(super) const STATUS: usize = 1;
const ADVERTISEMENT: usize = 4;
const PARTNER: usize = 5;
const GIGABIT_CONTROL: usize = 9;
const GIGABIT_STATUS: usize = 10;
/// Status of what is Marvell's.
pub(super) const SPECIFIC_STATUS: usize = 17;
const INTERRUPTS: usize = 19;

const CONTROL_RESET: u16 = 1 << 15;
const CONTROL_LOOPBACK: u16 = 1 << 14;
const CONTROL_POWER_DOWN: u16 = 1 << 11;
const CONTROL_RESTART: u16 = 1 << 9;

/// Status: every kind of 10 and 100 Mb/s, extended status, negotiation can be done, extended registers.
const STATUS_FIXED: u16 = 0x7949;
const STATUS_LINK: u16 = 1 << 2;
const STATUS_NEGOTIATED: u16 = 1 << 5;
/// What the partner can, and that it has understood.
const PARTNER_ABILITY: u16 = 0x41e1;
/// The partner can do 1000 Mb/s, and both receivers are well.
const GIGABIT_PARTNER: u16 = 0x3c00;
/// 1000 Mb/s, full duplex, resolved; the link.
const SPECIFIC_RESOLVED: u16 = 0xa800;
const SPECIFIC_LINK: u16 = 1 << 10;
/// Interrupts: the link changed, negotiation has ended.
const INTERRUPT_LINK: u16 = 1 << 10 | 1 << 11;

/// Value after a reset, and bits that are written, of each register.
const REGISTERS: [(u16, u16); 32] = {
    let mut table = [(0, 0); 32];
    table[CONTROL] = (0x1140, 0x7fc0 & !CONTROL_RESTART);
    table[STATUS] = (STATUS_FIXED, 0);
    table[2] = (0x0141, 0);
    table[3] = (0x0c20, 0);
    table[ADVERTISEMENT] = (0x0de1, 0xffff);
    table[6] = (0x0005, 0);
    table[7] = (0x2001, 0xffff);
    table[GIGABIT_CONTROL] = (0x0e00, 0xffff);
    table[15] = (0x3000, 0);
    table[16] = (0x0360, 0xffff);
    table[18] = (0, 0xffff);
    table[20] = (0x0d60, 0xffff);
    table[24] = (0x4100, 0xffff);
    table[26] = (0, 0xffff);
    table[29] = (0, 0xffff);
    table[30] = (0, 0xffff);
    table
};

/// The PHY, which is its own saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phy {
    registers: Vec<u16>,
    /// The link was down since the status was read last.
    lost: bool,
}

impl Default for Phy {
    fn default() -> Self {
        Self { registers: REGISTERS.iter().map(|(value, _)| *value).collect(), lost: false }
    }
}

impl Phy {
    /// Reads a register; `up` is whether there is a link.
    pub(super) fn read(&mut self, register: usize, up: bool) -> u16 {
        let value = self.registers.get(register).copied().unwrap_or(0);
        match register {
            // That the link was down is shown once (IEEE 802.3, clause 22.2.4.2.13).
            STATUS if up && std::mem::take(&mut self.lost) => value | STATUS_NEGOTIATED,
            STATUS if up => value | STATUS_LINK | STATUS_NEGOTIATED,
            PARTNER if up => PARTNER_ABILITY,
            GIGABIT_STATUS if up => GIGABIT_PARTNER,
            SPECIFIC_STATUS if up => SPECIFIC_RESOLVED | SPECIFIC_LINK,
            INTERRUPTS => std::mem::take(&mut self.registers[INTERRUPTS]),
            _ => value,
        }
    }

    /// Writes a register; whether the link is negotiated anew.
    pub(super) fn write(&mut self, register: usize, value: u16) -> bool {
        let Some((_, writable)) = REGISTERS.get(register) else { return false };
        if register == CONTROL && value & CONTROL_RESET != 0 {
            *self = Self::default();
            return true;
        }
        let before = std::mem::replace(&mut self.registers[register], 0);
        self.registers[register] = before & !writable | value & writable;
        register == CONTROL && (value & CONTROL_RESTART != 0 || (before ^ value) & CONTROL_POWER_DOWN != 0)
    }

    /// The link changed, or was negotiated.
    pub(super) fn link_changed(&mut self, up: bool) {
        self.lost |= !up;
        self.registers[INTERRUPTS] |= INTERRUPT_LINK;
    }

    /// It is on.
    pub(super) fn is_on(&self) -> bool {
        self.registers[CONTROL] & CONTROL_POWER_DOWN == 0
    }

    /// What is sent comes back.
    pub(super) fn is_looped(&self) -> bool {
        self.registers[CONTROL] & CONTROL_LOOPBACK != 0
    }

    pub(super) fn is_sound(&self) -> bool {
        self.registers.len() == REGISTERS.len()
    }
}
