use std::time::Duration;

use super::*;
use crate::testing::{DATA, Driver, wait_for};

#[derive(Default)]
struct Line {
    receiver: Mutex<Option<Weak<dyn Receiver>>>,
    sent: Mutex<Vec<u8>>,
    room: Mutex<usize>,
    resumed: Mutex<u32>,
}

impl CharStream for Line {
    fn connect(&self, receiver: Weak<dyn Receiver>) {
        *self.receiver.lock() = Some(receiver);
    }
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

fn rig() -> (Driver, Arc<Line>, Arc<Console>) {
    let line = Arc::new(Line { room: Mutex::new(100), ..Line::default() });
    let console = Console::new("console0", line.clone());
    let driver = Driver::new(console.clone());
    driver.start(crate::feature::EVENT_IDX);
    (driver, line, console)
}

#[test]
fn output_waits_for_room() {
    let (driver, line, console) = rig();
    driver.put(DATA, &[7; 300]);
    driver.submit(1, 0, &[(DATA, 150, false), (DATA, 20, false)]);
    wait_for("the first part", || line.sent.lock().len() == 100);
    driver.submit(1, 2, &[(DATA, 5, false)]);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(driver.used_index(1), 0);
    *line.room.lock() = 1000;
    console.room_to_send();
    assert_eq!(driver.complete(1), (0, 0));
    assert_eq!(driver.complete(1), (2, 0));
    assert_eq!(*line.sent.lock(), [7; 175]);
}

#[test]
fn input_waits_for_buffers() {
    let (driver, line, console) = rig();
    assert_eq!(console.receive(b"hello world"), 11);
    driver.submit(0, 0, &[(DATA, 5, true)]);
    assert_eq!(driver.complete(0), (0, 5));
    driver.submit(0, 1, &[(DATA + 5, 100, true)]);
    assert_eq!(driver.complete(0), (1, 6));
    assert_eq!(driver.get(DATA, 11), b"hello world");
    assert_eq!(console.receive(&[1; 5000]), 4096);
    driver.submit(0, 2, &[(DATA, 4000, true)]);
    assert_eq!(driver.complete(0), (2, 4000));
    wait_for("the resume", || *line.resumed.lock() == 1);
}

#[test]
fn input_before_the_driver_is_kept() {
    let line = Arc::new(Line::default());
    let console = Console::new("console0", line.clone());
    assert!(line.receiver.lock().is_some());
    let driver = Driver::new(console.clone());
    assert_eq!(console.receive(b"early"), 5);
    driver.start(0);
    driver.submit(0, 0, &[(DATA, 10, true)]);
    assert_eq!(driver.complete(0), (0, 5));
    assert_eq!(driver.config(4, 4), 1);
}
