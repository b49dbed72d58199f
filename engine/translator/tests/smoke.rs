//! The translator from outside: a few instructions through the engine seam.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use lodge_engine_api::{
    AccessError, ClockSample, CpuIo, CpuidTable, Engine, Event, Exit, GuestMemory, Notifier, PartitionSpec, Width,
};
use lodge_translator::Translator;
use lodge_x86::bits::cr0;
use lodge_x86::{CpuState, Segment};
use vm_memory::{Bytes, GuestAddress};

struct Io {
    out: RefCell<Vec<(u16, u32)>>,
    stop: Arc<dyn Notifier>,
    halts: Cell<u32>,
}

impl CpuIo for Io {
    fn port_read(&self, _: u16, width: Width) -> u32 {
        0x1234_5678 & width.ones()
    }
    fn port_write(&self, port: u16, _: Width, value: u32) {
        self.out.borrow_mut().push((port, value));
    }
    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(0x5a);
    }
    fn mmio_write(&self, address: u64, data: &[u8]) {
        self.out.borrow_mut().push((address as u16, data[0].into()));
    }
    fn apic_msr_read(&self, _: u32) -> Result<u64, AccessError> {
        Err(AccessError)
    }
    fn apic_msr_write(&self, _: u32, _: u64) -> Result<(), AccessError> {
        Err(AccessError)
    }
    fn task_priority(&self) -> u8 {
        0
    }
    fn set_task_priority(&self, _: u8) {}
    fn take_event(&self, _: bool, _: bool) -> Option<Event> {
        None
    }
    fn halt(&self, _: bool, _: bool) {
        self.halts.set(self.halts.get() + 1);
        self.stop.stop();
    }
    fn host_tsc(&self) -> u64 {
        1
    }
    fn clock(&self) -> ClockSample {
        ClockSample { tsc: 0, monotonic_ns: 0, wall_ns: 0 }
    }
    fn random(&self) -> u64 {
        4
    }
}

/// Runs 32-bit flat code without paging until HLT.
fn run32(code: &[u8]) -> (CpuState, Vec<(u16, u32)>, GuestMemory) {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
    memory.write_slice(code, GuestAddress(0x1000)).unwrap();
    let spec = PartitionSpec {
        memory: memory.clone(),
        vcpus: 1,
        cpuid: CpuidTable::default(),
        tsc_hz: 1_000_000_000,
        code_cache: 4 << 20,
        mirroring: Default::default(),
        kept_code: None,
    };
    let partition = Translator.create(spec).unwrap();
    let mut vcpu = partition.bind_vcpu(0).unwrap();
    let mut state = CpuState::reset(0);
    state.cr0 = cr0::PE | cr0::ET;
    let flat = |selector, attributes| Segment { base: 0, limit: u32::MAX, selector, attributes };
    state.segment = [flat(16, 0xc093); 6];
    state.segment[1] = flat(8, 0xc09b);
    state.rip = 0x1000;
    state.gpr = std::array::from_fn(|n| 0x100 * n as u64);
    state.gpr[4] = 0x8000;
    vcpu.set_state(&state).unwrap();
    let io = Io { out: RefCell::default(), stop: partition.notifier(0).unwrap(), halts: Cell::new(0) };
    let exit = vcpu.run(&io).unwrap();
    assert!(matches!(exit, Exit::Stopped), "{exit:?}");
    assert_eq!(io.halts.get(), 1);
    (vcpu.state(), io.out.into_inner(), memory)
}

#[test]
fn adds_and_halts() {
    // mov eax, 5; add eax, 7; out 0xf4, al; push eax; pop ecx; call +0; pop edx; hlt
    let code = [0xb8, 5, 0, 0, 0, 0x83, 0xc0, 7, 0xe6, 0xf4, 0x50, 0x59, 0xe8, 0, 0, 0, 0, 0x5a, 0xf4];
    let (state, out, _) = run32(&code);
    assert_eq!(state.gpr[0], 12);
    assert_eq!(state.gpr[1], 12);
    assert_eq!(state.gpr[2], 0x1011);
    assert_eq!(state.rip, 0x1013);
    assert_eq!(out, [(0xf4, 12)]);
}

#[test]
fn loops_and_stores() {
    // mov ecx, 1000; mov edi, 0x2000; l: mov [edi], ecx; add edi, 4; dec ecx; jnz l; hlt
    let code = [0xb9, 0xe8, 3, 0, 0, 0xbf, 0, 0x20, 0, 0, 0x89, 0x0f, 0x83, 0xc7, 4, 0x49, 0x75, 0xf8, 0xf4];
    let (state, _, memory) = run32(&code);
    assert_eq!(state.gpr[1], 0);
    assert_eq!(state.gpr[7], 0x2000 + 4000);
    assert_eq!(memory.read_obj::<u32>(GuestAddress(0x2000)).unwrap(), 1000);
    assert_eq!(memory.read_obj::<u32>(GuestAddress(0x2000 + 3996)).unwrap(), 1);
}

#[test]
fn reaches_devices_with_ordinary_instructions() {
    // mov al, [0xfee00000]; add byte [0xfee00010], 1; hlt
    let code = [0xa0, 0, 0, 0xe0, 0xfe, 0x80, 0x05, 0x10, 0, 0xe0, 0xfe, 1, 0xf4];
    let (state, out, _) = run32(&code);
    assert_eq!(state.gpr[0] & 0xff, 0x5a);
    assert_eq!(out, [(0x10, 0x5b)]);
}

#[test]
fn sees_its_own_stores_into_code() {
    // mov byte [0x1010], 0x42 (inc eax -> inc edx); nops; 0x1010: inc eax; hlt
    let mut code = vec![0xc6, 0x05, 0x10, 0x10, 0, 0, 0x42];
    code.resize(16, 0x90);
    code.extend([0x40, 0xf4]);
    let (state, _, _) = run32(&code);
    assert_eq!(state.gpr[0], 0);
    assert_eq!(state.gpr[2], 0x201);
}
