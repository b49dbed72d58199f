//! The tables in the chip: the logarithm of a quarter of a sine and the exponential function, made from the formulas that fit the
//! contents read from decapsulated chips; multiples and key scaling (application manual, registers 20h and 40h).

use std::sync::LazyLock;

/// -log2 of a quarter of a sine, in units of 1/256.
static LOG_SINE: LazyLock<[u16; 256]> = LazyLock::new(|| {
    std::array::from_fn(|x| {
        let sine = ((x as f64 + 0.5) * std::f64::consts::PI / 512.0).sin();
        (-sine.log2() * 256.0).round() as u16
    })
});

/// 2^x less one, in units of 1/1024; x is in units of 1/256.
static EXPONENTIAL: LazyLock<[u16; 256]> =
    LazyLock::new(|| std::array::from_fn(|x| (((x as f64 / 256.0).exp2() - 1.0) * 1024.0).round() as u16));

/// Twice the multiple of the frequency.
pub const MULTIPLES: [u32; 16] = [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 20, 24, 24, 30, 30];

/// Key scale level in block 7 at 6 dB an octave, by the four upper bits of the frequency number; in units of 0.75 dB, and 6 dB
/// too high.
const KEY_SCALE: [u16; 16] = [0, 32, 40, 45, 48, 51, 53, 55, 56, 58, 59, 60, 61, 62, 63, 64];

/// The attenuation of a quarter of a sine at a place of 256, in units of 6 dB / 256.
pub fn log_sine(place: u32) -> u32 {
    LOG_SINE[place as usize & 0xff].into()
}

/// What an attenuation, in units of 6 dB / 256, leaves of the loudest: 4084 to 0.
pub fn exponential(attenuation: u32) -> i32 {
    let mantissa = EXPONENTIAL[!attenuation as usize & 0xff] | 0x400;
    (u32::from(mantissa) << 1).checked_shr(attenuation >> 8).unwrap_or(0) as i32
}

/// The attenuation of high notes in units of 0.1875 dB; `scale` is the field of register 40h.
pub fn key_scale_level(scale: u8, number: u16, block: u8) -> u16 {
    let full = (KEY_SCALE[usize::from(number >> 6 & 15)] * 4).saturating_sub((8 - u16::from(block & 7)) * 32);
    match scale & 3 {
        0 => 0,
        1 => full / 2,
        2 => full / 4,
        _ => full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_what_was_read_from_chips() {
        assert_eq!([0, 1, 2, 128, 254, 255].map(log_sine), [0x859, 0x6c3, 0x607, 0x7f, 0, 0]);
        assert_eq!([0, 1, 255, 256, 0x0fff, 0x1fff].map(exponential), [4084, 4074, 2048, 2042, 0, 0]);
        assert_eq!((exponential(u32::MAX), exponential(11 << 8), exponential(12 << 8)), (0, 1, 0));
    }

    #[test]
    fn key_scaling_follows_the_manual() {
        // Decibels at 3 dB an octave.
        let decibels = |number: u16, block| f64::from(key_scale_level(1, number << 6, block)) * 0.1875;
        assert_eq!([0, 1, 2, 8, 15].map(|number| decibels(number, 7)), [0.0, 9.0, 12.0, 18.0, 21.0]);
        assert_eq!([decibels(15, 0), decibels(15, 1), decibels(8, 2), decibels(15, 4)], [0.0, 3.0, 3.0, 12.0]);
        assert_eq!([0, 1, 2, 3].map(|scale| key_scale_level(scale, 0x3ff, 7)), [0, 112, 56, 224]);
    }
}
