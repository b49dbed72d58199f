//! The instructions around the current one as text, for crash reports.

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

use crate::access::Privilege;
use crate::cpu::Cpu;

/// How many instructions are shown.
const SHOWN: usize = 6;

/// The instructions from the current one on, as far as they can be read: address and text.
pub fn around(cpu: &mut Cpu) -> Vec<(u64, String)> {
    let bits = if cpu.is_64() {
        64
    } else if cpu.segment[1].segment.attributes & lodge_x86::segment::attribute::BIG != 0 {
        32
    } else {
        16
    };
    let start = cpu.lip;
    let mut bytes = Vec::new();
    for n in 0..(SHOWN * crate::translate::MAX_LENGTH) as u64 {
        let linear = cpu.system_address(start.wrapping_add(n));
        let access = cpu.access(lodge_x86::paging::AccessKind::Read, Privilege::System);
        let Ok(translation) = cpu.translate(linear, access) else { break };
        let mut byte = [0];
        if !cpu.context().shared.ram.read(translation.gpa, &mut byte) {
            break;
        }
        bytes.push(byte[0]);
    }
    let mut decoder = Decoder::with_ip(bits, &bytes, start, DecoderOptions::NONE);
    let mut formatter = IntelFormatter::new();
    let mut lines = Vec::new();
    while decoder.can_decode() && lines.len() < SHOWN {
        let ins = decoder.decode();
        let mut text = String::new();
        formatter.format(&ins, &mut text);
        lines.push((ins.ip(), text));
    }
    lines
}
