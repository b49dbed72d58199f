//! The checksum of the Internet protocols (RFC 1071).

/// The sum of 16-bit words, not folded; a last odd byte counts as if a zero followed.
pub fn sum(bytes: &[u8]) -> u64 {
    // Words of 32 bits in memory's order sum up to the same, bytes swapped (RFC 1071, section 2), and eight at a time
    // leave room for billions of carries.
    let (words, rest) = bytes.as_chunks::<4>();
    let total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let total = total + u64::from(u32::from_ne_bytes(last));
    u64::from(fold(total).to_be())
}

/// A sum folded to 16 bits.
pub fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// What is put into a header for a sum: never zero, which in UDP means that there is none (RFC 768).
pub fn finish(sum: u64) -> u16 {
    match !fold(sum) {
        0 => 0xffff,
        value => value,
    }
}

/// The sum of the pseudo header of TCP and UDP: addresses of the same kind, protocol, length (RFC 9293, section 3.1; RFC
/// 8200, section 8.1).
pub fn pseudo_header(source: &[u8], destination: &[u8], protocol: u8, length: usize) -> u64 {
    sum(source) + sum(destination) + u64::from(protocol) + length as u64
}
