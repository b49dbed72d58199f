use super::*;
use crate::testing::Board;

fn rig() -> (Board, Arc<I8042>) {
    let board = Board::new();
    let device = I8042::new(board.line(1), board.line(12), board.system.clone(), board.line_20.clone(), &board.timers);
    board.attach(device.clone());
    (board, device)
}

/// Everything that waits, with whether it is the mouse's.
fn drain(board: &Board) -> Vec<(u8, bool)> {
    let mut bytes = Vec::new();
    while board.inb(0x64) & STATUS_OUTPUT != 0 {
        let aux = board.inb(0x64) & STATUS_AUX != 0;
        bytes.push((board.inb(0x60), aux));
        assert!(bytes.len() < 100);
    }
    bytes
}

fn mode(board: &Board, value: u8) {
    board.outb(0x64, 0x60);
    board.outb(0x60, value);
}

#[test]
fn what_linux_probes() {
    let (board, _device) = rig();
    board.outb(0x64, 0xaa);
    assert_eq!(drain(&board), [(0x55, false)]);
    board.outb(0x64, 0xd3);
    board.outb(0x60, 0x5a);
    assert_eq!(drain(&board), [(0x5a, true)], "the loop-back shows that there is a mouse port");
    board.outb(0x64, 0xa7);
    board.outb(0x64, 0x20);
    assert_eq!(board.inb(0x60) & MODE_AUX_OFF, MODE_AUX_OFF);
    board.outb(0x64, 0xa8);
    board.outb(0x64, 0x20);
    assert_eq!(board.inb(0x60) & MODE_AUX_OFF, 0);
    board.outb(0x64, 0xa9);
    assert_eq!(drain(&board), [(0, false)]);
    assert_eq!(board.inb(0x64), STATUS_UNLOCKED | STATUS_SYSTEM | STATUS_COMMAND);
}

#[test]
fn the_keyboard_answers() {
    let (board, _device) = rig();
    mode(&board, 0);
    board.outb(0x60, 0xff);
    assert_eq!(drain(&board), [(0xfa, false), (0xaa, false)]);
    board.outb(0x60, 0xf2);
    assert_eq!(drain(&board), [(0xfa, false), (0xab, false), (0x83, false)]);
    board.outb(0x60, 0xed);
    board.outb(0x60, 0x02);
    assert_eq!(drain(&board), [(0xfa, false), (0xfa, false)]);
    board.outb(0x60, 0x01);
    assert_eq!(drain(&board), [(0xfe, false)]);
}

#[test]
fn the_mouse_answers_and_reports() {
    let (board, device) = rig();
    mode(&board, MODE_AUX_IRQ);
    let aux = |byte: u8| {
        board.outb(0x64, 0xd4);
        board.outb(0x60, byte);
    };
    let bytes = || drain(&board).into_iter().map(|(byte, aux)| if aux { byte } else { 0x77 }).collect::<Vec<_>>();
    aux(0xff);
    assert!(board.level(12));
    assert_eq!(bytes(), [0xfa, 0xaa, 0x00]);
    for rate in [200, 100, 80] {
        aux(0xf3);
        aux(rate);
    }
    bytes();
    aux(0xf2);
    assert_eq!(bytes(), [0xfa, 3], "a wheel mouse");
    device.motion(5, 0);
    assert_eq!(bytes(), [], "it does not report yet");
    aux(0xf4);
    assert_eq!(bytes(), [0xfa]);
    device.pointer(-6, 300, -1, |_| 1);
    assert_eq!(bytes(), [0x19, 0xff, 0xff, 0xff]);
    device.pointer(0, 0, 0, |_| 1);
    assert_eq!(bytes(), [0x09, 0x00, 45, 0], "the rest of a long movement");
    aux(0xe9);
    assert_eq!(bytes(), [0xfa, 0x21, 2, 80]);
}

#[test]
fn keys_are_translated_and_interrupt_once_each() {
    let (board, device) = rig();
    mode(&board, MODE_KEYBOARD_IRQ | MODE_TRANSLATE);
    assert!(device.press(Key::A, true));
    assert!(device.press(Key::A, false));
    assert!(device.press(Key::Up, true));
    assert_eq!(board.edges(1), 1);
    assert_eq!(drain(&board), [(0x1e, false), (0x9e, false), (0xe0, false), (0x48, false)]);
    assert_eq!(board.edges(1), 4);
    assert!(!board.level(1));
}

#[test]
fn a_keyboard_that_nobody_reads_fills_up() {
    let (_board, device) = rig();
    let taken = (0..100).filter(|_| device.press(Key::A, true)).count();
    assert_eq!(taken, 17, "one in the controller, 16 in the keyboard");
}

#[test]
fn resets() {
    let (board, _device) = rig();
    board.outb(0x64, 0xfe);
    board.outb(0x64, 0xff);
    board.outb(0x64, 0xd1);
    board.outb(0x60, 0xdf);
    assert_eq!(*board.system.0.lock(), ["reset processors"]);
    board.outb(0x64, 0xd1);
    board.outb(0x60, 0xfe);
    assert_eq!(*board.system.0.lock(), ["reset processors", "reset processors"]);
}

#[test]
fn state_is_restored() {
    let (board, device) = rig();
    mode(&board, MODE_KEYBOARD_IRQ);
    device.press(Key::A, true);
    device.press(Key::W, true);
    board.outb(0x64, 0xd4);
    let saved = device.save();
    drain(&board);
    device.reset();
    assert_ne!(device.save(), saved);
    device.restore(&saved).unwrap();
    assert_eq!(device.save(), saved);
    assert!(board.level(1));
    assert_eq!(drain(&board), [(0x1c, false), (0x1d, false)]);
}

#[test]
fn address_line_20_is_held_and_opened() {
    let (board, _) = rig();
    board.outb(0x64, 0xd1);
    board.outb(0x60, 0xdd);
    assert!(!board.line_20.is_open());
    board.outb(0x64, 0xd0);
    assert_eq!(board.inb(0x60) & 3, 1);
    board.outb(0x64, 0xdf);
    assert!(board.line_20.is_open());
    board.outb(0x64, 0xdd);
    assert!(!board.line_20.is_open());
}

/// The code of the letter a in set 1.
const A: (u8, bool) = (0x1e, false);

#[test]
fn a_key_that_is_held_repeats() {
    let (board, device) = rig();
    device.press(Key::A, true);
    assert_eq!(drain(&board), [A]);
    board.advance(499_000_000);
    assert_eq!(drain(&board), []);
    board.advance(1_000_000);
    assert_eq!(drain(&board), [A]);
    board.advance(91_740_000);
    assert_eq!(drain(&board), [A]);
    device.press(Key::A, false);
    assert_eq!(drain(&board), [(0x9e, false)]);
    board.advance(10_000_000_000);
    assert_eq!(drain(&board), []);
    // The fastest: after a quarter of a second, 30 times a second.
    board.outb(0x60, 0xf3);
    board.outb(0x60, 0);
    drain(&board);
    device.press(Key::A, true);
    board.advance(250_000_000);
    board.advance(33_360_000);
    assert_eq!(drain(&board), [A; 3]);
    // The last key that went down is the one, and others that go up don't matter.
    device.press(Key::ShiftLeft, true);
    device.press(Key::A, false);
    drain(&board);
    board.advance(250_000_000);
    assert_eq!(drain(&board), [(0x2a, false)]);
    device.reset();
    board.advance(1_000_000_000);
    assert_eq!(drain(&board), []);
}

#[test]
fn the_keyboard_has_two_scan_sets() {
    let (board, device) = rig();
    mode(&board, 0);
    for (set, expected) in [(2, [0xf0, 0x1c].as_slice()), (1, &[0x9e])] {
        board.outb(0x60, 0xf0);
        board.outb(0x60, set);
        assert_eq!(drain(&board), [(0xfa, false), (0xfa, false)]);
        board.outb(0x60, 0xf0);
        board.outb(0x60, 0);
        assert_eq!(drain(&board), [(0xfa, false), (0xfa, false), (set, false)]);
        device.press(Key::A, false);
        assert_eq!(drain(&board).iter().map(|(byte, _)| *byte).collect::<Vec<_>>(), expected);
    }
    board.outb(0x60, 0xf0);
    board.outb(0x60, 3);
    assert_eq!(drain(&board), [(0xfa, false), (0xfe, false)], "set 3 is not there");
}

#[test]
fn releases_are_kept_when_keys_are_dropped() {
    let (board, device) = rig();
    for _ in 0..20 {
        device.press(Key::A, true);
    }
    assert!(device.press(Key::A, false));
    assert_eq!(drain(&board).last(), Some(&(0x9e, false)));
}
