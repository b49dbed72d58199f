//! Faults of the host's processor in emitted code.

use lodge_x86::bits::cr4;
use lodge_x86::exception::{Exception, vector};

use super::TranslatorVcpu;
use crate::context::After;
use crate::cpu::Cpu;
use crate::mode::Mode;

/// What was found out of a fault in emitted code.
#[derive(Clone, Copy, Default)]
pub(super) struct Fault {
    /// In code for mirrored memory.
    mirrored: bool,
    /// At a repeated string instruction.
    repeated: bool,
    /// At an access by way of the stack window.
    through_window: bool,
}

impl TranslatorVcpu {
    /// What is to be known of a fault as long as the block that has faulted is there; and the code that makes the flags
    /// again that the block had let go.
    pub(super) fn look_at_fault(&mut self) -> (Fault, Option<u64>) {
        let pc = self.cpu().fault_pc;
        self.cpu().locate_pc(pc);
        let code = self.shared.code.lock();
        let mirrored = code.mode_at(pc).is_some_and(Mode::is_mirrored);
        let fault =
            Fault { mirrored, repeated: mirrored && code.is_repeated(pc), through_window: code.is_through_window(pc) };
        (fault, code.remake_at(pc))
    }

    /// Turns a host signal into the guest's exception; how the instruction is to be run again otherwise.
    pub(super) fn fault(&mut self) -> u32 {
        let [signal, trap, address] = self.cpu().fault_signal;
        let fault = self.fault;
        if signal as i32 == libc::SIGSEGV && self.frames.guard().contains(&address) {
            // The stack of frames is full. It is empty now; the call is begun again.
            return 0;
        }
        let lost = trap as u8 == vector::GENERAL_PROTECTION
            && self.cpu().gpr[4].abs_diff(Cpu::NO_WINDOW) < 1 << 32
            && fault.through_window;
        if lost {
            // The empty window lets addresses pass that are not canonical. The slow path knows what they raise.
            self.context.after = After::Bounce;
            return 0;
        }
        if fault.mirrored && matches!(trap as u8, vector::PAGE_FAULT | vector::GENERAL_PROTECTION | vector::STACK_FAULT)
        {
            // At the program's own address; an access that probes knows what it raises, or how it is to be done.
            if fault.repeated {
                self.cpu().gpr[1] = self.cpu().fault_counter;
            }
            return Mode::PLAIN;
        }
        let cpu = self.cpu();
        let exception = match trap as u8 {
            vector::DIVIDE => Exception::DIVIDE,
            // Without CR4.OSXMMEXCPT it is an undefined opcode (SDM 1 11.5.1).
            vector::SIMD if cpu.cr4 & cr4::OSXMMEXCPT == 0 => Exception::INVALID_OPCODE,
            vector::SIMD => Exception::SIMD,
            vector::X87 => Exception::X87,
            vector::INVALID_OPCODE => Exception::INVALID_OPCODE,
            vector::ALIGNMENT => Exception::ALIGNMENT,
            _ => Exception::general_protection(0),
        };
        tracing::debug!(lip = cpu.lip, %exception, signal, trap, address, "host signal in guest code");
        self.context.after = After::Raise(exception);
        0
    }
}
