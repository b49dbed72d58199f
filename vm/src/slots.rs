//! Where on PCI bus 0 each kind of device is: the plan of machine type `pc-1`, which never changes.
//!
//! What a guest has installed drivers for, or named in its configuration, is found at the same place with whatever else
//! is added. Device 0 is the host bridge, 1 the PIIX. Where a range is full, devices go to the highest free number.

use std::ops::RangeInclusive;

/// The display.
pub const DISPLAY: RangeInclusive<u8> = 2..=2;
/// Network cards.
pub const NETWORK: RangeInclusive<u8> = 3..=6;
/// Controllers of many disks.
pub const STORAGE: RangeInclusive<u8> = 7..=8;
/// NVMe disks.
pub const NVME: RangeInclusive<u8> = 9..=12;
/// Virtio disks.
pub const DISKS: RangeInclusive<u8> = 13..=22;
/// Sound and USB.
pub const MULTIMEDIA: RangeInclusive<u8> = 23..=25;
/// The tablet.
pub const TABLET: RangeInclusive<u8> = 26..=26;
/// The virtio console and the source of random numbers.
pub const VIRTIO: RangeInclusive<u8> = 27..=29;
/// What has no place of its own.
pub const OTHERS: RangeInclusive<u8> = 30..=31;
