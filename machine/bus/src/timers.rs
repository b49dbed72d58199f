//! Calls devices back at moments of guest time.
//!
//! [`Timers`] holds one thread that sleeps in a timerfd set to the earliest deadline. Arming a [`Timer`] puts it into
//! the queue and, only if it becomes the earliest, sets the timerfd: no other thread is woken. With nothing armed
//! nothing ever wakes. Each timer is in the queue at most once, so a guest can't make it grow.
//!
//! ```text
//!            arm_at                     deadline passed
//!  idle ----------------> armed ----------------------------> idle, call-back runs
//!    ^                     |  ^ arm_at (re-arm)
//!    +------ cancel -------+
//! ```
//!
//! The call-back runs on the timer thread with no lock of this module held, and may arm timers. It can race with a
//! cancel or a re-arm on another thread: a device compares its own idea of the deadline with the clock under its lock.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::{Clock, MockClock};

type CallBack = Box<dyn Fn() + Send + Sync>;

struct Entry {
    deadline: Option<u64>,
    call_back: Weak<CallBack>,
}

#[derive(Default)]
struct Queue {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    order: BTreeSet<(u64, usize)>,
    /// What the timerfd is set to, in guest time.
    set_to: Option<u64>,
    stopped: bool,
}

struct Shared {
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    timerfd: OnceLock<OwnedFd>,
}

impl Shared {
    /// Makes the timerfd agree with the head of the queue.
    fn sync(&self, queue: &mut Queue) {
        let Some(timerfd) = self.timerfd.get() else { return };
        let head = queue.order.first().map(|(deadline, _)| *deadline);
        let host = head.and_then(|head| self.clock.to_host_ns(head));
        let wanted = host.and(head);
        if queue.set_to == wanted {
            return;
        }
        queue.set_to = wanted;
        set_timerfd(timerfd, host);
    }

    /// Removes what is due and returns the call-backs to run, earliest first.
    fn take_due(&self) -> Vec<Arc<CallBack>> {
        let now = self.clock.now_ns();
        let mut queue = self.queue.lock();
        let mut due = Vec::new();
        while let Some(&(deadline, index)) = queue.order.first()
            && deadline <= now
        {
            queue.order.pop_first();
            if let Some(entry) = queue.entries[index].as_mut() {
                entry.deadline = None;
                due.extend(entry.call_back.upgrade());
            }
        }
        due
    }
}

/// Sets the timerfd to a moment of CLOCK_MONOTONIC, or disarms it.
fn set_timerfd(timerfd: &OwnedFd, host_ns: Option<u64>) {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let it_value = match host_ns {
        // A zero value would disarm.
        Some(ns) => {
            let ns = ns.clamp(1, i64::MAX as u64);
            Timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 }
        }
        None => zero,
    };
    let spec = Itimerspec { it_interval: zero, it_value };
    if let Err(error) = timerfd_settime(timerfd, TimerfdTimerFlags::ABSTIME, &spec) {
        tracing::error!(%error, "the host's timer could not be set");
    }
}

/// The timer service of one machine. A clone is another handle on the same one.
#[derive(Clone)]
pub struct Timers {
    shared: Arc<Shared>,
    _thread: Option<Arc<Thread>>,
}

struct Thread {
    shared: Arc<Shared>,
    handle: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Timers {
    /// A service that follows `clock`, with its thread.
    ///
    /// # Errors
    /// The host gives no timerfd or no thread.
    pub fn new(clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let timerfd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let shared = Arc::new(Shared { clock, queue: Mutex::default(), timerfd: OnceLock::from(timerfd) });
        let on_thread = shared.clone();
        let handle = std::thread::Builder::new().name("timers".into()).spawn(move || serve(&on_thread))?;
        let thread = Thread { shared: shared.clone(), handle: Mutex::new(Some(handle)) };
        Ok(Self { shared, _thread: Some(Arc::new(thread)) })
    }

    /// A service without a thread, whose time [`Timers::advance`] moves.
    pub fn mock(clock: Arc<MockClock>) -> Self {
        let shared = Arc::new(Shared { clock, queue: Mutex::default(), timerfd: OnceLock::new() });
        Self { shared, _thread: None }
    }

    /// The clock it follows.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// A new timer, idle. Dropping it cancels it.
    pub fn timer(&self, call_back: impl Fn() + Send + Sync + 'static) -> Timer {
        let call_back: Arc<CallBack> = Arc::new(Box::new(call_back));
        let entry = Entry { deadline: None, call_back: Arc::downgrade(&call_back) };
        let mut queue = self.shared.queue.lock();
        let index = match queue.free.pop() {
            Some(index) => {
                queue.entries[index] = Some(entry);
                index
            }
            None => {
                queue.entries.push(Some(entry));
                queue.entries.len() - 1
            }
        };
        drop(queue);
        Timer { shared: self.shared.clone(), index, _call_back: call_back }
    }

    /// The clock was paused, resumed or set.
    pub fn clock_changed(&self) {
        let mut queue = self.shared.queue.lock();
        queue.set_to = None;
        if let Some(timerfd) = self.shared.timerfd.get() {
            set_timerfd(timerfd, None);
        }
        self.shared.sync(&mut queue);
    }

    /// The earliest deadline of all timers, in guest time.
    pub fn next_deadline(&self) -> Option<u64> {
        self.shared.queue.lock().order.first().map(|(deadline, _)| *deadline)
    }

    /// Moves a mock clock forward by `ns`, stopping at each deadline on the way to run what is due there. At most
    /// 100,000 deadlines are served, so that a test of a device that re-arms without moving forward ends.
    pub fn advance(&self, clock: &MockClock, ns: u64) {
        let end = clock.now_ns().saturating_add(ns);
        for _ in 0..100_000 {
            let Some(deadline) = self.next_deadline().filter(|deadline| *deadline <= end) else { break };
            clock.set(deadline.max(clock.now_ns()));
            for call_back in self.shared.take_due() {
                call_back();
            }
        }
        clock.set(end);
    }
}

fn serve(shared: &Shared) {
    let Some(timerfd) = shared.timerfd.get() else { return };
    loop {
        let mut count = [0; 8];
        match rustix::io::read(timerfd, &mut count) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "the host's timer failed; guest timers stop");
                return;
            }
        }
        {
            let mut queue = shared.queue.lock();
            if queue.stopped {
                return;
            }
            queue.set_to = None;
        }
        for call_back in shared.take_due() {
            call_back();
        }
        let mut queue = shared.queue.lock();
        if queue.stopped {
            return;
        }
        shared.sync(&mut queue);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.queue.lock().stopped = true;
        if let Some(timerfd) = self.shared.timerfd.get() {
            set_timerfd(timerfd, Some(1));
        }
        let handle = self.handle.lock().take();
        // The last handle may be dropped by a call-back, on the thread itself.
        if let Some(handle) = handle
            && handle.thread().id() != std::thread::current().id()
            && handle.join().is_err()
        {
            tracing::error!("the timer thread panicked");
        }
    }
}

/// One timer.
pub struct Timer {
    shared: Arc<Shared>,
    index: usize,
    _call_back: Arc<CallBack>,
}

impl Timer {
    /// Calls back once guest time reaches `deadline_ns` (at once if it has). Replaces an earlier deadline.
    pub fn arm_at(&self, deadline_ns: u64) {
        self.change(Some(deadline_ns));
    }

    /// Arms, or cancels where there is no deadline.
    pub fn set(&self, deadline_ns: Option<u64>) {
        self.change(deadline_ns);
    }

    /// Does not call back, but for a call that is on its way already.
    pub fn cancel(&self) {
        self.change(None);
    }

    /// When it will call back.
    pub fn deadline(&self) -> Option<u64> {
        self.shared.queue.lock().entries.get(self.index)?.as_ref()?.deadline
    }

    fn change(&self, deadline: Option<u64>) {
        let mut queue = self.shared.queue.lock();
        let queue = &mut *queue;
        let Some(entry) = queue.entries.get_mut(self.index).and_then(Option::as_mut) else { return };
        if entry.deadline == deadline {
            return;
        }
        let old = std::mem::replace(&mut entry.deadline, deadline);
        if let Some(old) = old {
            queue.order.remove(&(old, self.index));
        }
        if let Some(deadline) = deadline {
            queue.order.insert((deadline, self.index));
        }
        self.shared.sync(queue);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.change(None);
        let mut queue = self.shared.queue.lock();
        queue.entries[self.index] = None;
        queue.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::clock::HostClock;

    #[test]
    fn mock_timers_run_in_order_at_their_deadlines() {
        let clock = Arc::new(MockClock::new());
        let timers = Timers::mock(clock.clone());
        let log = Arc::new(Mutex::new(Vec::new()));
        let make = |name: char| {
            let (log, clock) = (log.clone(), clock.clone());
            timers.timer(move || log.lock().push((name, clock.now_ns())))
        };
        let (a, b, c) = (make('a'), make('b'), make('c'));
        a.arm_at(300);
        b.arm_at(100);
        c.arm_at(200);
        c.cancel();
        b.arm_at(150);
        assert_eq!(timers.next_deadline(), Some(150));
        timers.advance(&clock, 299);
        assert_eq!(*log.lock(), [('b', 150)]);
        timers.advance(&clock, 1);
        assert_eq!(*log.lock(), [('b', 150), ('a', 300)]);
        drop(a);
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn a_host_timer_fires_and_a_paused_clock_holds_it() {
        let clock = Arc::new(HostClock::new());
        let timers = Timers::new(clock.clone()).unwrap();
        let (sender, receiver) = mpsc::channel();
        let timer = timers.timer(move || sender.send(()).unwrap());
        timer.arm_at(clock.now_ns() + 1_000_000);
        receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(timer.deadline(), None);
        clock.pause();
        timers.clock_changed();
        timer.arm_at(clock.now_ns() + 1_000_000);
        assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err(), "guest time stands still");
        clock.resume();
        timers.clock_changed();
        receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn the_service_ends_when_its_last_handle_goes_even_from_a_call_back() {
        let clock = Arc::new(HostClock::new());
        let timers = Timers::new(clock.clone()).unwrap();
        let weak = Arc::downgrade(&timers.shared);
        let slot = Arc::new(Mutex::new(Some(timers.clone())));
        let calls = Arc::new(AtomicU32::new(0));
        let (sender, receiver) = mpsc::channel();
        let timer = {
            let (slot, calls) = (slot.clone(), calls.clone());
            timers.timer(move || {
                slot.lock().take();
                calls.fetch_add(1, Ordering::Relaxed);
                sender.send(()).unwrap();
            })
        };
        drop(timers);
        timer.arm_at(0);
        receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        drop(timer);
        while weak.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
