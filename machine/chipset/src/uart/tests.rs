use std::time::Duration;

use super::*;
use crate::testing::Board;

/// A stream that takes `room` bytes.
#[derive(Default)]
struct Wire {
    sent: Mutex<Vec<u8>>,
    room: Mutex<usize>,
    resumed: Mutex<u32>,
}

impl CharStream for Wire {
    fn connect(&self, _receiver: Weak<dyn Receiver>) {}
    fn send(&self, data: &[u8]) -> usize {
        let mut room = self.room.lock();
        let taken = data.len().min(*room);
        *room -= taken;
        self.sent.lock().extend(&data[..taken]);
        taken
    }
    fn resume(&self) {
        *self.resumed.lock() += 1;
    }
    fn flush(&self, _at_most: Duration) {}
}

fn rig() -> (Board, Arc<Uart>, Arc<Wire>) {
    let board = Board::new();
    let wire = Arc::new(Wire { room: Mutex::new(1000), ..Wire::default() });
    let config = UartConfig { name: "uart0".into(), base: 0x3f8 };
    let uart = Uart::new(config, board.line(4), wire.clone());
    board.attach(uart.clone());
    board.outb(0x3fc, MCR_OUT2);
    board.inb(0x3fe);
    (board, uart, wire)
}

#[test]
fn sends_and_tells_when_empty() {
    let (board, _uart, wire) = rig();
    assert_eq!(board.inb(0x3fd), LSR_EMPTY | LSR_IDLE);
    board.outb(0x3f8, b'a');
    board.outb(0x3f9, IER_EMPTY);
    assert!(board.level(4), "enabling the interrupt while empty raises it");
    assert_eq!(board.inb(0x3fa), IIR_EMPTY);
    assert!(!board.level(4), "reading its identification clears it");
    assert_eq!(board.inb(0x3fa), IIR_NONE);
    board.outb(0x3f8, b'b');
    assert!(board.level(4));
    assert_eq!(*wire.sent.lock(), b"ab");
}

#[test]
fn a_far_end_without_room_fills_the_fifo() {
    let (board, uart, wire) = rig();
    *wire.room.lock() = 2;
    board.outb(0x3fa, FCR_ENABLE);
    for byte in 0..20 {
        board.outb(0x3f8, byte);
    }
    assert_eq!(board.inb(0x3fd) & LSR_EMPTY, 0);
    *wire.room.lock() = 100;
    uart.room_to_send();
    assert_eq!(board.inb(0x3fd) & LSR_EMPTY, LSR_EMPTY);
    assert_eq!(*wire.sent.lock(), (0..18).collect::<Vec<u8>>(), "what a full FIFO could not take is lost");
}

#[test]
fn received_bytes_wait_for_room() {
    let (board, uart, wire) = rig();
    assert_eq!(uart.receive(b"xyz"), 1, "one byte without FIFOs");
    assert_eq!(board.inb(0x3f8), b'x');
    assert_eq!(*wire.resumed.lock(), 1);
    board.outb(0x3fa, FCR_ENABLE | 0x40);
    board.outb(0x3f9, IER_DATA);
    assert_eq!(uart.receive(b"012"), 3);
    assert_eq!(board.inb(0x3fa), IIR_FIFO | IIR_TIMEOUT, "below the trigger level");
    assert_eq!(uart.receive(b"3456789abcdefghij"), 13);
    assert_eq!(board.inb(0x3fa), IIR_FIFO | IIR_DATA);
    assert!(board.level(4));
    let read: Vec<u8> = (0..16).map(|_| board.inb(0x3f8)).collect();
    assert_eq!(read, b"0123456789abcdef");
    assert!(!board.level(4));
    assert_eq!(*wire.resumed.lock(), 2);
    assert_eq!(board.inb(0x3fd) & LSR_DATA, 0);
}

#[test]
fn loop_back_as_drivers_probe_it() {
    let (board, uart, wire) = rig();
    board.outb(0x3fc, MCR_LOOP | MCR_OUT2 | MCR_RTS);
    assert_eq!(board.inb(0x3fe) & 0xf0, MSR_DCD | MSR_CTS);
    board.outb(0x3fc, MCR_LOOP | MCR_DTR | MCR_OUT1);
    assert_eq!(board.inb(0x3fe), MSR_DSR | MSR_RI | 0b1011, "carrier, CTS and DSR changed; ring only began");
    board.outb(0x3f8, 0x5a);
    assert_eq!(uart.receive(b"q"), 0, "the line is cut");
    board.outb(0x3f8, 0x5b);
    assert_eq!(board.inb(0x3fd) & (LSR_DATA | LSR_OVERRUN), LSR_DATA | LSR_OVERRUN);
    assert_eq!(board.inb(0x3fd) & LSR_OVERRUN, 0, "reading clears it");
    assert_eq!(board.inb(0x3f8), 0x5a);
    assert_eq!(*wire.sent.lock(), b"");
    board.outb(0x3fc, 0);
    assert_eq!(*wire.resumed.lock(), 1);
}

#[test]
fn divisor_scratch_and_fifo_detection() {
    let (board, _uart, _) = rig();
    board.outb(0x3fb, LCR_DLAB | 3);
    board.outb(0x3f8, 0x34);
    board.outb(0x3f9, 0x12);
    assert_eq!([board.inb(0x3f8), board.inb(0x3f9)], [0x34, 0x12]);
    board.outb(0x3fb, 3);
    assert_eq!([board.inb(0x3f8), board.inb(0x3f9), board.inb(0x3fb)], [0, 0, 3]);
    board.outb(0x3ff, 0xa5);
    assert_eq!(board.inb(0x3ff), 0xa5);
    board.outb(0x3f9, 0xff);
    assert_eq!(board.inb(0x3f9), 0x0f);
    board.outb(0x3fa, 1);
    assert_eq!(board.inb(0x3fa) & 0xc0, 0xc0);
}

#[test]
fn out2_gates_the_interrupt_and_modem_changes_raise_it() {
    let (board, _uart, _) = rig();
    board.outb(0x3fc, 0);
    board.outb(0x3f9, IER_EMPTY | IER_MODEM);
    assert!(!board.level(4));
    board.outb(0x3fc, MCR_OUT2);
    assert!(board.level(4));
    board.inb(0x3fa);
    board.outb(0x3fc, MCR_LOOP);
    board.outb(0x3fc, MCR_OUT2);
    assert_eq!(board.inb(0x3fa), IIR_MODEM);
    board.inb(0x3fe);
    assert_eq!(board.inb(0x3fa), IIR_NONE);
}

#[test]
fn state_is_restored() {
    let (board, uart, _) = rig();
    board.outb(0x3fa, 1);
    board.outb(0x3f9, IER_DATA);
    uart.receive(b"abc");
    let saved = uart.save();
    board.inb(0x3f8);
    uart.reset();
    assert_ne!(uart.save(), saved);
    uart.restore(&saved).unwrap();
    assert_eq!(uart.save(), saved);
    assert!(board.level(4));
    assert_eq!(board.inb(0x3f8), b'a');
}
