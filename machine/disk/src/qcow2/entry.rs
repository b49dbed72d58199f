//! Entries of L1 and L2 tables ("Cluster mapping" in QEMU's `docs/interop/qcow2.txt`).

/// The refcount is one, so that the cluster may be written in place.
pub(crate) const COPIED: u64 = 1 << 63;
/// The descriptor is of compressed data.
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeroes (version 3).
pub(crate) const ZERO: u64 = 1;
/// The offset in a descriptor.
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// What an L2 entry means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// The image below has it.
    Below,
    /// Zeroes; a cluster may be reserved for it.
    Zero { host: Option<u64>, copied: bool },
    /// In a cluster at this offset.
    Data { host: u64, copied: bool },
    /// Compressed, in so many bytes at most.
    Compressed { host: u64, length: u64 },
}

impl Mapping {
    /// What an entry means in an image of version `version`.
    pub fn of(entry: u64, version: u32, cluster_bits: u32) -> Self {
        let copied = entry & COPIED != 0;
        let host = entry & OFFSET;
        if entry & COMPRESSED != 0 {
            let bits = 62 - (cluster_bits - 8);
            let host = entry & ((1 << bits) - 1);
            let sectors = (entry & !(COPIED | COMPRESSED)) >> bits;
            Self::Compressed { host, length: (sectors + 1) * 512 - host % 512 }
        } else if version >= 3 && entry & ZERO != 0 {
            Self::Zero { host: (host != 0).then_some(host), copied }
        } else if host == 0 {
            Self::Below
        } else {
            Self::Data { host, copied }
        }
    }

    /// The entry of compressed data of `length` bytes at `host`.
    pub fn compressed_entry(host: u64, length: u64, cluster_bits: u32) -> u64 {
        let bits = 62 - (cluster_bits - 8);
        let sectors = (host % 512 + length).div_ceil(512) - 1;
        COMPRESSED | sectors << bits | host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_entries_hold_place_and_length() {
        for cluster_bits in [9, 16, 21] {
            for (host, length) in [(0x10000, 1), (0x101ff, 2), (0x3_0000_0123, 400)] {
                let entry = Mapping::compressed_entry(host, length, cluster_bits);
                let Mapping::Compressed { host: found, length: most } = Mapping::of(entry, 3, cluster_bits) else {
                    panic!("{entry:#x}")
                };
                assert_eq!(found, host);
                assert!(most >= length && most < length + 512, "{most}");
                assert_eq!((host + most) % 512, 0);
            }
        }
    }

    #[test]
    fn zero_is_a_flag_of_version_3_only() {
        assert_eq!(Mapping::of(1, 3, 16), Mapping::Zero { host: None, copied: false });
        assert_eq!(Mapping::of(0x10001, 2, 16), Mapping::Data { host: 0x10000, copied: false });
        assert_eq!(Mapping::of(COPIED | 0x10000, 3, 16), Mapping::Data { host: 0x10000, copied: true });
        assert_eq!(Mapping::of(0, 3, 16), Mapping::Below);
    }
}
