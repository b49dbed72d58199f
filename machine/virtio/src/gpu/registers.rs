//! Commands, responses and formats of the GPU (virtio 1.2 section 5.7).

/// Device ID.
pub const DEVICE_ID: u16 = 16;
/// Feature: the monitor's description can be had (5.7.3).
pub const FEATURE_EDID: u64 = 1 << 1;

/// The queue of control commands (5.7.2).
pub const CONTROL: u16 = 0;
/// The queue of cursor commands.
pub const CURSOR: u16 = 1;
/// Entries of the two.
pub const QUEUE_SIZES: [u16; 2] = [256, 16];

/// Bytes of struct virtio_gpu_config (5.7.4).
pub const CONFIG_SIZE: usize = 16;
/// Where in it events are shown, and where they are cleared by ones.
pub const CONFIG_EVENTS: usize = 0;
/// See [`CONFIG_EVENTS`].
pub const CONFIG_CLEAR: usize = 4;
/// Event: what is connected has changed.
pub const EVENT_DISPLAY: u32 = 1 << 0;
/// Where in it the number of scanouts is.
pub const CONFIG_SCANOUTS: usize = 8;
/// Scanouts that there are.
pub const SCANOUTS: u32 = 1;
/// Scanouts that an answer about all has room for.
pub const MOST_SCANOUTS: usize = 16;

/// Bytes of struct virtio_gpu_ctrl_hdr (5.7.6.7).
pub const HEADER: usize = 24;
/// Header: the driver wants to know when the command is done.
pub const FLAG_FENCE: u32 = 1 << 0;
/// Most bytes behind the header of a command, without what comes in any number.
pub const BODY: usize = 40;
/// Bytes of struct virtio_gpu_mem_entry.
pub const MEMORY_ENTRY: u64 = 16;
/// Bytes of struct virtio_gpu_display_one.
pub const DISPLAY_ONE: usize = 24;
/// Bytes of the description in struct virtio_gpu_resp_edid.
pub const EDID_ROOM: usize = 1024;
/// Bytes of a pixel.
pub const PIXEL: usize = 4;
/// Pixels of a cursor's side.
pub const CURSOR_SIDE: u32 = 64;

/// Most pixels of a resource's side, which keeps the rows of a transfer in bounds; twice what Linux asks for.
pub const MOST_SIDE: u32 = 16_384;
/// Most pixels that are shown: each look at them is a picture of its own.
pub const MOST_SHOWN: u64 = 8192 * 4320;
/// Most resources.
pub const MOST_RESOURCES: usize = 16_384;
/// Most pieces of guest memory behind a resource, as in QEMU.
pub const MOST_ENTRIES: u32 = 16_384;
/// Most bytes of the host that resources take, pixels and lists: QEMU's `max_hostmem`. What is shown may be there a second time
/// while someone draws it.
pub const MOST_BYTES: u64 = 256 << 20;

/// Commands (5.7.6.7).
pub mod command {
    /// What is connected.
    pub const GET_DISPLAY_INFO: u32 = 0x100;
    /// Makes a resource.
    pub const RESOURCE_CREATE_2D: u32 = 0x101;
    /// Removes one.
    pub const RESOURCE_UNREF: u32 = 0x102;
    /// Shows one.
    pub const SET_SCANOUT: u32 = 0x103;
    /// Tells that what is shown has changed.
    pub const RESOURCE_FLUSH: u32 = 0x104;
    /// Copies from guest memory.
    pub const TRANSFER_TO_HOST_2D: u32 = 0x105;
    /// Puts guest memory behind a resource.
    pub const RESOURCE_ATTACH_BACKING: u32 = 0x106;
    /// Takes it away.
    pub const RESOURCE_DETACH_BACKING: u32 = 0x107;
    /// What the monitor says of itself.
    pub const GET_EDID: u32 = 0x10a;
    /// Shows a cursor.
    pub const UPDATE_CURSOR: u32 = 0x300;
    /// Moves it.
    pub const MOVE_CURSOR: u32 = 0x301;
}

/// Responses (5.7.6.7).
pub mod response {
    /// Done.
    pub const OK_NODATA: u32 = 0x1100;
    /// Done: struct virtio_gpu_resp_display_info.
    pub const OK_DISPLAY_INFO: u32 = 0x1101;
    /// Done: struct virtio_gpu_resp_edid.
    pub const OK_EDID: u32 = 0x1104;
    /// Not done.
    pub const ERR_UNSPEC: u32 = 0x1200;
    /// There is no more memory.
    pub const ERR_OUT_OF_MEMORY: u32 = 0x1201;
    /// There is no such scanout.
    pub const ERR_INVALID_SCANOUT_ID: u32 = 0x1202;
    /// There is no such resource, or there is one already.
    pub const ERR_INVALID_RESOURCE_ID: u32 = 0x1203;
    /// A value is out of bounds.
    pub const ERR_INVALID_PARAMETER: u32 = 0x1205;
}

/// How bytes make a pixel (5.7.6.8, enum virtio_gpu_formats): named by the bytes in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Its number.
    pub number: u32,
    /// By how much red, green and blue are shifted in the double word that the bytes make.
    shifts: [u8; 3],
}

impl Format {
    /// All that there are.
    const ALL: [Self; 8] = {
        const fn of(number: u32, shifts: [u8; 3]) -> Format {
            Format { number, shifts }
        }
        [
            // B8G8R8A8, B8G8R8X8
            of(1, [16, 8, 0]),
            of(2, [16, 8, 0]),
            // A8R8G8B8, X8R8G8B8
            of(3, [8, 16, 24]),
            of(4, [8, 16, 24]),
            // R8G8B8A8, X8B8G8R8
            of(67, [0, 8, 16]),
            of(68, [24, 16, 8]),
            // A8B8G8R8, R8G8B8X8
            of(121, [24, 16, 8]),
            of(134, [0, 8, 16]),
        ]
    };

    /// The format with a number.
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.number == number)
    }

    /// A pixel's colour: red in bits 16 to 23, green, blue.
    pub fn colour(self, pixel: [u8; PIXEL]) -> u32 {
        let pixel = u32::from_le_bytes(pixel);
        let [red, green, blue] = self.shifts.map(|shift| pixel >> shift & 0xff);
        red << 16 | green << 8 | blue
    }

    /// Its colour with alpha, the byte that is left, in bits 24 to 31. Linux makes images of cursors in formats that call
    /// it unused, too.
    pub fn colour_and_alpha(self, pixel: [u8; PIXEL]) -> u32 {
        let [red, green, blue] = self.shifts;
        let alpha = u32::from_le_bytes(pixel) >> (8 + 16 + 24 - red - green - blue) & 0xff;
        alpha << 24 | self.colour(pixel)
    }
}
