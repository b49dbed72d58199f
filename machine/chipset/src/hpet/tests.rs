use super::*;
use crate::testing::Board;

fn rig() -> (Board, Arc<Hpet>, Arc<Mutex<Vec<bool>>>) {
    let board = Board::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let wiring = HpetWiring {
        irq0: board.line(0),
        irq8: board.line(8),
        gsi16: std::array::from_fn(|i| board.line(16 + i as u32)),
        replace: Box::new(move |on| tell.lock().push(on)),
    };
    let hpet = Hpet::new(&board.timers, wiring);
    board.attach(hpet.clone());
    (board, hpet, told)
}

fn get(board: &Board, register: u64) -> u64 {
    let mut data = [0; 8];
    board.mmio.read(BASE + register, &mut data);
    u64::from_le_bytes(data)
}

fn set(board: &Board, register: u64, value: u64) {
    board.mmio.write(BASE + register, &value.to_le_bytes());
}

fn set32(board: &Board, register: u64, value: u32) {
    board.mmio.write(BASE + register, &value.to_le_bytes());
}

#[test]
fn capabilities() {
    let (board, _hpet, _) = rig();
    assert_eq!(get(&board, 0), 0x0098_9680_8086_a201);
    let mut data = [0; 4];
    board.mmio.read(BASE + 4, &mut data);
    assert_eq!(u32::from_le_bytes(data), 10_000_000);
    assert_eq!(get(&board, 0x100), ROUTES << 32 | PERIODIC_CAPABLE | SIZE_CAPABLE);
    assert_eq!(get(&board, 0x160), 0, "there is no fourth timer");
}

#[test]
fn the_counter_runs_while_enabled() {
    let (board, _hpet, _) = rig();
    board.advance(1000);
    assert_eq!(get(&board, COUNTER), 0);
    set(&board, COUNTER, 0xffff_ffff);
    set32(&board, CONFIGURATION, 1);
    board.advance(1000);
    assert_eq!(get(&board, COUNTER), 0xffff_ffff + 100);
    set32(&board, CONFIGURATION, 0);
    board.advance(1000);
    assert_eq!(get(&board, COUNTER), 0xffff_ffff + 100);
    assert_eq!(board.timers.next_deadline(), None);
}

#[test]
fn one_shot_in_legacy_mode_as_linux_uses_it() {
    let (board, _hpet, told) = rig();
    set32(&board, CONFIGURATION, 3);
    assert_eq!(*told.lock(), [true]);
    set32(&board, 0x100, (INTERRUPT | MODE_32) as u32);
    board.advance(105);
    set32(&board, 0x108, 100);
    assert_eq!(board.timers.next_deadline(), Some(1000));
    board.advance(2000);
    assert_eq!(board.edges(0), 1);
    assert_eq!(board.timers.next_deadline(), Some((100 + (1 << 32)) * 10), "it matches again when it wraps");
    set32(&board, CONFIGURATION, 1);
    assert_eq!(*told.lock(), [true, false]);
}

#[test]
fn periodic() {
    let (board, _hpet, _) = rig();
    set32(&board, CONFIGURATION, 3);
    set32(&board, 0x100, (INTERRUPT | PERIODIC | SET_VALUE | MODE_32) as u32);
    set32(&board, 0x108, 100_000);
    set32(&board, 0x108, 100_000);
    board.advance(10_000_000);
    assert_eq!(board.edges(0), 10);
    assert_eq!(get(&board, 0x108), 1_100_000);
}

#[test]
fn level_interrupts_are_held_until_acknowledged() {
    let (board, _hpet, _) = rig();
    set(&board, 0x140, INTERRUPT | LEVEL | PERIODIC | SET_VALUE | 20 << ROUTE_SHIFT);
    set(&board, 0x148, 1000);
    set(&board, 0x148, 1000);
    set32(&board, CONFIGURATION, 1);
    board.advance(100_000);
    assert_eq!((board.level(20), board.edges(20)), (true, 1));
    assert_eq!(get(&board, STATUS), 4);
    set32(&board, STATUS, 1);
    assert!(board.level(20));
    set32(&board, STATUS, 4);
    assert_eq!((board.level(20), get(&board, STATUS)), (false, 0));
    board.advance(10_000);
    assert_eq!(board.edges(20), 2);
}

#[test]
fn a_short_period_can_not_storm() {
    let (board, _hpet, _) = rig();
    set32(&board, CONFIGURATION, 3);
    set32(&board, 0x100, (INTERRUPT | PERIODIC | SET_VALUE) as u32);
    set32(&board, 0x108, 1);
    set32(&board, 0x108, 1);
    board.advance(1_000_000);
    assert_eq!(board.edges(0), 100);
}

#[test]
fn state_is_restored() {
    let (board, hpet, told) = rig();
    set32(&board, CONFIGURATION, 3);
    set32(&board, 0x100, INTERRUPT as u32);
    set(&board, 0x108, 5000);
    let saved = hpet.save();
    hpet.reset();
    set(&board, COUNTER, 99);
    assert_ne!(hpet.save(), saved);
    hpet.restore(&saved).unwrap();
    assert_eq!(hpet.save(), saved);
    assert_eq!(board.timers.next_deadline(), Some(50_000));
    assert_eq!(told.lock().last(), Some(&true));
}
