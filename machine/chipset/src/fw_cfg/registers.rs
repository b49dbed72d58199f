//! Ports, keys and bits of the firmware configuration device (QEMU, docs/specs/fw_cfg).

/// The selector, a word; the byte behind it is the data port.
pub const SELECTOR: u16 = 0x510;
/// The data port's offset.
pub const DATA_OFFSET: u16 = 1;
/// The address of a DMA request, two double words, big-endian, the upper one first.
pub const DMA: u16 = 0x514;
/// The offset of the double word that begins a request.
pub const DMA_LOW_OFFSET: u16 = 4;
/// What reading the DMA address gives.
pub const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// Item: four letters by which the device is known.
pub const KEY_SIGNATURE: u16 = 0x0000;
/// Item: what the interface can do.
pub const KEY_ID: u16 = 0x0001;
/// Item: how many vCPUs there are.
pub const KEY_CPUS: u16 = 0x0005;
/// Item: whether to show the boot menu.
pub const KEY_BOOT_MENU: u16 = 0x000e;
/// Item: the least number that no APIC ID reaches.
pub const KEY_MAX_CPUS: u16 = 0x000f;
/// Item: bytes of a kernel but for its first sectors; the bytes are [`KEY_KERNEL`].
pub const KEY_KERNEL_SIZE: u16 = 0x0008;
/// Item: bytes of an initial RAM disk.
pub const KEY_INITRD_SIZE: u16 = 0x000b;
/// Item: a kernel but for its first sectors.
pub const KEY_KERNEL: u16 = 0x0011;
/// Item: an initial RAM disk.
pub const KEY_INITRD: u16 = 0x0012;
/// Item: bytes of a kernel's command line, its zero among them.
pub const KEY_COMMAND_LINE_SIZE: u16 = 0x0014;
/// Item: a kernel's command line.
pub const KEY_COMMAND_LINE: u16 = 0x0015;
/// Item: bytes of a kernel's first sectors.
pub const KEY_SETUP_SIZE: u16 = 0x0017;
/// Item: a kernel's first sectors.
pub const KEY_SETUP: u16 = 0x0018;
/// Item: the list of files.
pub const KEY_DIRECTORY: u16 = 0x0019;
/// The first file's item.
pub const KEY_FIRST_FILE: u16 = 0x0020;
/// Selects for writing, which no item here permits.
pub const KEY_WRITE: u16 = 1 << 14;

/// [`KEY_ID`]: the selector and the data port are there.
pub const ID_PORTS: u32 = 1 << 0;
/// [`KEY_ID`]: DMA is there.
pub const ID_DMA: u32 = 1 << 1;

/// Bytes of a file's name in the list, with a zero behind it.
pub const NAME: usize = 56;
/// Bytes of a file's entry in the list.
pub const ENTRY: usize = 64;

/// Bytes of a DMA request.
pub const REQUEST: usize = 16;
/// Request: it failed.
pub const CONTROL_ERROR: u32 = 1 << 0;
/// Request: copy to guest memory.
pub const CONTROL_READ: u32 = 1 << 1;
/// Request: go on without copying.
pub const CONTROL_SKIP: u32 = 1 << 2;
/// Request: select the item in the upper half of the control word first.
pub const CONTROL_SELECT: u32 = 1 << 3;
/// Request: copy from guest memory.
pub const CONTROL_WRITE: u32 = 1 << 4;
