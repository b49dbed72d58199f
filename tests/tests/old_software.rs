//! What programs for the BIOS do: each is a boot disk of its own, checks what it sees, and says so.

use std::process::Command;
use std::time::Duration;

use iced_x86::code_asm::*;
use lodge_tests::disks::{ALL_GOOD, Made, Mark, Program, boot_disk};
use lodge_tests::{TestVm, finish, lodge, with_firmware};

/// Runs a program from a hard disk; what it said.
#[track_caller]
fn boots(make: impl Fn(&mut Program) -> Made) -> String {
    let disk = boot_disk(make);
    let path = disk.path().display();
    let mut command = with_firmware();
    command.args(["--disk", &format!("{path},bus=ide,readonly"), "--memory", "16M", "--debug-exit"]);
    let (status, output) = finish(command.args(["--timeout", "60"]));
    assert_eq!(status, ALL_GOOD, "{output}");
    assert!(!output.contains("FAILED"), "{output}");
    output
}

/// Where firmware looks for the address to go on at after a reset of the processor.
const RESUME: u32 = 0x467;

/// Leaves word where to go on after a reset of the processor: shutdown status `code`.
fn resume_at(p: &mut Program, place: Mark, code: u32) -> Made {
    let address = p.address(place);
    p.a.mov(word_ptr(RESUME), address)?;
    p.a.mov(word_ptr(RESUME + 2), 0)?;
    p.cmos(0x0f, code)
}

/// Into protected mode with 16-bit segments at 0; `with` sets the bit in what CR0 or the machine status word holds.
fn enter(p: &mut Program, gdt: u32, lmsw: bool) -> Made {
    p.a.cli()?;
    p.a.lgdt(ptr(gdt))?;
    if lmsw {
        p.a.smsw(ax)?;
        p.a.or(al, 1)?;
        p.a.lmsw(ax)?;
    } else {
        p.a.mov(eax, cr0)?;
        p.a.or(al, 1)?;
        p.a.mov(cr0, eax)?;
    }
    let there = p.mark();
    p.far_jump(0x08, there)?;
    p.here(there)?;
    p.segments(0x10)
}

/// After a way back to real mode.
fn returned(p: &mut Program, place: Mark, what: &str) -> Made {
    p.here(place)?;
    p.a.cli()?;
    p.segments(0)?;
    p.a.smsw(ax)?;
    p.a.test(al, 1)?;
    p.check("the processor is in real mode")?;
    p.say(what)
}

fn modes(p: &mut Program) -> Made {
    let (table, gdt, no_idt, memory) = (p.variable(32), p.variable(6), p.variable(6), p.variable(4));
    let descriptors = [0, 0x0000_9a00_0000_ffff, 0x0000_9200_0000_ffff, 0x008f_9200_0000_ffffu64];
    for (at, word) in (table..).step_by(4).zip(descriptors.iter().flat_map(|d| [*d as u32, (*d >> 32) as u32])) {
        p.a.mov(dword_ptr(at), word)?;
    }
    p.a.mov(word_ptr(gdt), 31)?;
    p.a.mov(dword_ptr(gdt + 2), table)?;
    p.a.mov(word_ptr(no_idt), 0)?;
    p.a.mov(dword_ptr(no_idt + 2), 0)?;
    // Memory, and the mask of the second interrupt controller, tell whether anything but the processor was reset.
    p.a.mov(dword_ptr(memory), 0x1234_5678)?;
    p.a.mov(al, 0xa5)?;
    p.a.out(0xa1, al)?;

    let back = p.mark();
    enter(p, gdt, false)?;
    p.a.mov(eax, cr0)?;
    p.a.and(al, 0xfe)?;
    p.a.mov(cr0, eax)?;
    p.far_jump(0, back)?;
    returned(p, back, "cr0 ")?;

    for code in [0x0a, 0x05] {
        let back = p.mark();
        resume_at(p, back, code)?;
        enter(p, gdt, true)?;
        p.a.mov(al, 0xfe)?;
        p.a.out(0x64, al)?;
        p.a.db(&[0xf4, 0xeb, 0xfd])?;
        returned(p, back, "286 ")?;
    }

    let back = p.mark();
    resume_at(p, back, 0x0a)?;
    enter(p, gdt, false)?;
    p.a.in_(al, 0x92)?;
    p.a.and(al, 0xfe)?;
    p.a.out(0x92, al)?;
    p.a.or(al, 1)?;
    p.a.out(0x92, al)?;
    p.a.db(&[0xf4, 0xeb, 0xfd])?;
    returned(p, back, "port92 ")?;

    let back = p.mark();
    resume_at(p, back, 0x0a)?;
    enter(p, gdt, false)?;
    p.a.lidt(ptr(no_idt))?;
    p.a.int3()?;
    returned(p, back, "fault ")?;

    // Unreal mode: a segment keeps the limit that it got in protected mode.
    let back = p.mark();
    enter(p, gdt, false)?;
    p.a.mov(ax, 0x18)?;
    p.a.mov(fs, ax)?;
    p.a.mov(eax, cr0)?;
    p.a.and(al, 0xfe)?;
    p.a.mov(cr0, eax)?;
    p.far_jump(0, back)?;
    returned(p, back, "")?;
    p.a.mov(ebx, 0x20_0000)?;
    p.a.mov(dword_ptr(ebx).fs(), 0x8765_4321u32 as i32)?;
    p.a.mov(eax, dword_ptr(ebx).fs())?;
    p.a.cmp(eax, 0x8765_4321u32 as i32)?;
    p.check("memory is reached beyond 64 KiB")?;
    p.say("unreal ")?;

    p.a.cmp(dword_ptr(memory), 0x1234_5678)?;
    p.check("memory stayed")?;
    p.a.in_(al, 0xa1)?;
    p.a.cmp(al, 0xa5)?;
    p.check("the interrupt controllers stayed")?;
    // And the BIOS still works.
    p.a.sti()?;
    p.a.mov(ah, 0x0f)?;
    p.a.int(0x12)?;
    p.a.cmp(ax, 639)?;
    p.check("639 KiB of memory")
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn every_way_back_from_protected_mode() {
    let output = boots(modes);
    assert!(output.contains("cr0 286 286 port92 fault unreal "), "{output}");
}

fn line_20(p: &mut Program) -> Made {
    p.a.mov(ax, 0xffff)?;
    p.a.mov(fs, ax)?;
    p.a.mov(word_ptr(0x600), 0x1111)?;
    p.a.mov(word_ptr(0x610).fs(), 0x2222)?;
    p.a.cmp(word_ptr(0x600), 0x1111)?;
    p.check("the line is open at first")?;
    // Through the BIOS, the keyboard controller and port 92h; a closed line wraps.
    let closed = |p: &mut Program, what: &str| {
        p.a.cmp(word_ptr(0x610).fs(), 0x1111)?;
        p.check(&format!("{what} closes the line"))
    };
    let open = |p: &mut Program, what: &str| {
        p.a.cmp(word_ptr(0x610).fs(), 0x2222)?;
        p.check(&format!("{what} opens the line"))
    };
    p.a.mov(ax, 0x2400)?;
    p.a.int(0x15)?;
    closed(p, "INT 15h")?;
    p.a.mov(ax, 0x2402)?;
    p.a.int(0x15)?;
    p.a.test(al, al)?;
    p.check("INT 15h tells that the line is closed")?;
    p.a.mov(ax, 0x2401)?;
    p.a.int(0x15)?;
    open(p, "INT 15h")?;
    p.a.cli()?;
    for value in [0xdd, 0xdf] {
        for (port, byte) in [(0x64, 0xd1), (0x60, value)] {
            let wait = p.mark();
            p.here(wait)?;
            p.a.in_(al, 0x64)?;
            p.a.test(al, 2)?;
            p.a.jnz(p.to(wait))?;
            p.a.mov(al, byte)?;
            p.a.out(port, al)?;
        }
        if value & 2 == 0 { closed(p, "the keyboard controller")? } else { open(p, "the keyboard controller")? }
    }
    for value in [0, 2] {
        p.a.mov(al, value)?;
        p.a.out(0x92, al)?;
        if value == 0 { closed(p, "port 92h")? } else { open(p, "port 92h")? }
    }
    p.a.sti()
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn address_line_20_is_held_low_in_every_way() {
    boots(line_20);
}

/// Reprograms timer 0 to about 1000 Hz and hooks its interrupt.
fn timers(p: &mut Program) -> Made {
    let (begin, tick, own) = (p.mark(), p.mark(), p.mark());
    let (saved, count) = (p.variable(4), p.variable(2));
    p.a.mov(word_ptr(count), 0)?;
    p.a.jmp(p.to(begin))?;
    // Counts, and passes every 64th on.
    p.here(tick)?;
    p.a.inc(word_ptr(count).cs())?;
    p.a.test(byte_ptr(count).cs(), 63)?;
    p.a.jnz(p.to(own))?;
    p.a.jmp(dword_ptr(saved).cs())?;
    p.here(own)?;
    p.a.push(ax)?;
    p.a.mov(al, 0x20)?;
    p.a.out(0x20, al)?;
    p.a.pop(ax)?;
    p.a.iret()?;

    p.here(begin)?;
    p.hook(0x08, tick, saved)?;
    p.a.mov(al, 0x34)?;
    p.a.out(0x43, al)?;
    p.a.mov(al, 1193 & 0xff)?;
    p.a.out(0x40, al)?;
    p.a.mov(al, 1193 >> 8)?;
    p.a.out(0x40, al)?;
    p.a.mov(bx, word_ptr(0x46c))?;
    let wait = p.mark();
    p.here(wait)?;
    p.a.hlt()?;
    p.a.cmp(word_ptr(count), 500)?;
    p.a.jb(p.to(wait))?;
    // The BIOS saw 7 of about 500.
    p.a.mov(ax, word_ptr(0x46c))?;
    p.a.sub(ax, bx)?;
    p.a.sub(ax, 7)?;
    p.a.cmp(ax, 1)?;
    let near = p.mark();
    p.a.jbe(p.to(near))?;
    p.a.test(ax, ax)?;
    p.check("the BIOS counted those that were passed on")?;
    p.here(near)?;
    // Channel 2 counts while its gate is open, and its output shows in port 61h.
    p.a.in_(al, 0x61)?;
    p.a.and(al, 0xfc)?;
    p.a.or(al, 1)?;
    p.a.out(0x61, al)?;
    p.a.mov(al, 0xb0)?;
    p.a.out(0x43, al)?;
    p.a.mov(al, 0xff)?;
    p.a.out(0x42, al)?;
    p.a.mov(al, 0x0f)?;
    p.a.out(0x42, al)?;
    p.a.in_(al, 0x61)?;
    p.a.test(al, 0x20)?;
    p.check("the output of channel 2 is low while it counts")?;
    let wait = p.mark();
    p.here(wait)?;
    p.a.in_(al, 0x61)?;
    p.a.test(al, 0x20)?;
    p.a.jz(p.to(wait))?;
    p.say("timers ")
}

/// Moves the interrupt controllers' vectors, masks, and reads their registers.
fn controllers(p: &mut Program) -> Made {
    let (begin, handler) = (p.mark(), p.mark());
    let (count, in_service) = (p.variable(2), p.variable(1));
    p.a.mov(word_ptr(count), 0)?;
    p.a.jmp(p.to(begin))?;
    p.here(handler)?;
    p.a.inc(word_ptr(count).cs())?;
    p.a.push(ax)?;
    // In service is what is being served.
    p.a.mov(al, 0x0b)?;
    p.a.out(0x20, al)?;
    p.a.in_(al, 0x20)?;
    p.a.mov(byte_ptr(in_service).cs(), al)?;
    p.a.mov(al, 0x20)?;
    p.a.out(0x20, al)?;
    p.a.pop(ax)?;
    p.a.iret()?;
    p.here(begin)?;
    p.a.cli()?;
    p.a.mov(word_ptr(0x50 * 4), p.address(handler))?;
    p.a.mov(word_ptr(0x50 * 4 + 2), 0)?;
    for (port, value) in [(0x20, 0x11), (0x21, 0x50), (0x21, 4), (0x21, 1), (0x21, 0xfe)] {
        p.a.mov(al, value)?;
        p.a.out(port, al)?;
    }
    // A request that is not served shows, and is served once interrupts are on.
    let wait = p.mark();
    p.here(wait)?;
    p.a.mov(al, 0x0a)?;
    p.a.out(0x20, al)?;
    p.a.in_(al, 0x20)?;
    p.a.test(al, 1)?;
    p.a.jz(p.to(wait))?;
    p.a.cmp(word_ptr(count), 0)?;
    p.check("nothing is served while interrupts are off")?;
    p.a.sti()?;
    p.a.hlt()?;
    p.a.cmp(word_ptr(count), 0)?;
    p.a.setz(al)?;
    p.a.test(al, al)?;
    p.check("the moved vector is called")?;
    p.a.cmp(byte_ptr(in_service), 1)?;
    p.check("interrupt 0 was in service")?;
    p.a.cli()?;
    for (port, value) in [(0x20, 0x11), (0x21, 8), (0x21, 4), (0x21, 1), (0x21, 0xb8)] {
        p.a.mov(al, value)?;
        p.a.out(port, al)?;
    }
    p.a.sti()?;
    p.say("controllers ")
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn timers_and_interrupt_controllers_are_reprogrammed() {
    let output = boots(|p| {
        timers(p)?;
        controllers(p)
    });
    assert!(output.contains("timers controllers "), "{output}");
}

/// Hooks services of the BIOS, counts calls and passes them on.
fn hooks(p: &mut Program) -> Made {
    let mut hooked = Vec::new();
    for vector in [0x09, 0x10, 0x13, 0x1a] {
        let (handler, after) = (p.mark(), p.mark());
        let (saved, count) = (p.variable(4), p.variable(2));
        p.a.mov(word_ptr(count), 0)?;
        p.a.jmp(p.to(after))?;
        p.here(handler)?;
        p.a.inc(word_ptr(count).cs())?;
        p.a.jmp(dword_ptr(saved).cs())?;
        p.here(after)?;
        hooked.push((vector, handler, saved, count));
    }
    for (vector, handler, saved, _) in &hooked {
        p.hook(*vector, *handler, *saved)?;
    }
    // A key, as the keyboard would send it: the controller puts the byte where the keyboard's go.
    for (port, byte) in [(0x64, 0xd2), (0x60, 0x1e)] {
        p.a.mov(al, byte)?;
        p.a.out(port, al)?;
    }
    p.a.mov(ah, 0)?;
    p.a.int(0x16)?;
    p.a.cmp(ax, 0x1e61)?;
    p.check("the BIOS has the letter a")?;
    p.a.mov(ax, 0x0e2e)?;
    p.a.mov(bx, 7)?;
    p.a.int(0x10)?;
    p.a.mov(ax, 0x0201)?;
    p.a.mov(bx, 0x2000)?;
    p.a.mov(cx, 1)?;
    p.a.mov(dx, 0x80)?;
    p.a.int(0x13)?;
    p.a.cmp(word_ptr(0x21fe), 0xaa55u32 as i32)?;
    p.check("the boot sector is read")?;
    p.a.mov(ah, 0)?;
    p.a.int(0x1a)?;
    for (vector, _, _, count) in &hooked {
        p.a.cmp(word_ptr(*count), 0)?;
        p.a.setz(al)?;
        p.a.test(al, al)?;
        p.check(&format!("interrupt {vector:#x} passed the hook"))?;
    }
    Ok(())
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn services_of_the_bios_are_hooked() {
    boots(hooks);
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_program_prints_through_the_bios() {
    const TEXT: &[u8] = b"lodge prints\r\n\x0c";
    let disk = boot_disk(|p| {
        // There is one printer, and it is ready.
        p.a.mov(ah, 2)?;
        p.a.xor(dx, dx)?;
        p.a.int(0x17)?;
        p.a.cmp(ah, 0x90)?;
        p.check("the printer is ready and on line")?;
        p.a.mov(ax, word_ptr(0x408))?;
        p.a.cmp(ax, 0x378)?;
        p.check("the BIOS found it")?;
        p.a.mov(ah, 1)?;
        p.a.xor(dx, dx)?;
        p.a.int(0x17)?;
        p.a.xor(bx, bx)?;
        for byte in TEXT {
            p.a.mov(ax, u32::from(*byte))?;
            p.a.xor(dx, dx)?;
            p.a.int(0x17)?;
            p.a.or(bl, ah)?;
        }
        // Paper, errors, and what took too long.
        p.a.test(bl, 0x29)?;
        p.check("each byte was printed")
    });
    let paper = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut command = with_firmware();
    command.args(["--disk", &format!("{},bus=ide,readonly", disk.path().display()), "--memory", "16M", "--debug-exit"]);
    command.arg("--parallel").arg(format!("file={}", paper.path().display()));
    let (status, output) = finish(command.args(["--timeout", "60"]));
    assert_eq!(status, ALL_GOOD, "{output}");
    assert_eq!(std::fs::read(paper.path()).expect("it is read"), TEXT);
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn a_machine_that_sleeps_can_be_paused() {
    // Sleep type 1, where firmware has the power management.
    let disk = boot_disk(|p| {
        p.a.mov(dx, 0x604)?;
        p.a.mov(ax, 0x2400)?;
        p.a.out(dx, ax)?;
        p.a.db(&[0xf4, 0xeb, 0xfd])
    });
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = with_firmware();
    command.args([
        "--disk",
        &format!("{},bus=ide,readonly", disk.path().display()),
        "--memory",
        "16M",
        "--timeout",
        "60",
    ]);
    let vm = TestVm::start(command.args(["--serial", "none", "--control"]).arg(folder.path().join("control")));
    let ctl = |word: &str| finish(Command::new(lodge()).arg("ctl").arg(folder.path().join("control")).arg(word)).1;
    let becomes = |phase: &str| {
        let seen = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            ctl("status").starts_with(phase)
        });
        assert!(seen, "{phase} did not come: {}", ctl("status"));
    };
    becomes("suspended");
    for _ in 0..2 {
        ctl("pause");
        becomes("paused");
        // It sleeps on.
        ctl("resume");
        becomes("suspended");
    }
    // Woken while it is paused, it runs when that ends.
    ctl("pause");
    ctl("powerdown");
    becomes("paused");
    ctl("resume");
    becomes("running");
    ctl("quit");
    assert_eq!(vm.wait().0, 0);
}
