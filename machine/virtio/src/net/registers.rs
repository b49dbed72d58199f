//! Features, configuration and commands of the network device (virtio 1.2 section 5.1).

/// Device ID.
pub const DEVICE_ID: u16 = 1;

/// Features (5.1.3).
pub mod feature {
    /// The device makes checksums.
    pub const CSUM: u64 = 1 << 0;
    /// The driver makes checksums.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// What the driver does itself can be changed.
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    /// The largest packet is in the configuration.
    pub const MTU: u64 = 1 << 3;
    /// The address is in the configuration.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes large TCP segments over IPv4.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// And over IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// And with congestion.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// The device takes large TCP segments over IPv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// And over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// And with congestion.
    pub const HOST_ECN: u64 = 1 << 13;
    /// The driver takes a frame in several buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The configuration says whether the cable is plugged in.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// Which frames are received can be changed.
    pub const CTRL_RX: u64 = 1 << 18;
    /// In more ways.
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    /// Several pairs of queues.
    pub const MQ: u64 = 1 << 22;
    /// The address can be changed.
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
}

/// The configuration's status: the cable is plugged in (5.1.4).
pub const LINK_UP: u16 = 1;
/// The largest IP packet (5.1.4).
pub const MTU: u16 = 1500;

/// Commands of the control queue (5.1.6.5): class and command.
pub mod command {
    /// Everything is received.
    pub const PROMISCUOUS: (u8, u8) = (0, 0);
    /// All of what goes to groups.
    pub const ALL_MULTICAST: (u8, u8) = (0, 1);
    /// All of what goes to single cards.
    pub const ALL_UNICAST: (u8, u8) = (0, 2);
    /// Nothing of what goes to groups.
    pub const NO_MULTICAST: (u8, u8) = (0, 3);
    /// Nothing of what goes to single cards.
    pub const NO_UNICAST: (u8, u8) = (0, 4);
    /// Nothing of what goes to all.
    pub const NO_BROADCAST: (u8, u8) = (0, 5);
    /// The addresses that are received: of single cards, then of groups, each with a count of 32 bits.
    pub const MAC_TABLE: (u8, u8) = (1, 0);
    /// The card's own address.
    pub const MAC_ADDRESS: (u8, u8) = (1, 1);
    /// How many pairs of queues are used.
    pub const QUEUE_PAIRS: (u8, u8) = (4, 0);
    /// What the driver does itself.
    pub const GUEST_OFFLOADS: (u8, u8) = (5, 0);
}

/// A command was carried out.
pub const OK: u8 = 0;
/// It was not.
pub const ERR: u8 = 1;
/// Entries of the queues for frames.
pub const QUEUE_SIZE: u16 = 256;
/// Entries of the control queue.
pub const CONTROL_SIZE: u16 = 64;
/// Most pairs of queues.
pub const MOST_PAIRS: u16 = 16;
/// Most addresses of each kind that are compared; with more, all are received.
pub const MOST_ADDRESSES: usize = 64;
