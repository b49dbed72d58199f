use super::*;
use crate::testing::Board;

struct Rig {
    board: Board,
    pm: Arc<Pm>,
    _mapping: lodge_bus::PortMapping,
}

fn rig(acpi_on: bool) -> Rig {
    let board = Board::new();
    let pm = Pm::new(acpi_on, &board.timers, board.line(9), board.system.clone());
    board.attach(pm.clone());
    let mapping = board.ports.mapping(Arc::downgrade(&pm) as Weak<dyn PortDevice>, Pm::block());
    mapping.set(Some(BASE));
    Rig { board, pm, _mapping: mapping }
}

#[test]
fn the_timer_counts_24_bits() {
    let rig = rig(true);
    rig.board.advance(1_000_000_000);
    assert_eq!(rig.board.ports.read(0x608, Width::Dword), 3_579_545);
    rig.board.advance(4_000_000_000);
    assert_eq!(rig.board.ports.read(0x608, Width::Dword), 5 * 3_579_545 - (1 << 24));
    assert_eq!(rig.board.timers.next_deadline(), None);
}

#[test]
fn overflow_interrupts_when_enabled() {
    let rig = rig(true);
    rig.board.ports.write(0x602, Width::Word, 1);
    rig.board.advance(2_343_000_000);
    assert!(!rig.board.level(9));
    rig.board.advance(1_000_000);
    assert!(rig.board.level(9));
    assert_eq!(rig.board.ports.read(0x600, Width::Word), 1);
    rig.board.ports.write(0x600, Width::Word, 1);
    assert!(!rig.board.level(9));
    assert_eq!(rig.board.ports.read(0x600, Width::Word), 0);
}

#[test]
fn soft_off() {
    let rig = rig(true);
    rig.board.ports.write(0x604, Width::Word, 0x2401);
    assert_eq!(*rig.board.system.0.lock(), [""; 0], "another sleep type");
    rig.board.ports.write(0x604, Width::Word, 0x2001);
    assert_eq!(*rig.board.system.0.lock(), ["power off"]);
    assert_eq!(rig.board.ports.read(0x604, Width::Word), 1, "sleep enable reads as zero");
}

#[test]
fn acpi_is_switched_through_the_apm_port() {
    let rig = rig(false);
    assert_eq!(rig.board.ports.read(0x604, Width::Word), 0);
    rig.board.ports.write(0x604, Width::Word, 1);
    assert_eq!(rig.board.ports.read(0x604, Width::Word), 0, "not by writing it");
    rig.board.outb(0xb2, 0xf1);
    assert_eq!(rig.board.ports.read(0x604, Width::Word), 1);
}

#[test]
fn the_power_button_raises_the_sci() {
    let rig = rig(true);
    assert!(!rig.pm.power_button_heard());
    rig.pm.press_power_button();
    assert!(!rig.board.level(9));
    rig.board.outb(0x603, 1);
    assert!(rig.board.level(9) && rig.pm.power_button_heard());
    rig.board.outb(0x601, 1);
    assert!(!rig.board.level(9));
}

#[test]
fn state_is_restored() {
    let rig = rig(false);
    rig.board.outb(0xb2, 0xf1);
    rig.board.outb(0x603, 1);
    rig.pm.press_power_button();
    let saved = rig.pm.save();
    rig.pm.reset();
    assert!(!rig.board.level(9));
    assert_ne!(rig.pm.save(), saved);
    rig.pm.restore(&saved).unwrap();
    assert_eq!(rig.pm.save(), saved);
    assert!(rig.board.level(9));
}

#[test]
fn suspend_and_what_wakes() {
    let rig = rig(false);
    rig.board.outb(0xb2, 0xf1);
    rig.pm.clock_alarm();
    rig.board.ports.write(0x604, Width::Word, 0x2401);
    assert_eq!(*rig.board.system.0.lock(), ["suspend"]);
    rig.pm.clock_alarm();
    assert_eq!(rig.board.system.0.lock().len(), 1, "an alarm that was not enabled");
    rig.board.ports.write(0x602, Width::Word, 0x400);
    rig.pm.clock_alarm();
    assert_eq!(rig.board.system.0.lock().last().unwrap(), "wake");
    rig.pm.reset();
    assert_eq!(rig.board.ports.read(0x600, Width::Word), u32::from(WAKE | ALARM));
    rig.pm.reset();
    assert_eq!(rig.board.ports.read(0x600, Width::Word), 0, "not after a reset of another kind");
    rig.pm.press_power_button();
    assert_eq!(rig.board.system.0.lock().len(), 2, "it does not sleep any more");
}

#[test]
fn the_clocks_alarm_is_an_event() {
    let rig = rig(true);
    rig.board.ports.write(0x602, Width::Word, 0x400);
    rig.pm.clock_alarm();
    assert!(rig.board.level(9));
    rig.board.ports.write(0x600, Width::Word, 0x400);
    assert!(!rig.board.level(9));
}
