//! Why a command failed (SPC-4 4.5).

use serde::{Deserialize, Serialize};

/// Sense key: no answer from the medium without one.
const NOT_READY: u8 = 2;
const MEDIUM: u8 = 3;
const ILLEGAL: u8 = 5;
const ATTENTION: u8 = 6;
const PROTECT: u8 = 7;

/// Sense: the key, and what it is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub code: u8,
    /// Its qualifier.
    pub qualifier: u8,
}

#[expect(missing_docs, reason = "the names say what they are")]
impl Sense {
    pub const NONE: Self = Self::new(0, 0, 0);
    pub const BECOMING_READY: Self = Self::new(NOT_READY, 0x04, 1);
    pub const NO_MEDIUM: Self = Self::new(NOT_READY, 0x3a, 0);
    pub const TRAY_OPEN: Self = Self::new(NOT_READY, 0x3a, 2);
    pub const UNREADABLE: Self = Self::new(MEDIUM, 0x11, 0);
    pub const UNWRITABLE: Self = Self::new(MEDIUM, 0x0c, 0);
    pub const INCOMPATIBLE: Self = Self::new(ILLEGAL, 0x30, 2);
    pub const LIST_LENGTH: Self = Self::new(ILLEGAL, 0x1a, 0);
    pub const UNKNOWN_COMMAND: Self = Self::new(ILLEGAL, 0x20, 0);
    pub const OUT_OF_RANGE: Self = Self::new(ILLEGAL, 0x21, 0);
    pub const BAD_FIELD: Self = Self::new(ILLEGAL, 0x24, 0);
    pub const NO_UNIT: Self = Self::new(ILLEGAL, 0x25, 0);
    pub const BAD_PARAMETER: Self = Self::new(ILLEGAL, 0x26, 0);
    pub const NOT_SAVED: Self = Self::new(ILLEGAL, 0x39, 0);
    pub const PREVENTED: Self = Self::new(ILLEGAL, 0x53, 2);
    pub const OTHER_MODE: Self = Self::new(ILLEGAL, 0x64, 0);
    pub const CHANGED: Self = Self::new(ATTENTION, 0x28, 0);
    pub const RESET: Self = Self::new(ATTENTION, 0x29, 3);
    pub const PROTECTED: Self = Self::new(PROTECT, 0x27, 0);

    const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Self { key, code, qualifier }
    }

    /// Whether the command made no sense.
    pub fn is_illegal(self) -> bool {
        self.key == ILLEGAL
    }

    /// As sense data: with descriptors (SPC-4 4.5.2), or in the fixed form (4.5.3).
    pub fn data(self, descriptors: bool) -> Vec<u8> {
        if descriptors {
            return vec![0x72, self.key, self.code, self.qualifier, 0, 0, 0, 0];
        }
        let mut bytes = vec![0; 18];
        (bytes[0], bytes[2], bytes[7]) = (0x70, self.key, 10);
        (bytes[12], bytes[13]) = (self.code, self.qualifier);
        bytes
    }
}
