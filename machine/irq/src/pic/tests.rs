use super::*;

/// Initialized as PC firmware and Linux do: vectors at 0x30 and 0x38, nothing masked.
fn ready(icw4: u8) -> Pic {
    let mut pic = Pic::new();
    for (slave, base, icw3) in [(false, 0x30, 4), (true, 0x38, 2)] {
        pic.write(slave, false, 0x11);
        pic.write(slave, true, base);
        pic.write(slave, true, icw3);
        pic.write(slave, true, icw4);
        pic.write(slave, true, 0);
    }
    pic
}

fn pulse(pic: &mut Pic, input: u8) {
    pic.set_line(input, true);
    pic.set_line(input, false);
}

#[test]
fn everything_is_masked_at_power_on() {
    let mut pic = Pic::new();
    pic.set_line(0, true);
    assert!(!pic.output());
    assert_eq!(pic.read(false, true), 0xff);
}

#[test]
fn priorities_nest() {
    let mut pic = ready(1);
    pulse(&mut pic, 4);
    assert_eq!(pic.acknowledge(), 0x34);
    pulse(&mut pic, 5);
    assert!(!pic.output(), "a lower priority waits");
    pulse(&mut pic, 1);
    assert_eq!(pic.acknowledge(), 0x31);
    pic.write(false, false, 0x20);
    assert!(!pic.output());
    pic.write(false, false, 0x0b);
    assert_eq!(pic.read(false, false), 1 << 4, "the ISR");
    pic.write(false, false, 0x20);
    assert_eq!(pic.acknowledge(), 0x35);
}

#[test]
fn the_slave_arrives_through_the_cascade() {
    let mut pic = ready(1);
    pulse(&mut pic, 14);
    pulse(&mut pic, 8);
    assert_eq!(pic.acknowledge(), 0x38);
    assert!(!pic.output(), "the slave is in service");
    pic.write(true, false, 0x20);
    assert!(!pic.output(), "and so is the master's input 2");
    pic.write(false, false, 0x62);
    assert_eq!(pic.acknowledge(), 0x3e);
    pic.write(true, false, 0x20);
    pic.write(false, false, 0x20);
    assert!(!pic.output());
}

#[test]
fn an_acknowledge_without_request_is_spurious() {
    let mut pic = ready(1);
    assert_eq!(pic.acknowledge(), 0x37);
    pic.write(false, false, 0x0b);
    assert_eq!(pic.read(false, false), 0, "input 7 is not in service");
    pic.set_elcr(true, 1 << 3);
    pic.set_line(11, true);
    assert!(pic.output());
    pic.write(true, true, 0xff);
    assert!(!pic.output());
}

#[test]
fn level_inputs_ask_again_until_lowered() {
    let mut pic = ready(1);
    pic.set_elcr(true, 0xff);
    assert_eq!(pic.elcr(true), ELCR_MASK[1], "the clock and coprocessor stay edge-triggered");
    pic.set_line(10, true);
    assert_eq!(pic.acknowledge(), 0x3a);
    pic.write(true, false, 0x20);
    pic.write(false, false, 0x20);
    assert_eq!(pic.acknowledge(), 0x3a, "still high");
    pic.set_line(10, false);
    pic.write(true, false, 0x20);
    pic.write(false, false, 0x20);
    assert!(!pic.output());
}

#[test]
fn auto_eoi_with_rotation() {
    let mut pic = ready(3);
    pic.write(false, false, 0x80);
    pulse(&mut pic, 3);
    assert_eq!(pic.acknowledge(), 0x33);
    pulse(&mut pic, 3);
    pulse(&mut pic, 4);
    assert_eq!(pic.acknowledge(), 0x34, "3 is the lowest now");
    assert_eq!(pic.acknowledge(), 0x33);
}

#[test]
fn rotation_commands() {
    let mut pic = ready(1);
    pic.write(false, false, 0xc0 | 5);
    pulse(&mut pic, 0);
    pulse(&mut pic, 6);
    assert_eq!(pic.acknowledge(), 0x36);
    pic.write(false, false, 0xa0);
    pulse(&mut pic, 6);
    assert_eq!(pic.acknowledge(), 0x30);
}

#[test]
fn special_mask_mode_lets_lower_priorities_in() {
    let mut pic = ready(1);
    pulse(&mut pic, 1);
    assert_eq!(pic.acknowledge(), 0x31);
    pulse(&mut pic, 6);
    assert!(!pic.output());
    pic.write(false, true, 1 << 1);
    pic.write(false, false, 0x68);
    assert_eq!(pic.acknowledge(), 0x36);
    pic.write(false, false, 0x48);
    pic.write(false, false, 0x0b);
    assert_eq!(pic.read(false, false), 1 << 1 | 1 << 6);
}

#[test]
fn poll_acknowledges() {
    let mut pic = ready(1);
    pic.write(false, false, 0x0c);
    assert_eq!(pic.read(false, false), 0);
    pulse(&mut pic, 5);
    pic.write(false, false, 0x0c);
    assert_eq!(pic.read(false, false), 0x85);
    assert!(!pic.output());
    pic.write(false, false, 0x0a);
    assert_eq!(pic.read(false, false), 0, "the request is taken");
}

#[test]
fn initialization_forgets_edges_but_not_levels() {
    let mut pic = ready(1);
    pic.set_elcr(false, 1 << 5);
    pic.set_line(4, true);
    pic.set_line(5, true);
    pic.write(false, false, 0x11);
    pic.write(false, false, 0x0a);
    assert_eq!(pic.read(false, false), 1 << 5);
}

#[test]
fn state_is_restored() {
    let mut pic = ready(1);
    pulse(&mut pic, 4);
    pic.acknowledge();
    pulse(&mut pic, 1);
    let saved = pic.state();
    pic.acknowledge();
    pic.write(true, false, 0x11);
    assert_ne!(pic.state(), saved);
    pic.set_state(saved.clone());
    assert_eq!(pic.state(), saved);
    assert_eq!(pic.acknowledge(), 0x31);
}
