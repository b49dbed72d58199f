//! What programs draw with a VGA's registers, held against pixels that are computed here.
//!
//! Each program says what it shows on the serial port and waits; the test takes a screenshot, compares every pixel, and
//! has it go on.

use iced_x86::code_asm::*;
use lodge_tests::disks::{ALL_GOOD, Made, Program, boot_disk};
use lodge_tests::{Controlled, Picture, with_firmware};

const SEQUENCER: u32 = 0x3c4;
const GRAPHICS: u32 = 0x3ce;
const CRTC: u32 = 0x3d4;

/// Boots a program, and holds what it shows against pictures, each with what the program says of it.
#[track_caller]
fn shows(make: impl Fn(&mut Program) -> Made, pictures: &[(&str, Picture)]) {
    let disk = boot_disk(make);
    let mut command = with_firmware();
    command.args(["--disk", &format!("{},bus=ide,readonly", disk.path().display()), "--memory", "16M"]);
    let mut controlled = Controlled::start(command.args(["--debug-exit", "--timeout", "60"]));
    for (what, picture) in pictures {
        controlled.vm.expect(&format!("{what}\r\n"));
        controlled.picture().is(picture, what);
        controlled.vm.send(".");
    }
    let (status, output) = controlled.vm.wait();
    assert_eq!(status, ALL_GOOD, "{output}");
    assert!(!output.contains("FAILED"), "{output}");
}

/// Loads all colours of the DAC; `key` makes other ones.
fn colours(p: &mut Program, key: u32) -> Made {
    p.outb(0x3c8, 0)?;
    p.a.inc(dx)?;
    p.a.xor(cx, cx)?;
    let next = p.mark();
    p.here(next)?;
    p.a.mov(ah, cl)?;
    p.a.xor(ah, key)?;
    p.a.mov(al, ah)?;
    p.a.and(al, 0x3f)?;
    p.a.out(dx, al)?;
    p.a.mov(al, ah)?;
    p.a.shr(al, 2)?;
    p.a.out(dx, al)?;
    p.a.mov(al, ah)?;
    p.a.and(al, 0x3f)?;
    p.a.xor(al, 0x3f)?;
    p.a.out(dx, al)?;
    p.a.inc(cx)?;
    p.a.test(ch, ch)?;
    p.a.jz(p.to(next))
}

/// The pixel that [`colours`] makes of an index: six bits of each component fill eight.
fn shade(index: u8, key: u8) -> u32 {
    let index = index ^ key;
    let part = |value: u8| u32::from(value << 2 | value >> 4);
    part(index & 0x3f) << 16 | part(index >> 2) << 8 | part(!index & 0x3f)
}

/// Writes a register of the attribute controller, and has the palette shown.
fn attribute(p: &mut Program, index: u32, value: u32) -> Made {
    p.a.mov(dx, 0x3da)?;
    p.a.in_(al, dx)?;
    p.outb(0x3c0, index)?;
    p.outb(0x3c0, value)?;
    p.outb(0x3c0, 0x20)
}

/// Sets a mode with the BIOS.
fn mode(p: &mut Program, number: u32) -> Made {
    p.a.mov(ax, number)?;
    p.a.int(0x10)
}

/// Data and extra segment.
fn segments(p: &mut Program, segment: u32) -> Made {
    p.a.mov(ax, segment)?;
    p.a.mov(ds, ax)?;
    p.a.mov(es, ax)
}

/// Has the screen begin at an address.
fn begin_at(p: &mut Program, address: u32) -> Made {
    p.register(CRTC, 0x0c, address >> 8)?;
    p.register(CRTC, 0x0d, address & 0xff)
}

/// Splits the screen behind a row of dots. `overflow` and `scan` are what registers 7 and 9 have beside its upper bits.
fn split(p: &mut Program, row: u32, overflow: u32, scan: u32) -> Made {
    p.registers(&[(CRTC, 0x18, row & 0xff), (CRTC, 0x07, overflow & !0x10 | row >> 4 & 0x10)])?;
    p.register(CRTC, 0x09, scan & !0x40 | row >> 3 & 0x40)
}

// Mode 13h.

fn chained(p: &mut Program) -> Made {
    mode(p, 0x13)?;
    colours(p, 0)?;
    segments(p, 0xa000)?;
    // Pixel n is n * 7 / 16, whatever that wraps to.
    p.a.xor(di, di)?;
    let next = p.mark();
    p.here(next)?;
    p.a.imul_3(ax, di, 7)?;
    p.a.shr(ax, 4)?;
    p.a.stosb()?;
    p.a.cmp(di, 64_000)?;
    p.a.jb(p.to(next))?;
    // Words and double words at odd places, and the string instructions.
    p.a.mov(word_ptr(321), 0x2211)?;
    p.a.mov(dword_ptr(643), 0x6655_4433)?;
    p.a.mov(si, 0)?;
    p.a.mov(di, 320 * 150 + 3)?;
    p.a.mov(cx, 320 * 20 / 2)?;
    p.a.rep().movsw()?;
    segments(p, 0)?;
    p.show("mode 13h")?;
    colours(p, 0x95)?;
    p.show("other colours")?;
    p.outb(0x3c6, 0x3c)?;
    p.show("masked colours")
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn mode_13h_and_its_colours() {
    let mut memory: Vec<u8> = (0..64_000u32).map(|n| (n.wrapping_mul(7) as u16 >> 4) as u8).collect();
    memory[321..323].copy_from_slice(&[0x11, 0x22]);
    memory[643..647].copy_from_slice(&[0x33, 0x44, 0x55, 0x66]);
    memory.copy_within(0..320 * 20, 320 * 150 + 3);
    let picture = |key, mask| Picture::of(640, 400, |x, y| shade(memory[y / 2 * 320 + x / 2] & mask, key));
    shows(
        chained,
        &[
            ("mode 13h", picture(0, 0xff)),
            ("other colours", picture(0x95, 0xff)),
            ("masked colours", picture(0x95, 0x3c)),
        ],
    );
}

// Mode X: 320 by 240 in four planes.

const PAGE: u32 = 80 * 240;

/// Unchains the planes of mode 13h, and makes it 240 rows.
fn mode_x(p: &mut Program) -> Made {
    mode(p, 0x13)?;
    p.registers(&[(SEQUENCER, 4, 0x06), (SEQUENCER, 0, 0x01)])?;
    p.outb(0x3c2, 0xe3)?;
    p.register(SEQUENCER, 0, 0x03)?;
    p.a.mov(dx, CRTC)?;
    p.a.mov(al, 0x11)?;
    p.a.out(dx, al)?;
    p.a.inc(dx)?;
    p.a.in_(al, dx)?;
    p.a.and(al, 0x7f)?;
    p.a.out(dx, al)?;
    for (index, value) in [
        (0x06, 0x0d),
        (0x07, 0x3e),
        (0x09, 0x41),
        (0x10, 0xea),
        (0x11, 0xac),
        (0x12, 0xdf),
        (0x14, 0x00),
        (0x15, 0xe7),
        (0x16, 0x06),
        (0x17, 0xe3),
    ] {
        p.register(CRTC, index, value)?;
    }
    colours(p, 0)
}

/// Writes rows of a page by `write`, which is called with a byte's address in DI and has to go on to the next.
fn rows(
    p: &mut Program,
    rows: std::ops::Range<u32>,
    bytes: std::ops::Range<u32>,
    write: impl Fn(&mut Program) -> Made,
) -> Made {
    p.a.mov(di, PAGE + rows.start * 80 + bytes.start)?;
    p.a.mov(bx, rows.len() as u32)?;
    let (row, byte) = (p.mark(), p.mark());
    p.here(row)?;
    p.a.mov(cx, bytes.len() as u32)?;
    p.here(byte)?;
    write(p)?;
    p.a.dec(cx)?;
    p.a.jnz(p.to(byte))?;
    p.a.add(di, 80 - bytes.len() as u32)?;
    p.a.dec(bx)?;
    p.a.jnz(p.to(row))
}

/// Loads the latches from DI and writes AL there.
fn over(p: &mut Program, value: u32) -> Made {
    p.a.mov(si, di)?;
    p.a.lodsb()?;
    p.a.mov(al, value)?;
    p.a.stosb()
}

fn unchained(p: &mut Program) -> Made {
    mode_x(p)?;
    segments(p, 0xa000)?;
    // Page 0, a plane after the other: x + 3y.
    for plane in 0..4 {
        p.register(SEQUENCER, 2, 1 << plane)?;
        p.a.xor(di, di)?;
        p.a.mov(bl, plane)?;
        let (row, byte) = (p.mark(), p.mark());
        p.here(row)?;
        p.a.mov(al, bl)?;
        p.a.mov(cx, 80)?;
        p.here(byte)?;
        p.a.stosb()?;
        p.a.add(al, 4)?;
        p.a.loop_(p.to(byte))?;
        p.a.add(bl, 3)?;
        p.a.cmp(di, PAGE)?;
        p.a.jb(p.to(row))?;
    }
    p.register(SEQUENCER, 2, 0x0f)?;
    // Page 1 is page 0 from the bottom up, four pixels at a time through the latches.
    p.register(GRAPHICS, 5, 0x41)?;
    p.a.mov(di, PAGE)?;
    p.a.mov(bx, PAGE - 80)?;
    let row = p.mark();
    p.here(row)?;
    p.a.mov(si, bx)?;
    p.a.mov(cx, 80)?;
    p.a.rep().movsb()?;
    p.a.sub(bx, 80)?;
    p.a.jnc(p.to(row))?;
    p.register(GRAPHICS, 5, 0x40)?;
    // Two planes of a rectangle.
    p.register(SEQUENCER, 2, 0b0101)?;
    rows(p, 100..140, 20..60, |p| {
        p.a.mov(al, 0x5a)?;
        p.a.stosb()
    })?;
    p.register(SEQUENCER, 2, 0x0f)?;
    // Lower bits of one, upper ones of the latches.
    p.register(GRAPHICS, 8, 0x0f)?;
    rows(p, 150..170, 10..70, |p| over(p, 0xcc))?;
    p.register(GRAPHICS, 8, 0xff)?;
    // Exclusive or with the latches, what is written rotated by one.
    p.register(GRAPHICS, 3, 0x19)?;
    rows(p, 180..200, 0..80, |p| over(p, 0x78))?;
    p.register(GRAPHICS, 3, 0)?;
    // Set and reset, whatever is written.
    p.registers(&[(GRAPHICS, 0, 0b0110), (GRAPHICS, 1, 0b1111)])?;
    rows(p, 210..220, 5..75, |p| p.a.stosb())?;
    p.register(GRAPHICS, 1, 0)?;
    segments(p, 0)?;
    p.show("page 0")?;
    begin_at(p, PAGE)?;
    p.show("page 1")?;
    // Split behind row 399; above, page 1 from its tenth row, 14 pixels further to the right.
    begin_at(p, PAGE + 80 * 10 + 3)?;
    split(p, 399, 0x3e, 0x41)?;
    attribute(p, 0x30, 0x61)?;
    attribute(p, 0x33, 4)?;
    p.show("split, the lower part still")?;
    attribute(p, 0x30, 0x41)?;
    p.show("split, both parts panned")?;
    // Between the two rows of dots that are one of pixels; rows are longer than the screen.
    split(p, 130, 0x3e, 0x41)?;
    begin_at(p, 5)?;
    attribute(p, 0x33, 6)?;
    p.register(CRTC, 0x13, 0x2b)?;
    p.show("split at an odd row, longer rows")
}

/// What [`unchained`] draws, pixel by pixel of memory.
fn pages() -> Vec<u8> {
    let pixel = |x: usize, y: usize| (x + 3 * y) as u8;
    let mut memory = vec![0; 4 << 16];
    let page = PAGE as usize * 4;
    for (n, place) in memory[..2 * page].iter_mut().enumerate() {
        let (x, y) = (n % 320, n % page / 320);
        *place = if n < page { pixel(x, y) } else { pixel(x, 239 - y) };
    }
    for (x, y) in (0..240).flat_map(|y| (0..320).map(move |x| (x, y))) {
        let place = &mut memory[page + y * 320 + x];
        *place = match (y, x / 4, x % 4) {
            (100..140, 20..60, 0 | 2) => 0x5a,
            (150..170, 10..70, _) => *place & 0xf0 | 0x0c,
            (180..200, ..) => *place ^ 0x3c,
            (210..220, 5..75, plane) => [0, 0xff, 0xff, 0][plane],
            _ => *place,
        };
    }
    memory
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn mode_x_flips_pages_and_splits_the_screen() {
    let memory = pages();
    let whole =
        |page: usize| Picture::of(640, 480, |x, y| shade(memory[page * 4 * PAGE as usize + y / 2 * 320 + x / 2], 0));
    // Above: from `start` on, a row after the other; below from 0 on.
    let divided = |start: u32, row: usize, pan: (usize, usize), length: usize| {
        let start = start as usize * 4;
        Picture::of(640, 480, |x, y| {
            let at = if y <= row {
                start + y / 2 * length + x / 2 + pan.0
            } else {
                (y - row - 1) / 2 * length + x / 2 + pan.1
            };
            shade(memory[at], 0)
        })
    };
    let first = PAGE + 80 * 10 + 3;
    shows(
        unchained,
        &[
            ("page 0", whole(0)),
            ("page 1", whole(1)),
            ("split, the lower part still", divided(first, 399, (2, 0), 320)),
            ("split, both parts panned", divided(first, 399, (2, 2), 320)),
            ("split at an odd row, longer rows", divided(5, 130, (3, 3), 344)),
        ],
    );
}

// Text.

/// A font of bytes that look like chance.
fn glyph(font: usize, offset: usize) -> u8 {
    ((offset + font * 0x4000) as u16).wrapping_mul(0x9e37).to_be_bytes()[0]
}

/// Cells that look like chance, too: character and attribute.
fn cell(place: usize) -> (usize, u8) {
    let [character, attribute] = (place as u16).wrapping_mul(0x6d2b).to_le_bytes();
    (character.into(), attribute)
}

fn fonts_and_text(p: &mut Program) -> Made {
    mode(p, 3)?;
    // The planes of the fonts, as the BIOS would reach them: without odd and even ones.
    p.registers(&[
        (SEQUENCER, 0, 0x01),
        (SEQUENCER, 2, 0x04),
        (SEQUENCER, 4, 0x07),
        (SEQUENCER, 0, 0x03),
        (GRAPHICS, 4, 0x02),
        (GRAPHICS, 5, 0x00),
        (GRAPHICS, 6, 0x04),
    ])?;
    segments(p, 0xa000)?;
    for font in [0, 0x4000] {
        p.a.mov(di, font)?;
        let next = p.mark();
        p.here(next)?;
        p.a.imul_3(ax, di, 0x9e37u32 as i32)?;
        p.a.mov(al, ah)?;
        p.a.stosb()?;
        p.a.cmp(di, font + 0x2000)?;
        p.a.jb(p.to(next))?;
    }
    p.registers(&[
        (SEQUENCER, 0, 0x01),
        (SEQUENCER, 2, 0x03),
        (SEQUENCER, 4, 0x03),
        (SEQUENCER, 0, 0x03),
        (GRAPHICS, 4, 0x00),
        (GRAPHICS, 5, 0x10),
        (GRAPHICS, 6, 0x0e),
    ])?;
    segments(p, 0xb800)?;
    p.a.xor(di, di)?;
    let next = p.mark();
    p.here(next)?;
    p.a.mov(ax, di)?;
    p.a.shr(ax, 1)?;
    p.a.imul_3(ax, ax, 0x6d2b)?;
    p.a.stosw()?;
    p.a.cmp(di, 0x4000)?;
    p.a.jb(p.to(next))?;
    segments(p, 0)?;
    colours(p, 0)?;
    // No cursor, nothing blinks, a palette of one's own.
    p.register(CRTC, 0x0a, 0x20)?;
    attribute(p, 0x10, 0x04)?;
    for index in 0..16 {
        attribute(p, index, own(index as u8).into())?;
    }
    p.show("a font")?;
    // Characters whose attribute has bit 3 are the second font's.
    p.register(SEQUENCER, 3, 0x04)?;
    p.show("two fonts")?;
    // Two bits of the palette come from elsewhere, and the two above them.
    attribute(p, 0x10, 0x84)?;
    attribute(p, 0x14, 0x0e)?;
    p.show("another quarter of the colours")?;
    attribute(p, 0x14, 0)?;
    // Three rows and two columns down, five rows of dots, four dots.
    begin_at(p, 80 * 3 + 2)?;
    p.register(CRTC, 0x08, 5)?;
    attribute(p, 0x10, 0x24)?;
    attribute(p, 0x13, 3)?;
    split(p, 271, 0x1f, 0x4f)?;
    p.show("text split, the lower part still")?;
    attribute(p, 0x10, 0x04)?;
    p.show("text split, both parts panned")?;
    p.register(SEQUENCER, 1, 0x01)?;
    p.show("characters of eight dots")
}

/// The palette of [`fonts_and_text`].
fn own(index: u8) -> u8 {
    (index * 11 + 5) & 0x3f
}

/// A dot of text: of a cell, a row and a column of it, `wide` dots wide.
fn dot(place: usize, row: usize, column: usize, fonts: usize, palette: impl Fn(u8) -> u8) -> u32 {
    let (character, attribute) = cell(place);
    let font = if attribute & 8 != 0 { fonts - 1 } else { 0 };
    let bits = glyph(font, character * 32 + row);
    let set = match column {
        8 => (0xc0..0xe0).contains(&character) && bits & 1 != 0,
        _ => bits >> (7 - column) & 1 != 0,
    };
    shade(palette(if set { attribute & 15 } else { attribute >> 4 }), 0)
}

#[test]
#[ignore = "boots a VM: run by `cargo xtask test`"]
fn text_with_fonts_palettes_panning_and_a_split_screen() {
    let plain = |fonts: usize, palette: fn(u8) -> u8| {
        Picture::of(720, 400, |x, y| dot(y / 16 * 80 + x / 9, y % 16, x % 9, fonts, palette))
    };
    let divided = |wide: usize, pan: (usize, usize)| {
        Picture::of(80 * wide, 400, |x, y| {
            let (start, y, x) = if y <= 271 { (242, y + 5, x + pan.0) } else { (0, y - 272, x + pan.1) };
            dot(start + y / 16 * 80 + x / wide, y % 16, x % wide, 2, own)
        })
    };
    shows(
        fonts_and_text,
        &[
            ("a font", plain(1, own)),
            ("two fonts", plain(2, own)),
            ("another quarter of the colours", plain(2, |index| own(index) & 0x0f | 0xe0)),
            ("text split, the lower part still", divided(9, (4, 0))),
            ("text split, both parts panned", divided(9, (4, 4))),
            ("characters of eight dots", divided(8, (3, 3))),
        ],
    );
}
