use super::*;
use crate::testing::Board;

/// 2024-02-29 23:59:58.5 UTC, a Thursday.
const START: u64 = 1_709_251_198_500_000_000;

/// Where the tests have the wire to power management.
const EVENT: u32 = 31;

fn rig() -> (Board, Arc<Rtc>) {
    let board = Board::new();
    board.clock.set_wall_at_zero(START);
    let config = CmosConfig { memory_below_4g: 3 << 30, memory_above_4g: 1 << 30, vcpus: 4, floppies: [4, 5] };
    let rtc = Rtc::new(config, &board.timers, board.line(8), board.line(EVENT));
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

#[test]
fn floppy_drives_are_told() {
    let (board, _rtc) = rig();
    assert_eq!((get(&board, 0x10), get(&board, 0x14)), (0x45, 0x47));
    let one = initial_memory(&CmosConfig { floppies: [4, 0], ..CmosConfig::default() });
    assert_eq!((one[0x10], one[0x14]), (0x40, 0x07));
    assert_eq!(initial_memory(&CmosConfig::default())[0x14], 0x06);
}

/// Linux lets the HPET have interrupt 8, and is woken by the alarm all the same.
#[test]
fn an_alarm_is_an_event_though_the_hpet_has_the_interrupt() {
    let (board, rtc) = rig();
    rtc.set_replaced(true);
    set(&board, B, B_AIE | B_24H);
    for (index, value) in [(HOURS_ALARM, 0x00), (MINUTES_ALARM, 0x00), (SECONDS_ALARM, 0x01)] {
        set(&board, index, value);
    }
    board.advance(2_000_000_000);
    assert_eq!((board.level(EVENT), board.edges(EVENT)), (false, 0), "not yet");
    board.advance(1_000_000_000);
    assert_eq!((board.level(EVENT), board.edges(EVENT), board.edges(8)), (true, 1, 0));
    get(&board, C);
    assert!(!board.level(EVENT));
    // Without the HPET both wires say the same.
    rtc.set_replaced(false);
    board.advance(24 * 3600 * 1_000_000_000);
    assert_eq!((board.edges(EVENT), board.edges(8)), (2, 1));
}
