use super::*;
use crate::testing::Board;

fn rig() -> (Board, Arc<Pit>) {
    let board = Board::new();
    let pit = Pit::new(&board.timers, board.line(0));
    board.attach(pit.clone());
    (board, pit)
}

fn load(board: &Board, control: u8, count: u16) {
    board.outb(0x43, control);
    let port = BASE + u16::from(control >> 6);
    for byte in count.to_le_bytes() {
        board.outb(port, byte);
    }
}

fn ns(ticks: u64) -> u64 {
    channel::nanoseconds(ticks)
}

#[test]
fn rate_generator_interrupts_periodically() {
    let (board, _pit) = rig();
    load(&board, 0x34, 11932);
    board.advance(ns(11932) - 1);
    assert_eq!(board.edges(0), 0);
    board.advance(1);
    assert_eq!(board.edges(0), 1);
    board.advance(1_000_000_000 - ns(11932));
    assert_eq!(board.edges(0), 99, "11932 ticks are a little more than 10 ms");
}

#[test]
fn nothing_is_armed_without_a_count_or_when_replaced() {
    let (board, pit) = rig();
    assert_eq!(board.timers.next_deadline(), None);
    board.outb(0x43, 0x34);
    assert_eq!(board.timers.next_deadline(), None);
    load(&board, 0x34, 0);
    assert_eq!(board.timers.next_deadline(), Some(ns(65536)));
    pit.set_replaced(true);
    assert_eq!(board.timers.next_deadline(), None);
    pit.set_replaced(false);
    assert!(board.timers.next_deadline().is_some());
    load(&board, 0x30, 0);
    board.advance(ns(65536));
    assert_eq!((board.edges(0), board.timers.next_deadline()), (1, None), "mode 0 fires once");
}

#[test]
fn mode_4_strobes_once() {
    let (board, _pit) = rig();
    load(&board, 0x38, 100);
    board.advance(ns(100));
    assert_eq!(board.edges(0), 0);
    board.advance(ns(2));
    assert_eq!(board.edges(0), 1);
    board.advance(1_000_000_000);
    assert_eq!(board.edges(0), 1);
}

#[test]
fn counts_are_latched() {
    let (board, _pit) = rig();
    load(&board, 0x34, 1000);
    board.advance(ns(100));
    board.outb(0x43, 0x00);
    board.advance(ns(500));
    let read = || u16::from_le_bytes([board.inb(0x40), board.inb(0x40)]);
    assert_eq!(read(), 900);
    board.clock.set(ns(600));
    assert_eq!(read(), 400);
}

#[test]
fn read_back_gives_status_then_count() {
    let (board, _pit) = rig();
    board.outb(0x43, 0x36);
    board.outb(0x43, 0xe2);
    assert_eq!(board.inb(0x40), 0b1111_0110, "output high, null count, both bytes, mode 3");
    load(&board, 0x36, 1000);
    board.clock.set(ns(600));
    board.outb(0x43, 0xc2);
    assert_eq!(board.inb(0x40), 0b0011_0110, "the second half is low");
    let count = u16::from_le_bytes([board.inb(0x40), board.inb(0x40)]);
    assert_eq!(count, 800, "it counts by two: 1000 - 2 * 100");
}

#[test]
fn bcd_counts() {
    let (board, _pit) = rig();
    board.outb(0x43, 0x31);
    board.outb(0x40, 0x00);
    board.outb(0x40, 0x10);
    board.clock.set(ns(1));
    assert_eq!([board.inb(0x40), board.inb(0x40)], [0x99, 0x09]);
    board.clock.set(ns(1001));
    assert_eq!([board.inb(0x40), board.inb(0x40)], [0x99, 0x99], "it goes on below zero");
}

#[test]
fn counter_2_is_gated_through_port_b() {
    // The way Linux' pit_calibrate_tsc does it.
    let (board, _pit) = rig();
    board.outb(0x61, board.inb(0x61) & !2 | 1);
    load(&board, 0xb0, 59659);
    assert_eq!(board.inb(0x61) & OUT2, 0);
    board.clock.set(ns(59658));
    assert_eq!(board.inb(0x61) & OUT2, 0);
    board.clock.set(ns(59659));
    assert_eq!(board.inb(0x61) & OUT2, OUT2);
    assert_eq!(board.edges(0), 0);
    load(&board, 0xb0, 1000);
    board.outb(0x61, 0);
    board.clock.set(ns(70_000));
    board.outb(0x61, 1);
    assert_eq!(board.inb(0x61) & OUT2, 0, "it stood still without its gate");
}

#[test]
fn single_byte_access() {
    let (board, _pit) = rig();
    board.outb(0x43, 0x14);
    board.outb(0x40, 10);
    board.clock.set(ns(3));
    assert_eq!([board.inb(0x40), board.inb(0x40)], [7, 7]);
    board.outb(0x43, 0x24);
    board.outb(0x40, 1);
    assert_eq!(board.inb(0x40), 1);
}

#[test]
fn a_count_of_one_can_not_storm() {
    let (board, _pit) = rig();
    load(&board, 0x34, 1);
    board.advance(ns(100));
    assert_eq!(board.edges(0), 50);
}

#[test]
fn state_is_restored() {
    let (board, pit) = rig();
    load(&board, 0x34, 1000);
    board.outb(0x61, 3);
    board.outb(0x43, 0x00);
    let saved = pit.save();
    pit.reset();
    board.outb(0x43, 0x12);
    assert_ne!(pit.save(), saved);
    assert_eq!(board.timers.next_deadline(), None);
    pit.restore(&saved).unwrap();
    assert_eq!(pit.save(), saved);
    assert_eq!(board.timers.next_deadline(), Some(ns(1000)));
    assert!(pit.restore(&saved[..20]).is_err());
}
