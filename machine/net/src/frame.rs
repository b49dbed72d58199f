//! Frames, and what has still to be done to them.

/// Bytes of an Ethernet header without a VLAN's tag.
pub const HEADER: usize = 14;
/// The least that a frame on a wire has, without its check sequence.
pub const SMALLEST: usize = 60;
/// The most that a frame here has: an IP packet of the largest size, an Ethernet header with two tags.
pub const LARGEST: usize = 65_535 + HEADER + 8;

/// What has to be done to a frame before it could be on a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Its checksum.
    pub checksum: Checksum,
    /// It is to be cut into several, if at all.
    pub segmentation: Option<Segmentation>,
}

/// How it stands with the checksum of what is within an IP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// It is there, as it came; nobody has looked.
    #[default]
    There,
    /// It is there, or need not be, because the frame can't have been damaged.
    Good,
    /// It is to be made over all bytes from `start` on and put at `offset` from there, where the sum of what else belongs
    /// to it is already.
    Missing {
        /// The first byte that is summed up.
        start: u16,
        /// Where the checksum is, from `start`.
        offset: u16,
    },
}

/// A TCP segment that is to be cut into several. The kind of packet is in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Most bytes of data in each.
    pub size: u16,
    /// Congestion was experienced: only the first may say that the window was reduced (RFC 3168, section 6.1.2).
    pub congestion: bool,
}

/// Which work on frames somebody does himself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts {
    /// Making checksums.
    pub checksum: bool,
    /// Cutting TCP over IPv4.
    pub tcp4: bool,
    /// Cutting TCP over IPv6.
    pub tcp6: bool,
    /// Cutting with [`Segmentation::congestion`].
    pub congestion: bool,
}

impl Accepts {
    /// All of it.
    pub const ALL: Self = Self { checksum: true, tcp4: true, tcp6: true, congestion: true };
}

/// An Ethernet frame, from the destination's address to the last byte of data, without the check sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What has to be done to it.
    pub offload: Offload,
}

impl Frame {
    /// A frame that is as it would be on a wire.
    pub fn plain(bytes: Vec<u8>) -> Self {
        Self { bytes, offload: Offload::default() }
    }

    /// Whether it has the size of a frame.
    pub fn has_sane_size(&self) -> bool {
        (HEADER..=LARGEST).contains(&self.bytes.len())
    }
}
