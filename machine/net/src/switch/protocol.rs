//! What machines and a switch say to each other, over a Unix socket of packets (SOCK_SEQPACKET).
//!
//! The first packet of a machine is a [`Hello`], and is answered by a [`Welcome`] or [`Refusal`]. After that each packet is a
//! frame behind its header ([`crate::vnet`]), in either direction.
//!
//! ```text
//!   machine                                   switch
//!     Hello: version, address, wishes  ──►      
//!                                      ◄──    0: welcome, or a number that says why not, and the socket is closed
//!     frame                            ◄─►    frame
//! ```

use crate::MacAddress;

/// The first bytes of a hello.
const MAGIC: [u8; 8] = *b"lodge-sw";
/// The protocol's version.
const VERSION: u16 = 1;
/// Among a hello's flags: other addresses of network cards than the one it names may be used.
const SPOOF: u16 = 1 << 0;
/// Among a hello's flags: the switch is to lead out by way of a network in user mode.
const NAT: u16 = 1 << 1;

/// Bytes that a socket has to have for what is on its way, as the kernel counts: some of the largest frames.
pub const SOCKET_BUFFER: usize = 1 << 20;

/// How a machine begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its card's address, which is nobody else's on this switch.
    pub mac: MacAddress,
    /// It may use other addresses, too, as far as they are not others'.
    pub spoof: bool,
    /// The switch leads out.
    pub nat: bool,
}

/// Why a machine is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It speaks another version of the protocol.
    #[error("it was started by another version of lodge")]
    Version,
    /// Another machine has the card's address.
    #[error("another machine has a card with this address")]
    MacTaken,
    /// It leads out, and the machine does not want that, or the other way round.
    #[error("it leads out (nat) for the machines that are there, and not for this one, or the other way round")]
    NatDiffers,
    /// There are too many.
    #[error("it has no room for another machine")]
    Full,
    /// It can't lead out.
    #[error("its way out (nat) can't be had")]
    NoNat,
}

/// A switch's answer.
pub type Welcome = Result<(), Refusal>;

impl Hello {
    /// Bytes of a hello.
    pub const SIZE: usize = 18;

    /// As a packet.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let flags = if self.spoof { SPOOF } else { 0 } | if self.nat { NAT } else { 0 };
        let mut packet = [0; Self::SIZE];
        packet[..8].copy_from_slice(&MAGIC);
        packet[8..10].copy_from_slice(&VERSION.to_le_bytes());
        packet[10..12].copy_from_slice(&flags.to_le_bytes());
        packet[12..].copy_from_slice(&self.mac.0);
        packet
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// It is another version's, or nonsense.
    pub fn decode(packet: &[u8]) -> Result<Self, Refusal> {
        let Ok(packet) = <&[u8; Self::SIZE]>::try_from(packet) else { return Err(Refusal::Version) };
        let [head @ .., v0, v1, f0, f1, a, b, c, d, e, g] = *packet;
        let flags = u16::from_le_bytes([f0, f1]);
        let mac = MacAddress([a, b, c, d, e, g]);
        if head != MAGIC || u16::from_le_bytes([v0, v1]) != VERSION || flags & !(SPOOF | NAT) != 0 || !mac.is_one_card()
        {
            return Err(Refusal::Version);
        }
        Ok(Self { mac, spoof: flags & SPOOF != 0, nat: flags & NAT != 0 })
    }
}

/// An answer as a packet.
pub fn encode(answer: Welcome) -> [u8; 1] {
    [match answer {
        Ok(()) => 0,
        Err(Refusal::Version) => 1,
        Err(Refusal::MacTaken) => 2,
        Err(Refusal::NatDiffers) => 3,
        Err(Refusal::Full) => 4,
        Err(Refusal::NoNat) => 5,
    }]
}

/// Reads an answer. `None` if it is not there.
pub fn decode(packet: &[u8]) -> Option<Welcome> {
    Some(match packet.first()? {
        0 => Ok(()),
        2 => Err(Refusal::MacTaken),
        3 => Err(Refusal::NatDiffers),
        4 => Err(Refusal::Full),
        5 => Err(Refusal::NoNat),
        _ => Err(Refusal::Version),
    })
}
