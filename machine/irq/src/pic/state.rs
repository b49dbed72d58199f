//! Saved state of the 8259A pair.

use serde::{Deserialize, Serialize};

/// Where initialization stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Ready.
    #[default]
    Ready,
    /// ICW2 is next.
    Icw2,
    /// ICW3 is next.
    Icw3,
    /// ICW4 is next.
    Icw4,
}

/// One 8259A.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChipState {
    /// Interrupt request register.
    pub irr: u8,
    /// In-service register.
    pub isr: u8,
    /// Interrupt mask register.
    pub imr: u8,
    /// Levels of the inputs.
    pub lines: u8,
    /// Edge/level control.
    pub elcr: u8,
    /// All inputs level-triggered (ICW1).
    pub level_mode: bool,
    /// Upper five bits of the vectors.
    pub base: u8,
    /// The input with the highest priority.
    pub highest: u8,
    /// Reads give the ISR rather than the IRR.
    pub read_isr: bool,
    /// The next read is a poll.
    pub poll: bool,
    /// Special mask mode.
    pub special_mask: bool,
    /// Automatic end of interrupt.
    pub auto_eoi: bool,
    /// Rotation in automatic end of interrupt.
    pub rotate_on_auto_eoi: bool,
    /// Special fully nested mode.
    pub nested: bool,
    /// Initialization.
    pub step: Step,
    /// ICW4 will follow.
    pub wants_icw4: bool,
    /// No ICW3 will follow.
    pub single: bool,
}

/// Both chips: master, slave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PicState {
    /// The chip at 0x20.
    pub master: ChipState,
    /// The chip at 0xa0.
    pub slave: ChipState,
}
