//! The KVM paravirtual clock: a page in guest memory that says how to turn the time-stamp counter into nanoseconds
//! (Linux, Documentation/virt/kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW and MSR_KVM_WALL_CLOCK_NEW).

use lodge_engine_api::ClockSample;

/// Bytes of `struct pvclock_vcpu_time_info`.
pub const TIME_INFO: usize = 32;
/// Bytes of `struct pvclock_wall_clock`.
pub const WALL_CLOCK: usize = 12;
/// The clock is the same on all vCPUs.
const TSC_STABLE: u8 = 1;

/// One vCPU's part of the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvmClock {
    /// MSR_KVM_SYSTEM_TIME: address and enable bit.
    pub system_time: u64,
    /// MSR_KVM_WALL_CLOCK: address.
    pub wall_clock: u64,
    version: u32,
}

/// Multiplier and shift that turn cycles of a counter at `hz` into nanoseconds: `(cycles << shift) * multiplier >> 32`,
/// with a shift to the right where it is negative. The multiplier has its top bit set, for precision.
pub fn scale(hz: u64) -> (u32, i8) {
    // ratio = 1e9 / hz * 2^32, normalised to [2^31, 2^32).
    let hz = hz.max(1);
    let mut shift = 0i8;
    let mut ratio = (1_000_000_000u128 << 64) / u128::from(hz);
    while ratio >= 1 << 64 && shift < 31 {
        ratio >>= 1;
        shift += 1;
    }
    while ratio < 1 << 63 && shift > -31 {
        ratio <<= 1;
        shift -= 1;
    }
    ((ratio >> 32) as u32, shift)
}

impl KvmClock {
    /// The bytes for guest memory: time `sample` at its counter reading, both as the guest counts.
    pub fn time_info(&mut self, sample: &ClockSample, tsc_hz: u64) -> [u8; TIME_INFO] {
        self.version = self.version.wrapping_add(2);
        let (multiplier, shift) = scale(tsc_hz);
        let mut info = [0; TIME_INFO];
        info[0..4].copy_from_slice(&self.version.to_le_bytes());
        info[8..16].copy_from_slice(&sample.tsc.to_le_bytes());
        info[16..24].copy_from_slice(&sample.monotonic_ns.to_le_bytes());
        info[24..28].copy_from_slice(&multiplier.to_le_bytes());
        info[28] = shift as u8;
        info[29] = TSC_STABLE;
        info
    }

    /// The bytes for guest memory: the wall clock at monotonic time zero.
    pub fn wall_clock(&self, sample: &ClockSample) -> [u8; WALL_CLOCK] {
        let start = sample.wall_ns.saturating_sub(sample.monotonic_ns);
        let mut clock = [0; WALL_CLOCK];
        clock[0..4].copy_from_slice(&2u32.to_le_bytes());
        clock[4..8].copy_from_slice(&((start / 1_000_000_000) as u32).to_le_bytes());
        clock[8..12].copy_from_slice(&((start % 1_000_000_000) as u32).to_le_bytes());
        clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanoseconds(cycles: u64, hz: u64) -> u64 {
        let (multiplier, shift) = scale(hz);
        let shifted = if shift < 0 { cycles >> -shift } else { cycles << shift };
        ((u128::from(shifted) * u128::from(multiplier)) >> 32) as u64
    }

    #[test]
    fn a_second_of_cycles_is_a_second() {
        for hz in [500_000_000, 999_999_999, 1_000_000_000, 2_596_000_000, 5_700_000_001] {
            let ns = nanoseconds(hz, hz);
            assert!(ns.abs_diff(1_000_000_000) < 10, "{hz} Hz: {ns}");
        }
    }

    #[test]
    fn the_version_is_even_and_moves() {
        let sample = ClockSample { tsc: 5, monotonic_ns: 7, wall_ns: 3_000_000_007 };
        let mut clock = KvmClock::default();
        let first = clock.time_info(&sample, 2_000_000_000);
        let second = clock.time_info(&sample, 2_000_000_000);
        assert_eq!((first[0], second[0]), (2, 4));
        assert_eq!(&first[8..9], &[5]);
        assert_eq!(clock.wall_clock(&sample)[4..12], [3, 0, 0, 0, 0, 0, 0, 0]);
    }
}
