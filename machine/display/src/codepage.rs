//! Code page 437, the characters of a PC's text modes, in Unicode.

/// The first 32 characters, which are signs where a screen shows them.
const SIGNS: &str = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼";
/// The characters from 0x7f on.
const UPPER: &str = concat!(
    "⌂ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐",
    "└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ "
);

/// What a screen shows for a character of code page 437.
pub fn unicode(character: u8) -> char {
    match character {
        0..0x20 => SIGNS.chars().nth(character.into()),
        0x20..0x7f => Some(character.into()),
        0x7f.. => UPPER.chars().nth(usize::from(character) - 0x7f),
    }
    .unwrap_or(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_is_in_its_place() {
        assert_eq!((SIGNS.chars().count(), UPPER.chars().count()), (32, 129));
        let places = [(0, ' '), (1, '☺'), (0x1f, '▼'), (0x41, 'A'), (0x7f, '⌂'), (0x80, 'Ç'), (0x9f, 'ƒ')];
        let more =
            [(0xb0, '░'), (0xbf, '┐'), (0xc0, '└'), (0xc4, '─'), (0xdb, '█'), (0xe0, 'α'), (0xf8, '°'), (0xfe, '■')];
        for (character, expected) in places.into_iter().chain(more) {
            assert_eq!(unicode(character), expected, "{character:#x}");
        }
        assert_eq!(unicode(0xff), ' ');
    }
}
