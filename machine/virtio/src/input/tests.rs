use lodge_bus::{PauseDevice, ResetDevice, SaveDevice};
use lodge_input::Desk;

use super::state::MOST_REPORTS;
use super::*;
use crate::testing::{DATA, Driver, wait_for};
use crate::transport::registers::DEVICE_OFFSET;

const SYN: Event = (kind::SYN, 0, 0);

struct Rig {
    driver: Driver,
    tablet: Arc<Tablet>,
}

fn rig() -> Rig {
    let tablet = Tablet::new("tablet");
    let driver = Driver::new(tablet.clone());
    driver.start(0);
    Rig { driver, tablet }
}

impl Rig {
    /// Gives a buffer for an event.
    fn offer(&self, descriptor: u16, room: u32) {
        self.driver.submit(EVENTS, descriptor, &[(DATA + 64 * u64::from(descriptor), room, true)]);
    }

    /// The next event told.
    fn told(&self) -> Event {
        let (descriptor, written) = self.driver.complete(EVENTS);
        assert_eq!(written, 8);
        let event = self.driver.get(DATA + 64 * u64::from(descriptor), 8);
        let word = |at| u16::from_le_bytes([event[at], event[at + 1]]);
        (word(0), word(2), u32::from(word(4)) | u32::from(word(6)) << 16)
    }

    /// Gives so many buffers; what comes in them.
    fn events(&self, count: usize) -> Vec<Event> {
        let event = |n: usize| {
            self.offer(n as u16 % 16, 8);
            self.told()
        };
        (0..count).map(event).collect()
    }

    fn select(&self, select: u8, subsel: u8) -> Vec<u8> {
        self.driver.write(DEVICE_OFFSET, 1, select.into());
        self.driver.write(DEVICE_OFFSET + 1, 1, subsel.into());
        let size = self.driver.config(2, 1);
        let all: Vec<_> = (0..128).map(|at| self.driver.config(8 + at, 1) as u8).collect();
        assert!(all[size as usize..].iter().all(|byte| *byte == 0));
        all[..size as usize].to_vec()
    }
}

#[test]
fn what_a_driver_finds() {
    let rig = rig();
    assert_eq!(rig.driver.function.device().class(), [9, 0x80, 0]);
    assert_eq!(rig.driver.offered(), crate::feature::COMMON);
    assert_eq!(rig.select(select::ID_NAME, 0), NAME);
    assert_eq!(rig.select(select::ID_DEVIDS, 0), [6, 0, 0x27, 0x06, 3, 0, 2, 0]);
    assert_eq!(rig.select(select::EV_BITS, 1)[34..], [0x1f], "buttons from 0x110 on");
    assert_eq!(rig.select(select::EV_BITS, 2), [0, 1]);
    assert_eq!(rig.select(select::EV_BITS, 3), [3]);
    for axis in [0, 1] {
        let mut expected = vec![0; 20];
        expected[4..6].copy_from_slice(&[0xff, 0x7f]);
        assert_eq!(rig.select(select::ABS_INFO, axis), expected);
    }
    for (select, subsel) in [(0, 0), (1, 1), (2, 0), (3, 1), (0x10, 0), (0x11, 0), (0x11, 0x11), (0x12, 2), (255, 255)]
    {
        assert_eq!(rig.select(select, subsel), [], "{select} {subsel}");
    }
    // Both at once, and what is reserved or beyond.
    rig.driver.write(DEVICE_OFFSET, 4, 0xffff_0312);
    assert_eq!(rig.driver.config(0, 4), 0x0312);
    assert_eq!(rig.driver.config(132, 8), 0);
}

#[test]
fn what_the_desk_says_is_told() {
    let tablet = Tablet::new("tablet");
    let driver = Driver::new(tablet.clone());
    let desk = Desk::new();
    let pointer: Arc<dyn Pointer> = tablet.clone();
    desk.connect_tablet(Arc::downgrade(&pointer));
    desk.position(1, 1);
    assert!(!desk.is_absolute(), "nobody has a driver for it");
    driver.start(0);
    let rig = Rig { driver, tablet };
    assert!(desk.is_absolute());
    desk.position(0xffff, 0);
    desk.button(Button::Left, true);
    desk.wheel(-2);
    desk.wheel(1);
    desk.button(Button::Forward, true);
    desk.button(Button::Left, false);
    desk.motion(4, 4);
    let expected = [
        (kind::ABS, code::ABS_X, 0x7fff),
        (kind::ABS, code::ABS_Y, 0),
        SYN,
        (kind::KEY, code::BTN_LEFT, 1),
        SYN,
        (kind::REL, code::REL_WHEEL, 1),
        SYN,
        (kind::KEY, code::BTN_EXTRA, 1),
        SYN,
        (kind::KEY, code::BTN_LEFT, 0),
        SYN,
    ];
    assert_eq!(rig.events(11), expected);
    desk.wheel(3);
    assert_eq!(rig.events(2), [(kind::REL, code::REL_WHEEL, -3i32 as u32), SYN]);
    // Buffers that wait are used at once.
    rig.offer(0, 8);
    rig.offer(1, 8);
    desk.button(Button::Right, true);
    assert_eq!([rig.told(), rig.told()], [(kind::KEY, code::BTN_RIGHT, 1), SYN]);
    ResetDevice::reset(&*rig.driver.function);
    assert!(!desk.is_absolute());
}

#[test]
fn a_tablet_that_its_driver_broke_leaves_the_pointer_to_the_mouse() {
    let rig = rig();
    assert!(rig.tablet.is_absolute());
    rig.driver.submit(EVENTS, 0, &[(1 << 60, 8, true)]);
    rig.tablet.position(2, 2);
    wait_for("the device's end", || rig.driver.status() & 0x40 != 0);
    assert!(!rig.tablet.is_absolute());
}

#[test]
fn a_guest_that_does_not_listen_hears_what_it_came_to() {
    let rig = rig();
    rig.tablet.position(2, 2);
    rig.tablet.position(4, 4);
    assert_eq!(rig.tablet.volatile.lock().state.reports, [Report::Position(2, 2)]);
    for n in 0..1000u16 {
        rig.tablet.button(Button::Left, n % 2 == 0);
        rig.tablet.position(n, n);
        rig.tablet.wheel(-1);
        assert!(rig.tablet.volatile.lock().state.reports.len() <= MOST_REPORTS);
    }
    rig.tablet.button(Button::Middle, true);
    rig.tablet.wheel(i32::MIN);
    rig.tablet.wheel(i32::MIN);
    let (mut place, mut buttons, mut turned) = ((0, 0), [0; 2], 0i64);
    while !rig.tablet.volatile.lock().state.is_idle() {
        match rig.events(1)[0] {
            (kind::ABS, code::ABS_X, x) => place.0 = x,
            (kind::ABS, code::ABS_Y, y) => place.1 = y,
            (kind::KEY, code::BTN_LEFT, down) => buttons[0] = down,
            (kind::KEY, code::BTN_MIDDLE, down) => buttons[1] = down,
            (kind::REL, code::REL_WHEEL, by) => turned += i64::from(by as i32),
            other => assert_eq!(other, SYN),
        }
    }
    assert_eq!((place, buttons), ((499, 499), [0, 1]));
    assert!(turned >= i64::from(i32::MAX), "{turned}");
}

#[test]
fn buffers_without_room_come_back() {
    let rig = rig();
    rig.offer(0, 7);
    rig.driver.submit(EVENTS, 1, &[(DATA, 64, false)]);
    rig.tablet.button(Button::Left, true);
    assert_eq!((rig.driver.complete(EVENTS), rig.driver.complete(EVENTS)), ((0, 0), (1, 0)));
    assert_eq!(rig.events(2), [(kind::KEY, code::BTN_LEFT, 1), SYN]);
    // The queue of states takes what comes.
    rig.driver.submit(STATUS, 0, &[(DATA, 8, false)]);
    assert_eq!(rig.driver.complete(STATUS), (0, 0));
    assert_eq!(rig.driver.status(), 15);
}

#[test]
fn state_is_restored_in_mid_report() {
    let rig = rig();
    rig.tablet.position(0x8000, 6);
    rig.tablet.button(Button::Right, true);
    assert_eq!(rig.events(1), [(kind::ABS, code::ABS_X, 0x4000)]);
    rig.select(select::ABS_INFO, 1);
    let function = &rig.driver.function;
    function.pause();
    let saved = function.save();
    ResetDevice::reset(&**function);
    assert_ne!(function.save(), saved);
    function.restore(&saved).unwrap();
    assert_eq!(function.save(), saved);
    function.resume();
    assert_eq!(rig.driver.config(0, 2), 0x0112);
    assert!(rig.tablet.is_absolute());
    let expected = [(kind::ABS, code::ABS_Y, 3), SYN, (kind::KEY, code::BTN_RIGHT, 1), SYN];
    assert_eq!(rig.events(4), expected);
    assert_eq!(rig.events(2), [(kind::KEY, code::BTN_RIGHT, 0), SYN], "nobody holds it any more");
    wait_for("the end", || rig.tablet.volatile.lock().state.is_idle());
    for wrong in [
        TabletState { reports: vec![Report::Wheel(1); MOST_REPORTS + 1].into(), ..TabletState::default() },
        TabletState { events: vec![SYN; 4].into(), ..TabletState::default() },
        TabletState { held: [0].into(), ..TabletState::default() },
    ] {
        assert!(rig.tablet.restore(&lodge_savestate::to_record(&wrong)).is_err());
    }
}

#[test]
fn buttons_that_were_held_are_released_where_the_state_goes_on() {
    let rig = rig();
    rig.tablet.button(Button::Left, true);
    rig.tablet.button(Button::Middle, true);
    rig.tablet.button(Button::Middle, false);
    rig.tablet.button(Button::Back, true);
    assert_eq!(rig.events(8).len(), 8);
    wait_for("the end", || rig.tablet.volatile.lock().state.is_idle());
    let function = &rig.driver.function;
    // A buffer waits.
    rig.offer(8, 8);
    function.pause();
    let saved = function.save();
    function.restore(&saved).unwrap();
    assert_eq!(function.save(), saved, "it is what was saved, until it goes on");
    function.resume();
    assert_eq!(rig.told(), (kind::KEY, code::BTN_LEFT, 0));
    assert_eq!(rig.events(3), [SYN, (kind::KEY, code::BTN_SIDE, 0), SYN]);
    // What is pressed then is, behind the releases.
    function.pause();
    let saved = function.save();
    function.restore(&saved).unwrap();
    rig.tablet.button(Button::Left, true);
    function.resume();
    assert_eq!(rig.events(2), [(kind::KEY, code::BTN_LEFT, 1), SYN]);
    function.pause();
    let saved = function.save();
    function.restore(&saved).unwrap();
    rig.tablet.button(Button::Left, true);
    function.resume();
    let expected = [(kind::KEY, code::BTN_LEFT, 0), SYN, (kind::KEY, code::BTN_LEFT, 1), SYN];
    assert_eq!(rig.events(4), expected);
}
