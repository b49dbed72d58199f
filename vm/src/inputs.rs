//! The one input boundary.
//!
//! Everything that reaches a vCPU and is not determined by the guest itself comes through [`Inputs`]: what devices
//! answer, interrupts and when they land, the time-stamp counter, the clock, random numbers. Today it only passes
//! through; record and replay will be built on this one type, so nothing may go around it: no engine is handed a
//! device, a clock or an interrupt controller.
//!
//! There is one [`Inputs`] per vCPU, used on that vCPU's thread alone. Other threads reach a vCPU through its [`Bell`]:
//! the interrupt controllers ring when there is something to take, the driver when the vCPU shall stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use lodge_bus::{Clock, MmioBus, PortBus};
use lodge_engine_api::{AccessError, ClockSample, CpuIo, Event, Notifier, Width};
use lodge_irq::{InterruptController, Waker};

use crate::clock::TimeSource;
use crate::tsc;

/// Gets one vCPU's attention, whether it runs or sleeps.
///
/// The sleeper sets `asleep`, then looks whether there is something; the ringer makes something, then looks whether
/// `asleep` is set. Both orders are sequentially consistent, so one of them sees the other, and `unpark` leaves a token
/// if it comes before `park`.
#[derive(Default)]
pub struct Bell {
    notifier: OnceLock<Arc<dyn Notifier>>,
    thread: OnceLock<Thread>,
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Bell {
    /// Ties the bell to a vCPU and to the thread that runs it, which is the calling one.
    pub fn tie(&self, notifier: Arc<dyn Notifier>) {
        // Whoever comes second would be a second thread for the same vCPU; the engine has refused it by now.
        let _ = self.notifier.set(notifier);
        let _ = self.thread.set(std::thread::current());
    }

    /// There is something to take.
    pub fn ring(&self) {
        if let Some(notifier) = self.notifier.get() {
            notifier.notify();
        }
        self.rouse();
    }

    /// The vCPU shall come back from running.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(notifier) = self.notifier.get() {
            notifier.stop();
        }
        self.rouse();
    }

    /// The vCPU came back.
    pub fn stopped(&self) {
        self.stop.store(false, Ordering::SeqCst);
    }

    fn rouse(&self) {
        if self.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// The bells of all vCPUs.
pub struct Bells(Vec<Arc<Bell>>);

impl Bells {
    /// One bell per vCPU, tied to nothing yet.
    pub fn new(vcpus: u32) -> Arc<Self> {
        Arc::new(Self((0..vcpus).map(|_| Arc::new(Bell::default())).collect()))
    }

    /// A vCPU's bell.
    pub fn get(&self, vcpu: u32) -> Option<&Arc<Bell>> {
        self.0.get(vcpu as usize)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Bell>> {
        self.0.iter()
    }
}

impl Waker for Bells {
    fn wake(&self, vcpu: u32) {
        if let Some(bell) = self.get(vcpu) {
            bell.ring();
        }
    }
}

/// What all vCPUs of a machine share of the world.
#[derive(Clone)]
pub struct World {
    /// I/O ports.
    pub ports: PortBus,
    /// Physical memory that is not RAM.
    pub mmio: MmioBus,
    /// The interrupt controllers.
    pub interrupts: Arc<dyn InterruptController>,
    /// Guest time.
    pub clock: Arc<dyn Clock>,
    /// The counter and the paravirtual clock.
    pub time: Arc<TimeSource>,
}

/// The world as one vCPU sees it.
pub struct Inputs {
    vcpu: u32,
    world: World,
    bell: Arc<Bell>,
}

impl Inputs {
    /// For vCPU `vcpu`.
    pub fn new(vcpu: u32, world: World, bell: Arc<Bell>) -> Self {
        Self { vcpu, world, bell }
    }

    fn has_reason(&self, interruptible: bool, nmi_open: bool) -> bool {
        self.bell.stop.load(Ordering::SeqCst) || self.world.interrupts.has_event(self.vcpu, interruptible, nmi_open)
    }
}

impl CpuIo for Inputs {
    fn port_read(&self, port: u16, width: Width) -> u32 {
        self.world.ports.read(port, width)
    }

    fn port_write(&self, port: u16, width: Width, value: u32) {
        self.world.ports.write(port, width, value);
    }

    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        if !self.world.interrupts.apic_read(self.vcpu, address, data) {
            self.world.mmio.read(address, data);
        }
    }

    fn mmio_write(&self, address: u64, data: &[u8]) {
        if !self.world.interrupts.apic_write(self.vcpu, address, data) {
            self.world.mmio.write(address, data);
        }
    }

    fn apic_msr_read(&self, msr: u32) -> Result<u64, AccessError> {
        self.world.interrupts.msr_read(self.vcpu, msr)
    }

    fn apic_msr_write(&self, msr: u32, value: u64) -> Result<(), AccessError> {
        self.world.interrupts.msr_write(self.vcpu, msr, value)
    }

    fn task_priority(&self) -> u8 {
        self.world.interrupts.task_priority(self.vcpu)
    }

    fn set_task_priority(&self, class: u8) {
        self.world.interrupts.set_task_priority(self.vcpu, class);
    }

    fn take_event(&self, interruptible: bool, nmi_open: bool) -> Option<Event> {
        self.world.interrupts.take_event(self.vcpu, interruptible, nmi_open)
    }

    fn halt(&self, interruptible: bool, nmi_open: bool) {
        self.bell.asleep.store(true, Ordering::SeqCst);
        while !self.has_reason(interruptible, nmi_open) {
            // The vCPU watches its own timer while it sleeps, which spares a wake-up of the timer thread.
            match self.world.interrupts.halt_begin(self.vcpu) {
                None => std::thread::park(),
                Some(deadline) => {
                    let rest = deadline.saturating_sub(self.world.clock.now_ns());
                    if rest > 0 {
                        std::thread::park_timeout(Duration::from_nanos(rest));
                    }
                }
            }
            self.world.interrupts.halt_end(self.vcpu);
        }
        self.bell.asleep.store(false, Ordering::SeqCst);
    }

    fn host_tsc(&self) -> u64 {
        tsc::read()
    }

    fn tsc_shift(&self) -> u64 {
        self.world.time.shift()
    }

    fn clock(&self) -> ClockSample {
        self.world.time.sample()
    }

    fn random(&self) -> u64 {
        // The kernel's generator does not fail once it is seeded, and it is long before a user can start lodge. Should it,
        // a counter and an address layout are better than a constant.
        getrandom::u64().unwrap_or_else(|_| tsc::read() ^ (std::ptr::from_ref(self) as u64).rotate_left(32))
    }
}
