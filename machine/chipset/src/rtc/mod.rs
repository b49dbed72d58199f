//! The MC146818A real-time clock with 128 bytes of CMOS memory.
//!
//! [`Rtc`] shows the host's wall clock plus whatever the guest has set it ahead by. Nothing ticks: the time and the flags of
//! register C are derived when read; a timer is armed only for an enabled interrupt, and not again until the guest has
//! read register C, but for the alarm, which is told of each time: it wakes the machine ([`Rtc::on_alarm`]).
//!
//! A pause is no time for the guest, but by this clock the guest learns that there was one: time and alarm go by the host's wall
//! clock, as they do on QEMU. An alarm is not put off by a pause before it; one that passes during a pause goes off when that
//! ends, and does not end it.
//!
//! ```text
//!              SET or divider reset                 both cleared: the registers become the time
//!   running ------------------------> stopped ------------------------------------------------> running
//! ```

mod calendar;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock, Weak};

use lodge_bus::{
    AccessError, Clock, Device, IrqLine, PauseDevice, PortDevice, PortRange, ResetDevice, SaveDevice, StateError,
    Timer, Timers, Width,
};
use parking_lot::Mutex;
use registers::*;
pub use state::RtcState;

use calendar::Date;

const SECOND: i64 = 1_000_000_000;
/// UIP rises this long before an update (MC146818A "Update cycle").
const UIP_LEAD: i64 = 244_000;
/// The clock stands still here rather than leave what 64 bits of nanoseconds hold (the year 2255).
const LIMIT: i64 = 9_000_000_000_000_000_000;

/// What CMOS memory tells about the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CmosConfig {
    /// Bytes of RAM below 4 GiB.
    pub memory_below_4g: u64,
    /// Bytes of RAM above 4 GiB.
    pub memory_above_4g: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// Kinds of the two floppy drives: 0 for none, 1 to 5 for 360, 1200, 720, 1440 and 2880 KiB (Ralf Brown, CMOS 10h).
    pub floppies: [u8; 2],
}

struct Volatile {
    index: u8,
    memory: [u8; 128],
    ahead: i64,
    stopped: Option<i64>,
    seen: i64,
    /// Flags that were up when the time was changed.
    kept: u8,
    replaced: bool,
    /// The alarm's flag was up, and enabled, when that was last looked at.
    alarm: bool,
    /// The clock's time up to which alarms have been told of.
    told: i64,
}

/// Called when the alarm goes off.
pub type Alarm = Box<dyn Fn() + Send + Sync>;

/// The real-time clock.
pub struct Rtc {
    // configuration
    config: CmosConfig,
    // wiring
    clock: Arc<dyn Clock>,
    irq: IrqLine,
    timer: Timer,
    alarm: OnceLock<Alarm>,
    // volatile
    volatile: Mutex<Volatile>,
}

impl Rtc {
    /// A clock that drives `irq` (ISA interrupt 8).
    pub fn new(config: CmosConfig, timers: &Timers, irq: IrqLine) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let timer = timers.timer(move || {
                if let Some(this) = this.upgrade() {
                    this.update(&mut this.volatile.lock());
                }
            });
            let clock = timers.clock().clone();
            let seen = clock.wall_ns() as i64;
            let memory = initial_memory(&config);
            let volatile = Volatile {
                index: 0,
                memory,
                ahead: 0,
                stopped: None,
                seen,
                kept: 0,
                replaced: false,
                alarm: false,
                told: seen,
            };
            Self { config, clock, irq, timer, alarm: OnceLock::new(), volatile: Mutex::new(volatile) }
        })
    }

    /// Has `alarm` called when the alarm goes off, if it is enabled: each time, whatever else holds the line, and with the line
    /// taken over by the HPET, too. To be called once.
    pub fn on_alarm(&self, alarm: Alarm) {
        // The first one stays.
        let _ = self.alarm.set(alarm);
    }

    /// The HPET takes interrupt 8 over, or gives it back.
    pub fn set_replaced(&self, replaced: bool) {
        let mut volatile = self.volatile.lock();
        volatile.replaced = replaced;
        self.update(&mut volatile);
    }

    /// What the guest left for firmware to do after a reset; zero for nothing.
    pub fn shutdown_status(&self) -> u8 {
        self.volatile.lock().memory[usize::from(SHUTDOWN)]
    }

    /// Sets a byte of CMOS memory, of those beyond the clock's registers.
    pub fn set_byte(&self, index: u8, value: u8) {
        if index > D && index < 128 {
            self.volatile.lock().memory[usize::from(index)] = value;
        }
    }

    /// The clock's time in nanoseconds since 1970.
    fn time(&self, volatile: &Volatile) -> i64 {
        let running = || (self.clock.wall_ns() as i64).saturating_add(volatile.ahead);
        volatile.stopped.unwrap_or_else(running).clamp(-LIMIT, LIMIT)
    }

    /// Drives the line, and arms the timer for what could raise it.
    fn update(&self, volatile: &mut Volatile) {
        let now = self.time(volatile);
        let enabled = volatile.memory[usize::from(B)] & (B_PIE | B_AIE | B_UIE);
        let pending = volatile.flags(now) & enabled != 0;
        self.irq.set(pending && !volatile.replaced);
        self.tell(volatile, now);
        let next = match volatile.stopped {
            Some(_) => None,
            // The alarm is told of each time, the line is raised once.
            None if pending || volatile.replaced => volatile.next_flag(now, enabled & B_AIE),
            None => volatile.next_flag(now, enabled),
        };
        self.timer.set(next.map(|next| self.clock.now_ns().saturating_add(next.saturating_sub(now).max(0) as u64)));
    }

    /// Tells of an alarm that has gone off.
    fn tell(&self, volatile: &mut Volatile, now: i64) {
        if volatile.alarm_goes_off(now)
            && let Some(alarm) = self.alarm.get()
        {
            alarm();
        }
    }

    /// Tells of what has come so far and keeps its flags, before that changes which they are derived from.
    fn settle(&self, volatile: &mut Volatile, now: i64) {
        self.tell(volatile, now);
        volatile.kept = volatile.flags(now);
        (volatile.seen, volatile.told) = (now, now);
    }

    fn read(&self, volatile: &mut Volatile) -> u8 {
        let now = self.time(volatile);
        let index = volatile.index;
        match index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY if volatile.stopped.is_none() => {
                volatile.show(now, index)
            }
            A => {
                let updating = volatile.stopped.is_none() && now.rem_euclid(SECOND) >= SECOND - UIP_LEAD;
                volatile.memory[usize::from(A)] | if updating { A_UIP } else { 0 }
            }
            C => {
                let flags = volatile.flags(now);
                let enabled = volatile.memory[usize::from(B)] & flags & 0x70 != 0;
                // The guest may be here before the timer.
                self.tell(volatile, now);
                (volatile.seen, volatile.kept) = (now, 0);
                self.update(volatile);
                flags | if enabled { C_IRQ } else { 0 }
            }
            D => D_VALID,
            _ => volatile.memory[usize::from(index)],
        }
    }

    fn write(&self, volatile: &mut Volatile, value: u8) {
        let index = volatile.index;
        match index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY => {
                let now = self.time(volatile);
                if volatile.stopped.is_some() {
                    volatile.memory[usize::from(index)] = value;
                } else {
                    // Set while running: that field changes at once.
                    self.settle(volatile, now);
                    volatile.store(now);
                    volatile.memory[usize::from(index)] = value;
                    volatile.ahead = volatile.ahead.saturating_add(volatile.load(now).saturating_sub(now));
                    volatile.seen = self.time(volatile);
                    volatile.told = volatile.seen;
                }
            }
            SECONDS_ALARM | MINUTES_ALARM | HOURS_ALARM => {
                self.settle(volatile, self.time(volatile));
                volatile.memory[usize::from(index)] = value;
            }
            A | B => {
                let now = self.time(volatile);
                // By the periods, enables and codings that were.
                self.settle(volatile, now);
                volatile.memory[usize::from(index)] = if index == A { value & !A_UIP } else { value };
                self.start_or_stop(volatile, now);
            }
            C | D => {}
            _ => volatile.memory[usize::from(index)] = value,
        }
        self.update(volatile);
    }

    fn start_or_stop(&self, volatile: &mut Volatile, now: i64) {
        let setting = volatile.memory[usize::from(B)] & B_SET != 0;
        let divider = volatile.memory[usize::from(A)] & A_DIVIDER >= 6 << 4;
        match (setting || divider, volatile.stopped) {
            (true, None) => {
                volatile.store(now);
                volatile.stopped = Some(now);
            }
            (false, Some(stopped)) => {
                let time = volatile.load(stopped);
                volatile.stopped = None;
                volatile.ahead = time.saturating_sub(self.clock.wall_ns() as i64);
                (volatile.seen, volatile.told) = (time, time);
            }
            _ => {}
        }
    }
}

impl Volatile {
    fn b(&self) -> u8 {
        self.memory[usize::from(B)]
    }

    fn encode(&self, value: u8) -> u8 {
        if self.b() & B_BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.b() & B_BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) }
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.b() & B_24H != 0 {
            return self.encode(hour);
        }
        let twelve = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(twelve) | if hour >= 12 { 0x80 } else { 0 }
    }

    fn decode_hour(&self, value: u8) -> u8 {
        if self.b() & B_24H != 0 {
            return self.decode(value);
        }
        let twelve = self.decode(value & 0x7f) % 12;
        twelve + if value & 0x80 != 0 { 12 } else { 0 }
    }

    /// A time register at a moment.
    fn show(&self, now: i64, index: u8) -> u8 {
        let date = calendar::from_seconds(now.div_euclid(SECOND));
        match index {
            SECONDS => self.encode(date.second),
            MINUTES => self.encode(date.minute),
            HOURS => self.encode_hour(date.hour),
            WEEKDAY => self.encode(date.weekday),
            DAY => self.encode(date.day),
            MONTH => self.encode(date.month),
            YEAR => self.encode(date.year.rem_euclid(100) as u8),
            _ => self.encode(date.year.div_euclid(100).rem_euclid(100) as u8),
        }
    }

    /// Writes a moment into the time registers.
    fn store(&mut self, now: i64) {
        for index in [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY] {
            self.memory[usize::from(index)] = self.show(now, index);
        }
    }

    /// The moment that the time registers show, with the fraction of a second from `fraction`.
    fn load(&self, fraction: i64) -> i64 {
        let field = |index: u8| self.decode(self.memory[usize::from(index)]);
        let date = Date {
            year: i64::from(field(CENTURY)) * 100 + i64::from(field(YEAR)),
            month: field(MONTH),
            day: field(DAY),
            weekday: 1,
            hour: self.decode_hour(self.memory[usize::from(HOURS)]),
            minute: field(MINUTES),
            second: field(SECONDS),
        };
        let whole = calendar::to_seconds(&date).saturating_mul(SECOND).clamp(-LIMIT, LIMIT - SECOND);
        whole + fraction.rem_euclid(SECOND)
    }

    /// The period of the periodic interrupt in units of 1/32768 s (table 5, 32.768 kHz time base).
    fn period(&self) -> Option<i64> {
        match self.memory[usize::from(A)] & A_RATE {
            0 => None,
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn alarm_matches(&self, second_of_day: i64) -> bool {
        let matches = |index: u8, value: u8| {
            let alarm = self.memory[usize::from(index)];
            let wanted = if index == HOURS_ALARM { self.decode_hour(alarm) } else { self.decode(alarm) };
            alarm >= ALARM_ANY || wanted == value
        };
        matches(SECONDS_ALARM, (second_of_day % 60) as u8)
            && matches(MINUTES_ALARM, (second_of_day / 60 % 60) as u8)
            && matches(HOURS_ALARM, (second_of_day / 3600) as u8)
    }

    /// The first second after `after` (both since 1970) at which the alarm goes off.
    fn next_alarm(&self, after: i64) -> Option<i64> {
        let mut step = 1;
        let mut at = after + 1;
        if self.memory[usize::from(SECONDS_ALARM)] < ALARM_ANY {
            let wanted = i64::from(self.decode(self.memory[usize::from(SECONDS_ALARM)]));
            at += (wanted - at).rem_euclid(60);
            step = 60;
        }
        // With any second, the first of a minute is as good: at most 1440 steps of 60, after up to 60 of 1.
        for _ in 0..60 + 1440 {
            if self.alarm_matches(at.rem_euclid(86_400)) {
                return Some(at);
            }
            if step == 1 && at.rem_euclid(60) == 0 {
                step = 60;
            }
            at += step;
        }
        None
    }

    /// The flags of register C, from what happened since it was last read.
    fn flags(&self, now: i64) -> u8 {
        let mut flags = self.kept;
        if self.stopped.is_some() || now <= self.seen {
            return flags;
        }
        let (from, to) = (self.seen.div_euclid(SECOND), now.div_euclid(SECOND));
        if to > from {
            flags |= B_UIE;
            if self.next_alarm(from).is_some_and(|at| at <= to) {
                flags |= B_AIE;
            }
        }
        if let Some(period) = self.period()
            && to_32k(now).div_euclid(period) > to_32k(self.seen).div_euclid(period)
        {
            flags |= B_PIE;
        }
        flags
    }

    /// Whether an alarm that is enabled has gone off since this was last asked.
    fn alarm_goes_off(&mut self, now: i64) -> bool {
        let up = self.flags(now) & self.b() & B_AIE != 0;
        let was_up = std::mem::replace(&mut self.alarm, up);
        let (from, to) = (self.told.div_euclid(SECOND), now.div_euclid(SECOND));
        let goes_off = up && (!was_up || to > from && self.next_alarm(from).is_some_and(|at| at <= to));
        if goes_off {
            self.told = now;
        }
        goes_off
    }

    /// When the first of the enabled flags rises after `now`.
    fn next_flag(&self, now: i64, enabled: u8) -> Option<i64> {
        let second = now.div_euclid(SECOND);
        let update = (enabled & B_UIE != 0).then(|| (second + 1) * SECOND);
        let alarm = self.next_alarm(second).filter(|_| enabled & B_AIE != 0).map(|at| at.saturating_mul(SECOND));
        let periodic = self.period().filter(|_| enabled & B_PIE != 0).map(|period| {
            let next = (to_32k(now).div_euclid(period) + 1) * period;
            // Round up, so that the boundary has passed.
            (i128::from(next) * i128::from(SECOND) + 32_767).div_euclid(32_768) as i64
        });
        [update, alarm, periodic].into_iter().flatten().min()
    }
}

/// Nanoseconds in units of 1/32768 s.
fn to_32k(ns: i64) -> i64 {
    (i128::from(ns) * 32_768).div_euclid(i128::from(SECOND)) as i64
}

fn initial_memory(config: &CmosConfig) -> [u8; 128] {
    let mut memory = [0; 128];
    memory[usize::from(A)] = 0x26;
    memory[usize::from(B)] = B_24H;
    let [first, second] = config.floppies;
    memory[FLOPPIES] = first << 4 | second & 0x0f;
    memory[EQUIPMENT] = match config.floppies.iter().filter(|kind| **kind != 0).count() {
        0 => EQUIPMENT_BASE,
        1 => EQUIPMENT_BASE | EQUIPMENT_FLOPPY,
        _ => EQUIPMENT_BASE | EQUIPMENT_FLOPPY | EQUIPMENT_TWO_FLOPPIES,
    };
    let mut put = |index: usize, value: u64, bytes: usize| {
        let most = (1u64 << (8 * bytes)) - 1;
        memory[index..index + bytes].copy_from_slice(&value.min(most).to_le_bytes()[..bytes]);
    };
    let kib = config.memory_below_4g >> 10;
    put(BASE_MEMORY, kib.min(640), 2);
    let extended = kib.saturating_sub(1024).min(63 << 10);
    put(EXTENDED_MEMORY, extended, 2);
    put(EXTENDED_MEMORY_2, extended, 2);
    put(MEMORY_ABOVE_16M, config.memory_below_4g.saturating_sub(16 << 20) >> 16, 2);
    put(MEMORY_ABOVE_4G, config.memory_above_4g >> 16, 3);
    put(MORE_CPUS, u64::from(config.vcpus.saturating_sub(1)), 1);
    memory
}

impl Device for Rtc {
    fn name(&self) -> &str {
        "rtc"
    }
    fn port(self: Arc<Self>) -> Option<Arc<dyn PortDevice>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn pausable(self: Arc<Self>) -> Option<Arc<dyn PauseDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl PortDevice for Rtc {
    fn port_ranges(&self) -> Vec<PortRange> {
        vec![PortRange { base: BASE, length: 2, region: 0, widths: Width::Byte }]
    }

    fn port_read(&self, _region: u8, offset: u16, _width: Width) -> Result<u32, AccessError> {
        if offset == 0 {
            // The index port is write-only.
            return Err(AccessError::Nobody);
        }
        Ok(self.read(&mut self.volatile.lock()).into())
    }

    fn port_write(&self, _region: u8, offset: u16, _width: Width, value: u32) -> Result<(), AccessError> {
        let mut volatile = self.volatile.lock();
        if offset == 0 {
            // Bit 7 masks NMIs, of which this board has none.
            volatile.index = value as u8 & 0x7f;
        } else {
            self.write(&mut volatile, value as u8);
        }
        Ok(())
    }
}

/// The clock has a battery: a reset clears only interrupt enables and flags (MC146818A "RESET"), and the shutdown status is
/// what the guest left for the firmware.
impl ResetDevice for Rtc {
    fn reset(&self) {
        let mut volatile = self.volatile.lock();
        volatile.memory[usize::from(B)] &= !(B_PIE | B_AIE | B_UIE);
        volatile.seen = self.time(&volatile);
        (volatile.told, volatile.kept) = (volatile.seen, 0);
        let fresh = initial_memory(&self.config);
        volatile.memory[MORE_CPUS] = fresh[MORE_CPUS];
        volatile.replaced = false;
        self.update(&mut volatile);
    }
}

/// The wall clock goes on during a pause, and so does this one.
impl PauseDevice for Rtc {
    fn pause(&self) {}

    fn resume(&self) {
        self.update(&mut self.volatile.lock());
    }
}

impl SaveDevice for Rtc {
    fn save(&self) -> Vec<u8> {
        let volatile = self.volatile.lock();
        lodge_savestate::to_record(&RtcState {
            index: volatile.index,
            memory: volatile.memory.to_vec(),
            ahead: volatile.ahead,
            stopped: volatile.stopped,
            seen: volatile.seen,
            kept: volatile.kept,
            alarm: volatile.alarm,
            told: volatile.told,
        })
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: RtcState = StateError::read("rtc", record)?;
        let memory = <[u8; 128]>::try_from(state.memory)
            .map_err(|_| StateError { device: "rtc".into(), cause: "its memory has another size".into() })?;
        let mut volatile = self.volatile.lock();
        let replaced = volatile.replaced;
        let limited = |time: i64| time.clamp(-LIMIT, LIMIT);
        let (ahead, stopped, seen) = (state.ahead, state.stopped.map(limited), limited(state.seen));
        *volatile = Volatile {
            index: state.index & 0x7f,
            memory,
            ahead,
            stopped,
            seen,
            kept: state.kept & (B_PIE | B_AIE | B_UIE),
            replaced,
            alarm: state.alarm,
            told: limited(state.told),
        };
        self.update(&mut volatile);
        Ok(())
    }
}
