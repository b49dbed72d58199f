use super::*;
use crate::testing;

#[test]
fn port_a_resets_on_a_rising_edge() {
    let board = testing::Board::new();
    board.attach(Board::new(BoardConfig::default(), board.system.clone(), board.line_20.clone()));
    assert_eq!(board.inb(0x92), 2);
    board.outb(0x92, 3);
    board.outb(0x92, 3);
    assert_eq!(*board.system.0.lock(), ["reset processors"]);
}

#[test]
fn debug_exit_is_there_when_asked_for() {
    let board = testing::Board::new();
    board.attach(Board::new(BoardConfig { debug_exit: true, log: None }, board.system.clone(), board.line_20.clone()));
    board.outb(0xf4, 5);
    board.outb(0xf5, 9);
    board.ports.write(0xf4, Width::Dword, 0x100);
    board.outb(0xf4, 0xff);
    assert_eq!(*board.system.0.lock(), ["exit 11", "exit 1", "exit 255"]);
    let board = testing::Board::new();
    board.attach(Board::new(BoardConfig::default(), board.system.clone(), board.line_20.clone()));
    board.outb(0xf4, 5);
    assert_eq!(*board.system.0.lock(), [""; 0]);
    assert_eq!(board.inb(0xf4), 0xff);
}

#[test]
fn state_is_restored() {
    let board = testing::Board::new();
    let device = Board::new(BoardConfig::default(), board.system.clone(), board.line_20.clone());
    board.attach(device.clone());
    board.outb(0x80, 0x42);
    board.outb(0x92, 0);
    let saved = device.save();
    device.reset();
    assert_ne!(device.save(), saved);
    assert!(board.line_20.is_open());
    device.restore(&saved).unwrap();
    assert_eq!(device.post_code(), 0x42);
    assert!(!board.line_20.is_open());
}

#[test]
fn the_log_goes_to_its_stream() {
    #[derive(Default)]
    struct Log(Mutex<Vec<u8>>);
    impl CharStream for Log {
        fn connect(&self, _receiver: std::sync::Weak<dyn lodge_backend::Receiver>) {}
        fn send(&self, data: &[u8]) -> usize {
            self.0.lock().extend(data);
            data.len()
        }
        fn resume(&self) {}
        fn flush(&self, _at_most: std::time::Duration) {}
    }
    let board = testing::Board::new();
    let log = Arc::new(Log::default());
    board.attach(Board::new(
        BoardConfig { debug_exit: false, log: Some(log.clone()) },
        board.system.clone(),
        board.line_20.clone(),
    ));
    assert_eq!(board.inb(0x402), 0xe9);
    b"hi".iter().for_each(|byte| board.outb(0x402, *byte));
    assert_eq!(*log.0.lock(), b"hi");
    let board = testing::Board::new();
    board.attach(Board::new(BoardConfig::default(), board.system.clone(), board.line_20.clone()));
    assert_eq!(board.inb(0x402), 0xff, "firmware keeps its log to itself where nobody listens");
}

#[test]
fn port_a_has_address_line_20() {
    let board = testing::Board::new();
    board.attach(Board::new(BoardConfig::default(), board.system.clone(), board.line_20.clone()));
    board.outb(0x92, 0);
    assert!(!board.line_20.is_open());
    assert_eq!(board.inb(0x92), 0);
    board.line_20.set(true);
    assert_eq!(board.inb(0x92), 2, "whoever opened it");
}
