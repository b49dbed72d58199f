use std::time::Duration;

use super::*;
use crate::testing::Board;

/// A stream that takes `room` bytes.
struct Paper {
    printed: Mutex<Vec<u8>>,
    room: Mutex<usize>,
}

impl CharStream for Paper {
    fn connect(&self, _receiver: Weak<dyn Receiver>) {}
    fn send(&self, data: &[u8]) -> usize {
        let mut room = self.room.lock();
        let taken = data.len().min(*room);
        *room -= taken;
        self.printed.lock().extend(&data[..taken]);
        taken
    }
    fn resume(&self) {}
    fn flush(&self, _at_most: Duration) {}
}

const IDLE: u8 = NO_ERROR | SELECTED | NO_ACK | NOT_BUSY;

fn rig(room: usize) -> (Board, Arc<Parallel>, Arc<Paper>) {
    let board = Board::new();
    let paper = Arc::new(Paper { printed: Mutex::default(), room: Mutex::new(room) });
    let port = Parallel::new(board.line(7), paper.clone());
    board.attach(port.clone());
    (board, port, paper)
}

fn strobe(board: &Board, byte: u8) {
    board.outb(0x378, byte);
    let control = board.inb(0x37a);
    board.outb(0x37a, control | STROBE);
    board.outb(0x37a, control & !STROBE);
}

#[test]
fn registers_read_as_probes_expect() {
    let (board, ..) = rig(1);
    assert_eq!((board.inb(0x379), board.inb(0x37a)), (IDLE, 0xcc));
    for value in [0xaa, 0x55] {
        board.outb(0x378, value);
        assert_eq!(board.inb(0x378), value);
    }
    board.outb(0x37a, NO_INIT | SELECT | INPUT);
    assert_eq!((board.inb(0x378), board.inb(0x37a)), (0xff, 0xec), "nobody drives the lines");
    board.outb(0x37a, 0x0e);
    assert_eq!((board.inb(0x378), board.inb(0x37a)), (0x55, 0xce));
    assert_eq!((board.inb(0x778), board.inb(0x77a)), (0xff, 0xff), "no ECP");
}

#[test]
fn a_strobe_prints_a_byte_once() {
    let (board, _port, paper) = rig(100);
    for byte in *b"ab" {
        strobe(&board, byte);
        assert_eq!(board.inb(0x379), IDLE & !NO_ACK, "the acknowledgement is seen once");
        assert_eq!(board.inb(0x379), IDLE);
    }
    board.outb(0x37a, 0xd);
    board.outb(0x37a, 0xd);
    assert_eq!(*paper.printed.lock(), b"abb", "an edge is what counts");
    // Not meant, being initialized, lines not driven.
    for control in [NO_INIT, SELECT, NO_INIT | SELECT | INPUT] {
        board.outb(0x37a, control);
        board.outb(0x37a, control | STROBE);
    }
    assert_eq!(*paper.printed.lock(), b"abb");
    board.outb(0x37a, SELECT);
    assert_eq!(board.inb(0x379) & NOT_BUSY, 0, "while it starts over");
}

#[test]
fn a_stream_without_room_keeps_the_printer_busy() {
    let (board, port, paper) = rig(0);
    board.outb(0x37a, NO_INIT | SELECT | INTERRUPTS);
    strobe(&board, b'x');
    assert_eq!(board.inb(0x379), IDLE & !NOT_BUSY);
    strobe(&board, b'y');
    assert!(!board.level(7));
    *paper.room.lock() = 5;
    port.room_to_send();
    assert_eq!(*paper.printed.lock(), b"x", "a busy printer takes nothing");
    assert!(board.level(7));
    assert_eq!(board.inb(0x379), IDLE & !NO_ACK);
    assert!(!board.level(7));
    port.room_to_send();
    assert_eq!((board.edges(7), paper.printed.lock().len()), (1, 1));
}

#[test]
fn acknowledgements_interrupt_if_they_may() {
    let (board, ..) = rig(100);
    strobe(&board, 1);
    assert!(!board.level(7));
    board.outb(0x37a, NO_INIT | SELECT | INTERRUPTS);
    assert!(!board.level(7), "not for one from before");
    strobe(&board, 2);
    strobe(&board, 3);
    assert_eq!((board.level(7), board.edges(7)), (true, 2), "one edge each, looked at or not");
    board.outb(0x37a, NO_INIT | SELECT);
    assert!(!board.level(7));
    board.outb(0x37a, NO_INIT | SELECT | INTERRUPTS);
    assert!(!board.level(7));
}

#[test]
fn epp_cycles_have_no_answer() {
    let (board, _port, paper) = rig(100);
    board.outb(0x37c, 7);
    assert_eq!(board.inb(0x379), IDLE | TIMEOUT);
    board.outb(0x379, TIMEOUT);
    assert_eq!(board.inb(0x379), IDLE);
    assert_eq!(board.inb(0x37b), 0xff);
    assert_eq!(board.inb(0x379), IDLE | TIMEOUT);
    board.outb(0x379, 0xfe);
    assert_eq!(board.inb(0x379), IDLE | TIMEOUT);
    assert!(paper.printed.lock().is_empty());
}

#[test]
fn state_is_restored() {
    let (board, port, paper) = rig(0);
    board.outb(0x37a, NO_INIT | SELECT | INTERRUPTS);
    board.outb(0x37b, 0);
    strobe(&board, b'q');
    let saved = port.save();
    port.reset();
    assert_ne!(port.save(), saved);
    port.restore(&saved).unwrap();
    assert_eq!(port.save(), saved);
    // Elsewhere the byte is printed when there is room.
    let (board, other, new) = rig(10);
    other.restore(&saved).unwrap();
    assert_eq!(*new.printed.lock(), b"q");
    assert!(board.level(7) && paper.printed.lock().is_empty());
    let broken = ParallelState { control: 0xff, ..ParallelState::default() };
    assert!(port.restore(&lodge_savestate::to_record(&broken)).is_err());
}

#[test]
fn a_reset_leaves_the_printer_alone() {
    let (board, port, paper) = rig(0);
    strobe(&board, b'z');
    port.reset();
    *paper.room.lock() = 1;
    port.room_to_send();
    assert_eq!(*paper.printed.lock(), b"z");
    assert_eq!(board.inb(0x37a), 0xcc);
}
