//! Repeated string instructions, a page at a time on the host's own.
#![expect(unsafe_code, reason = "copies guest memory by host pointer")]
// UNSAFETY: each run stays within one page of RAM at either end.

use iced_x86::{Instruction, Mnemonic};
use lodge_x86::bits::rflags;
use lodge_x86::exception::Exception;
use lodge_x86::paging::AccessKind;

use crate::access::Privilege;
use crate::cpu::Cpu;
use crate::emit::string::Shape;
use crate::memory::PAGE;
use crate::port::merge;
use crate::system::{Flow, Outcome, run};

/// Most bytes that one call moves before it looks for interrupts: bounds their latency.
const BATCH: u64 = 64 << 10;

/// The helper for REP and REPNE string instructions.
pub extern "sysv64" fn string(cpu: &mut Cpu, place: u64, pointer: u64) -> u64 {
    // SAFETY: emitted code passes the address of an instruction that its block owns.
    let ins = unsafe { *(pointer as *const Instruction) };
    let context = cpu.context();
    context.counts.strings += 1;
    context.helped.count(ins.mnemonic());
    run(cpu, place, |cpu| repeat(cpu, &ins))
}

struct Loop {
    shape: Shape,
    mask: u64,
    down: bool,
    /// Under TF each element is a step of its own.
    stepped: bool,
}

impl Loop {
    fn step(&self, cpu: &mut Cpu, register: usize, elements: u64) {
        let bytes = elements.wrapping_mul(self.shape.size as u64);
        let moved =
            if self.down { cpu.gpr[register].wrapping_sub(bytes) } else { cpu.gpr[register].wrapping_add(bytes) };
        cpu.gpr[register] = merge(cpu.gpr[register], moved, self.mask);
    }

    fn count(&self, cpu: &Cpu) -> u64 {
        cpu.gpr[1] & self.mask
    }

    fn consume(&self, cpu: &mut Cpu, elements: u64) {
        cpu.gpr[1] = merge(cpu.gpr[1], cpu.gpr[1].wrapping_sub(elements), self.mask);
    }

    /// Elements from `register` on that stay in one page, and in the address register's range.
    fn run_length(&self, cpu: &Cpu, register: usize, segment: u8) -> u64 {
        if self.stepped {
            return 1;
        }
        let size = self.shape.size as u64;
        let offset = cpu.gpr[register] & self.mask;
        let base = if cpu.is_64() && segment < 4 { 0 } else { cpu.segment[usize::from(segment)].base };
        let linear = cpu.system_address(offset.wrapping_add(base));
        let in_page = if self.down { (linear % PAGE) / size + 1 } else { (PAGE - linear % PAGE) / size };
        let in_range = if self.down {
            (offset / size).saturating_add(1)
        } else {
            let left = self.mask - offset;
            (left / size).saturating_add(u64::from(left % size == size - 1))
        };
        in_page.min(in_range.max(1)).max(1)
    }
}

fn repeat(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    use Mnemonic as M;
    let shape = Shape::of(ins);
    let mask = match shape.bits {
        16 => 0xffff,
        32 => 0xffff_ffff,
        _ => u64::MAX,
    };
    let down = cpu.system_flags & rflags::DF != 0;
    let stepped = cpu.system_flags & rflags::TF != 0;
    let this = Loop { shape, mask, down, stepped };
    let mut budget = BATCH;
    while this.count(cpu) != 0 {
        if budget == 0 || cpu.pending.load(std::sync::atomic::Ordering::Relaxed) != 0 && budget < BATCH {
            return Ok(Flow::Jump);
        }
        let before = this.count(cpu);
        let done = match ins.mnemonic() {
            M::Movsb | M::Movsw | M::Movsd | M::Movsq => {
                copy(cpu, &this)?;
                false
            }
            M::Stosb | M::Stosw | M::Stosd | M::Stosq => {
                fill(cpu, &this)?;
                false
            }
            M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => {
                load(cpu, &this)?;
                false
            }
            M::Scasb | M::Scasw | M::Scasd | M::Scasq => scan(cpu, &this, ins.has_repne_prefix())?,
            _ => compare(cpu, &this, ins.has_repne_prefix())?,
        };
        if done {
            return Ok(Flow::Next);
        }
        if this.stepped && this.count(cpu) != 0 {
            return Ok(Flow::Jump);
        }
        let moved = before.wrapping_sub(this.count(cpu)).wrapping_mul(this.shape.size as u64);
        budget = budget.saturating_sub(moved.max(64));
    }
    Ok(Flow::Next)
}

impl Cpu {
    /// A host pointer for an access within a page of RAM; `None` for devices.
    fn host_run(&mut self, linear: u64, write: bool, length: u64) -> Result<Option<*mut u8>, Exception> {
        let kind = if write { AccessKind::Write } else { AccessKind::Read };
        let access = self.access(kind, Privilege::Current);
        let gpa = self.translate(linear, access)?.gpa;
        let context = self.context();
        if write {
            if !context.shared.ram.takes_writes(gpa) {
                return Ok(None);
            }
            context.shared.ram.announce_write(gpa);
            let hit = context.shared.note_write(gpa, length as usize);
            context.code_hit |= hit;
            if !hit && context.shared.ram.watched(gpa) != 0 {
                context.shared.note_write_beside(gpa);
            }
        }
        Ok(context.shared.ram.host(gpa))
    }
}

fn at(cpu: &mut Cpu, this: &Loop, register: usize, segment: u8, elements: u64, write: bool) -> Result<u64, Exception> {
    let size = this.shape.size as u64;
    let mut offset = cpu.gpr[register] & this.mask;
    if this.down {
        offset = offset.wrapping_sub((elements - 1) * size);
    }
    let linear = cpu.in_segment(segment, offset & this.mask, elements * size, write)?;
    cpu.note_access(linear, elements * size, write);
    Ok(linear)
}

fn copy(cpu: &mut Cpu, this: &Loop) -> Result<(), Exception> {
    let size = this.shape.size as u64;
    let segment = this.shape.segment;
    let mut n = this.count(cpu).min(this.run_length(cpu, 6, segment)).min(this.run_length(cpu, 7, 0));
    if crosses(cpu, this, 6, segment) || crosses(cpu, this, 7, 0) {
        n = 1;
    }
    let bytes = n * size;
    let within = |linear: u64| linear % PAGE + bytes <= PAGE;
    // Where only part of the run is within the segment, element by element finds the one that is not.
    let direct = match (at(cpu, this, 6, segment, n, false), at(cpu, this, 7, 0, n, true)) {
        (Ok(source), Ok(target)) if within(source) && within(target) => {
            let from = or_single(cpu.host_run(source, false, bytes), this)?;
            let to = or_single(cpu.host_run(target, true, bytes), this)?;
            from.zip(to)
        }
        _ => None,
    };
    match direct {
        Some((from, to)) => copy_elements(from, to, bytes as usize, this),
        None => {
            n = 1;
            // The source first: if both fault, it is the source that is told of.
            let source = at(cpu, this, 6, segment, 1, false)?;
            let value = cpu.read_number(source, this.shape.size, Privilege::Current)?;
            let target = at(cpu, this, 7, 0, 1, true)?;
            cpu.write_number(target, this.shape.size, value, Privilege::Current)?;
        }
    }
    this.step(cpu, 6, n);
    this.step(cpu, 7, n);
    this.consume(cpu, n);
    Ok(())
}

/// Where a run that goes down faults, its lowest address is not the one that faults first: the single element is.
fn or_single(run: Result<Option<*mut u8>, Exception>, this: &Loop) -> Result<Option<*mut u8>, Exception> {
    match run {
        Err(_) if this.down => Ok(None),
        other => other,
    }
}

/// Copies as the elements would be one by one: overlapping runs repeat a pattern where the target lies ahead.
fn copy_elements(from: *mut u8, to: *mut u8, bytes: usize, this: &Loop) {
    let ahead = (to as usize).wrapping_sub(from as usize);
    let behind = (from as usize).wrapping_sub(to as usize);
    let overlaps = if this.down { behind < bytes } else { ahead < bytes };
    // SAFETY: both runs lie within a page of RAM.
    unsafe {
        if !overlaps || ahead == 0 {
            std::ptr::copy(from, to, bytes);
            return;
        }
        let size = this.shape.size;
        for n in 0..bytes / size {
            let offset = if this.down { bytes - (n + 1) * size } else { n * size };
            std::ptr::copy(from.add(offset), to.add(offset), size);
        }
    }
}

/// Whether the next element itself crosses a page.
fn crosses(cpu: &Cpu, this: &Loop, register: usize, segment: u8) -> bool {
    let base = if cpu.is_64() && segment < 4 { 0 } else { cpu.segment[usize::from(segment)].base };
    let linear = (cpu.gpr[register] & this.mask).wrapping_add(base);
    linear % PAGE + this.shape.size as u64 > PAGE
}

fn fill(cpu: &mut Cpu, this: &Loop) -> Result<(), Exception> {
    let size = this.shape.size;
    let mut n = this.count(cpu).min(this.run_length(cpu, 7, 0));
    if crosses(cpu, this, 7, 0) {
        n = 1;
    }
    let target = match at(cpu, this, 7, 0, n, true) {
        Ok(target) => target,
        Err(_) => {
            n = 1;
            at(cpu, this, 7, 0, 1, true)?
        }
    };
    let bytes = n * size as u64;
    let value = cpu.gpr[0].to_le_bytes();
    let run = target % PAGE + bytes <= PAGE;
    let direct = if run { or_single(cpu.host_run(target, true, bytes), this)? } else { None };
    match direct {
        Some(host) => {
            let uniform = value[..size].iter().all(|&byte| byte == value[0]);
            // SAFETY: the run lies within a page of RAM.
            unsafe {
                if uniform {
                    std::ptr::write_bytes(host, value[0], bytes as usize);
                } else {
                    for element in 0..n as usize {
                        std::ptr::copy_nonoverlapping(value.as_ptr(), host.add(element * size), size);
                    }
                }
            }
        }
        None => {
            n = 1;
            let target = at(cpu, this, 7, 0, 1, true)?;
            cpu.write_linear(target, &value[..size], Privilege::Current)?;
        }
    }
    this.step(cpu, 7, n);
    this.consume(cpu, n);
    Ok(())
}

fn load(cpu: &mut Cpu, this: &Loop) -> Result<(), Exception> {
    let size = this.shape.size;
    let source = at(cpu, this, 6, this.shape.segment, 1, false)?;
    let value = cpu.read_number(source, size, Privilege::Current)?;
    cpu.gpr[0] = match size {
        8 => value,
        4 => value & 0xffff_ffff,
        _ => merge_low(cpu.gpr[0], value, size),
    };
    this.step(cpu, 6, 1);
    this.consume(cpu, 1);
    Ok(())
}

fn merge_low(old: u64, new: u64, bytes: usize) -> u64 {
    let mask = (1u64 << (bytes * 8)) - 1;
    old & !mask | new & mask
}

/// Flags of `a - b` in `bytes`.
pub fn flags_of_compare(a: u64, b: u64, bytes: usize) -> u64 {
    let bits = bytes * 8;
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let (a, b) = (a & mask, b & mask);
    let result = a.wrapping_sub(b) & mask;
    let sign = 1u64 << (bits - 1);
    let mut flags = 0;
    let mut put = |on: bool, bit: u64| flags |= if on { bit } else { 0 };
    put(a < b, rflags::CF);
    put((result as u8).count_ones().is_multiple_of(2), rflags::PF);
    put((a ^ b ^ result) & 0x10 != 0, rflags::AF);
    put(result == 0, rflags::ZF);
    put(result & sign != 0, rflags::SF);
    put((a ^ b) & (a ^ result) & sign != 0, rflags::OF);
    flags
}

fn settle_compare(cpu: &mut Cpu, a: u64, b: u64, bytes: usize, until_equal: bool) -> bool {
    let flags = flags_of_compare(a, b, bytes);
    cpu.flags = cpu.flags & !rflags::ARITHMETIC | flags;
    (flags & rflags::ZF != 0) == until_equal
}

/// REP SCAS: whether it has found what it looks for.
fn scan(cpu: &mut Cpu, this: &Loop, until_equal: bool) -> Result<bool, Exception> {
    let size = this.shape.size;
    // Bytes in RAM are looked through a page at a time; the flags are those of the last element.
    let mut n = this.count(cpu).min(this.run_length(cpu, 7, 0));
    let direct = if size == 1 && !this.down && n > 1 {
        match at(cpu, this, 7, 0, n, false) {
            Ok(linear) => cpu.host_run(linear, false, n)?,
            Err(_) => None,
        }
    } else {
        None
    };
    if let Some(host) = direct {
        // SAFETY: the run lies within a page of RAM.
        let bytes = unsafe { std::slice::from_raw_parts(host, n as usize) };
        let wanted = cpu.gpr[0] as u8;
        let hit = bytes.iter().position(|&byte| (byte == wanted) == until_equal);
        if let Some(hit) = hit {
            n = hit as u64 + 1;
        }
        let last = bytes[n as usize - 1];
        this.step(cpu, 7, n);
        this.consume(cpu, n);
        return Ok(settle_compare(cpu, wanted.into(), last.into(), 1, until_equal));
    }
    let linear = at(cpu, this, 7, 0, 1, false)?;
    let value = cpu.read_number(linear, size, Privilege::Current)?;
    this.step(cpu, 7, 1);
    this.consume(cpu, 1);
    let accumulator = cpu.gpr[0];
    Ok(settle_compare(cpu, accumulator, value, size, until_equal))
}

/// REP CMPS: whether it has found what it looks for.
fn compare(cpu: &mut Cpu, this: &Loop, until_equal: bool) -> Result<bool, Exception> {
    let size = this.shape.size;
    let source = at(cpu, this, 6, this.shape.segment, 1, false)?;
    let target = at(cpu, this, 7, 0, 1, false)?;
    let a = cpu.read_number(source, size, Privilege::Current)?;
    let b = cpu.read_number(target, size, Privilege::Current)?;
    this.step(cpu, 6, 1);
    this.step(cpu, 7, 1);
    this.consume(cpu, 1);
    Ok(settle_compare(cpu, a, b, size, until_equal))
}
