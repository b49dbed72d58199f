//! Scan codes of PS/2 keyboards (Microsoft, "Keyboard Scan Code Specification" 1.3a, appendix C; IBM PS/2 Hardware
//! Interface Technical Reference, "Keyboards").
//!
//! Set 1 marks a release by the upper bit of the code, set 2 by a byte before it. Print Screen and Pause are sent as several
//! keys, which old programs understand.

use crate::Key;

/// What happens to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It goes down.
    Make,
    /// It goes up.
    Break,
}

/// A few bytes of scan codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes {
    bytes: [u8; 8],
    length: u8,
}

impl Codes {
    fn new(codes: &[u8]) -> Self {
        let mut bytes = [0; 8];
        let length = codes.len().min(8);
        bytes[..length].copy_from_slice(&codes[..length]);
        Self { bytes, length: length as u8 }
    }
}

impl std::ops::Deref for Codes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

const EXTENDED: u8 = 0xe0;
/// Set 1: a release.
const UP: u8 = 0x80;
/// Set 2: a release follows.
const RELEASE: u8 = 0xf0;

impl Key {
    /// The bytes that a keyboard in scan set 1 sends, which is also what a controller that translates makes of set 2.
    /// Pause has no break codes.
    pub fn set1(self, edge: Edge) -> Codes {
        let (extended, code, _) = self.codes();
        match (self, edge) {
            (Self::Pause, Edge::Make) => Codes::new(&[0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]),
            (Self::Pause, Edge::Break) => Codes::new(&[]),
            (Self::PrintScreen, Edge::Make) => Codes::new(&[EXTENDED, 0x2a, EXTENDED, 0x37]),
            (Self::PrintScreen, Edge::Break) => Codes::new(&[EXTENDED, 0xb7, EXTENDED, 0xaa]),
            (_, edge) => {
                let code = if edge == Edge::Break { code | UP } else { code };
                if extended { Codes::new(&[EXTENDED, code]) } else { Codes::new(&[code]) }
            }
        }
    }

    /// The bytes that a keyboard in scan set 2 sends, as all do after power-on. Pause has no break codes.
    pub fn set2(self, edge: Edge) -> Codes {
        let (extended, _, code) = self.codes();
        match (self, edge) {
            (Self::Pause, Edge::Make) => Codes::new(&[0xe1, 0x14, 0x77, 0xe1, RELEASE, 0x14, RELEASE, 0x77]),
            (Self::Pause, Edge::Break) => Codes::new(&[]),
            (Self::PrintScreen, Edge::Make) => Codes::new(&[EXTENDED, 0x12, EXTENDED, 0x7c]),
            (Self::PrintScreen, Edge::Break) => Codes::new(&[EXTENDED, RELEASE, 0x7c, EXTENDED, RELEASE, 0x12]),
            (_, Edge::Make) if extended => Codes::new(&[EXTENDED, code]),
            (_, Edge::Make) => Codes::new(&[code]),
            (_, Edge::Break) if extended => Codes::new(&[EXTENDED, RELEASE, code]),
            (_, Edge::Break) => Codes::new(&[RELEASE, code]),
        }
    }

    /// The key with this code in set 1, extended ones with 0x80 or 0xe000 added, as viewers send it. 0x54 is Print Screen
    /// with Alt, 0xc6 Pause with Control.
    pub fn from_xt(code: u32) -> Option<Self> {
        let (extended, code) = match code {
            0x01..=0x7f => (false, code as u8),
            0x81..=0xff => (true, code as u8 & 0x7f),
            0xe001..=0xe07f => (true, code as u8),
            _ => return None,
        };
        match (extended, code) {
            (false, 0x54) => Some(Self::PrintScreen),
            (true, 0x46) => Some(Self::Pause),
            (true, 0x45) => Some(Self::NumLock),
            // Pause begins with another byte; alone, its code is that of Num Lock.
            (false, 0x45) => Some(Self::NumLock),
            _ => Self::ALL.iter().find(|key| (key.codes().0, key.codes().1) == (extended, code)).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What an i8042 makes of codes of set 2, for codes below 0x84 (IBM PS/2 Hardware Interface Technical Reference,
    /// "Keyboard/Auxiliary Device Controller": translation table).
    const TRANSLATED: [u8; 0x84] = [
        0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, 0x65, 0x38,
        0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20,
        0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15,
        0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60,
        0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36,
        0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b,
        0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49,
        0x46, 0x54, 0x80, 0x81, 0x82, 0x41,
    ];

    /// Translates set 2 as the controller does.
    fn translate(codes: &[u8]) -> Vec<u8> {
        let mut up = 0;
        let mut translated = Vec::new();
        for code in codes {
            match code {
                0xf0 => up = 0x80,
                code => {
                    translated.push(TRANSLATED.get(usize::from(*code)).copied().unwrap_or(*code) | up);
                    up = 0;
                }
            }
        }
        translated
    }

    #[test]
    fn both_sets_agree_as_the_controller_translates() {
        for key in Key::ALL {
            for edge in [Edge::Make, Edge::Break] {
                assert_eq!(translate(&key.set2(edge)), key.set1(edge).to_vec(), "{key} {edge:?}");
            }
        }
    }

    #[test]
    fn codes_are_those_of_the_tables() {
        let set1 = |key: Key, edge| key.set1(edge).to_vec();
        let set2 = |key: Key, edge| key.set2(edge).to_vec();
        assert_eq!((set1(Key::A, Edge::Make), set1(Key::A, Edge::Break)), (vec![0x1e], vec![0x9e]));
        assert_eq!((set2(Key::A, Edge::Make), set2(Key::A, Edge::Break)), (vec![0x1c], vec![0xf0, 0x1c]));
        assert_eq!((set2(Key::F7, Edge::Make), set1(Key::F7, Edge::Make)), (vec![0x83], vec![0x41]));
        assert_eq!(
            (set2(Key::Up, Edge::Break), set1(Key::Up, Edge::Break)),
            (vec![0xe0, 0xf0, 0x75], vec![0xe0, 0xc8])
        );
        assert_eq!(set2(Key::Pause, Edge::Make), [0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77]);
        assert_eq!(set1(Key::Pause, Edge::Make), [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]);
        assert_eq!(set1(Key::Pause, Edge::Break), []);
        assert_eq!(set2(Key::PrintScreen, Edge::Make), [0xe0, 0x12, 0xe0, 0x7c]);
        assert_eq!(set2(Key::PrintScreen, Edge::Break), [0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12]);
        assert_eq!(set1(Key::PrintScreen, Edge::Break), [0xe0, 0xb7, 0xe0, 0xaa]);
        assert_eq!((set1(Key::Power, Edge::Make), set2(Key::Power, Edge::Make)), (vec![0xe0, 0x5e], vec![0xe0, 0x37]));
        assert_eq!(
            (set1(Key::VolumeUp, Edge::Make), set2(Key::VolumeUp, Edge::Make)),
            (vec![0xe0, 0x30], vec![0xe0, 0x32])
        );
    }

    #[test]
    fn no_two_keys_send_the_same() {
        for edge in [Edge::Make, Edge::Break] {
            let codes: BTreeSet<_> = Key::ALL.iter().map(|key| key.set1(edge).to_vec()).collect();
            assert_eq!(codes.len(), Key::ALL.len());
            let codes: BTreeSet<_> = Key::ALL.iter().map(|key| key.set2(edge).to_vec()).collect();
            assert_eq!(codes.len(), Key::ALL.len());
        }
    }

    #[test]
    fn codes_of_viewers_lead_back() {
        for key in Key::ALL.iter().filter(|key| **key != Key::Pause) {
            let (extended, code, _) = key.codes();
            let viewers = u32::from(code) | if extended { 0x80 } else { 0 };
            assert_eq!(Key::from_xt(viewers), Some(*key), "{key}");
            assert_eq!(Key::from_xt(if extended { 0xe000 | u32::from(code) } else { code.into() }), Some(*key));
        }
        assert_eq!((Key::from_xt(0xc6), Key::from_xt(0x54)), (Some(Key::Pause), Some(Key::PrintScreen)));
        for nothing in [0, 0x80, 0x60, 0x100, 0xe000, u32::MAX] {
            assert_eq!(Key::from_xt(nothing), None, "{nothing:#x}");
        }
    }
}
