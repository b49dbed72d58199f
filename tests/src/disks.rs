//! Boot disks of a few sectors: programs as people wrote them for the BIOS, assembled here.
//!
//! The boot sector loads up to [`SECTORS`] sectors behind it to [`START`] and jumps there in real mode: all segments zero,
//! the stack below 0x7c00, interrupts on, just after one of the timer. [`Program`] adds what the programs share: text on
//! COM1, checks, and an end with a status through the debug exit port.

use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, IcedError};
use tempfile::NamedTempFile;

use crate::write_file;

/// Where variables of programs are, below the stack.
const VARIABLES: u32 = 0x600;
/// Where programs begin.
pub const START: u64 = 0x8000;
/// Sectors of a program: what is left of a 1.44 MB floppy's first track.
pub const SECTORS: usize = 17;
/// Bytes of a disk that is no floppy.
const DISK: usize = 1 << 20;
const SECTOR: usize = 512;
/// Where the BIOS counts the timer's interrupts.
const BIOS_TICKS: u32 = 0x46c;
/// The first serial port.
const COM1: u32 = 0x3f8;
/// What a program writes to the debug exit port when all is well, and the exit status that it makes.
const GOOD: u32 = 0x10;
/// The exit status of a program whose checks all held.
pub const ALL_GOOD: i32 = (GOOD as i32) << 1 | 1;

/// A place in a program.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

/// A program in the making. It is made twice: only then are the addresses of places known.
pub struct Program {
    /// The assembler.
    pub a: CodeAssembler,
    checks: u32,
    labels: Vec<CodeLabel>,
    /// What the labels' addresses were the first time.
    addresses: Vec<u64>,
    variables: u32,
}

/// What making a program gives.
pub type Made<T = ()> = Result<T, IcedError>;

impl Program {
    fn new(addresses: Vec<u64>) -> Self {
        let a = CodeAssembler::new(16).expect("16 bits");
        Self { a, checks: 0, labels: Vec::new(), addresses, variables: VARIABLES }
    }

    /// A place that is somewhere below.
    pub fn mark(&mut self) -> Mark {
        self.labels.push(self.a.create_label());
        Mark(self.labels.len() - 1)
    }

    /// The place is here.
    ///
    /// # Errors
    /// It is somewhere already.
    pub fn here(&mut self, mark: Mark) -> Made {
        self.a.set_label(&mut self.labels[mark.0])
    }

    /// What branches to the place take.
    pub fn to(&self, mark: Mark) -> CodeLabel {
        self.labels[mark.0]
    }

    /// The place's address.
    pub fn address(&self, mark: Mark) -> u32 {
        self.addresses.get(mark.0).copied().unwrap_or(START) as u32
    }

    /// The address of a variable of so many bytes, with nothing in it yet.
    pub fn variable(&mut self, bytes: u32) -> u32 {
        let address = self.variables;
        self.variables += bytes;
        address
    }

    /// Writes text to COM1, waiting for it to take each byte. Registers stay.
    ///
    /// # Errors
    /// The instructions can't be encoded.
    pub fn say(&mut self, text: &str) -> Made {
        let a = &mut self.a;
        let (mut behind, mut next, mut wait, mut end) =
            (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        a.pushf()?;
        a.push(ax)?;
        a.push(dx)?;
        a.push(si)?;
        a.call(behind)?;
        a.db(text.as_bytes())?;
        a.db(&[0])?;
        a.set_label(&mut behind)?;
        a.pop(si)?;
        a.cld()?;
        a.set_label(&mut next)?;
        a.mov(al, byte_ptr(si).cs())?;
        a.inc(si)?;
        a.test(al, al)?;
        a.jz(end)?;
        a.mov(ah, al)?;
        a.mov(dx, COM1 + 5)?;
        a.set_label(&mut wait)?;
        a.in_(al, dx)?;
        a.test(al, 0x20)?;
        a.jz(wait)?;
        a.mov(dx, COM1)?;
        a.mov(al, ah)?;
        a.out(dx, al)?;
        a.jmp(next)?;
        a.set_label(&mut end)?;
        a.pop(si)?;
        a.pop(dx)?;
        a.pop(ax)?;
        a.popf()
    }

    /// Says `text` and waits for a byte on COM1, which [`crate::TestVm::send`] can send. Registers stay.
    ///
    /// # Errors
    /// The instructions can't be encoded.
    pub fn show(&mut self, text: &str) -> Made {
        // In interrupts of the timer the BIOS would take the byte for a key.
        self.a.pushf()?;
        self.a.cli()?;
        self.say(&format!("{text}\r\n"))?;
        let a = &mut self.a;
        a.push(ax)?;
        a.push(dx)?;
        a.mov(dx, COM1 + 5)?;
        let mut wait = a.create_label();
        a.set_label(&mut wait)?;
        a.in_(al, dx)?;
        a.test(al, 1)?;
        a.jz(wait)?;
        a.mov(dx, COM1)?;
        a.in_(al, dx)?;
        a.pop(dx)?;
        a.pop(ax)?;
        a.popf()
    }

    /// Writes a byte to a port, by way of AL and DX.
    ///
    /// # Errors
    /// The instructions can't be encoded.
    pub fn outb(&mut self, port: u32, value: u32) -> Made {
        self.a.mov(dx, port)?;
        self.a.mov(al, value)?;
        self.a.out(dx, al)
    }

    /// Writes a register behind an index, as cards have them, by way of AX and DX.
    ///
    /// # Errors
    /// The instructions can't be encoded.
    pub fn register(&mut self, port: u32, index: u32, value: u32) -> Made {
        self.a.mov(dx, port)?;
        self.a.mov(ax, value << 8 | index)?;
        self.a.out(dx, ax)
    }

    /// Writes several registers: port, index and value of each ([`Self::register`]).
    ///
    /// # Errors
    /// The instructions can't be encoded.
    pub fn registers(&mut self, all: &[(u32, u32, u32)]) -> Made {
        all.iter().try_for_each(|&(port, index, value)| self.register(port, index, value))
    }

    /// Goes on if the zero flag is set, and else says which check it was, and ends.
    ///
    /// # Errors
    /// The instructions can't be encoded.
    pub fn check(&mut self, what: &str) -> Made {
        self.checks += 1;
        let mut good = self.a.create_label();
        self.a.jz(good)?;
        self.say(&format!("FAILED: {what} (check {})\r\n", self.checks))?;
        self.end(1)?;
        self.a.set_label(&mut good)?;
        self.a.zero_bytes()
    }

    /// Ends the machine with this status at the debug exit port.
    ///
    /// # Errors
    /// The instructions can't be encoded.
    pub fn end(&mut self, status: u32) -> Made {
        let a = &mut self.a;
        a.mov(al, status)?;
        a.mov(dx, 0xf4)?;
        a.out(dx, al)?;
        a.db(&[0xf4, 0xeb, 0xfd])
    }

    /// A far jump to a place in the segment that `selector` is.
    ///
    /// # Errors
    /// The instructions can't be encoded.
    pub fn far_jump(&mut self, selector: u32, to: Mark) -> Made {
        let [low, high] = (self.address(to) as u16).to_le_bytes();
        let [selector_low, selector_high] = (selector as u16).to_le_bytes();
        self.a.db(&[0xea, low, high, selector_low, selector_high])
    }

    /// Loads all data segments and the stack's; the stack's top becomes 0x7c00.
    ///
    /// # Errors
    /// The instructions can't be encoded.
    pub fn segments(&mut self, selector: u32) -> Made {
        let a = &mut self.a;
        a.mov(ax, selector)?;
        a.mov(ds, ax)?;
        a.mov(es, ax)?;
        a.mov(ss, ax)?;
        a.mov(sp, 0x7c00)
    }

    /// Writes a byte of CMOS memory.
    ///
    /// # Errors
    /// The instructions can't be encoded.
    pub fn cmos(&mut self, index: u32, value: u32) -> Made {
        let a = &mut self.a;
        a.mov(al, index)?;
        a.out(0x70, al)?;
        a.mov(al, value)?;
        a.out(0x71, al)
    }

    /// Points an interrupt vector of real mode at a place of this program; the one before goes to the variable `saved`.
    ///
    /// # Errors
    /// The instructions can't be encoded.
    pub fn hook(&mut self, vector: u32, handler: Mark, saved: u32) -> Made {
        let address = self.address(handler);
        let a = &mut self.a;
        a.cli()?;
        a.mov(eax, dword_ptr(vector * 4))?;
        a.mov(dword_ptr(saved), eax)?;
        a.mov(word_ptr(vector * 4), address)?;
        a.mov(word_ptr(vector * 4 + 2), 0)?;
        a.sti()
    }
}

/// A hard disk with a program on it, which ends well unless it ends otherwise.
///
/// # Panics
/// The program can't be assembled, or is too long.
#[track_caller]
pub fn boot_disk(make: impl Fn(&mut Program) -> Made) -> NamedTempFile {
    let mut image = assemble(make);
    image.resize(DISK, 0);
    write_file(&image)
}

/// The boot sector and the program.
#[track_caller]
pub fn assemble(make: impl Fn(&mut Program) -> Made) -> Vec<u8> {
    let pass = |addresses| {
        let mut program = Program::new(addresses);
        let made = make(&mut program).and_then(|()| program.end(GOOD));
        made.expect("the program is made");
        let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
        let result = program.a.assemble_options(START, options).expect("the program is assembled");
        let addresses: Result<Vec<u64>, _> = program.labels.iter().map(|label| result.label_ip(label)).collect();
        (result.inner.code_buffer, addresses.expect("all places are somewhere"))
    };
    let (_, addresses) = pass(Vec::new());
    let (code, again) = pass(addresses.clone());
    assert_eq!(addresses, again, "no instruction changed its length");
    assert!(code.len() <= SECTORS * SECTOR, "the program has {} bytes", code.len());
    let mut sector = boot_sector().expect("the boot sector is made");
    sector.resize(SECTOR - 2, 0);
    sector.extend([0x55, 0xaa]);
    sector.extend(code);
    sector.resize((1 + SECTORS) * SECTOR, 0);
    sector
}

fn boot_sector() -> Made<Vec<u8>> {
    let mut a = CodeAssembler::new(16)?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, 0x7c00)?;
    a.mov(bx, START as u32)?;
    a.mov(ax, 0x0200 | SECTORS as u32)?;
    a.mov(cx, 2)?;
    a.mov(dh, 0)?;
    a.int(0x13)?;
    let mut failed = a.create_label();
    a.jc(failed)?;
    // SeaBIOS keeps the last character of its own text back until the timer's next interrupt: it comes before the
    // program's text, not within it.
    let mut same_tick = a.create_label();
    a.mov(ax, word_ptr(BIOS_TICKS))?;
    a.set_label(&mut same_tick)?;
    a.cmp(ax, word_ptr(BIOS_TICKS))?;
    a.je(same_tick)?;
    a.push(0)?;
    a.push(START as i32)?;
    a.retf()?;
    a.set_label(&mut failed)?;
    a.db(&[0xf4, 0xeb, 0xfd])?;
    a.assemble(0x7c00)
}
