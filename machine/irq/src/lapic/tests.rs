use super::*;

/// A time-stamp counter of 2 GHz that is zero at power-on.
pub(crate) struct Tsc2GHz(pub(crate) u64);

impl GuestTsc for Tsc2GHz {
    fn now(&self, _vcpu: u32) -> u64 {
        self.0 * 2
    }
    fn reaches(&self, _vcpu: u32, tsc: u64) -> u64 {
        tsc / 2
    }
}

struct Rig {
    apic: LocalApic,
    tsc: Tsc2GHz,
}

impl Rig {
    /// Software-enabled, spurious vector 0xff.
    fn new(id: u32) -> Self {
        let mut rig = Self { apic: LocalApic::new(id), tsc: Tsc2GHz(0) };
        rig.write(SVR, 0x1ff);
        rig
    }
    fn write(&mut self, register: u8, value: u32) -> Effect {
        let now = Now { ns: self.tsc.0, tsc: &self.tsc };
        self.apic.mmio_write(u64::from(register) << 4, value, now)
    }
    fn read(&mut self, register: u8) -> u32 {
        let now = Now { ns: self.tsc.0, tsc: &self.tsc };
        self.apic.mmio_read(u64::from(register) << 4, now)
    }
    fn wrmsr(&mut self, msr: u32, value: u64) -> Result<Effect, AccessError> {
        let now = Now { ns: self.tsc.0, tsc: &self.tsc };
        self.apic.msr_write(msr, value, now)
    }
    fn rdmsr(&mut self, msr: u32) -> Result<u64, AccessError> {
        let now = Now { ns: self.tsc.0, tsc: &self.tsc };
        self.apic.msr_read(msr, now)
    }
    fn at(&mut self, ns: u64) {
        self.tsc.0 = ns;
        let now = Now { ns, tsc: &self.tsc };
        self.apic.poll_timer(now);
    }
    fn take(&mut self) -> Option<Pending> {
        self.apic.take(true, true)
    }
    fn accept(&mut self, vector: u8, level: bool) {
        self.apic.accept(&Message { vector, mode: mode::FIXED, logical: false, level, destination: 0 });
    }
}

fn to(destination: u32, logical: bool) -> Message {
    Message { vector: 0x40, mode: mode::FIXED, logical, level: false, destination }
}

#[test]
fn power_on_registers() {
    let mut apic = Rig { apic: LocalApic::new(3), tsc: Tsc2GHz(0) };
    assert_eq!(apic.read(ID), 3 << 24);
    assert_eq!(apic.read(VERSION), 0x0005_0014);
    assert_eq!(apic.read(SVR), 0xff);
    assert_eq!(apic.read(DFR), 0xffff_ffff);
    assert_eq!(apic.read(LVT_TIMER), LVT_MASKED);
    assert_eq!(apic.rdmsr(MSR_BASE), Ok(0xfee0_0800));
    assert_eq!(Rig::new(0).rdmsr(MSR_BASE), Ok(0xfee0_0900), "the BSP bit");
    assert_eq!(LocalApic::new(0).state().lvt[lvt::LINT0], 0x700);
    assert_eq!(apic.rdmsr(0x802), Err(AccessError), "not in x2APIC mode");
}

#[test]
fn priorities() {
    let mut rig = Rig::new(1);
    rig.accept(0x35, false);
    rig.accept(0x41, true);
    rig.accept(0x42, false);
    assert_eq!(rig.read(IRR + 2), 0b110);
    assert_eq!(rig.take(), Some(Pending::Vector(0x42)));
    assert_eq!(rig.take(), None, "0x41 is of the same class");
    assert_eq!(rig.read(PPR), 0x40);
    assert_eq!(rig.write(EOI, 0), Effect::None);
    assert_eq!(rig.take(), Some(Pending::Vector(0x41)));
    assert_eq!(rig.write(EOI, 0), Effect::Eoi(0x41), "it was level-triggered");
    rig.write(TPR, 0x30);
    assert_eq!(rig.take(), None);
    assert_eq!(rig.apic.hint(), 0);
    rig.apic.set_task_priority(2);
    assert_eq!(rig.apic.hint(), hint::INTERRUPT);
    assert_eq!(rig.take(), Some(Pending::Vector(0x35)));
    assert_eq!(rig.write(EOI, 0), Effect::None);
    assert_eq!(rig.write(EOI, 0), Effect::None, "with nothing in service");
}

#[test]
fn vectors_below_16_are_errors() {
    let mut rig = Rig::new(1);
    rig.write(LVT_ERROR, 0xfe);
    rig.accept(15, false);
    assert_eq!(rig.take(), Some(Pending::Vector(0xfe)));
    assert_eq!(rig.read(ESR), 0);
    rig.write(ESR, 0);
    assert_eq!(rig.read(ESR), esr::RECEIVE_ILLEGAL);
    rig.write(ESR, 0);
    assert_eq!(rig.read(ESR), 0);
    assert_eq!(rig.write(ICR_LOW, 0x0), Effect::None);
    rig.write(LVT_ERROR, 3);
    rig.read(0x00);
    rig.write(ESR, 0);
    assert_eq!(rig.read(ESR), esr::SEND_ILLEGAL | esr::ILLEGAL_REGISTER);
}

#[test]
fn software_disable_masks() {
    let mut rig = Rig::new(1);
    rig.write(LVT_TIMER, 0x40);
    rig.write(SVR, 0xff);
    assert_eq!(rig.read(LVT_TIMER), 0x40 | LVT_MASKED);
    rig.write(LVT_TIMER, 0x40);
    assert_eq!(rig.read(LVT_TIMER), 0x40 | LVT_MASKED, "it can't be unmasked");
    rig.accept(0x50, false);
    assert_eq!(rig.take(), None);
    rig.apic.accept(&Message { mode: mode::NMI, ..to(1, false) });
    assert_eq!(rig.take(), Some(Pending::Nmi), "NMI, INIT and start-up are still taken");
}

#[test]
fn destinations() {
    let mut rig = Rig::new(5);
    assert!(rig.apic.is_destination(&to(5, false)));
    assert!(!rig.apic.is_destination(&to(4, false)));
    assert!(rig.apic.is_destination(&to(0xff, false)));
    rig.write(LDR, 0x2000_0000);
    assert!(rig.apic.is_destination(&to(0x22, true)));
    assert!(!rig.apic.is_destination(&to(0x02, true)));
    rig.write(DFR, 0);
    rig.write(LDR, 0x1200_0000);
    assert!(rig.apic.is_destination(&to(0x13, true)));
    assert!(!rig.apic.is_destination(&to(0x23, true)));
    let mut rig = Rig::new(0x25);
    rig.wrmsr(MSR_BASE, BASE_ADDRESS | BASE_ENABLE | BASE_X2APIC).unwrap();
    assert_eq!(rig.rdmsr(0x80d), Ok(0x0002_0020));
    assert!(rig.apic.is_destination(&to(0x0002_0021, true)));
    assert!(!rig.apic.is_destination(&to(0x0001_0020, true)));
    assert!(rig.apic.is_destination(&to(u32::MAX, true)));
}

#[test]
fn interrupt_commands() {
    let mut rig = Rig::new(1);
    rig.write(ICR_HIGH, 0x0300_0000);
    let message = Message { destination: 3, ..to(0, false) };
    assert_eq!(rig.write(ICR_LOW, 0x4040), Effect::Send(message));
    let all = |m: Effect| matches!(m, Effect::ToAll(_, true));
    assert!(all(rig.write(ICR_LOW, 0x0008_4040)));
    assert!(matches!(rig.write(ICR_LOW, 0x000c_4040), Effect::ToAll(_, false)));
    assert!(matches!(rig.write(ICR_LOW, 0x0004_4040), Effect::ToSelf(_)));
    assert!(matches!(rig.write(ICR_LOW, 0xc500), Effect::Send(Message { mode: mode::INIT, .. })));
    assert_eq!(rig.write(ICR_LOW, 0x8500), Effect::None, "INIT de-assert");
    assert!(matches!(rig.write(ICR_LOW, 0x4699), Effect::Send(Message { mode: mode::STARTUP, vector: 0x99, .. })));
}

#[test]
fn init_and_startup_in_order() {
    let mut rig = Rig::new(1);
    rig.accept(0x50, false);
    rig.apic.accept(&Message { mode: mode::INIT, ..to(1, false) });
    rig.apic.accept(&Message { mode: mode::STARTUP, vector: 0x9f, ..to(1, false) });
    assert_eq!(rig.apic.hint() & hint::START, hint::START);
    assert_eq!(rig.apic.take(false, false), Some(Pending::Init));
    assert_eq!(rig.apic.take(false, false), Some(Pending::StartUp(0x9f)));
    assert_eq!(rig.read(SVR), 0xff, "INIT reset the registers");
    assert_eq!(rig.take(), None);
}

#[test]
fn one_shot_and_periodic_timer() {
    let mut rig = Rig::new(1);
    rig.write(DIVIDE, 0b0011);
    rig.write(LVT_TIMER, 0x40);
    rig.write(INITIAL_COUNT, 1000);
    assert_eq!(rig.apic.deadline(), Some(16_000));
    rig.at(8_000);
    assert_eq!(rig.read(CURRENT_COUNT), 500);
    assert_eq!(rig.take(), None);
    rig.at(16_000);
    assert_eq!(rig.take(), Some(Pending::Vector(0x40)));
    assert_eq!(rig.read(CURRENT_COUNT), 0);
    assert_eq!(rig.apic.deadline(), None);
    rig.write(EOI, 0);
    rig.write(DIVIDE, 0b1011);
    rig.write(LVT_TIMER, 0x41 | LVT_PERIODIC);
    rig.write(INITIAL_COUNT, 1000);
    assert_eq!(rig.apic.deadline(), Some(17_000));
    rig.at(17_000);
    assert_eq!(rig.take(), Some(Pending::Vector(0x41)));
    assert_eq!(rig.apic.deadline(), Some(18_000));
    rig.at(20_500);
    assert_eq!(rig.apic.deadline(), Some(21_000), "missed periods are merged");
    assert_eq!(rig.read(CURRENT_COUNT), 500);
    rig.write(LVT_TIMER, 0x41 | LVT_PERIODIC | LVT_MASKED);
    assert_eq!(rig.apic.deadline(), None, "a masked timer wakes nobody");
    rig.write(INITIAL_COUNT, 0);
    assert_eq!(rig.read(CURRENT_COUNT), 0);
}

#[test]
fn tsc_deadline_timer() {
    let mut rig = Rig::new(1);
    rig.wrmsr(MSR_DEADLINE, 5000).unwrap();
    assert_eq!(rig.rdmsr(MSR_DEADLINE), Ok(0), "ignored in another mode");
    rig.write(LVT_TIMER, 0x40 | LVT_DEADLINE);
    rig.wrmsr(MSR_DEADLINE, 5000).unwrap();
    assert_eq!(rig.apic.deadline(), Some(2500));
    assert_eq!(rig.read(CURRENT_COUNT), 0);
    rig.at(2499);
    assert_eq!(rig.take(), None);
    rig.at(2500);
    assert_eq!(rig.take(), Some(Pending::Vector(0x40)));
    assert_eq!(rig.rdmsr(MSR_DEADLINE), Ok(0));
    rig.write(EOI, 0);
    rig.wrmsr(MSR_DEADLINE, 10).unwrap();
    assert_eq!(rig.take(), Some(Pending::Vector(0x40)), "a deadline in the past expires at once");
    rig.wrmsr(MSR_DEADLINE, 50_000).unwrap();
    rig.wrmsr(MSR_DEADLINE, 0).unwrap();
    assert_eq!(rig.apic.deadline(), None);
}

#[test]
fn base_msr_moves() {
    let mut rig = Rig::new(1);
    let (off, x, x2) = (BASE_ADDRESS, BASE_ADDRESS | BASE_ENABLE, BASE_ADDRESS | BASE_ENABLE | BASE_X2APIC);
    assert_eq!(rig.wrmsr(MSR_BASE, BASE_ADDRESS | BASE_X2APIC), Err(AccessError));
    assert_eq!(rig.wrmsr(MSR_BASE, x | 1), Err(AccessError));
    rig.wrmsr(MSR_BASE, x2).unwrap();
    assert_eq!(rig.wrmsr(MSR_BASE, x), Err(AccessError));
    assert_eq!(rig.apic.page(), None);
    rig.wrmsr(MSR_BASE, off).unwrap();
    assert!(!rig.apic.is_enabled());
    assert_eq!(rig.wrmsr(MSR_BASE, x2), Err(AccessError));
    rig.wrmsr(MSR_BASE, x + 0x1000).unwrap();
    assert_eq!(rig.apic.page(), Some(BASE_ADDRESS + 0x1000));
    assert_eq!(rig.read(SVR), 0xff);
}

#[test]
fn x2apic_registers() {
    let mut rig = Rig::new(7);
    rig.wrmsr(MSR_BASE, BASE_ADDRESS | BASE_ENABLE | BASE_X2APIC).unwrap();
    assert_eq!(rig.rdmsr(0x802), Ok(7));
    assert_eq!(rig.rdmsr(0x80e), Err(AccessError), "no destination format");
    assert_eq!(rig.rdmsr(0x831), Err(AccessError), "no high half");
    assert_eq!(rig.wrmsr(0x802, 1), Err(AccessError));
    assert_eq!(rig.wrmsr(0x80b, 1), Err(AccessError), "EOI takes zero only");
    assert_eq!(rig.wrmsr(0x808, 0x100), Err(AccessError));
    let message = Message { destination: 0x1_0000_u32, ..to(0, false) };
    assert_eq!(rig.wrmsr(0x830, 0x1_0000_0000_0000 | 0x4040), Ok(Effect::Send(message)));
    assert_eq!(rig.rdmsr(0x830), Ok(0x1_0000_0000_4040));
    assert!(matches!(rig.wrmsr(0x83f, 0x77), Ok(Effect::ToSelf(Message { vector: 0x77, .. }))));
    assert_eq!(rig.rdmsr(0x83f), Err(AccessError));
    assert_eq!(rig.rdmsr(0x8ff), Err(AccessError));
}

#[test]
fn the_8259_arrives_through_lint0() {
    let mut rig = Rig { apic: LocalApic::new(0), tsc: Tsc2GHz(0) };
    rig.apic.set_lint0(true);
    assert_eq!(rig.take(), Some(Pending::ExtInt), "virtual wire at power-on");
    rig.apic.set_lint0(false);
    assert_eq!(rig.take(), None);
    rig.write(SVR, 0x1ff);
    rig.write(registers::LVT_TIMER + 3, 0x700 | LVT_MASKED);
    rig.apic.set_lint0(true);
    assert_eq!(rig.take(), None);
    rig.write(registers::LVT_TIMER + 3, 0x700);
    assert_eq!(rig.take(), Some(Pending::ExtInt));
    rig.apic.set_lint0(false);
    rig.wrmsr(MSR_BASE, BASE_ADDRESS).unwrap();
    rig.apic.set_lint0(true);
    assert_eq!(rig.take(), Some(Pending::ExtInt), "without an APIC the pin is INTR");
}

#[test]
fn state_is_restored() {
    let mut rig = Rig::new(1);
    rig.write(LVT_TIMER, 0x40);
    rig.write(INITIAL_COUNT, 1000);
    rig.accept(0x66, true);
    let saved = rig.apic.state();
    rig.at(100_000);
    rig.take();
    rig.write(TPR, 0x20);
    assert_ne!(rig.apic.state(), saved);
    rig.apic.set_state(saved.clone());
    assert_eq!(rig.apic.state(), saved);
    assert_eq!(rig.apic.deadline(), Some(2000));
    assert_eq!(rig.take(), Some(Pending::Vector(0x66)));
}
