use super::*;
use crate::testing::Board;

/// 2024-02-29 23:59:58.5 UTC, a Thursday.
const START: u64 = 1_709_251_198_500_000_000;

fn rig() -> (Board, Arc<Rtc>) {
    let board = Board::new();
    board.clock.set_wall_at_zero(START);
    let config = CmosConfig { memory_below_4g: 3 << 30, memory_above_4g: 1 << 30, vcpus: 4, floppies: [4, 5] };
    let rtc = Rtc::new(config, &board.timers, board.line(8));
    board.attach(rtc.clone());
    (board, rtc)
}

fn get(board: &Board, index: u8) -> u8 {
    board.outb(0x70, index);
    board.inb(0x71)
}

fn set(board: &Board, index: u8, value: u8) {
    board.outb(0x70, index);
    board.outb(0x71, value);
}

fn date(board: &Board) -> [u8; 8] {
    [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS].map(|index| get(board, index))
}

#[test]
fn shows_the_host_clock() {
    let (board, _rtc) = rig();
    assert_eq!(date(&board), [0x20, 0x24, 0x02, 0x29, 5, 0x23, 0x59, 0x58]);
    board.advance(2_000_000_000);
    assert_eq!(date(&board), [0x20, 0x24, 0x03, 0x01, 6, 0, 0, 0]);
    assert_eq!(get(&board, D), 0x80);
    assert_eq!(board.timers.next_deadline(), None, "nobody asked to be called");
}

#[test]
fn binary_and_12_hours() {
    let (board, _rtc) = rig();
    set(&board, B, B_BINARY);
    assert_eq!([get(&board, HOURS), get(&board, MINUTES)], [0x80 | 11, 59]);
    board.advance(2_000_000_000);
    assert_eq!(get(&board, HOURS), 12, "midnight");
    board.advance(12 * 3600 * 1_000_000_000);
    assert_eq!(get(&board, HOURS), 0x80 | 12, "noon");
}

#[test]
fn setting_the_time_the_way_linux_does() {
    let (board, _rtc) = rig();
    set(&board, B, B_SET | B_24H);
    set(&board, A, 0x76);
    for (index, value) in
        [(CENTURY, 0x19), (YEAR, 0x99), (MONTH, 0x12), (DAY, 0x31), (HOURS, 0x23), (MINUTES, 0x59), (SECONDS, 0x59)]
    {
        set(&board, index, value);
    }
    board.advance(5_000_000_000);
    assert_eq!(get(&board, SECONDS), 0x59, "updates are inhibited");
    set(&board, B, B_24H);
    set(&board, A, 0x26);
    board.advance(1_000_000_000);
    assert_eq!(date(&board), [0x20, 0x00, 0x01, 0x01, 7, 0, 0, 0]);
}

#[test]
fn update_in_progress_precedes_the_second() {
    let (board, _rtc) = rig();
    assert_eq!(get(&board, A), 0x26);
    board.advance(500_000_000 - 200_000);
    assert_eq!(get(&board, A), 0xa6);
    board.advance(200_000);
    assert_eq!(get(&board, A), 0x26);
    assert_eq!(get(&board, SECONDS), 0x59);
}

#[test]
fn update_interrupt_waits_for_c_to_be_read() {
    let (board, _rtc) = rig();
    set(&board, B, B_24H | B_UIE);
    board.advance(500_000_000);
    assert_eq!((board.edges(8), board.level(8)), (1, true));
    assert_eq!(board.timers.next_deadline(), None);
    board.advance(3_000_000_000);
    assert_eq!(board.edges(8), 1);
    assert_eq!(get(&board, C), C_IRQ | B_UIE | B_PIE | B_AIE, "midnight, which the alarm is set to, has passed too");
    assert!(!board.level(8));
    assert_eq!(get(&board, C), 0);
    board.advance(1_000_000_000);
    assert_eq!(board.edges(8), 2);
}

#[test]
fn periodic_interrupt_rate() {
    let (board, _rtc) = rig();
    set(&board, B, B_24H | B_PIE);
    for _ in 0..1024 {
        let deadline = board.timers.next_deadline().unwrap();
        board.advance(deadline - lodge_bus::Clock::now_ns(&*board.clock));
        assert_eq!(get(&board, C) & (C_IRQ | B_PIE), C_IRQ | B_PIE);
    }
    assert_eq!(board.edges(8), 1024);
    assert_eq!(lodge_bus::Clock::now_ns(&*board.clock), 1_000_000_000, "1024 Hz");
}

#[test]
fn alarm_matches_and_wildcards() {
    let (board, _rtc) = rig();
    set(&board, SECONDS_ALARM, 0x05);
    set(&board, MINUTES_ALARM, 0x00);
    set(&board, HOURS_ALARM, 0x00);
    get(&board, C);
    set(&board, B, B_24H | B_AIE);
    assert_eq!(board.timers.next_deadline(), Some(6_500_000_000));
    board.advance(6_500_000_000);
    assert_eq!(board.edges(8), 1);
    assert_eq!(get(&board, C) & B_AIE, B_AIE);
    assert_eq!(board.timers.next_deadline(), Some(6_500_000_000 + 86_400_000_000_000), "the next day");
    set(&board, SECONDS_ALARM, 0xc0);
    set(&board, MINUTES_ALARM, 0x07);
    set(&board, HOURS_ALARM, 0xff);
    assert_eq!(board.timers.next_deadline(), Some(1_500_000_000 + 7 * 60_000_000_000));
    set(&board, MINUTES_ALARM, 0x77);
    assert_eq!(board.timers.next_deadline(), None, "there is no minute 77");
}

#[test]
fn memory_sizes() {
    let (board, _rtc) = rig();
    let word = |index| u16::from_le_bytes([get(&board, index), get(&board, index + 1)]);
    assert_eq!(word(0x15), 640);
    assert_eq!(word(0x17), 63 << 10);
    assert_eq!(word(0x34), ((3072 - 16) * 16) as u16);
    assert_eq!([get(&board, 0x5b), get(&board, 0x5c), get(&board, 0x5d)], [0, 0x40, 0]);
    assert_eq!(get(&board, 0x5f), 3);
}

#[test]
fn state_is_restored() {
    let (board, rtc) = rig();
    set(&board, B, B_24H | B_UIE);
    set(&board, 0x0f, 0x0a);
    set(&board, MINUTES, 0x30);
    let saved = rtc.save();
    set(&board, B, B_SET);
    set(&board, YEAR, 0x50);
    set(&board, B, 0);
    assert_ne!(rtc.save(), saved);
    rtc.restore(&saved).unwrap();
    assert_eq!(rtc.save(), saved);
    assert_eq!(get(&board, MINUTES), 0x30);
    board.advance(500_000_000);
    assert_eq!(board.edges(8), 1);
}

/// Clock with an alarm in six seconds and a half, and a count of those that went off.
fn with_alarm() -> (Board, Arc<Rtc>, Arc<Mutex<u32>>) {
    let (board, rtc) = rig();
    let count = Arc::new(Mutex::new(0));
    let told = count.clone();
    rtc.on_alarm(Box::new(move || *told.lock() += 1));
    for (index, value) in [(SECONDS_ALARM, 0x05), (MINUTES_ALARM, 0), (HOURS_ALARM, 0), (B, B_24H | B_AIE)] {
        set(&board, index, value);
    }
    (board, rtc, count)
}

#[test]
fn clock_and_alarm_go_by_the_wall_over_a_pause() {
    let (board, rtc, count) = with_alarm();
    let pausable = rtc.clone().pausable().unwrap();
    board.advance(1_000_000_000);
    // A pause of four seconds, in which guest time stands still.
    pausable.pause();
    board.clock.set_wall_at_zero(START + 4_000_000_000);
    pausable.resume();
    assert_eq!(get(&board, SECONDS), 0x03);
    assert_eq!(board.timers.next_deadline(), Some(2_500_000_000), "not later by the length of the pause");
    board.advance(1_499_999_999);
    assert_eq!((*count.lock(), board.level(8)), (0, false));
    board.advance(1);
    assert_eq!((*count.lock(), board.level(8)), (1, true));
    assert_eq!((get(&board, SECONDS), get(&board, C)), (0x05, C_IRQ | B_UIE | B_AIE | B_PIE));
    // One whose time passes during a pause goes off when that ends.
    pausable.pause();
    board.clock.set_wall_at_zero(START + 2 * 86_400_000_000_000);
    assert_eq!((*count.lock(), board.level(8)), (1, false));
    pausable.resume();
    assert_eq!((*count.lock(), board.level(8)), (2, true), "once, however long it was");
    assert_eq!(get(&board, C) & (C_IRQ | B_AIE), C_IRQ | B_AIE);
    pausable.resume();
    assert_eq!((*count.lock(), board.level(8)), (2, false));
}

#[test]
fn no_alarm_is_swallowed() {
    // The guest comes first, before the timer has told of it.
    let at = |ns| {
        let (board, rtc, count) = with_alarm();
        board.clock.set(ns);
        (board, rtc, count)
    };
    let (board, _rtc, count) = at(6_500_000_000);
    assert_eq!(get(&board, C) & (C_IRQ | B_AIE), C_IRQ | B_AIE);
    assert_eq!(*count.lock(), 1, "reading register C");
    board.advance(1_000_000_000);
    assert_eq!(*count.lock(), 1);
    // What is up stays so whatever happens to the time.
    let (board, rtc, count) = at(6_500_000_000);
    set(&board, B, B_SET | B_24H | B_AIE);
    assert_eq!((*count.lock(), board.level(8)), (1, true), "stopping the clock");
    set(&board, HOURS, 0x12);
    set(&board, B, B_24H | B_AIE);
    assert_eq!((*count.lock(), board.level(8)), (1, true));
    let saved = rtc.save();
    assert_eq!((get(&board, C) & B_AIE, board.level(8)), (B_AIE, false));
    rtc.restore(&saved).unwrap();
    assert_eq!((rtc.save(), board.level(8), *count.lock()), (saved, true, 1));
    assert_eq!((get(&board, C) & B_AIE, get(&board, C)), (B_AIE, 0));
    let (board, _rtc, count) = at(6_500_000_000);
    set(&board, HOURS, 0x12);
    assert_eq!((*count.lock(), board.level(8)), (1, true), "setting a running clock");
    let (board, rtc, _) = at(6_500_000_000);
    rtc.reset();
    set(&board, B, B_24H | B_AIE);
    assert_eq!((get(&board, C), board.level(8)), (0, false), "a reset clears flags");
}

#[test]
fn an_alarm_is_for_the_time_to_come() {
    let (board, _rtc, count) = with_alarm();
    set(&board, HOURS_ALARM, 0x12);
    // It is 0:00:18.5 now, and register C was never read.
    board.advance(20_000_000_000);
    for (index, value) in [(SECONDS_ALARM, 0x18), (MINUTES_ALARM, 0), (HOURS_ALARM, 0)] {
        set(&board, index, value);
    }
    assert_eq!((*count.lock(), board.level(8)), (0, false), "that has been");
    assert_eq!(board.timers.next_deadline(), Some(20_000_000_000 + 86_399_500_000_000), "but it comes again");
    assert_eq!(get(&board, C), B_UIE | B_PIE);
    set(&board, SECONDS_ALARM, 0x19);
    board.advance(500_000_000);
    assert_eq!((*count.lock(), board.level(8)), (1, true));
    assert_eq!(get(&board, C) & B_AIE, B_AIE);
}

#[test]
fn an_alarm_that_has_come_stays_when_the_guest_comes_before_the_timer() {
    for (index, value) in [
        (SECONDS_ALARM, 0x30),
        (MINUTES_ALARM, 0x30),
        (HOURS_ALARM, 0x12),
        (B, B_24H | B_AIE),
        (B, B_24H | B_AIE | B_BINARY),
        (A, 0x2f),
        (A, 0x70),
    ] {
        let (board, _rtc, count) = with_alarm();
        board.clock.set(6_500_000_000);
        set(&board, index, value);
        assert_eq!((*count.lock(), board.level(8)), (1, true), "{index:#x}");
        assert_eq!(get(&board, C) & (C_IRQ | B_AIE), C_IRQ | B_AIE, "{index:#x}");
        board.advance(5_000_000_000);
        assert_eq!((*count.lock(), board.level(8)), (1, false), "once: {index:#x}");
    }
    // When it is disabled it has gone off before.
    let (board, _rtc, count) = with_alarm();
    board.clock.set(6_500_000_000);
    set(&board, B, B_24H);
    assert_eq!((*count.lock(), board.level(8)), (1, false));
    assert_eq!(get(&board, C) & (C_IRQ | B_AIE), B_AIE);
    // The second of two, with the first still up, and the clock set: each minute at second 5.
    let (board, _rtc, count) = with_alarm();
    set(&board, HOURS_ALARM, 0xff);
    set(&board, MINUTES_ALARM, 0xff);
    board.advance(6_500_000_000);
    assert_eq!(*count.lock(), 1);
    board.clock.set(66_500_000_000);
    set(&board, HOURS, 0x12);
    assert_eq!((*count.lock(), board.level(8)), (2, true));
}

#[test]
fn what_has_come_goes_by_the_coding_that_was() {
    // Alarm; register B before and after; whether it goes off within 18.5 s past midnight.
    for (alarm, before, after, comes) in [
        ([0, 0, 0x10], B_24H, B_24H | B_BINARY, true),
        ([0, 0, 0x19], B_24H, B_24H | B_BINARY, false),
        ([0, 0, 0x12], B_24H | B_BINARY, B_24H, true),
        ([0, 0, 0x16], B_24H | B_BINARY, B_24H, false),
        ([0x12, 0, 5], B_24H, 0, false),
        ([0x12, 0, 5], 0, B_24H, true),
    ] {
        let (board, rtc) = rig();
        let count = Arc::new(Mutex::new(0));
        let told = count.clone();
        rtc.on_alarm(Box::new(move || *told.lock() += 1));
        set(&board, B, before);
        for (index, value) in [HOURS_ALARM, MINUTES_ALARM, SECONDS_ALARM].into_iter().zip(alarm) {
            set(&board, index, value);
        }
        get(&board, C);
        set(&board, B, before | B_AIE);
        board.clock.set(20_000_000_000);
        set(&board, B, after | B_AIE);
        let case = (alarm, before, after);
        assert_eq!((*count.lock(), board.level(8)), (u32::from(comes), comes), "{case:x?}");
        assert_eq!(get(&board, C) & B_AIE != 0, comes, "{case:x?}");
    }
}

#[test]
fn floppy_drives_are_told() {
    let (board, _rtc) = rig();
    assert_eq!((get(&board, 0x10), get(&board, 0x14)), (0x45, 0x47));
    let one = initial_memory(&CmosConfig { floppies: [4, 0], ..CmosConfig::default() });
    assert_eq!((one[0x10], one[0x14]), (0x40, 0x07));
    assert_eq!(initial_memory(&CmosConfig::default())[0x14], 0x06);
}

#[test]
fn each_alarm_is_told_of_and_nothing_else() {
    let (board, rtc) = rig();
    let count = Arc::new(Mutex::new(0));
    let told = count.clone();
    rtc.on_alarm(Box::new(move || *told.lock() += 1));
    // Not at midnight.
    set(&board, HOURS_ALARM, 0x12);
    // A periodic interrupt and that of each second hold the line; nobody reads register C.
    set(&board, B, B_24H | B_PIE | B_UIE);
    board.advance(5 * 1_000_000_000);
    assert!(board.level(8) && *count.lock() == 0);
    // Every minute at second 10, while the line is held.
    set(&board, SECONDS_ALARM, 0x10);
    set(&board, MINUTES_ALARM, 0xff);
    set(&board, HOURS_ALARM, 0xff);
    set(&board, B, B_24H | B_PIE | B_UIE | B_AIE);
    assert_eq!(*count.lock(), 0);
    for minute in 1..4 {
        board.advance(60 * 1_000_000_000);
        assert_eq!(*count.lock(), minute);
    }
    assert_eq!(board.edges(8), 1);
    // With the line taken over by the HPET.
    get(&board, C);
    rtc.set_replaced(true);
    board.advance(60 * 1_000_000_000);
    assert_eq!((*count.lock(), board.level(8)), (4, false));
    // Saved in between, the next one is told of once.
    let saved = rtc.save();
    rtc.restore(&saved).unwrap();
    assert_eq!((*count.lock(), rtc.save()), (4, saved));
    // Not when it is not enabled; and once when it is then enabled.
    set(&board, B, B_24H);
    get(&board, C);
    board.advance(60 * 1_000_000_000);
    assert_eq!(*count.lock(), 4);
    set(&board, B, B_24H | B_AIE);
    assert_eq!(*count.lock(), 5);
}
