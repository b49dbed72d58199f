//! What clients ask for (RFC 1350, section 5; options by RFC 2347).

use std::time::Duration;

/// Block sizes that can be asked for (RFC 2348).
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 8..=65_464;
/// The size without an option (RFC 1350).
const DEFAULT_BLOCK_SIZE: u32 = 512;
/// The largest block that fits a packet of 1,500 bytes: without the headers of IPv4, UDP and TFTP.
const MOST_BLOCK_SIZE_4: u32 = 1468;
/// The same for IPv6, with the room for extension headers that firmware leaves, which asks for this size itself.
const MOST_BLOCK_SIZE_6: u32 = 1428;
/// The largest window that is given (RFC 7440 leaves it to the server).
const MOST_WINDOW: u16 = 64;
/// The longest options that are looked at: more text is none of a client's that means well.
const LONGEST: usize = 2048;

/// A request to read a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The file's path, as the client wrote it.
    pub(super) path: Vec<u8>,
    /// In bytes.
    pub(super) block_size: u32,
    /// How many blocks are sent before an acknowledgement is waited for.
    pub(super) window: u16,
    /// How long the client wants to be waited for.
    pub(super) timeout: Option<Duration>,
    /// What was asked for and is given, in the client's order.
    pub(super) options: Vec<Given>,
}

/// An option that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    BlockSize,
    Timeout,
    Size,
    Window,
}

/// Why a request is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl Request {
    /// Reads a request behind its opcode.
    pub(super) fn read(bytes: &[u8], is_ipv6: bool) -> Result<Self, Malformed> {
        if bytes.len() > LONGEST {
            return Err(Malformed("the request is too long"));
        }
        // Each text has a NUL behind it; what follows the last is none.
        let Some(end) = bytes.iter().rposition(|byte| *byte == 0) else {
            return Err(Malformed("the request has no end"));
        };
        let mut texts = bytes[..end].split(|byte| *byte == 0);
        let path = texts.next().unwrap_or_default().to_vec();
        let Some(mode) = texts.next() else { return Err(Malformed("the request has no mode")) };
        // Text is sent as it is: the files are for machines, and no client that boots from them converts any.
        if !mode.eq_ignore_ascii_case(b"octet") && !mode.eq_ignore_ascii_case(b"netascii") {
            return Err(Malformed("only the modes octet and netascii are served"));
        }
        let mut request = Self { path, block_size: DEFAULT_BLOCK_SIZE, window: 1, timeout: None, options: Vec::new() };
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            request.option(name, value, is_ipv6);
        }
        Ok(request)
    }

    /// Takes an option. One that is unknown or makes no sense is left out of the answer (RFC 2347), and so is a second time.
    fn option(&mut self, name: &[u8], value: &[u8], is_ipv6: bool) {
        let names = [
            (Given::BlockSize, "blksize"),
            (Given::Timeout, "timeout"),
            (Given::Size, "tsize"),
            (Given::Window, "windowsize"),
        ];
        let Some((option, _)) = names.iter().find(|(_, known)| name.eq_ignore_ascii_case(known.as_bytes())) else {
            return;
        };
        let Some(value) = str::from_utf8(value).ok().and_then(|value| value.parse::<u64>().ok()) else { return };
        if self.options.contains(option) {
            return;
        }
        match option {
            Given::BlockSize => {
                let Some(asked) = u32::try_from(value).ok().filter(|size| BLOCK_SIZES.contains(size)) else { return };
                self.block_size = asked.min(if is_ipv6 { MOST_BLOCK_SIZE_6 } else { MOST_BLOCK_SIZE_4 });
            }
            Given::Timeout => {
                if !(1..=255).contains(&value) {
                    return;
                }
                self.timeout = Some(Duration::from_secs(value));
            }
            Given::Window => {
                let Some(asked) = u16::try_from(value).ok().filter(|blocks| *blocks != 0) else { return };
                self.window = asked.min(MOST_WINDOW);
            }
            Given::Size => {}
        }
        self.options.push(*option);
    }

    /// The options that are given, as they are answered.
    pub(super) fn answer(&self, size: u64) -> Vec<u8> {
        let mut answer = Vec::new();
        for option in &self.options {
            let (name, value) = match option {
                Given::BlockSize => ("blksize", u64::from(self.block_size)),
                Given::Timeout => ("timeout", self.timeout.unwrap_or_default().as_secs()),
                Given::Size => ("tsize", size),
                Given::Window => ("windowsize", u64::from(self.window)),
            };
            answer.extend(format!("{name}\0{value}\0").bytes());
        }
        answer
    }
}
