//! Which addresses a card listens to, as the smaller cards decide it, and the check sequence of frames.

use lodge_net::SMALLEST;

/// The check sequence of a frame, in the order of the wire (IEEE 802.3, clause 3.2.9).
pub(crate) fn check_sequence(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_le_bytes()
}

/// Where a group's address is in a table of 64 bits: the upper six bits of its CRC before that is inverted, the first bit
/// that went through being the uppermost (DP8390D, "multicast address registers"; RTL8139C+, MAR).
pub(crate) fn multicast_bit(address: &[u8; 6]) -> u32 {
    (!crc32fast::hash(address)).reverse_bits() >> 26
}

/// Fills a frame up to what is on a wire at least.
pub(crate) fn pad(bytes: &mut Vec<u8>) {
    if bytes.len() < SMALLEST {
        bytes.resize(SMALLEST, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_where_drivers_look_for_them() {
        // What drivers compute bit by bit, with the polynomial as it is written.
        fn bit_by_bit(address: &[u8; 6]) -> u32 {
            let mut crc = u32::MAX;
            for byte in address {
                for bit in 0..8 {
                    let carry = crc >> 31 ^ u32::from(byte >> bit & 1);
                    crc = crc << 1 ^ if carry != 0 { 0x04c1_1db7 } else { 0 };
                }
            }
            crc >> 26
        }
        for address in [[1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [0xff; 6], [1, 0x80, 0xc2, 0, 0, 0xe]] {
            assert_eq!(multicast_bit(&address), bit_by_bit(&address));
        }
    }

    #[test]
    fn the_check_sequence_leaves_the_known_rest() {
        let mut frame = (0..60).collect::<Vec<u8>>();
        frame.extend(check_sequence(&frame));
        // IEEE 802.3, clause 3.2.9: dividing a whole frame leaves this.
        assert_eq!(crc32fast::hash(&frame), 0x2144_df1c);
    }
}
