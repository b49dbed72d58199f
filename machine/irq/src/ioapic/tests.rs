use super::*;

struct Rig {
    apic: IoApic,
    sent: Vec<Message>,
}

impl Rig {
    fn new() -> Self {
        Self { apic: IoApic::new(), sent: Vec::new() }
    }
    fn entry(&mut self, pin: u8, value: u64) {
        for (half, value) in [(1, value >> 32), (0, value)] {
            self.apic.write(IOREGSEL, u32::from(REDIRECTION + 2 * pin + half), &mut |m| self.sent.push(m));
            self.apic.write(IOWIN, value as u32, &mut |m| self.sent.push(m));
        }
    }
    fn read(&mut self, register: u8) -> u32 {
        self.apic.write(IOREGSEL, register.into(), &mut |m| self.sent.push(m));
        self.apic.read(IOWIN)
    }
    fn line(&mut self, pin: usize, high: bool) -> Vec<u8> {
        self.apic.set_line(pin, high, &mut |m| self.sent.push(m));
        self.take()
    }
    fn eoi(&mut self, vector: u8) -> Vec<u8> {
        self.apic.write(EOI, vector.into(), &mut |m| self.sent.push(m));
        self.take()
    }
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent).iter().map(|m| m.vector).collect()
    }
}

#[test]
fn identity() {
    let mut rig = Rig::new();
    assert_eq!(rig.read(VERSION), 0x0017_0020);
    rig.apic.write(IOREGSEL, 0, &mut |_| ());
    rig.apic.write(IOWIN, 0xff00_0000, &mut |_| ());
    assert_eq!(rig.read(ID), 0x0f00_0000, "four bits");
    assert_eq!(rig.read(REDIRECTION), 1 << 16, "masked at power-on");
    assert_eq!(rig.read(0xff), u32::MAX);
    assert_eq!(rig.read(0x40), u32::MAX);
}

#[test]
fn an_edge_is_sent_once_and_lost_while_masked() {
    let mut rig = Rig::new();
    rig.line(4, true);
    rig.line(4, false);
    rig.entry(4, 0x41);
    assert_eq!(rig.take(), [], "the edge under the mask is lost");
    assert_eq!(rig.line(4, true), [0x41]);
    assert_eq!(rig.line(4, true), []);
    assert_eq!(rig.line(4, false), []);
    assert_eq!(rig.line(4, true), [0x41]);
}

#[test]
fn a_level_is_sent_again_after_eoi_while_high() {
    let mut rig = Rig::new();
    rig.entry(10, 0x51 | LEVEL | 3 << 56);
    rig.apic.set_line(10, true, &mut |m| rig.sent.push(m));
    assert_eq!(rig.sent, [Message { vector: 0x51, mode: 0, logical: false, level: true, destination: 3 }]);
    rig.take();
    assert_eq!(u64::from(rig.read(REDIRECTION + 20)) & REMOTE_IRR, REMOTE_IRR);
    assert_eq!(rig.line(10, false), []);
    assert_eq!(rig.line(10, true), [], "remote IRR holds it back");
    assert_eq!(rig.eoi(0x52), []);
    assert_eq!(rig.eoi(0x51), [0x51]);
    assert_eq!(rig.line(10, false), []);
    assert_eq!(rig.eoi(0x51), []);
    assert_eq!(u64::from(rig.read(REDIRECTION + 20)) & REMOTE_IRR, 0);
}

#[test]
fn unmasking_a_high_level_sends() {
    let mut rig = Rig::new();
    rig.entry(11, 0x61 | LEVEL | MASKED);
    assert_eq!(rig.line(11, true), []);
    rig.entry(11, 0x61 | LEVEL);
    assert_eq!(rig.take(), [0x61]);
}

#[test]
fn switching_to_edge_ends_an_interrupt() {
    let mut rig = Rig::new();
    rig.entry(11, 0x61 | LEVEL);
    assert_eq!(rig.line(11, true), [0x61]);
    rig.entry(11, 0x61 | MASKED);
    rig.entry(11, 0x61 | LEVEL);
    assert_eq!(rig.take(), [0x61]);
}

#[test]
fn read_only_bits_stay() {
    let mut rig = Rig::new();
    rig.entry(0, u64::MAX);
    assert_eq!(rig.read(REDIRECTION), 0x0001_afff);
    assert_eq!(rig.read(REDIRECTION + 1), 0xff00_0000);
}

#[test]
fn state_is_restored() {
    let mut rig = Rig::new();
    rig.entry(11, 0x61 | LEVEL);
    rig.line(11, true);
    let saved = rig.apic.state();
    rig.line(11, false);
    rig.entry(3, 0x99);
    assert_ne!(rig.apic.state(), saved);
    rig.apic.set_state(saved.clone());
    assert_eq!(rig.apic.state(), saved);
    assert_eq!(rig.eoi(0x61), [0x61], "its line is high again");
}
