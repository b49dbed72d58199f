//! Registers of the 8237A and of the page registers beside it (Intel 231466, table "Word and register selection"; IBM AT
//! Technical Reference, "DMA").

/// The controller of channels 0 to 3, which moves bytes.
pub const FIRST: u16 = 0x00;
/// The controller of channels 4 to 7, which moves words; its registers are two ports apart.
pub const SECOND: u16 = 0xc0;
/// Page registers: what of an address lies above 16 bits.
pub const PAGES: u16 = 0x81;
/// How many of them there are.
pub const PAGES_LENGTH: u16 = 15;
/// Offsets of the channels' registers among the page registers; channel 4 only joins the two controllers.
pub const PAGE_OF_CHANNEL: [u16; 8] = [6, 2, 0, 1, 14, 10, 8, 9];

/// Offsets: below this each channel has its address, then its count.
pub const STATUS: u16 = 8;
/// Offset: software requests.
pub const REQUEST: u16 = 9;
/// Offset: mask of one channel.
pub const MASK_ONE: u16 = 10;
/// Offset: mode of one channel.
pub const MODE: u16 = 11;
/// Offset: the next byte is a lower one.
pub const CLEAR_FLIP_FLOP: u16 = 12;
/// Offset: the state after power-on.
pub const MASTER_CLEAR: u16 = 13;
/// Offset: no channel is masked.
pub const CLEAR_MASK: u16 = 14;
/// Offset: masks of all channels.
pub const MASK_ALL: u16 = 15;

/// Command: the controller does nothing.
pub const COMMAND_DISABLE: u8 = 1 << 2;
/// Mask and request of one channel: on rather than off.
pub const ONE_ON: u8 = 1 << 2;
/// Mode: transfer type.
pub const MODE_TYPE: u8 = 3 << 2;
/// Transfer type: to memory.
pub const TYPE_WRITE: u8 = 1 << 2;
/// Transfer type: from memory.
pub const TYPE_READ: u8 = 2 << 2;
/// Mode: address and count begin anew at the end.
pub const MODE_AUTO: u8 = 1 << 4;
/// Mode: addresses go down.
pub const MODE_DOWN: u8 = 1 << 5;
/// Mode: all of these joins another controller rather than moving anything.
pub const MODE_CASCADE: u8 = 3 << 6;
