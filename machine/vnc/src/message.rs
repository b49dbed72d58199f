//! What viewers send (RFC 6143 section 7.5), read with bounds.

use std::io::{self, Read};

use crate::pixel::PixelFormat;

/// Most bytes of a clipboard's text, which is thrown away: longer is an attack.
const TEXT_MOST: u32 = 1 << 20;

/// Why a viewer is not served any more.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The connection.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It speaks something else.
    #[error("it does not speak RFB 3")]
    Version,
    /// It chose a security type that was not offered.
    #[error("it chose security type {chosen}, which was not offered")]
    Security {
        /// Its choice.
        chosen: u8,
    },
    /// It does not know the password.
    #[error("its password is wrong")]
    Password,
    /// A pixel format that is none.
    #[error("it asked for pixels of {bits} bits in an impossible format")]
    Format {
        /// Bits a pixel.
        bits: u8,
    },
    /// A message that it may not send.
    #[error("it sent message {kind}, which is unknown")]
    Message {
        /// Its number.
        kind: u8,
    },
    /// A text that is too long.
    #[error("it sent a text of {length} bytes")]
    Text {
        /// Its bytes.
        length: u32,
    },
}

impl PartialEq for ProtocolError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// A message of a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Which format pixels shall have.
    Format(PixelFormat),
    /// Which encodings it knows, the best first.
    Encodings(Vec<i32>),
    /// It wants an update.
    Update {
        /// Of what has changed; else of all.
        incremental: bool,
        /// x, y, width, height.
        area: [u16; 4],
    },
    /// A key, by its symbol, and by its code where that is known.
    Key {
        /// It goes down.
        down: bool,
        /// X11's symbol.
        symbol: u32,
        /// Code in scan set 1.
        code: Option<u32>,
    },
    /// The pointer.
    Pointer {
        /// Buttons that are down, from bit 0 on.
        buttons: u8,
        /// Column.
        x: u16,
        /// Row.
        y: u16,
    },
    /// It wants another size; `None`: for a number of screens that there are not, or not for all of them.
    Resize(Option<[u16; 2]>),
    /// Something that is not acted upon.
    Nothing,
}

fn read<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut data = [0; N];
    from.read_exact(&mut data)?;
    Ok(data)
}

fn skip(from: &mut impl Read, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut from.take(bytes), &mut io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

impl Message {
    /// Reads the next message.
    ///
    /// # Errors
    /// The connection ends, or the viewer breaks the protocol.
    pub fn read(from: &mut impl Read) -> Result<Self, ProtocolError> {
        let [kind] = read(from)?;
        let word = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let dword =
            |bytes: &[u8], at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok(match kind {
            0 => {
                let _: [u8; 3] = read(from)?;
                Self::Format(PixelFormat::parse(&read(from)?)?)
            }
            2 => {
                let head: [u8; 3] = read(from)?;
                // At most 65,535 of four bytes.
                let encodings = (0..word(&head, 1)).map(|_| read(from).map(i32::from_be_bytes));
                Self::Encodings(encodings.collect::<io::Result<_>>()?)
            }
            3 => {
                let body: [u8; 9] = read(from)?;
                Self::Update { incremental: body[0] != 0, area: [1, 3, 5, 7].map(|at| word(&body, at)) }
            }
            4 => {
                let body: [u8; 7] = read(from)?;
                Self::Key { down: body[0] != 0, symbol: dword(&body, 3), code: None }
            }
            5 => {
                let body: [u8; 5] = read(from)?;
                Self::Pointer { buttons: body[0], x: word(&body, 1), y: word(&body, 3) }
            }
            6 => {
                let body: [u8; 7] = read(from)?;
                let length = dword(&body, 3);
                if length > TEXT_MOST {
                    return Err(ProtocolError::Text { length });
                }
                skip(from, length.into())?;
                Self::Nothing
            }
            251 => {
                let body: [u8; 7] = read(from)?;
                let size = [word(&body, 1), word(&body, 3)];
                // Identifier, x, y, width, height, flags.
                let screens = (0..body[5]).map(|_| read::<16>(from));
                let screens = screens.collect::<io::Result<Vec<_>>>()?;
                let whole = |screen: &[u8; 16]| [4, 6, 8, 10].map(|at| word(screen, at)) == [0, 0, size[0], size[1]];
                Self::Resize(matches!(&screens[..], [screen] if whole(screen)).then_some(size))
            }
            // QEMU's: extended keys.
            255 => match read::<1>(from)? {
                [0] => {
                    let body: [u8; 10] = read(from)?;
                    Self::Key { down: word(&body, 0) != 0, symbol: dword(&body, 2), code: Some(dword(&body, 6)) }
                }
                _ => return Err(ProtocolError::Message { kind }),
            },
            kind => return Err(ProtocolError::Message { kind }),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(mut bytes: &[u8]) -> (Result<Message, ProtocolError>, usize) {
        let message = Message::read(&mut bytes);
        (message, bytes.len())
    }

    #[test]
    fn messages_are_read_whole() {
        let cases: [(&[u8], Message); 10] = [
            (&[2, 0, 0, 2, 0, 0, 0, 16, 0xff, 0xff, 0xff, 0x21], Message::Encodings(vec![16, -223])),
            (&[3, 1, 0, 1, 0, 2, 0, 3, 0, 4], Message::Update { incremental: true, area: [1, 2, 3, 4] }),
            (&[4, 1, 0, 0, 0, 0, 0xff, 0x0d], Message::Key { down: true, symbol: 0xff0d, code: None }),
            (&[5, 3, 1, 0, 0, 2], Message::Pointer { buttons: 3, x: 256, y: 2 }),
            (&[6, 0, 0, 0, 0, 0, 0, 2, b'h', b'i'], Message::Nothing),
            (
                &[255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 0x1e],
                Message::Key { down: true, symbol: 0x61, code: Some(0x1e) },
            ),
            (
                &[251, 0, 4, 0, 3, 0, 1, 0, 9, 9, 9, 9, 0, 0, 0, 0, 4, 0, 3, 0, 0, 0, 0, 0],
                Message::Resize(Some([0x400, 0x300])),
            ),
            (&[251, 0, 4, 0, 3, 0, 0, 0], Message::Resize(None)),
            (&[251, 0, 4, 0, 3, 0, 1, 0, 9, 9, 9, 9, 0, 0, 0, 1, 4, 0, 2, 255, 0, 0, 0, 0], Message::Resize(None)),
            (
                &[0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0],
                Message::Format(PixelFormat::NATIVE),
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse(bytes), (Ok(expected), 0));
            for end in 0..bytes.len() {
                assert!(matches!(parse(&bytes[..end]).0, Err(ProtocolError::Io(_))), "{bytes:?} cut at {end}");
            }
        }
    }

    #[test]
    fn what_is_too_much_or_unknown_is_refused() {
        assert_eq!(parse(&[6, 0, 0, 0, 0, 16, 0, 1]).0, Err(ProtocolError::Text { length: (1 << 20) + 1 }));
        assert_eq!(parse(&[6, 0, 0, 0, 0xff, 0xff, 0xff, 0xf0]).0, Err(ProtocolError::Text { length: 0xffff_fff0 }));
        assert_eq!(parse(&[1]).0, Err(ProtocolError::Message { kind: 1 }));
        assert_eq!(parse(&[255, 1]).0, Err(ProtocolError::Message { kind: 255 }));
    }

    proptest! {
        #[test]
        fn nothing_is_read_into_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut rest = &bytes[..];
            while Message::read(&mut rest).is_ok() {}
        }
    }
}
