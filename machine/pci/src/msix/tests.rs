use parking_lot::Mutex;

use super::*;

#[derive(Default)]
struct Sent(Mutex<Vec<(u64, u32)>>);

impl MsiTarget for Sent {
    fn signal(&self, address: u64, data: u32) {
        self.0.lock().push((address, data));
    }
}

fn rig() -> (Msix, Arc<Sent>) {
    let sent = Arc::new(Sent::default());
    let mut msix = Msix::new(3, sent.clone());
    msix.write_table(16, 8, 0xfee0_1000);
    msix.write_table(24, 4, 0x41);
    (msix, sent)
}

#[test]
fn masks_hold_messages_back() {
    let (mut msix, sent) = rig();
    msix.signal(1);
    assert_eq!(msix.read_pending(0, 8), 0, "MSI-X is off");
    msix.set_control(ENABLE);
    msix.signal(1);
    assert_eq!((msix.read_pending(0, 4), sent.0.lock().len()), (2, 0));
    msix.write_table(28, 4, 0);
    assert_eq!(*sent.0.lock(), [(0xfee0_1000, 0x41)]);
    assert_eq!(msix.read_pending(0, 4), 0);
    msix.set_control(ENABLE | MASK_ALL);
    msix.signal(1);
    msix.signal(1);
    assert_eq!(sent.0.lock().len(), 1);
    msix.set_control(ENABLE);
    assert_eq!(sent.0.lock().len(), 2, "twice pending is once sent");
}

#[test]
fn accesses_beyond_the_table_do_nothing() {
    let (mut msix, _) = rig();
    msix.set_control(u16::MAX);
    msix.signal(3);
    msix.signal(u16::MAX);
    msix.write_table(48, 8, u64::MAX);
    msix.write_table(u64::MAX, 4, 1);
    assert_eq!((msix.read_table(48, 8), msix.read_pending(8, 8)), (0, 0));
    assert_eq!(msix.read_table(24, 8), 1 << 32 | 0x41);
    assert_eq!(msix.read_table(20, 4), 0);
    assert_eq!(msix.read_table(44, 4), 1, "masked at power-on");
}

#[test]
fn state_is_restored() {
    let (mut msix, sent) = rig();
    msix.set_control(ENABLE);
    msix.signal(1);
    let saved = msix.state();
    msix.reset();
    assert_ne!(msix.state(), saved);
    assert!(msix.set_state(saved.clone()));
    assert_eq!(msix.state(), saved);
    msix.write_table(28, 4, 0);
    assert_eq!(sent.0.lock().len(), 1);
    assert!(!Msix::new(4, sent).set_state(saved));
}
