//! X11 key symbols (X Window System Protocol, appendix A; `XF86keysym.h`), as viewers send them.

use crate::Key;
use crate::text::{Stroke, stroke};

/// Symbols that are not characters: the first, and the keys that follow one another from there.
const RUNS: &[(u32, &[Key])] = &[
    (0xff08, &[Key::Backspace, Key::Tab, Key::Enter]),
    (0xff0d, &[Key::Enter]),
    (0xff13, &[Key::Pause, Key::ScrollLock, Key::PrintScreen]),
    (0xff1b, &[Key::Escape]),
    (0xff22, &[Key::Muhenkan, Key::Henkan]),
    (0xff27, &[Key::Katakana]),
    (0xff50, &[Key::Home, Key::Left, Key::Up, Key::Right, Key::Down, Key::PageUp, Key::PageDown, Key::End]),
    (0xff61, &[Key::PrintScreen]),
    (0xff63, &[Key::Insert]),
    (0xff67, &[Key::Menu]),
    (0xff6b, &[Key::Pause]),
    (0xff7e, &[Key::AltRight, Key::NumLock]),
    (0xff80, &[Key::Space]),
    (0xff89, &[Key::Tab]),
    (0xff8d, &[Key::KpEnter]),
    (0xff95, &[Key::Kp7, Key::Kp4, Key::Kp8, Key::Kp6, Key::Kp2, Key::Kp9, Key::Kp3, Key::Kp1, Key::Kp5, Key::Kp0]),
    (0xff9f, &[Key::KpDecimal]),
    (0xffaa, &[Key::KpMultiply, Key::KpAdd, Key::KpComma, Key::KpSubtract, Key::KpDecimal, Key::KpDivide]),
    (0xffb0, &[Key::Kp0, Key::Kp1, Key::Kp2, Key::Kp3, Key::Kp4, Key::Kp5, Key::Kp6, Key::Kp7, Key::Kp8, Key::Kp9]),
    (0xffbd, &[Key::KpEqual, Key::F1, Key::F2, Key::F3, Key::F4, Key::F5, Key::F6, Key::F7, Key::F8, Key::F9]),
    (0xffc7, &[Key::F10, Key::F11, Key::F12]),
    (0xffe1, &[Key::ShiftLeft, Key::ShiftRight, Key::ControlLeft, Key::ControlRight, Key::CapsLock]),
    (0xffe7, &[Key::MetaLeft, Key::MetaRight, Key::AltLeft, Key::AltRight, Key::MetaLeft, Key::MetaRight]),
    (0xffff, &[Key::Delete]),
    // ISO: third level, and Tab with Shift.
    (0xfe03, &[Key::AltRight]),
    (0xfe20, &[Key::Tab]),
    // Multimedia.
    (
        0x1008_ff11,
        &[Key::VolumeDown, Key::Mute, Key::VolumeUp, Key::Play, Key::Stop, Key::PreviousTrack, Key::NextTrack],
    ),
    (0x1008_ff18, &[Key::WebHome, Key::Mail]),
    (0x1008_ff1b, &[Key::WebSearch]),
    (0x1008_ff1d, &[Key::Calculator]),
    (0x1008_ff26, &[Key::WebBack, Key::WebForward, Key::WebStop, Key::WebRefresh, Key::Power, Key::Wake]),
    (0x1008_ff2f, &[Key::Sleep, Key::WebFavourites]),
    (0x1008_ff32, &[Key::MediaSelect, Key::Computer]),
];

/// The character that a symbol stands for: Latin-1 as it is, others with 0x0100_0000 added.
fn character(symbol: u32) -> Option<char> {
    match symbol {
        0x20..=0x7e | 0xa0..=0xff => char::from_u32(symbol),
        0x0100_0000..=0x0110_ffff => char::from_u32(symbol - 0x0100_0000),
        _ => None,
    }
}

/// The key that a symbol is on, on a US keyboard. A viewer sends what its own keyboard has; the key's Shift comes apart.
pub fn key(symbol: u32) -> Option<Key> {
    let run = RUNS.iter().find_map(|(first, keys)| keys.get(symbol.checked_sub(*first)? as usize));
    run.copied().or_else(|| stroke(character(symbol)?).map(|Stroke { key, .. }| key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_on_their_keys() {
        let expected = [
            (0x61, Key::A),
            (0x41, Key::A),
            (0x21, Key::Digit1),
            (0x7e, Key::Grave),
            (0x0100_0041, Key::A),
            (0xff08, Key::Backspace),
            (0xff0d, Key::Enter),
            (0xff50, Key::Home),
            (0xff57, Key::End),
            (0xff56, Key::PageDown),
            (0xff8d, Key::KpEnter),
            (0xff95, Key::Kp7),
            (0xff9e, Key::Kp0),
            (0xffae, Key::KpDecimal),
            (0xffaf, Key::KpDivide),
            (0xffb9, Key::Kp9),
            (0xffbe, Key::F1),
            (0xffc9, Key::F12),
            (0xffe5, Key::CapsLock),
            (0xffe9, Key::AltLeft),
            (0xffeb, Key::MetaLeft),
            (0xffff, Key::Delete),
            (0x1008_ff13, Key::VolumeUp),
            (0x1008_ff17, Key::NextTrack),
        ];
        for (symbol, expected) in expected {
            assert_eq!(key(symbol), Some(expected), "{symbol:#x}");
        }
        for nothing in [0, 0x1f, 0x7f, 0xe9, 0xff00, 0x0100_20ac, u32::MAX] {
            assert_eq!(key(nothing), None, "{nothing:#x}");
        }
    }

    #[test]
    fn runs_do_not_overlap() {
        let mut all: Vec<u32> = RUNS.iter().flat_map(|(first, keys)| *first..*first + keys.len() as u32).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
