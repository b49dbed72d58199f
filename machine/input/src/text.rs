//! Which keys of a US keyboard type a text.

use crate::Key;

/// A key, with Shift or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stroke {
    /// The key.
    pub key: Key,
    /// Shift is held.
    pub shift: bool,
}

/// Keys with a character without Shift, and one with it, but for letters.
const SIGNS: &[(Key, char, char)] = &[
    (Key::Grave, '`', '~'),
    (Key::Digit1, '1', '!'),
    (Key::Digit2, '2', '@'),
    (Key::Digit3, '3', '#'),
    (Key::Digit4, '4', '$'),
    (Key::Digit5, '5', '%'),
    (Key::Digit6, '6', '^'),
    (Key::Digit7, '7', '&'),
    (Key::Digit8, '8', '*'),
    (Key::Digit9, '9', '('),
    (Key::Digit0, '0', ')'),
    (Key::Minus, '-', '_'),
    (Key::Equal, '=', '+'),
    (Key::BracketLeft, '[', '{'),
    (Key::BracketRight, ']', '}'),
    (Key::Backslash, '\\', '|'),
    (Key::Semicolon, ';', ':'),
    (Key::Apostrophe, '\'', '"'),
    (Key::Comma, ',', '<'),
    (Key::Dot, '.', '>'),
    (Key::Slash, '/', '?'),
];

/// Keys with one character.
const PLAIN: &[(Key, char)] = &[
    (Key::Space, ' '),
    (Key::Space, '\u{a0}'),
    (Key::Enter, '\n'),
    (Key::Enter, '\r'),
    (Key::Tab, '\t'),
    (Key::Backspace, '\u{8}'),
    (Key::Backspace, '\u{7f}'),
    (Key::Escape, '\u{1b}'),
];

/// The letters in order.
const LETTERS: [Key; 26] = [
    Key::A,
    Key::B,
    Key::C,
    Key::D,
    Key::E,
    Key::F,
    Key::G,
    Key::H,
    Key::I,
    Key::J,
    Key::K,
    Key::L,
    Key::M,
    Key::N,
    Key::O,
    Key::P,
    Key::Q,
    Key::R,
    Key::S,
    Key::T,
    Key::U,
    Key::V,
    Key::W,
    Key::X,
    Key::Y,
    Key::Z,
];

/// The stroke that types a character; `None`: a US keyboard does not have it.
pub fn stroke(character: char) -> Option<Stroke> {
    if character.is_ascii_alphabetic() {
        let place = usize::from(character.to_ascii_lowercase() as u8 - b'a');
        return Some(Stroke { key: *LETTERS.get(place)?, shift: character.is_ascii_uppercase() });
    }
    let sign = SIGNS.iter().find_map(|(key, plain, shifted)| {
        let is = |shift| Stroke { key: *key, shift };
        (*plain == character).then(|| is(false)).or_else(|| (*shifted == character).then(|| is(true)))
    });
    let plain = || PLAIN.iter().find(|(_, own)| *own == character).map(|(key, _)| Stroke { key: *key, shift: false });
    sign.or_else(plain)
}

/// A Latin letter without its accent, for typing on a keyboard that has none.
fn bare(character: char) -> Option<&'static str> {
    Some(match character {
        'À'..='Å' => "A",
        'Æ' => "AE",
        'Ç' => "C",
        'È'..='Ë' => "E",
        'Ì'..='Ï' => "I",
        'Ñ' => "N",
        'Ò'..='Ö' | 'Ø' => "O",
        'Ù'..='Ü' => "U",
        'Ý' => "Y",
        'ß' => "ss",
        'à'..='å' => "a",
        'æ' => "ae",
        'ç' => "c",
        'è'..='ë' => "e",
        'ì'..='ï' => "i",
        'ñ' => "n",
        'ò'..='ö' | 'ø' => "o",
        'ù'..='ü' => "u",
        'ý' | 'ÿ' => "y",
        '«' | '»' => "\"",
        '´' => "'",
        _ => return None,
    })
}

/// The keys that go down and up when `text` is typed, in order; accents are left out.
///
/// # Errors
/// The first character that can't be typed.
pub fn strokes(text: &str) -> Result<Vec<(Key, bool)>, char> {
    let mut events = Vec::new();
    // A line ends once, however it is written.
    for character in text.replace("\r\n", "\n").chars() {
        let own = [character];
        let typed: Vec<char> = match bare(character) {
            Some(bare) => bare.chars().collect(),
            None => own.to_vec(),
        };
        for typed in typed {
            let Stroke { key, shift } = stroke(typed).ok_or(character)?;
            if shift {
                events.push((Key::ShiftLeft, true));
            }
            events.extend([(key, true), (key, false)]);
            if shift {
                events.push((Key::ShiftLeft, false));
            }
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ascii_character_can_be_typed() {
        let mut seen = Vec::new();
        for character in (0x20u8..0x7f).map(char::from) {
            let stroke = stroke(character).unwrap_or_else(|| panic!("{character:?}"));
            assert!(!seen.contains(&stroke), "{character:?}");
            seen.push(stroke);
        }
        assert_eq!(stroke('A'), Some(Stroke { key: Key::A, shift: true }));
        assert_eq!(stroke('?'), Some(Stroke { key: Key::Slash, shift: true }));
        assert_eq!(stroke('\u{1}'), None);
    }

    #[test]
    fn texts_become_strokes() {
        let shift = |down| (Key::ShiftLeft, down);
        let both = |key| [(key, true), (key, false)];
        let mut expected = vec![shift(true)];
        expected.extend(both(Key::L));
        expected.push(shift(false));
        expected.extend(both(Key::S));
        expected.extend(both(Key::Enter));
        assert_eq!(strokes("Ls\r\n"), Ok(expected));
        assert_eq!(strokes("ä").map(|events| events.len()), Ok(2));
        assert_eq!(strokes("ß"), strokes("ss"));
        assert_eq!(strokes("a€"), Err('€'));
    }
}
