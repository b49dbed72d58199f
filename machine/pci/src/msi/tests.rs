use parking_lot::Mutex;

use super::*;
use crate::config::ConfigSpec;

#[derive(Default)]
struct Sent(Mutex<Vec<(u64, u32)>>);

impl MsiTarget for Sent {
    fn signal(&self, address: u64, data: u32) {
        self.0.lock().push((address, data));
    }
}

#[test]
fn a_message_is_what_the_guest_has_written() {
    let mut config = ConfigSpace::new(&ConfigSpec::default());
    let sent = Arc::new(Sent::default());
    let msi = Msi::new(&mut config, sent.clone()).unwrap();
    assert_eq!(config.read(0x40) & 0xffff_00ff, 0x0080_0005);
    config.write(0x44, u32::MAX, 0xfee0_1003);
    config.write(0x48, u32::MAX, 1);
    config.write(0x4c, u32::MAX, 0xffff_4041);
    msi.signal(&config);
    assert!(sent.0.lock().is_empty(), "it is off");
    config.write(0x40, 0xffff_0000, 0xffff_0000);
    assert_eq!(config.read(0x40) >> 16, 0x81, "one message");
    msi.signal(&config);
    assert_eq!(*sent.0.lock(), [(0x1_fee0_1000, 0x4041)]);
    config.reset();
    assert!(!msi.is_enabled(&config));
}
