//! Floppies as old software uses them: the controller's registers driven by hand, and the BIOS with every format.
//!
//! A floppy's words count from its beginning on, so that each sector is known by what is in it.

use std::path::Path;

use iced_x86::code_asm::*;
use lodge_tests::disks::{ALL_GOOD, Made, Mark, Program, boot_disk};
use lodge_tests::{Controlled, finish, with_firmware, write_file};
use tempfile::NamedTempFile;

const SECTOR: usize = 512;
/// Where sectors are read to and written from: segment 2000h.
const BUFFER: u32 = 0x2000;
/// What the BIOS's interrupt handler notes: the controller has asked to be looked at.
const BIOS_STATUS: u32 = 0x43e;
/// When the BIOS switches motors off.
const BIOS_MOTOR_COUNT: u32 = 0x440;

/// What a floppy of so many KiB holds at first.
fn content(kib: usize) -> Vec<u8> {
    (0..kib << 9).flat_map(|word| (word as u16).to_le_bytes()).collect()
}

/// The bytes of a range of sectors.
fn sectors(lba: usize, count: usize) -> std::ops::Range<usize> {
    lba * SECTOR..(lba + count) * SECTOR
}

/// A floppy in a file.
fn floppy(kib: usize) -> NamedTempFile {
    write_file(&content(kib))
}

/// A machine that starts a program from its hard disk, with more options to come.
fn machine(program: &Path) -> std::process::Command {
    let mut command = with_firmware();
    command.args(["--disk", &format!("{},bus=ide,readonly", program.display()), "--memory", "16M"]);
    command.args(["--boot", "disk", "--debug-exit", "--timeout", "120"]);
    command
}

/// Routines that programs call.
struct Routines {
    /// Gives AL to the controller.
    put: Mark,
    /// Takes AL from it.
    take: Mark,
    /// Waits for its interrupt.
    wait: Mark,
    /// Whether CX words at the buffer count from AX on: the zero flag.
    counts: Mark,
    /// Makes CX words at the buffer count down from AX.
    fill: Mark,
}

impl Routines {
    /// Puts them here, and goes on behind them.
    fn new(p: &mut Program) -> Made<Self> {
        let (put, take, wait, counts, fill) = (p.mark(), p.mark(), p.mark(), p.mark(), p.mark());
        let behind = p.mark();
        p.a.jmp(p.to(behind))?;
        for (routine, ready) in [(put, 0x80), (take, 0xc0)] {
            p.here(routine)?;
            p.a.mov(ah, al)?;
            p.a.mov(dx, 0x3f4)?;
            let again = p.mark();
            p.here(again)?;
            p.a.in_(al, dx)?;
            p.a.and(al, 0xc0)?;
            p.a.cmp(al, ready)?;
            p.a.jne(p.to(again))?;
            p.a.inc(dx)?;
            if ready == 0x80 {
                p.a.mov(al, ah)?;
                p.a.out(dx, al)?;
            } else {
                p.a.in_(al, dx)?;
            }
            p.a.ret()?;
        }
        p.here(wait)?;
        p.a.test(byte_ptr(BIOS_STATUS), 0x80)?;
        p.a.jz(p.to(wait))?;
        p.a.and(byte_ptr(BIOS_STATUS), 0x7f)?;
        p.a.ret()?;
        let (next, out) = (p.mark(), p.mark());
        p.here(counts)?;
        p.a.xor(di, di)?;
        p.here(next)?;
        p.a.scasw()?;
        p.a.jne(p.to(out))?;
        p.a.inc(ax)?;
        p.a.loop_(p.to(next))?;
        p.a.cmp(ax, ax)?;
        p.here(out)?;
        p.a.ret()?;
        let next = p.mark();
        p.here(fill)?;
        p.a.xor(di, di)?;
        p.here(next)?;
        p.a.stosw()?;
        p.a.dec(ax)?;
        p.a.loop_(p.to(next))?;
        p.a.ret()?;
        p.here(behind)?;
        p.a.cld()?;
        p.a.mov(ax, BUFFER)?;
        p.a.mov(es, ax)?;
        Ok(Self { put, take, wait, counts, fill })
    }

    fn command(&self, p: &mut Program, bytes: &[u32]) -> Made {
        for byte in bytes {
            p.a.mov(al, *byte)?;
            p.a.call(p.to(self.put))?;
        }
        Ok(())
    }

    /// Takes the result and compares it; `None` may be anything.
    fn result(&self, p: &mut Program, what: &str, bytes: &[Option<u32>]) -> Made {
        // Differences gather in BH; the last byte is in BL, should something be asked of it.
        p.a.xor(bx, bx)?;
        for byte in bytes {
            p.a.call(p.to(self.take))?;
            p.a.mov(bl, al)?;
            if let Some(byte) = byte {
                p.a.xor(al, *byte)?;
                p.a.or(bh, al)?;
            }
        }
        p.a.test(bh, bh)?;
        p.check(what)
    }

    fn result_is(&self, p: &mut Program, what: &str, bytes: &[u32]) -> Made {
        self.result(p, what, &bytes.iter().copied().map(Some).collect::<Vec<_>>())
    }

    /// A seek, or a recalibration, with what the controller says of it.
    fn seeks(&self, p: &mut Program, what: &str, bytes: &[u32], end: [u32; 2]) -> Made {
        self.command(p, bytes)?;
        p.a.call(p.to(self.wait))?;
        self.command(p, &[0x08])?;
        self.result_is(p, what, &end)
    }

    /// A transfer that ends with an interrupt.
    fn transfers(&self, p: &mut Program, what: &str, bytes: &[u32], end: &[u32; 7]) -> Made {
        self.command(p, bytes)?;
        p.a.call(p.to(self.wait))?;
        self.result_is(p, what, end)
    }

    fn buffer_counts(&self, p: &mut Program, lba: u32, count: u32) -> Made {
        p.a.mov(ax, (lba * 256) & 0xffff)?;
        p.a.mov(cx, count * 256)?;
        p.a.call(p.to(self.counts))?;
        p.check("the sectors are the right ones")
    }

    fn fill_buffer(&self, p: &mut Program, from: u32, sectors: u32) -> Made {
        p.a.mov(ax, from)?;
        p.a.mov(cx, sectors * 256)?;
        p.a.call(p.to(self.fill))
    }
}

/// Sets channel 2 up, for so many bytes at the buffer.
fn dma(p: &mut Program, mode: u32, bytes: u32) -> Made {
    for (port, value) in [
        (0x0a, 6),
        (0x0c, 0),
        (0x0b, mode),
        (0x04, 0),
        (0x04, 0),
        (0x81, BUFFER >> 12),
        (0x05, (bytes - 1) & 0xff),
        (0x05, (bytes - 1) >> 8),
        (0x0a, 2),
    ] {
        p.a.mov(al, value)?;
        p.a.out(port, al)?;
    }
    Ok(())
}

const TO_MEMORY: u32 = 0x46;
const FROM_MEMORY: u32 = 0x4a;

/// Holds the change line against what it should be.
fn change_line(p: &mut Program, changed: bool, what: &str) -> Made {
    p.a.mov(dx, 0x3f7)?;
    p.a.in_(al, dx)?;
    p.a.and(al, 0x80)?;
    p.a.cmp(al, if changed { 0x80 } else { 0 })?;
    p.check(what)
}

/// A reset, and questions that need no sectors.
fn begins(p: &mut Program, r: &Routines) -> Made {
    p.a.mov(byte_ptr(BIOS_MOTOR_COUNT), 0)?;
    p.a.mov(byte_ptr(BIOS_STATUS), 0)?;
    p.outb(0x3f2, 0)?;
    p.a.mov(dx, 0x3f4)?;
    p.a.in_(al, dx)?;
    p.a.test(al, 0x80)?;
    p.check("nothing is taken while the controller is reset")?;
    p.outb(0x3f2, 0x3c)?;
    p.a.call(p.to(r.wait))?;
    for drive in 0..4 {
        r.command(p, &[0x08])?;
        r.result_is(p, "reset", &[0xc0 | drive, 0])?;
    }
    r.command(p, &[0x08])?;
    r.result_is(p, "nobody waits", &[0x80])?;
    p.outb(0x3f7, 0)?;
    r.command(p, &[0x10])?;
    r.result_is(p, "version", &[0x90])?;
    r.command(p, &[0x1f])?;
    r.result_is(p, "no such command", &[0x80])?;
    r.command(p, &[0x03, 0xdf, 0x02])?;
    change_line(p, true, "no disk was seen")?;
    r.seeks(p, "recalibrated", &[0x07, 0], [0x20, 0])?;
    r.command(p, &[0x04, 0])?;
    r.result_is(p, "track 0", &[0x38])?;
    r.seeks(p, "seek", &[0x0f, 4, 5], [0x24, 5])?;
    change_line(p, false, "a step sees the disk")?;
    r.command(p, &[0x04, 4])?;
    r.result_is(p, "another track", &[0x2c])?;
    r.command(p, &[0x4a, 4])?;
    p.a.call(p.to(r.wait))?;
    r.result(p, "read id", &[Some(4), Some(0), Some(0), Some(5), Some(1), None, Some(2)])?;
    p.a.mov(byte_ptr(0x7e00), bl)?;
    p.say("registers ")
}

/// Sectors by DMA.
fn by_dma(p: &mut Program, r: &Routines) -> Made {
    dma(p, TO_MEMORY, 1024)?;
    r.transfers(p, "read", &[0xe6, 0, 5, 0, 3, 2, 18, 0x1b, 0xff], &[0, 0, 0, 5, 0, 5, 2])?;
    r.buffer_counts(p, 182, 2)?;
    p.a.in_(al, 0x08)?;
    p.a.and(al, 4)?;
    p.a.cmp(al, 4)?;
    p.check("the count has ended")?;
    // From one side to the other.
    dma(p, TO_MEMORY, 1536)?;
    r.transfers(p, "both sides", &[0xe6, 0, 5, 0, 17, 2, 18, 0x1b, 0xff], &[4, 0, 0, 5, 1, 2, 2])?;
    r.buffer_counts(p, 196, 3)?;
    r.fill_buffer(p, 0x1234, 3)?;
    dma(p, FROM_MEMORY, 1536)?;
    r.transfers(p, "write", &[0xc5, 4, 5, 1, 7, 2, 18, 0x1b, 0xff], &[4, 0, 0, 5, 1, 10, 2])?;
    dma(p, TO_MEMORY, 512)?;
    r.transfers(p, "no such sector", &[0x46, 0, 5, 0, 19, 2, 19, 0x1b, 0xff], &[0x40, 4, 0, 5, 0, 19, 2])?;
    dma(p, TO_MEMORY, 512)?;
    r.transfers(p, "another cylinder", &[0x46, 0, 6, 0, 1, 2, 18, 0x1b, 0xff], &[0x40, 4, 0x10, 6, 0, 1, 2])?;
    // At a rate that the disk was not written with.
    p.outb(0x3f7, 2)?;
    dma(p, TO_MEMORY, 512)?;
    r.transfers(p, "wrong rate", &[0x46, 0, 5, 0, 1, 2, 18, 0x1b, 0xff], &[0x40, 1, 0, 5, 0, 1, 2])?;
    p.outb(0x3f7, 0)?;
    p.outb(0x3f2, 0x2c)?;
    dma(p, TO_MEMORY, 512)?;
    r.transfers(p, "motor off", &[0x46, 0, 5, 0, 1, 2, 18, 0x1b, 0xff], &[0x40, 1, 0, 5, 0, 1, 2])?;
    p.outb(0x3f2, 0x3c)?;
    p.say("dma ")
}

/// Sectors byte by byte, with the interrupt of each ignored.
fn by_ports(p: &mut Program, r: &Routines) -> Made {
    let wait_for = |p: &mut Program, status: u32| {
        p.a.mov(dx, 0x3f4)?;
        let again = p.mark();
        p.here(again)?;
        p.a.in_(al, dx)?;
        p.a.cmp(al, status)?;
        p.a.jne(p.to(again))?;
        p.a.inc(dx)
    };
    r.command(p, &[0x03, 0xdf, 0x03])?;
    r.command(p, &[0x46, 0, 5, 0, 9, 2, 9, 0x1b, 0xff])?;
    p.a.xor(di, di)?;
    let next = p.mark();
    p.here(next)?;
    wait_for(p, 0xf0)?;
    p.a.in_(al, dx)?;
    p.a.stosb()?;
    p.a.cmp(di, 512)?;
    p.a.jb(p.to(next))?;
    r.result_is(p, "read by ports", &[0x40, 0x80, 0, 6, 0, 1, 2])?;
    r.buffer_counts(p, 188, 1)?;
    r.command(p, &[0x45, 0, 5, 0, 10, 2, 10, 0x1b, 0xff])?;
    p.a.xor(di, di)?;
    let next = p.mark();
    p.here(next)?;
    wait_for(p, 0xb0)?;
    p.a.mov(ax, di)?;
    p.a.not(al)?;
    p.a.out(dx, al)?;
    p.a.inc(di)?;
    p.a.cmp(di, 512)?;
    p.a.jb(p.to(next))?;
    r.result_is(p, "written by ports", &[0x40, 0x80, 0, 6, 0, 1, 2])?;
    r.command(p, &[0x03, 0xdf, 0x02])?;
    p.a.mov(byte_ptr(BIOS_STATUS), 0)?;
    p.say("ports ")
}

/// Formats side 1 of cylinder 7, its sectors in another order, and reads it back.
fn formats(p: &mut Program, r: &Routines) -> Made {
    r.seeks(p, "seek to format", &[0x0f, 4, 7], [0x24, 7])?;
    p.a.xor(di, di)?;
    p.a.mov(cx, 18)?;
    let next = p.mark();
    p.here(next)?;
    p.a.mov(ax, 0x0107)?;
    p.a.stosw()?;
    p.a.mov(al, cl)?;
    p.a.mov(ah, 2)?;
    p.a.stosw()?;
    p.a.loop_(p.to(next))?;
    dma(p, FROM_MEMORY, 72)?;
    r.command(p, &[0x4d, 4, 2, 18, 0x6c, 0xa5])?;
    p.a.call(p.to(r.wait))?;
    r.result(p, "format", &[Some(4), Some(0), Some(0), None, None, None, None])?;
    dma(p, TO_MEMORY, 18 * 512)?;
    r.transfers(p, "read what is formatted", &[0x46, 4, 7, 1, 1, 2, 18, 0x1b, 0xff], &[4, 0, 0, 8, 1, 1, 2])?;
    p.a.xor(di, di)?;
    p.a.mov(cx, 18 * 512)?;
    p.a.mov(al, 0xa5)?;
    p.a.repe().scasb()?;
    p.check("it is all the filler")?;
    p.say("format ")
}

/// The second drive's disk is write-protected; the first one's is changed.
fn protected_and_changed(p: &mut Program, r: &Routines) -> Made {
    p.outb(0x3f2, 0x3d)?;
    r.seeks(p, "second drive", &[0x07, 1], [0x21, 0])?;
    r.command(p, &[0x04, 1])?;
    r.result_is(p, "it is write-protected", &[0x79])?;
    dma(p, FROM_MEMORY, 512)?;
    r.transfers(p, "refused", &[0x45, 1, 0, 0, 1, 2, 18, 0x1b, 0xff], &[0x41, 2, 0, 0, 0, 1, 2])?;
    dma(p, FROM_MEMORY, 72)?;
    r.command(p, &[0x4d, 1, 2, 18, 0x6c, 0xa5])?;
    p.a.call(p.to(r.wait))?;
    r.result(p, "format refused", &[Some(0x41), Some(2), Some(0), None, None, None, None])?;
    dma(p, TO_MEMORY, 512)?;
    r.transfers(p, "but it can be read", &[0x46, 1, 0, 0, 1, 2, 18, 0x1b, 0xff], &[1, 0, 0, 0, 0, 2, 2])?;
    r.buffer_counts(p, 0, 1)?;
    p.outb(0x3f2, 0x3c)?;
    change_line(p, false, "the first disk is still there")?;
    p.show("eject")?;
    change_line(p, true, "the disk is gone")?;
    r.seeks(p, "without a disk", &[0x07, 0], [0x20, 0])?;
    change_line(p, true, "no step sees a disk that is not there")?;
    p.show("insert")?;
    change_line(p, true, "nobody has looked yet")?;
    r.seeks(p, "with another", &[0x0f, 0, 1], [0x20, 1])?;
    change_line(p, false, "a step sees the new disk")?;
    dma(p, TO_MEMORY, 512)?;
    r.transfers(p, "its data", &[0x46, 0, 1, 0, 1, 2, 18, 0x1b, 0xff], &[0, 0, 0, 1, 0, 2, 2])?;
    p.a.xor(di, di)?;
    p.a.mov(cx, 512)?;
    p.a.mov(al, 0x77)?;
    p.a.repe().scasb()?;
    p.check("the new disk's data")?;
    p.outb(0x3f2, 0x2c)?;
    change_line(p, false, "the line is the drive's whose motor is on")
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn the_controller_is_driven_by_hand() {
    let program = boot_disk(|p| {
        let r = Routines::new(p)?;
        begins(p, &r)?;
        by_dma(p, &r)?;
        by_ports(p, &r)?;
        formats(p, &r)?;
        protected_and_changed(p, &r)
    });
    let (first, second, third) = (floppy(1440), floppy(1440), write_file(&vec![0x77; 1440 << 10]));
    let mut command = machine(program.path());
    command.arg("--floppy").arg(first.path());
    command.args(["--floppy", &format!("{},readonly", second.path().display())]);
    let mut controlled = Controlled::start(&mut command);
    controlled.vm.expect("registers dma ports format eject\r\n");
    assert_eq!(controlled.ctl(&["media", "floppy0", "eject"]), (0, String::new()));
    controlled.vm.send(".");
    controlled.vm.expect("insert\r\n");
    let path = third.path().to_string_lossy().into_owned();
    assert_eq!(controlled.ctl(&["media", "floppy0", &path]), (0, String::new()));
    controlled.vm.send(".");
    let (status, output) = controlled.vm.wait();
    assert_eq!(status, ALL_GOOD, "{output}");
    let mut wanted = content(1440);
    for (word, place) in wanted[sectors(204, 3)].chunks_exact_mut(2).enumerate() {
        place.copy_from_slice(&(0x1234u16.wrapping_sub(word as u16)).to_le_bytes());
    }
    for (at, place) in wanted[sectors(189, 1)].iter_mut().enumerate() {
        *place = !(at as u8);
    }
    wanted[sectors(270, 18)].fill(0xa5);
    assert!(std::fs::read(first.path()).unwrap() == wanted, "the image has other bytes");
    assert!(std::fs::read(second.path()).unwrap() == content(1440), "the write-protected one is as it was");
}

/// Reads a whole floppy by the BIOS, and writes its last sector.
fn reads_all(p: &mut Program, kind: u32, cylinders: u32, sectors: u32) -> Made {
    let r = Routines::new(p)?;
    p.a.push(es)?;
    p.a.mov(ah, 8)?;
    p.a.mov(dl, 0)?;
    p.a.int(0x13)?;
    p.a.pop(es)?;
    p.a.setc(al)?;
    p.a.test(al, al)?;
    p.check("the BIOS knows the drive")?;
    p.a.cmp(bl, kind)?;
    p.check("its kind")?;
    p.a.cmp(cx, (cylinders - 1) << 8 | sectors)?;
    p.check("its cylinders and sectors")?;
    p.a.cmp(dx, 0x0101)?;
    p.check("its sides")?;
    // SI is the track, counted over both sides.
    p.a.xor(si, si)?;
    let next = p.mark();
    p.here(next)?;
    p.a.push(si)?;
    p.a.mov(ax, si)?;
    p.a.shr(ax, 1)?;
    p.a.mov(ch, al)?;
    p.a.mov(cl, 1)?;
    p.a.mov(ax, si)?;
    p.a.and(al, 1)?;
    p.a.mov(dh, al)?;
    p.a.mov(dl, 0)?;
    p.a.mov(ax, 0x0200 | sectors)?;
    p.a.xor(bx, bx)?;
    p.a.int(0x13)?;
    p.a.pop(si)?;
    p.a.setc(ah)?;
    p.a.cmp(ax, sectors)?;
    p.check("a track is read")?;
    p.a.imul_3(ax, si, (sectors * 256) as i32)?;
    p.a.mov(cx, sectors * 256)?;
    p.a.call(p.to(r.counts))?;
    p.check("its sectors are the right ones")?;
    p.a.inc(si)?;
    p.a.cmp(si, cylinders * 2)?;
    p.a.jb(p.to(next))?;
    r.fill_buffer(p, 0x4321, 1)?;
    p.a.mov(ax, 0x0301)?;
    p.a.xor(bx, bx)?;
    p.a.mov(cx, (cylinders - 1) << 8 | sectors)?;
    p.a.mov(dx, 0x0100)?;
    p.a.int(0x13)?;
    p.a.setc(ah)?;
    p.a.cmp(ax, 1)?;
    p.check("the last sector is written")
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn every_format_is_read_by_the_bios() {
    for (kib, kind, cylinders, per_track) in
        [(360, 1, 40, 9), (720, 3, 80, 9), (1200, 2, 80, 15), (1440, 4, 80, 18), (2880, 5, 80, 36)]
    {
        let program = boot_disk(|p| reads_all(p, kind, cylinders, per_track));
        let image = floppy(kib);
        let (status, output) = finish(machine(program.path()).arg("--floppy").arg(image.path()));
        assert_eq!(status, ALL_GOOD, "{kib} KiB: {output}");
        let mut wanted = content(kib);
        let last = sectors(kib * 2 - 1, 1);
        for (word, place) in wanted[last].chunks_exact_mut(2).enumerate() {
            place.copy_from_slice(&(0x4321 - word as u16).to_le_bytes());
        }
        assert!(std::fs::read(image.path()).unwrap() == wanted, "{kib} KiB: the image has other bytes");
    }
}
