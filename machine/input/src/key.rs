//! The keys of a PC keyboard, and their names.

use std::fmt;
use std::str::FromStr;

/// Defines the keys: variant, names (the first is the one that is shown), place in the scan sets: code in set 1, code in
/// set 2; extended ones are marked `e0`.
macro_rules! keys {
    ($($variant:ident [$name:literal $(, $alias:literal)*] $kind:ident $set1:literal $set2:literal;)*) => {
        /// A key of a PC keyboard with 104 or 105 keys, or one of those beyond. It is named by what is on it on a US keyboard.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Key {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Key {
            /// Every key.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// All of its names, its own first.
            pub fn names(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$name $(, $alias)*],)* }
            }

            /// Its codes: whether they are extended, in set 1, in set 2.
            pub(crate) fn codes(self) -> (bool, u8, u8) {
                match self { $(Self::$variant => (keys!(@ $kind), $set1, $set2),)* }
            }
        }
    };
    (@ base) => { false };
    (@ e0) => { true };
}

keys! {
    Escape ["esc", "escape"] base 0x01 0x76;
    F1 ["f1"] base 0x3b 0x05;
    F2 ["f2"] base 0x3c 0x06;
    F3 ["f3"] base 0x3d 0x04;
    F4 ["f4"] base 0x3e 0x0c;
    F5 ["f5"] base 0x3f 0x03;
    F6 ["f6"] base 0x40 0x0b;
    F7 ["f7"] base 0x41 0x83;
    F8 ["f8"] base 0x42 0x0a;
    F9 ["f9"] base 0x43 0x01;
    F10 ["f10"] base 0x44 0x09;
    F11 ["f11"] base 0x57 0x78;
    F12 ["f12"] base 0x58 0x07;
    PrintScreen ["print", "sysrq", "printscreen"] e0 0x37 0x7c;
    ScrollLock ["scroll_lock", "scrolllock"] base 0x46 0x7e;
    Pause ["pause", "break"] base 0x45 0x77;
    Grave ["grave_accent", "grave", "`"] base 0x29 0x0e;
    Digit1 ["1"] base 0x02 0x16;
    Digit2 ["2"] base 0x03 0x1e;
    Digit3 ["3"] base 0x04 0x26;
    Digit4 ["4"] base 0x05 0x25;
    Digit5 ["5"] base 0x06 0x2e;
    Digit6 ["6"] base 0x07 0x36;
    Digit7 ["7"] base 0x08 0x3d;
    Digit8 ["8"] base 0x09 0x3e;
    Digit9 ["9"] base 0x0a 0x46;
    Digit0 ["0"] base 0x0b 0x45;
    Minus ["minus", "-"] base 0x0c 0x4e;
    Equal ["equal", "="] base 0x0d 0x55;
    Backspace ["backspace"] base 0x0e 0x66;
    Tab ["tab"] base 0x0f 0x0d;
    Q ["q"] base 0x10 0x15;
    W ["w"] base 0x11 0x1d;
    E ["e"] base 0x12 0x24;
    R ["r"] base 0x13 0x2d;
    T ["t"] base 0x14 0x2c;
    Y ["y"] base 0x15 0x35;
    U ["u"] base 0x16 0x3c;
    I ["i"] base 0x17 0x43;
    O ["o"] base 0x18 0x44;
    P ["p"] base 0x19 0x4d;
    BracketLeft ["bracket_left", "["] base 0x1a 0x54;
    BracketRight ["bracket_right", "]"] base 0x1b 0x5b;
    Enter ["ret", "return", "enter"] base 0x1c 0x5a;
    CapsLock ["caps_lock", "capslock"] base 0x3a 0x58;
    A ["a"] base 0x1e 0x1c;
    S ["s"] base 0x1f 0x1b;
    D ["d"] base 0x20 0x23;
    F ["f"] base 0x21 0x2b;
    G ["g"] base 0x22 0x34;
    H ["h"] base 0x23 0x33;
    J ["j"] base 0x24 0x3b;
    K ["k"] base 0x25 0x42;
    L ["l"] base 0x26 0x4b;
    Semicolon ["semicolon", ";"] base 0x27 0x4c;
    Apostrophe ["apostrophe", "'"] base 0x28 0x52;
    Backslash ["backslash", "\\"] base 0x2b 0x5d;
    ShiftLeft ["shift", "shift_l"] base 0x2a 0x12;
    Less ["less", "<"] base 0x56 0x61;
    Z ["z"] base 0x2c 0x1a;
    X ["x"] base 0x2d 0x22;
    C ["c"] base 0x2e 0x21;
    V ["v"] base 0x2f 0x2a;
    B ["b"] base 0x30 0x32;
    N ["n"] base 0x31 0x31;
    M ["m"] base 0x32 0x3a;
    Comma ["comma", ","] base 0x33 0x41;
    Dot ["dot", "period", "."] base 0x34 0x49;
    Slash ["slash", "/"] base 0x35 0x4a;
    ShiftRight ["shift_r"] base 0x36 0x59;
    ControlLeft ["ctrl", "control", "ctrl_l"] base 0x1d 0x14;
    MetaLeft ["meta_l", "meta", "super", "win"] e0 0x5b 0x1f;
    AltLeft ["alt", "alt_l"] base 0x38 0x11;
    Space ["spc", "space"] base 0x39 0x29;
    AltRight ["alt_r", "altgr"] e0 0x38 0x11;
    MetaRight ["meta_r"] e0 0x5c 0x27;
    Menu ["menu", "compose"] e0 0x5d 0x2f;
    ControlRight ["ctrl_r"] e0 0x1d 0x14;
    Insert ["insert", "ins"] e0 0x52 0x70;
    Delete ["delete", "del"] e0 0x53 0x71;
    Home ["home"] e0 0x47 0x6c;
    End ["end"] e0 0x4f 0x69;
    PageUp ["pgup", "page_up"] e0 0x49 0x7d;
    PageDown ["pgdn", "page_down"] e0 0x51 0x7a;
    Up ["up"] e0 0x48 0x75;
    Down ["down"] e0 0x50 0x72;
    Left ["left"] e0 0x4b 0x6b;
    Right ["right"] e0 0x4d 0x74;
    NumLock ["num_lock", "numlock"] base 0x45 0x77;
    KpDivide ["kp_divide"] e0 0x35 0x4a;
    KpMultiply ["kp_multiply", "asterisk"] base 0x37 0x7c;
    KpSubtract ["kp_subtract", "kp_minus"] base 0x4a 0x7b;
    KpAdd ["kp_add", "kp_plus"] base 0x4e 0x79;
    KpEnter ["kp_enter"] e0 0x1c 0x5a;
    KpDecimal ["kp_decimal", "kp_dot"] base 0x53 0x71;
    Kp0 ["kp_0"] base 0x52 0x70;
    Kp1 ["kp_1"] base 0x4f 0x69;
    Kp2 ["kp_2"] base 0x50 0x72;
    Kp3 ["kp_3"] base 0x51 0x7a;
    Kp4 ["kp_4"] base 0x4b 0x6b;
    Kp5 ["kp_5"] base 0x4c 0x73;
    Kp6 ["kp_6"] base 0x4d 0x74;
    Kp7 ["kp_7"] base 0x47 0x6c;
    Kp8 ["kp_8"] base 0x48 0x75;
    Kp9 ["kp_9"] base 0x49 0x7d;
    KpEqual ["kp_equals"] base 0x59 0x0f;
    KpComma ["kp_comma"] base 0x7e 0x6d;
    Ro ["ro"] base 0x73 0x51;
    Yen ["yen"] base 0x7d 0x6a;
    Henkan ["henkan"] base 0x79 0x64;
    Muhenkan ["muhenkan"] base 0x7b 0x67;
    Katakana ["katakanahiragana", "hiragana"] base 0x70 0x13;
    Power ["power"] e0 0x5e 0x37;
    Sleep ["sleep"] e0 0x5f 0x3f;
    Wake ["wake"] e0 0x63 0x5e;
    NextTrack ["audionext"] e0 0x19 0x4d;
    PreviousTrack ["audioprev"] e0 0x10 0x15;
    Stop ["audiostop"] e0 0x24 0x3b;
    Play ["audioplay"] e0 0x22 0x34;
    Mute ["audiomute"] e0 0x20 0x23;
    VolumeUp ["volumeup"] e0 0x30 0x32;
    VolumeDown ["volumedown"] e0 0x2e 0x21;
    MediaSelect ["mediaselect"] e0 0x6d 0x50;
    Mail ["mail"] e0 0x6c 0x48;
    Calculator ["calculator"] e0 0x21 0x2b;
    Computer ["computer"] e0 0x6b 0x40;
    WebSearch ["ac_search"] e0 0x65 0x10;
    WebHome ["ac_home"] e0 0x32 0x3a;
    WebBack ["ac_back"] e0 0x6a 0x38;
    WebForward ["ac_forward"] e0 0x69 0x30;
    WebStop ["ac_stop"] e0 0x68 0x28;
    WebRefresh ["ac_refresh"] e0 0x67 0x20;
    WebFavourites ["ac_bookmarks"] e0 0x66 0x18;
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no key has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// The name.
    pub name: String,
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no key {:?}; keys are named as in: a, 1, ret, esc, ctrl, alt, f1, kp_enter", self.name)
    }
}

impl std::error::Error for UnknownKey {}

impl FromStr for Key {
    type Err = UnknownKey;

    fn from_str(name: &str) -> Result<Self, UnknownKey> {
        let matches = |key: &&Self| key.names().iter().any(|own| own.eq_ignore_ascii_case(name));
        Self::ALL.iter().find(matches).copied().ok_or_else(|| UnknownKey { name: name.to_owned() })
    }
}

/// Keys that are held together: names joined by `-` or `+`, as in `ctrl-alt-del`. A last `-` or `+` is the key itself.
///
/// # Errors
/// A name is no key's.
pub fn chord(names: &str) -> Result<Vec<Key>, UnknownKey> {
    let mut keys = Vec::new();
    let mut rest = names;
    while !rest.is_empty() {
        // The first character belongs to a name, even where it joins others.
        let end = rest.char_indices().skip(1).find(|(_, c)| matches!(c, '-' | '+')).map_or(rest.len(), |(at, _)| at);
        let name = &rest[..end];
        if name == "+" {
            keys.extend([Key::ShiftLeft, Key::Equal]);
        } else {
            keys.push(name.parse()?);
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    if keys.is_empty() { Err(UnknownKey { name: names.to_owned() }) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn names_lead_to_keys_and_no_two_share_one() {
        let mut owners = BTreeMap::new();
        for key in Key::ALL {
            assert_eq!(key.to_string().parse(), Ok(*key));
            for name in key.names() {
                assert_eq!(owners.insert(*name, *key), None, "{name}");
            }
        }
        for (name, key) in [("a", Key::A), ("RET", Key::Enter), ("ctrl", Key::ControlLeft), ("F12", Key::F12)] {
            assert_eq!(name.parse(), Ok(key));
        }
        assert_eq!("kp_enter".parse(), Ok(Key::KpEnter));
        let error = "any".parse::<Key>().unwrap_err();
        assert!(error.to_string().contains("\"any\"") && error.to_string().contains("kp_enter"), "{error}");
        // A keyboard with 105 keys has 105, and some have more.
        assert!(Key::ALL.len() >= 105, "{}", Key::ALL.len());
    }

    #[test]
    fn chords_are_keys_together() {
        assert_eq!(chord("ctrl-alt-del"), Ok(vec![Key::ControlLeft, Key::AltLeft, Key::Delete]));
        assert_eq!(chord("ctrl+c"), Ok(vec![Key::ControlLeft, Key::C]));
        assert_eq!(chord("ctrl--"), Ok(vec![Key::ControlLeft, Key::Minus]));
        assert_eq!(chord("-"), Ok(vec![Key::Minus]));
        assert_eq!(chord("+"), Ok(vec![Key::ShiftLeft, Key::Equal]));
        assert_eq!(chord("alt-é"), Err(UnknownKey { name: "é".into() }));
        assert!(chord("").is_err());
        assert!(chord("é-").is_err());
    }
}
