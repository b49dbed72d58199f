//! Guest memory as Rust reaches it, and the slow path of emitted accesses.
//!
//! [`memory`] is where an inline probe goes that did not hit: it checks the segment where that is still to be done,
//! walks, fills the TLB and gives a host address, or has the instruction raise a fault, or run again through the
//! bounce buffer ([`bounce_begin`], [`bounce_end`]) when the access is to a device or to two pages that do not lie
//! side by side on the host.
#![expect(unsafe_code, reason = "finds the emitted code that called, by the return address on the stack")]
// UNSAFETY: one read of the engine's stack, and copies to and from guest RAM that the soft TLB permits.

use std::sync::atomic::{Ordering, fence};

use lodge_x86::exception::Exception;
use lodge_x86::paging::{Access, AccessKind, Translation, is_canonical, walk};

use crate::context::{After, Bounced, Piece};
use crate::cpu::Cpu;
use crate::emit::probe::argument;
use crate::go::LEAVE;
use crate::memory::{LINE_20, PAGE};
use lodge_engine_api::chunk_mask;

/// On whose behalf Rust accesses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// The current program's.
    Current,
    /// The processor's own, to system tables.
    System,
    /// A program of the given user mode, whatever the current one is.
    As { user: bool },
}

impl Cpu {
    /// The access that `privilege` makes.
    pub fn access(&self, kind: AccessKind, privilege: Privilege) -> Access {
        let ac = self.system_flags & lodge_x86::bits::rflags::AC != 0;
        match privilege {
            Privilege::System => Access::implicit(kind),
            Privilege::As { user: true } => Access::user(kind),
            Privilege::As { user: false } => Access::supervisor(kind, ac),
            Privilege::Current if self.cpl() == 3 => Access::user(kind),
            Privilege::Current => Access::supervisor(kind, ac),
        }
    }

    /// Walks the page tables. The tables themselves are not where address line 20 matters.
    pub fn translate(&mut self, linear: u64, access: Access) -> Result<Translation, Exception> {
        let context = self.context();
        context.counts.walks += 1;
        let ram = &context.shared.ram;
        let mut translation = walk(ram, &context.paging, linear, access)?;
        if !ram.line_20() {
            translation.gpa &= !LINE_20;
        }
        Ok(translation)
    }

    /// #GP(0) or, for the stack, #SS(0) where `linear` is not canonical in 64-bit mode.
    pub fn check_canonical(&self, linear: u64, length: u64, segment: u8) -> Result<(), Exception> {
        if !self.is_long() || (is_canonical(linear) && is_canonical(linear.wrapping_add(length - 1))) {
            return Ok(());
        }
        Err(segment_fault(segment))
    }

    /// Where a range lies on the host by way of the soft TLB, which is filled for it; `None` where it has to be taken
    /// apart: a device's, in two pages, or written where each write has to be seen.
    ///
    /// Only as in emitted code: other vCPUs wait for its end before a page that is written comes to hold code.
    fn reach(&mut self, linear: u64, length: usize, access: Access) -> Result<Option<*mut u8>, Exception> {
        if !self.context().in_code || length as u64 > PAGE - linear % PAGE {
            return Ok(None);
        }
        if let Some(host) = self.context().regions.peek(linear, length, access) {
            return Ok(Some(host));
        }
        let translation = self.translate(linear, access)?;
        let filled = self.fill(linear, &translation);
        let writes = access.kind == AccessKind::Write;
        Ok(filled.filter(|(_, writable)| *writable || !writes).map(|(host, _)| host))
    }

    /// Puts a page into the soft TLB; where `linear` lies on the host, if it is RAM, and whether it may be written there
    /// without a further look.
    fn fill(&mut self, linear: u64, translation: &Translation) -> Option<(*mut u8, bool)> {
        let gpa = translation.gpa;
        let context = self.context();
        let host = context.shared.ram.host(gpa)?;
        let page = host.wrapping_sub((gpa % PAGE) as usize) as u64;
        let writable = context.shared.ram.admit_writes(gpa);
        let paging = context.paging;
        context.regions.fill(linear, translation, &paging, page, writable);
        Some((host, writable))
    }

    /// Splits a range into pieces by page, with all permissions checked before anything is done.
    fn pieces(&mut self, linear: u64, length: usize, access: Access) -> Result<[Option<Piece>; 2], Exception> {
        let first = length.min((PAGE - linear % PAGE) as usize);
        let head = self.translate(linear, access)?.gpa;
        if first == length {
            return Ok([Some((head, length)), None]);
        }
        let mut next = linear.wrapping_add(first as u64);
        if !self.is_long() {
            next &= 0xffff_ffff;
        }
        let tail = self.translate(next, access)?.gpa;
        Ok([Some((head, first)), Some((tail, length - first))])
    }

    /// Reads up to a page of linear memory.
    pub fn read_linear(&mut self, linear: u64, data: &mut [u8], privilege: Privilege) -> Result<(), Exception> {
        let access = self.access(AccessKind::Read, privilege);
        if let Some(host) = self.reach(linear, data.len(), access)? {
            // SAFETY: the range lies in a page of RAM.
            unsafe { std::ptr::copy_nonoverlapping(host, data.as_mut_ptr(), data.len()) };
            return Ok(());
        }
        let pieces = self.pieces(linear, data.len(), access)?;
        self.read_pieces(&pieces, data);
        Ok(())
    }

    /// Writes up to a page of linear memory.
    pub fn write_linear(&mut self, linear: u64, data: &[u8], privilege: Privilege) -> Result<(), Exception> {
        let access = self.access(AccessKind::Write, privilege);
        if let Some(host) = self.reach(linear, data.len(), access)? {
            // SAFETY: the range lies in a page of RAM, and no code has been translated from that page.
            unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), host, data.len()) };
            return Ok(());
        }
        let pieces = self.pieces(linear, data.len(), access)?;
        self.write_pieces(&pieces, data);
        Ok(())
    }

    /// Checks that a range may be written, and writes nothing.
    pub fn check_write(&mut self, linear: u64, length: usize, privilege: Privilege) -> Result<(), Exception> {
        let access = self.access(AccessKind::Write, privilege);
        self.pieces(linear, length, access).map(drop)
    }

    fn read_pieces(&mut self, pieces: &[Option<Piece>; 2], data: &mut [u8]) {
        let mut rest = data;
        for &(gpa, length) in pieces.iter().flatten() {
            let (part, after) = rest.split_at_mut(length);
            self.read_physical(gpa, part);
            rest = after;
        }
    }

    fn write_pieces(&mut self, pieces: &[Option<Piece>; 2], data: &[u8]) {
        let mut rest = data;
        for &(gpa, length) in pieces.iter().flatten() {
            let (part, after) = rest.split_at(length);
            self.write_physical(gpa, part);
            rest = after;
        }
    }

    /// Reads physical memory within a page: RAM or a device.
    pub fn read_physical(&mut self, gpa: u64, data: &mut [u8]) {
        let context = self.context();
        if !context.shared.ram.read(gpa, data) {
            for (n, chunk) in data.chunks_mut(64).enumerate() {
                context.io().mmio_read(gpa + n as u64 * 64, chunk);
            }
        }
    }

    /// Writes physical memory within a page: RAM or a device.
    pub fn write_physical(&mut self, gpa: u64, data: &[u8]) {
        let context = self.context();
        if context.shared.ram.write(gpa, data) {
            // Another vCPU may be translating from here: it watches before it reads, so look after the write.
            fence(Ordering::SeqCst);
            context.code_hit |= context.shared.note_write(gpa, data.len());
        } else {
            for (n, chunk) in data.chunks(64).enumerate() {
                context.io().mmio_write(gpa + n as u64 * 64, chunk);
            }
        }
    }

    /// Reads a little-endian number of 1, 2, 4 or 8 bytes.
    pub fn read_number(&mut self, linear: u64, bytes: usize, privilege: Privilege) -> Result<u64, Exception> {
        let mut data = [0; 8];
        self.read_linear(linear, &mut data[..bytes], privilege)?;
        Ok(u64::from_le_bytes(data))
    }

    /// Writes a little-endian number of 1, 2, 4 or 8 bytes.
    pub fn write_number(
        &mut self,
        linear: u64,
        bytes: usize,
        value: u64,
        privilege: Privilege,
    ) -> Result<(), Exception> {
        self.write_linear(linear, &value.to_le_bytes()[..bytes], privilege)
    }

    /// From an offset in a segment to a linear address, with the segment checked for an access of `length` bytes.
    pub fn in_segment(&self, segment: u8, offset: u64, length: u64, write: bool) -> Result<u64, Exception> {
        let hot = &self.segment[usize::from(segment)];
        if self.is_64() {
            let linear = if segment >= 4 { offset.wrapping_add(hot.base) } else { offset };
            self.check_canonical(linear, length, segment)?;
            return Ok(linear);
        }
        let offset = offset & 0xffff_ffff;
        let end = offset + length;
        let inside = if write { end <= hot.write_end } else { end <= hot.read_end };
        if !inside {
            let real = self.is_real() || self.is_v86();
            let register = &hot.segment;
            let permitted = !real
                && register.is_usable()
                && if write { register.is_writable_data() } else { register.is_readable() };
            if !permitted || !register.is_expand_down() {
                return Err(segment_fault(segment));
            }
            // Expand-down: from just above the limit to the top of 64 KiB or 4 GiB (SDM 3A 5.3).
            let big = register.attributes & lodge_x86::segment::attribute::BIG != 0;
            let top = if big { 1 << 32 } else { 1 << 16 };
            if offset <= u64::from(register.limit) || end > top {
                return Err(segment_fault(segment));
            }
        }
        Ok(offset.wrapping_add(hot.base) & 0xffff_ffff)
    }

    /// Sets [`Cpu::lip`] to the instruction whose emitted code called the running helper.
    pub fn locate(&mut self) {
        // SAFETY: the helper stub stores the stack pointer as it is right after the call.
        let pc = unsafe { *(self.code_rsp as *const u64) };
        self.locate_pc(pc - 1);
    }

    /// Sets [`Cpu::lip`] to the instruction that the emitted code at `pc` belongs to.
    pub fn locate_pc(&mut self, pc: u64) {
        let base = self.code_base;
        let offset = {
            let code = self.context().shared.code.lock();
            code.instruction_at(pc)
        };
        let linear = base.wrapping_add(offset.unwrap_or(0));
        self.lip = if self.is_64() { linear } else { linear & 0xffff_ffff };
    }

    /// Leaves emitted code from a memory helper.
    fn leave(&mut self, after: After) -> u64 {
        self.locate();
        if let After::Raise(exception) = after {
            return self.raise_and_go(exception);
        }
        self.context().after = after;
        LEAVE
    }
}

/// The fault that an access outside a segment raises.
pub fn segment_fault(segment: u8) -> Exception {
    if segment == 2 { Exception::stack_fault(0) } else { Exception::general_protection(0) }
}

struct Request {
    linear: u64,
    size: usize,
    write: bool,
    read: bool,
    once: bool,
    run: bool,
}

/// What alignment checking wants of an access of `size` bytes (SDM 3A table 6-7). Vectors are left out: their
/// unaligned forms are made for unaligned data.
fn natural_alignment(size: u32) -> u64 {
    match size {
        2 | 4 | 8 => size.into(),
        10 => 8,
        14 | 94 => 2,
        28 | 108 => 4,
        _ => 1,
    }
}

/// Decodes what a probe says of its access.
fn request(cpu: &Cpu, what: u64, address: u64) -> Result<Request, Exception> {
    let what = what as u32;
    let size = what & argument::SIZE;
    let write = what & argument::WRITE != 0;
    let segment = (what >> argument::SEGMENT_SHIFT) as u8 & 7;
    let misaligned = |linear: u64| what & argument::ALIGNED != 0 && !linear.is_multiple_of(u64::from(size));
    let linear = if what & argument::OFFSET != 0 {
        cpu.in_segment(segment, address, u64::from(size), write)?
    } else {
        // Of #GP for its alignment and #SS for its address, processors raise the former.
        let first = |fault| if misaligned(address) { Exception::general_protection(0) } else { fault };
        cpu.check_canonical(address, u64::from(size), segment).map_err(first)?;
        address
    };
    if crate::mode::Mode(cpu.mode).has(crate::mode::Mode::ALIGN) && !linear.is_multiple_of(natural_alignment(size)) {
        return Err(Exception::ALIGNMENT);
    }
    // Before the page tables are looked at; where the page is known the host's processor checks.
    if misaligned(linear) {
        return Err(Exception::general_protection(0));
    }
    let has = |flag: u32| what & flag != 0;
    let (read, once, run) = (has(argument::READ), has(argument::ONCE), has(argument::RUN));
    Ok(Request { linear, size: size as usize, write, read, once, run })
}

/// The slow path of an emitted access.
pub extern "sysv64" fn memory(cpu: &mut Cpu, what: u64, address: u64) -> u64 {
    cpu.context().counts.memory += 1;
    if what as u32 & argument::TRY != 0 {
        cpu.host_address = attempt(cpu, what, address).map_or(0, |host| host as u64);
        return 0;
    }
    match direct(cpu, what, address) {
        Ok(Some(host)) => {
            cpu.host_address = host as u64;
            0
        }
        Ok(None) => cpu.leave(After::Bounce),
        Err(_) if what as u32 & argument::MASKED != 0 => cpu.leave(After::Bounce),
        Err(_) if what as u32 & argument::WAITS != 0 && crate::fpu::x87_error_pending() => {
            cpu.leave(After::Raise(Exception::X87))
        }
        Err(exception) => cpu.leave(After::Raise(exception)),
    }
}

/// A host address for accesses of which none is known to happen: the walk is that of a read, which leaves no trace but
/// the accessed flag, and a page that is not dirty yet is left to the first write itself.
fn attempt(cpu: &mut Cpu, what: u64, address: u64) -> Option<*mut u8> {
    let request = request(cpu, what, address).ok()?;
    if request.size as u64 > PAGE - request.linear % PAGE {
        return None;
    }
    let read = cpu.access(AccessKind::Read, Privilege::Current);
    let translation = cpu.translate(request.linear, read).ok()?;
    let write = cpu.access(AccessKind::Write, Privilege::Current);
    let context = cpu.context();
    let host = context.shared.ram.host(translation.gpa)?;
    let writable = context.shared.ram.admit_writes(translation.gpa);
    let paging = context.paging;
    if request.write && !(writable && translation.fills(&paging, write)) {
        return None;
    }
    let page_host = host.wrapping_sub((translation.gpa % PAGE) as usize) as u64;
    context.regions.fill(request.linear, &translation, &paging, page_host, writable);
    Some(host)
}

/// A host address for the whole access, if there is one.
fn direct(cpu: &mut Cpu, what: u64, address: u64) -> Result<Option<*mut u8>, Exception> {
    let request = request(cpu, what, address)?;
    let kind = if request.write { AccessKind::Write } else { AccessKind::Read };
    let access = cpu.access(kind, Privilege::Current);
    let translation = cpu.translate(request.linear, access)?;
    let gpa = translation.gpa;
    let room = (PAGE - gpa % PAGE) as usize;
    if request.size > room {
        let pieces = cpu.pieces(request.linear, request.size, access)?;
        let context = cpu.context();
        let [Some((head, _)), Some((tail, length))] = pieces else { return Ok(None) };
        let (Some(first), Some(second)) = (context.shared.ram.host(head), context.shared.ram.host(tail)) else {
            return Ok(None);
        };
        if first.wrapping_add(room) != second {
            // An instruction that reads them once can do with a copy.
            return Ok(request.once.then(|| cpu.fill_bounce(&request, &pieces)));
        }
        if request.write {
            if !(context.shared.ram.takes_writes(head) && context.shared.ram.takes_writes(tail)) {
                return Ok(None);
            }
            context.shared.ram.announce_write(head);
            context.shared.ram.announce_write(tail);
            let hit = context.shared.note_write(head, room);
            if context.shared.note_write(tail, length) || hit {
                // As below.
                return Ok(None);
            }
        }
        return Ok(Some(first));
    }
    let context = cpu.context();
    if request.write {
        if !context.shared.ram.takes_writes(gpa) {
            return Ok(None);
        }
        context.shared.ram.announce_write(gpa);
    }
    let watched = context.shared.ram.watched(gpa);
    if request.write && watched != 0 {
        context.counts.code_writes += 1;
        if request.run && watched & chunk_mask((gpa % PAGE) as usize, room) != 0 {
            // Only the helper that the instruction comes to by itself knows how far it goes.
            return Ok(None);
        }
        if watched & chunk_mask((gpa % PAGE) as usize, request.size) != 0 {
            // The store may hit the very block that is running: its rest must not run on. Drop what it hits, and
            // carry the store out on its own.
            let hit = context.shared.note_write(gpa, request.size);
            if hit {
                return Ok(None);
            }
        } else {
            context.shared.note_write_beside(gpa);
        }
    }
    // A write to a page that admits none was announced.
    Ok(cpu.fill(request.linear, &translation).map(|(host, _)| host))
}

impl Cpu {
    /// Where in the bounce buffer an access is made, with what it reads: at the same offset in 64 bytes as the guest's, for
    /// what checks alignment.
    fn fill_bounce(&mut self, request: &Request, pieces: &[Option<Piece>; 2]) -> *mut u8 {
        let start = (request.linear % 64) as usize;
        if request.read {
            let mut buffer = self.bounce;
            self.read_pieces(pieces, &mut buffer.0[start..start + request.size]);
            self.bounce = buffer;
        }
        (&raw mut self.bounce).cast::<u8>().wrapping_add(start)
    }
}

/// Begins an access through the bounce buffer: checks it, and reads what the instruction will read.
pub extern "sysv64" fn bounce_begin(cpu: &mut Cpu, what: u64, address: u64) -> u64 {
    cpu.context().counts.bounced += 1;
    let begun = request(cpu, what, address).and_then(|request| {
        let kind = if request.write { AccessKind::Write } else { AccessKind::Read };
        let access = cpu.access(kind, Privilege::Current);
        let pieces = cpu.pieces(request.linear, request.size, access)?;
        Ok((request, pieces))
    });
    if let Ok((request, _)) = &begun {
        cpu.note_access(request.linear, request.size as u64, request.write);
    }
    match begun {
        Err(exception) => cpu.leave(After::Raise(exception)),
        Ok((request, pieces)) => {
            cpu.host_address = cpu.fill_bounce(&request, &pieces) as u64;
            cpu.context().bounced = Bounced { pieces };
            0
        }
    }
}

/// Ends a write through the bounce buffer.
pub extern "sysv64" fn bounce_end(cpu: &mut Cpu, _: u64, _: u64) -> u64 {
    let bounced = cpu.context().bounced;
    let base = (&raw const cpu.bounce).addr() as u64;
    let start = (cpu.host_address - base) as usize;
    let length: usize = bounced.pieces.iter().flatten().map(|(_, length)| length).sum();
    let buffer = cpu.bounce;
    cpu.write_pieces(&bounced.pieces, &buffer.0[start..start + length]);
    0
}
