//! Guests that execute random bytes: whatever they do, the engine neither fails nor hangs.
//!
//! `LODGE_RANDOM_PAGES` sets how many pages are run, `LODGE_RANDOM_SEED` the first seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lodge_engine_api::{
    AccessError, ClockSample, CpuIo, CpuidTable, Engine, Event, Exit, GuestMemory, Notifier, PartitionSpec, Width,
};
use lodge_translator::Translator;
use lodge_x86::bits::{cr0, cr4, efer};
use lodge_x86::{CpuState, Segment};
use vm_memory::{Bytes, GuestAddress};

/// Pages that a run has by default.
const PAGES: u64 = if cfg!(debug_assertions) { 5_000 } else { 1_000_000 };
/// Where the random page lies.
const CODE: u64 = 0x10_0000;
/// Where the page tables lie.
const TABLES: u64 = 0x8000;

/// A world in which ports and devices answer noise, and interrupts come now and then.
struct Noise {
    state: AtomicU64,
    stop: Arc<dyn Notifier>,
}

impl Noise {
    fn next(&self) -> u64 {
        let mut x = self.state.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.state.store(x, Ordering::Relaxed);
        x
    }
}

impl CpuIo for Noise {
    fn port_read(&self, _: u16, width: Width) -> u32 {
        self.next() as u32 & width.ones()
    }
    fn port_write(&self, _: u16, _: Width, _: u32) {}
    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(self.next() as u8);
    }
    fn mmio_write(&self, _: u64, _: &[u8]) {}
    fn apic_msr_read(&self, _: u32) -> Result<u64, AccessError> {
        Ok(0xfee0_0900)
    }
    fn apic_msr_write(&self, _: u32, _: u64) -> Result<(), AccessError> {
        Err(AccessError)
    }
    fn task_priority(&self) -> u8 {
        0
    }
    fn set_task_priority(&self, _: u8) {}
    fn take_event(&self, interruptible: bool, _: bool) -> Option<Event> {
        let random = self.next();
        (interruptible && random.is_multiple_of(4)).then_some(Event::Interrupt(random as u8 | 0x20))
    }
    fn halt(&self, _: bool, _: bool) {
        self.stop.stop();
    }
    fn host_tsc(&self) -> u64 {
        self.next()
    }
    fn clock(&self) -> ClockSample {
        ClockSample { tsc: 1, monotonic_ns: 1, wall_ns: 1 }
    }
    fn random(&self) -> u64 {
        self.next()
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A state in one of four modes, with registers that mostly point to memory.
fn state(noise: &Noise) -> CpuState {
    let mut state = CpuState::reset(0);
    let flat = |selector, attributes| Segment { base: 0, limit: u32::MAX, selector, attributes };
    for register in &mut state.gpr {
        let random = noise.next();
        *register = if random & 3 == 0 { random } else { random & 0x1f_ffff };
    }
    let kind = noise.next() % 4;
    if kind == 0 {
        state.segment[1] = Segment::real_mode(0x1000, 0x9b);
        state.segment[1].base = CODE;
        state.rip = noise.next() & 0xfff;
        return state;
    }
    state.segment = [flat(16, 0xc093); 6];
    state.segment[1] = flat(8, if kind == 3 { 0xa09b } else { 0xc09b });
    state.rip = CODE + (noise.next() & 0xfff);
    state.cr0 = cr0::PE | cr0::ET | if noise.next() & 7 == 0 { cr0::TS } else { 0 };
    if kind == 3 {
        state.cr0 |= cr0::PG;
        state.cr3 = TABLES;
        state.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXSAVE | cr4::FSGSBASE;
        state.msrs.efer = efer::LME | efer::LMA | efer::SCE | efer::NXE;
        state.xcr0 = 7;
    }
    if noise.next() & 1 == 0 && kind != 0 {
        // User mode.
        for segment in &mut state.segment {
            segment.selector |= 3;
            segment.attributes |= 0x60;
        }
    }
    state
}

#[test]
fn random_bytes_do_the_engine_no_harm() {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
    // Identity for the low 1 GiB, by 2 MiB pages that user mode may use, for long mode.
    memory.write_obj(TABLES + 0x1007, GuestAddress(TABLES)).unwrap();
    memory.write_obj(TABLES + 0x2007, GuestAddress(TABLES + 0x1000)).unwrap();
    for n in 0..512u64 {
        memory.write_obj(n << 21 | 0x87, GuestAddress(TABLES + 0x2000 + n * 8)).unwrap();
    }
    let tables: Vec<u8> = {
        let mut copy = vec![0; 0x3000];
        memory.read_slice(&mut copy, GuestAddress(TABLES)).unwrap();
        copy
    };
    let spec = PartitionSpec {
        memory: memory.clone(),
        vcpus: 1,
        cpuid: CpuidTable::default(),
        tsc_hz: 1_000_000_000,
        code_cache: 8 << 20,
        mirroring: Default::default(),
        kept_code: None,
    };
    let partition = Translator.create(spec).unwrap();
    let notifier = partition.notifier(0).unwrap();
    let seed = number("LODGE_RANDOM_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise = Noise { state: AtomicU64::new(seed), stop: Arc::clone(&notifier) };
    let round = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let watch = {
        let (round, done) = (Arc::clone(&round), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut last = u64::MAX;
            while !done.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_micros(100));
                let now = round.load(Ordering::SeqCst);
                if now == last {
                    notifier.stop();
                }
                last = now;
            }
        })
    };
    let mut vcpu = partition.bind_vcpu(0).unwrap();
    let (mut stopped, mut crashed) = (0u64, 0u64);
    for n in 0..number("LODGE_RANDOM_PAGES", PAGES) {
        let page: Vec<u8> = (0..512).flat_map(|_| noise.next().to_le_bytes()).collect();
        memory.write_slice(&page, GuestAddress(CODE)).unwrap();
        memory.write_slice(&tables, GuestAddress(TABLES)).unwrap();
        vcpu.set_state(&state(&noise)).unwrap();
        round.store(n, Ordering::SeqCst);
        match vcpu.run(&noise).unwrap() {
            Exit::Stopped => stopped += 1,
            Exit::TripleFault(report) => {
                crashed += 1;
                assert!(!report.cause.is_empty());
            }
        }
    }
    done.store(true, Ordering::SeqCst);
    watch.join().unwrap();
    assert!(crashed > stopped / 100, "random bytes should crash some guests: {crashed} of {}", crashed + stopped);
}
