//! Configuration and events of input devices (virtio 1.2 section 5.8); types and codes of events are Linux's
//! (`input-event-codes.h`).

/// Device ID.
pub const DEVICE_ID: u16 = 18;

/// The queue of events (5.8.2).
pub const EVENTS: u16 = 0;
/// The queue of states, such as those of lamps, which a tablet has none of.
pub const STATUS: u16 = 1;
/// Entries of each.
pub const QUEUE_SIZE: u16 = 64;
/// Bytes of struct virtio_input_event (5.8.6).
pub const EVENT: usize = 8;

/// Bytes of struct virtio_input_config (5.8.4): select, subsel, size, five that are reserved, and what was selected.
pub const CONFIG_SIZE: usize = 8 + 128;
/// Where in it the size is.
pub const CONFIG_LENGTH: usize = 2;
/// Where what was selected is.
pub const CONFIG_DATA: usize = 8;

/// What can be selected (5.8.4, enum virtio_input_config_select).
pub mod select {
    /// Its name.
    pub const ID_NAME: u8 = 0x01;
    /// Bus, vendor, product, version.
    pub const ID_DEVIDS: u8 = 0x03;
    /// Codes of the type of events that is sub-selected.
    pub const EV_BITS: u8 = 0x11;
    /// Bounds of the axis that is sub-selected.
    pub const ABS_INFO: u8 = 0x12;
}

/// Bus (virtual), vendor, product and version, as QEMU's tablet has them, which systems know.
pub const IDS: [u16; 4] = [6, 0x0627, 0x0003, 0x0002];
/// Its name.
pub const NAME: &[u8] = b"lodge virtio tablet";
/// The greatest position on an axis.
pub const MOST: u32 = 0x7fff;

/// Types of events.
pub mod kind {
    /// What came before belongs together.
    pub const SYN: u16 = 0;
    /// Keys and buttons.
    pub const KEY: u16 = 1;
    /// Motions.
    pub const REL: u16 = 2;
    /// Positions.
    pub const ABS: u16 = 3;
}

/// Codes of events.
pub mod code {
    /// Motion: the wheel, away from the user.
    pub const REL_WHEEL: u16 = 8;
    /// Position: from the left.
    pub const ABS_X: u16 = 0;
    /// Position: from the top.
    pub const ABS_Y: u16 = 1;
    /// Buttons.
    pub const BTN_LEFT: u16 = 0x110;
    /// The second.
    pub const BTN_RIGHT: u16 = 0x111;
    /// The wheel, pressed.
    pub const BTN_MIDDLE: u16 = 0x112;
    /// The fourth: back.
    pub const BTN_SIDE: u16 = 0x113;
    /// The fifth: forward.
    pub const BTN_EXTRA: u16 = 0x114;
    /// All of them.
    pub const BUTTONS: [u16; 5] = [BTN_LEFT, BTN_RIGHT, BTN_MIDDLE, BTN_SIDE, BTN_EXTRA];
}
