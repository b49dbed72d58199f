//! Frames, pixel by pixel, of each kind of mode.

use super::modes::*;
use super::*;

/// Puts a glyph of a font into plane 2, as a program does.
fn glyph(rig: &Rig, map: u64, character: u8, rows: &[u8]) {
    rig.set(0x3c4, 2, 0x04);
    rig.set(0x3c4, 4, 0x07);
    rig.set(0x3ce, 4, 0x02);
    rig.set(0x3ce, 5, 0x00);
    rig.set(0x3ce, 6, 0x00);
    rig.write(0xa_0000 + map + u64::from(character) * 32, rows);
    rig.set(0x3c4, 2, 0x03);
    rig.set(0x3c4, 4, 0x02);
    rig.set(0x3ce, 4, 0x00);
    rig.set(0x3ce, 5, 0x10);
    rig.set(0x3ce, 6, 0x0e);
}

fn say(rig: &Rig, row: u64, text: &str, attribute: u8) {
    let cells: Vec<u8> = text.bytes().flat_map(|byte| [byte, attribute]).collect();
    rig.write(0xb_8000 + row * 160, &cells);
}

#[test]
fn text_with_fonts_cursor_and_blinking() {
    let rig = rig();
    set(&rig, &TEXT_80X25);
    let mut rows = [0; 16];
    rows[0] = 0b1000_0001;
    rows[15] = 0xff;
    glyph(&rig, 0, b'A', &rows);
    glyph(&rig, 0, 0xc4, &rows);
    glyph(&rig, 0x4000, b'A', &[0xff; 16]);
    let mut screen = vec![0; 80 * 25 * 2];
    screen[..2].copy_from_slice(&[b'A', 0x1e]);
    screen[2..4].copy_from_slice(&[0xc4, 0x4b]);
    screen[4..6].copy_from_slice(&[b'A', 0x97]);
    rig.write(0xb_8000, &screen);
    let frame = rig.vga.frame();
    assert_eq!((frame.width, frame.height), (720, 400));
    assert_eq!(rig.vga.mode(), Mode::Text { columns: 80, rows: 25 });
    let (yellow, blue) = (shade(0x3e), shade(1));
    let expected: Vec<u32> = (0..9).map(|x| if x == 0 || x == 7 { yellow } else { blue }).collect();
    assert_eq!(frame.row(0)[..9], expected, "the ninth dot is the background's");
    assert_eq!(frame.pixel(1, 1), blue);
    let (cyan, red) = (shade(0x3b), shade(4));
    assert_eq!(frame.row(0)[9..18].iter().filter(|pixel| **pixel == cyan).count(), 3, "line graphics go on");
    assert_eq!((frame.pixel(17, 0), frame.pixel(16, 0), frame.pixel(10, 0)), (cyan, cyan, red));
    // Blinking takes the upper bit of the background.
    assert_eq!((frame.pixel(18, 0), frame.pixel(19, 0)), (shade(7), shade(1)));
    rig.clock.set(17 * 16_666_667);
    assert_eq!(rig.vga.frame().pixel(18, 0), shade(1));
    rig.attribute(0x10, 0x04);
    assert_eq!(rig.vga.frame().pixel(19, 0), shade(0x39), "or is bright");
    // The second font is for bright characters.
    rig.set(0x3c4, 3, 0x04);
    assert_eq!((rig.vga.frame().pixel(1, 1), rig.vga.frame().pixel(19, 1)), (yellow, shade(0x39)));
    // The cursor, at character 81: rows 13 and 14.
    rig.set(0x3d4, 0x0e, 0);
    rig.set(0x3d4, 0x0f, 81);
    rig.write(0xb_8000 + 81 * 2, b" \x0c");
    let at = |frame: &Frame| [28, 29, 30, 31].map(|y| frame.pixel(9, y));
    rig.clock.set(0);
    assert_eq!(at(&rig.vga.frame()), [shade(0), shade(0x3c), shade(0x3c), shade(0)]);
    rig.clock.set(9 * 16_666_667);
    assert_eq!(at(&rig.vga.frame()), [shade(0); 4], "it blinks");
    rig.clock.set(0);
    rig.set(0x3d4, 0x0a, 0x2d);
    assert_eq!(at(&rig.vga.frame()), [shade(0); 4], "and can be off");
    // Underlined, where a monochrome mode has it.
    rig.set(0x3d4, 0x14, 15);
    rig.write(0xb_8000 + 82 * 2, b" \x01");
    assert_eq!([30, 31].map(|y| rig.vga.frame().pixel(26, y)), [shade(0), shade(1)]);
}

#[test]
fn text_can_be_read() {
    let rig = rig();
    set(&rig, &TEXT_80X25);
    rig.write(0xb_8000, &vec![0; 0x8000]);
    say(&rig, 0, "SeaBIOS (version 1.16.2)   ", 7);
    say(&rig, 24, "\u{b}C:\\> ", 7);
    rig.write(0xb_8000 + 2 * 160, &[0xda, 7, 0xc4, 7, 0xbf, 7]);
    let text = rig.vga.text().unwrap();
    let lines: Vec<&str> = text.split('\n').collect();
    assert_eq!(
        (lines.len(), lines[0], lines[1], lines[2], lines[24]),
        (25, "SeaBIOS (version 1.16.2)", "", "┌─┐", "♂C:\\>")
    );
    // Scrolled by two rows, by way of the start address.
    rig.set(0x3d4, 0x0d, 160);
    assert!(rig.vga.text().unwrap().starts_with("┌─┐\n"));
    // Split at row 24: below, memory begins anew.
    rig.set(0x3d4, 0x18, 383u16 as u8);
    rig.set(0x3d4, 0x07, 0x1f);
    rig.set(0x3d4, 0x09, 0x0f);
    assert!(rig.vga.text().unwrap().ends_with("\nSeaBIOS (version 1.16.2)"));
    // 50 rows of 8 dots.
    set(&rig, &TEXT_80X25);
    rig.set(0x3d4, 0x09, 0x47);
    assert_eq!(rig.vga.mode(), Mode::Text { columns: 80, rows: 50 });
    set(&rig, &TEXT_40X25);
    assert_eq!((rig.vga.mode(), rig.vga.frame().width), (Mode::Text { columns: 40, rows: 25 }, 720));
    set(&rig, &GRAPHICS_320X200);
    assert_eq!(rig.vga.text(), None);
}

#[test]
fn panning_and_splitting() {
    let rig = rig();
    set(&rig, &GRAPHICS_640X480);
    rig.write(0xa_0000, &[0b1100_0000, 0b1000_0000]);
    let frame = rig.vga.frame();
    assert_eq!([0, 1, 2, 8].map(|x| frame.pixel(x, 0)), [shade(0x3f), shade(0x3f), shade(0), shade(0x3f)]);
    rig.attribute(0x13, 1);
    let frame = rig.vga.frame();
    assert_eq!([0, 1, 7, 8].map(|x| frame.pixel(x, 0)), [shade(0x3f), shade(0), shade(0x3f), shade(0)]);
    // Split after row 99: what is below begins at address 0, and pans or not.
    rig.set(0x3d4, 0x0c, 0x40);
    rig.set(0x3d4, 0x18, 99);
    rig.set(0x3d4, 0x07, 0x2e);
    rig.set(0x3d4, 0x09, 0x00);
    let frame = rig.vga.frame();
    assert_eq!([99, 100, 101].map(|y| frame.pixel(0, y)), [shade(0), shade(0x3f), shade(0)]);
    assert_eq!(frame.pixel(1, 100), shade(0));
    rig.attribute(0x10, 0x21);
    assert_eq!(rig.vga.frame().pixel(1, 100), shade(0x3f));
    // A byte further.
    rig.set(0x3d4, 0x0c, 0);
    rig.attribute(0x13, 0);
    rig.set(0x3d4, 8, 0x20);
    assert_eq!([0, 1].map(|x| rig.vga.frame().pixel(x, 0)), [shade(0x3f), shade(0)]);
}

#[test]
fn sixteen_colours_in_planes() {
    let rig = rig();
    set(&rig, &EGA_320X200);
    // Colour 14 at pixel (5, 3), by set/reset.
    rig.set(0x3ce, 0, 14);
    rig.set(0x3ce, 1, 15);
    rig.set(0x3ce, 8, 0x80 >> 5);
    rig.write(0xa_0000 + 3 * 40, &[0]);
    let frame = rig.vga.frame();
    assert_eq!((frame.width, frame.height), (640, 400));
    assert_eq!(rig.vga.mode(), Mode::Graphics { width: 640, height: 400, depth: 4 });
    let lit: Vec<_> =
        (0..400).flat_map(|y| (0..640).map(move |x| (x, y))).filter(|(x, y)| frame.pixel(*x, *y) != shade(0)).collect();
    assert_eq!(lit, [(10, 6), (11, 6), (10, 7), (11, 7)]);
    assert_eq!(frame.pixel(10, 6), shade(0x16));
    // Of the index, four bits can come from colour select, and planes can be off.
    rig.attribute(0x14, 0x0d);
    assert_eq!(rig.vga.frame().pixel(10, 6), shade(0xc0 | 0x16));
    rig.attribute(0x10, 0x81);
    assert_eq!(rig.vga.frame().pixel(10, 6), shade(0xd0 | 0x06));
    rig.attribute(0x12, 0x03);
    assert_eq!(rig.vga.frame().pixel(10, 6), shade(0xd0 | 0x02));
    // Dots blink between the lower and the upper colours.
    rig.attribute(0x12, 0x0f);
    rig.attribute(0x14, 0);
    rig.attribute(0x10, 0x09);
    assert_eq!(rig.vga.frame().pixel(10, 6), shade(0x16));
    rig.clock.set(17 * 16_666_667);
    assert_eq!(rig.vga.frame().pixel(10, 6), shade(0x06));
}

#[test]
fn colours_of_cga() {
    let rig = rig();
    set(&rig, &CGA_320X200);
    rig.write(0xb_8000, &[0b00_01_10_11, 0b11_00_00_01]);
    rig.write(0xb_a000, &[0b10_00_00_00]);
    rig.write(0xb_8050, &[0b01_00_00_00]);
    let frame = rig.vga.frame();
    assert_eq!((frame.width, frame.height), (640, 400));
    let pixel = |x: usize, y: usize| frame.pixel(2 * x, 2 * y);
    let colours = [0, 0x13, 0x15, 0x17].map(shade);
    let row: Vec<u32> = (0..9).map(|x| pixel(x, 0)).collect();
    assert_eq!(row, [0, 1, 2, 3, 3, 0, 0, 1, 0].map(|n: usize| colours[n]));
    assert_eq!((pixel(0, 1), pixel(0, 2), pixel(0, 3)), (colours[2], colours[1], colours[0]));

    set(&rig, &CGA_640X200);
    rig.memory.clear(MIB);
    rig.write(0xb_8000, &[0b1010_0000]);
    rig.write(0xb_a000, &[0b0100_0000]);
    let frame = rig.vga.frame();
    let row = |y: usize| [0, 1, 2, 3].map(|x| frame.pixel(x, y) == shade(0x17));
    assert_eq!((row(0), row(1)), ([true, false, true, false], [true, false, true, false]));
    assert_eq!((row(2), row(4)), ([false, true, false, false], [false; 4]));
}

#[test]
fn two_hundred_and_fifty_six_colours() {
    let rig = rig();
    set(&rig, &GRAPHICS_320X200);
    rig.write(0xa_0000, &[1, 2, 3, 4, 200]);
    rig.write(0xa_0000 + 199 * 320 + 319, &[99]);
    let frame = rig.vga.frame();
    assert_eq!((frame.width, frame.height), (640, 400));
    assert_eq!([0, 1, 2, 8, 10].map(|x| frame.pixel(x, 0)), [1, 1, 2, 200, 0].map(shade));
    assert_eq!([(638, 398), (639, 399), (637, 399)].map(|(x, y)| frame.pixel(x, y)), [99, 99, 0].map(shade));
    rig.outb(0x3c6, 0x0f);
    assert_eq!(rig.vga.frame().pixel(8, 0), shade(200 & 15));
    rig.outb(0x3c6, 0xff);
    // Pages are scrolled by four pixels, and by fewer.
    rig.set(0x3d4, 0x0d, 1);
    rig.attribute(0x13, 0);
    assert_eq!(rig.vga.frame().pixel(0, 0), shade(200));
    rig.set(0x3d4, 0x0d, 0);
    rig.attribute(0x13, 2);
    assert_eq!([0, 2].map(|x| rig.vga.frame().pixel(x, 0)), [2, 3].map(shade));
    rig.attribute(0x13, 0);

    // In planes: pixel x is in plane x & 3.
    for (table, width, height) in [(&MODE_X, 320, 240), (&TALL, 360, 480)] {
        set(&rig, table);
        rig.memory.clear(MIB);
        rig.set(0x3c4, 2, 1 << 2);
        rig.write(0xa_0000 + 100 * (width / 4) + 3, &[77]);
        let frame = rig.vga.frame();
        assert_eq!((frame.width, frame.height), (2 * width as usize, 480));
        let (x, y) = (2 * (3 * 4 + 2), 100 * 480 / height);
        assert_eq!([x - 1, x, x + 1, x + 2].map(|x| frame.pixel(x, y)), [0, 77, 77, 0].map(shade));
        assert_eq!(frame.pixels.iter().filter(|pixel| **pixel == shade(77)).count(), 2 * 480 / height);
    }
}

#[test]
fn modes_of_the_extension() {
    let rig = rig();
    set(&rig, &TEXT_80X25);
    let mode = |depth| {
        rig.dispi(dispi::ENABLE, 0);
        for (register, value) in [(dispi::X_RESOLUTION, 64), (dispi::Y_RESOLUTION, 48), (dispi::DEPTH, depth)] {
            rig.dispi(register, value);
        }
        rig.dispi(dispi::ENABLE, 0x41);
        assert_eq!(rig.vga.mode(), Mode::Graphics { width: 64, height: 48, depth: depth as u8 });
    };
    let pixel = |x, y| rig.vga.frame().pixel(x, y);
    mode(32);
    rig.memory.write((3 * 64 + 2) * 4, &[0x11, 0x22, 0x33, 0x44]);
    assert_eq!((pixel(2, 3), pixel(3, 3), rig.vga.text()), (0x33_2211, 0, None));
    mode(24);
    rig.memory.write((3 * 64 + 2) * 3, &[0x11, 0x22, 0x33]);
    assert_eq!((pixel(2, 3), pixel(3, 3)), (0x33_2211, 0));
    mode(16);
    rig.memory.write((64 + 2) * 2, &[0x1f, 0xf8]);
    assert_eq!(pixel(2, 1), 0xff_00ff);
    mode(15);
    rig.memory.write(0, &[0xe0, 0x03, 0x10, 0x00]);
    assert_eq!((pixel(0, 0), pixel(1, 0)), (0x00_ff00, 0x00_0084));
    mode(8);
    rig.memory.write(64, &[5, 6]);
    assert_eq!((pixel(0, 1), pixel(1, 1)), (shade(5), shade(6)));
    mode(4);
    rig.set(0x3ce, 0, 9);
    rig.set(0x3ce, 1, 15);
    rig.set(0x3ce, 8, 0x40);
    rig.set(0x3ce, 5, 0);
    rig.set(0x3c4, 2, 15);
    rig.write(0xa_0008 + 1, &[0]);
    assert_eq!((pixel(9, 1), pixel(8, 1)), (shade(0x39), shade(0)));
    // A window on a larger picture.
    mode(32);
    rig.dispi(dispi::VIRTUAL_WIDTH, 128);
    rig.memory.write((10 * 128 + 70) * 4, &[1, 2, 3, 0]);
    rig.dispi(dispi::X_OFFSET, 70);
    rig.dispi(dispi::Y_OFFSET, 9);
    assert_eq!((pixel(0, 1), pixel(0, 0)), (0x03_0201, 0));
    // Bytes in the other order; the screen can be off.
    mode(32);
    rig.memory.write(0, &[0, 0xaa, 0xbb, 0xcc]);
    rig.vga.write_register(pci::ENDIAN, 4, pci::ENDIAN_BIG.into());
    assert_eq!(pixel(0, 0), 0xaa_bbcc);
    rig.inb(0x3da);
    rig.outb(0x3c0, 0);
    assert_eq!(pixel(0, 0), 0);
}

#[test]
fn nothing_is_drawn_where_nothing_has_changed() {
    let rig = rig();
    let mut look = Look::default();
    assert_eq!(rig.vga.look(&mut look), Some(Frame::black(640, 400)), "before any mode is set");
    set(&rig, &TEXT_80X25);
    rig.set(0x3d4, 0x0a, 0x20);
    rig.attribute(0x10, 0x04);
    assert!(rig.vga.look(&mut look).is_some());
    assert!(rig.vga.look(&mut look).is_none());
    rig.clock.set(20 * 16_666_667);
    assert!(rig.vga.look(&mut look).is_none(), "nothing blinks");
    rig.write(0xb_8000, &[b'x', 7]);
    assert!(rig.vga.look(&mut look).is_some());
    // The frame buffer is written at full speed, and tells nobody.
    rig.dispi(dispi::X_RESOLUTION, 1920);
    rig.dispi(dispi::Y_RESOLUTION, 1080);
    rig.dispi(dispi::DEPTH, 32);
    rig.dispi(dispi::ENABLE, 0x41);
    assert!(rig.vga.look(&mut look).is_some());
    rig.memory.write(1920 * 1080 * 4, &[1; 4]);
    assert!(rig.vga.look(&mut look).is_none(), "beyond what is shown");
    rig.memory.write(1920 * 1080 * 4 - 4, &[1; 4]);
    assert_eq!(rig.vga.look(&mut look).unwrap().pixel(1919, 1079), 0x01_0101);
    rig.inb(0x3c9);
    assert!(rig.vga.look(&mut look).is_none());
}
