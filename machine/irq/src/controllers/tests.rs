use lodge_bus::{MmioBus, MockClock, PortBus};

use super::*;
use crate::ioapic::registers::{BASE, IOREGSEL, IOWIN, LEVEL};
use crate::lapic::registers as regs;

struct Rig {
    clock: Arc<MockClock>,
    timers: Timers,
    irq: Arc<Controllers>,
    wakes: Arc<Wakes>,
    ports: PortBus,
    mmio: MmioBus,
}

#[derive(Default)]
struct Wakes(Mutex<Vec<u32>>);

impl Waker for Wakes {
    fn wake(&self, vcpu: u32) {
        self.0.lock().push(vcpu);
    }
}

struct NsTsc(Arc<MockClock>);

impl GuestTsc for NsTsc {
    fn now(&self, _vcpu: u32) -> u64 {
        self.0.now_ns()
    }
    fn reaches(&self, _vcpu: u32, tsc: u64) -> u64 {
        tsc
    }
}

impl Rig {
    fn new(vcpus: u32) -> Self {
        let clock = Arc::new(MockClock::new());
        let timers = Timers::mock(clock.clone());
        let wakes = Arc::new(Wakes::default());
        let irq = Controllers::new(vcpus, &timers, Arc::new(NsTsc(clock.clone())), wakes.clone());
        let (ports, mmio) = (PortBus::new(), MmioBus::new());
        ports.attach(&irq.clone().port().unwrap()).unwrap();
        mmio.attach(&irq.clone().mmio().unwrap()).unwrap();
        let rig = Self { clock, timers, irq, wakes, ports, mmio };
        for vcpu in 0..vcpus {
            rig.write(vcpu, regs::SVR, 0x1ff);
        }
        rig
    }
    fn write(&self, vcpu: u32, register: u8, value: u32) {
        let address = regs::BASE_ADDRESS + (u64::from(register) << 4);
        assert!(self.irq.apic_write(vcpu, address, &value.to_le_bytes()));
    }
    fn read(&self, vcpu: u32, register: u8) -> u32 {
        let mut data = [0; 4];
        let address = regs::BASE_ADDRESS + (u64::from(register) << 4);
        assert!(self.irq.apic_read(vcpu, address, &mut data));
        u32::from_le_bytes(data)
    }
    fn route(&self, pin: u8, entry: u64) {
        for (half, value) in [(1, entry >> 32), (0, entry)] {
            self.mmio.write(BASE + IOREGSEL, &u32::from(0x10 + 2 * pin + half).to_le_bytes());
            self.mmio.write(BASE + IOWIN, &(value as u32).to_le_bytes());
        }
    }
    fn take(&self, vcpu: u32) -> Option<Event> {
        self.irq.take_event(vcpu, true, true)
    }
    fn wakes(&self) -> Vec<u32> {
        std::mem::take(&mut self.wakes.0.lock())
    }
}

#[test]
fn a_level_interrupt_through_the_io_apic() {
    let rig = Rig::new(2);
    rig.route(11, 0x51 | LEVEL | 1 << 56);
    rig.irq.set_level(11, true);
    assert_eq!(rig.wakes(), [1]);
    assert!(!rig.irq.has_event(1, false, true));
    assert_eq!(rig.take(0), None);
    assert_eq!(rig.take(1), Some(Event::Interrupt(0x51)));
    assert_eq!(rig.take(1), None);
    rig.write(1, regs::EOI, 0);
    assert_eq!(rig.take(1), Some(Event::Interrupt(0x51)), "the line is still high");
    rig.irq.set_level(11, false);
    rig.write(1, regs::EOI, 0);
    assert_eq!(rig.take(1), None);
}

#[test]
fn the_timer_is_on_pin_2_and_on_the_8259() {
    let rig = Rig::new(1);
    for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0)] {
        rig.ports.write(port, Width::Byte, value);
    }
    rig.route(2, 0x61);
    rig.irq.pulse(0);
    assert_eq!(rig.take(0), Some(Event::Interrupt(0x20)), "ExtINT goes first");
    assert_eq!(rig.take(0), Some(Event::Interrupt(0x61)));
    rig.irq.pulse(2);
    assert_eq!(rig.take(0), None);
}

#[test]
fn inter_processor_interrupts() {
    let rig = Rig::new(3);
    rig.wakes();
    rig.write(0, regs::ICR_LOW, 0x000c_4500);
    rig.write(0, regs::ICR_LOW, 0x000c_4608);
    assert_eq!(rig.take(0), None);
    for vcpu in [1, 2] {
        assert_eq!(rig.irq.take_event(vcpu, false, false), Some(Event::Init));
        assert_eq!(rig.irq.take_event(vcpu, false, false), Some(Event::StartUp(8)));
        rig.write(vcpu, regs::SVR, 0x1ff);
    }
    assert_eq!(rig.wakes(), [1, 2], "the second message is no news to a vCPU that was woken");
    rig.write(1, regs::ICR_HIGH, 2 << 24);
    rig.write(1, regs::ICR_LOW, 0x4077);
    assert_eq!(rig.take(2), Some(Event::Interrupt(0x77)));
    rig.write(1, regs::ICR_LOW, 0x0004_4078);
    assert_eq!(rig.take(1), Some(Event::Interrupt(0x78)));
    rig.write(2, regs::ICR_LOW, 0x0008_4400);
    assert_eq!(rig.irq.take_event(1, false, false), None);
    for vcpu in 0..3 {
        assert_eq!(rig.take(vcpu), Some(Event::Nmi));
    }
}

#[test]
fn lowest_priority_goes_to_the_idlest() {
    let rig = Rig::new(3);
    for vcpu in 0..3 {
        rig.write(vcpu, regs::LDR, 1 << (24 + vcpu));
    }
    rig.irq.set_task_priority(0, 5);
    rig.irq.set_task_priority(2, 5);
    for _ in 0..3 {
        rig.irq.signal(0xfee0_7004, 0x0190);
        assert_eq!(rig.take(1), Some(Event::Interrupt(0x90)));
        rig.write(1, regs::EOI, 0);
    }
    rig.irq.set_task_priority(1, 5);
    for _ in 0..3 {
        rig.irq.signal(0xfee0_7004, 0x0190);
    }
    for vcpu in 0..3 {
        assert_eq!(rig.take(vcpu), Some(Event::Interrupt(0x90)), "equals take turns");
    }
}

#[test]
fn the_timer_thread_serves_a_running_vcpu_and_leaves_a_sleeping_one_alone() {
    let rig = Rig::new(1);
    rig.write(0, regs::DIVIDE, 0b1011);
    rig.write(0, regs::LVT_TIMER, 0x40);
    rig.write(0, regs::INITIAL_COUNT, 1000);
    rig.wakes();
    rig.timers.advance(&rig.clock, 1000);
    assert_eq!(rig.wakes(), [0]);
    assert_eq!(rig.take(0), Some(Event::Interrupt(0x40)));
    rig.write(0, regs::EOI, 0);
    rig.write(0, regs::INITIAL_COUNT, 1000);
    assert_eq!(rig.irq.halt_begin(0), Some(2000));
    assert_eq!(rig.timers.next_deadline(), None);
    rig.timers.advance(&rig.clock, 1500);
    assert_eq!(rig.take(0), None);
    rig.irq.halt_end(0);
    assert_eq!(rig.take(0), Some(Event::Interrupt(0x40)));
}

#[test]
fn accesses_beyond_the_vcpus_and_the_page_are_nobodys() {
    let rig = Rig::new(1);
    assert!(!rig.irq.apic_write(0, 0xfee0_1000, &[0; 4]));
    assert!(!rig.irq.apic_read(7, 0xfee0_0000, &mut [0; 4]));
    assert_eq!(rig.irq.msr_read(7, 0x1b), Err(AccessError));
    assert_eq!(rig.take(7), None);
    rig.irq.set_level(u32::MAX, true);
    rig.irq.signal(u64::MAX, u32::MAX);
    let mut data = [0xaa; 64];
    assert!(rig.irq.apic_read(0, 0xfee0_0ff8, &mut data));
    assert_eq!(rig.read(0, regs::VERSION), 0x0005_0014);
    let mut data = [0; 2];
    assert!(rig.irq.apic_read(0, 0xfee0_0032, &mut data));
    assert_eq!(data, [5, 0], "the upper half of the version");
}

#[test]
fn state_is_restored() {
    let rig = Rig::new(2);
    rig.route(11, 0x51 | LEVEL | 1 << 56);
    rig.irq.set_level(11, true);
    rig.write(0, regs::LVT_TIMER, 0x40);
    rig.write(0, regs::INITIAL_COUNT, 1000);
    let saved = rig.irq.save();
    rig.take(1);
    rig.irq.set_level(11, false);
    rig.irq.reset();
    assert_ne!(rig.irq.save(), saved);
    rig.irq.restore(&saved).unwrap();
    assert_eq!(rig.irq.save(), saved);
    assert_eq!(rig.take(1), Some(Event::Interrupt(0x51)));
    assert_eq!(rig.timers.next_deadline(), Some(2000));
    assert!(Rig::new(1).irq.restore(&saved).is_err(), "another number of vCPUs");
}
