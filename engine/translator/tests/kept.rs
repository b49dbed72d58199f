//! Translations that are kept from one run to the next, through the engine seam.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lodge_engine_api::{
    AccessError, ClockSample, CpuIo, CpuidTable, Engine, Event, Exit, GuestMemory, KeptCode, Notifier, PartitionSpec,
    Width,
};
use lodge_translator::Translator;
use lodge_x86::bits::cr0;
use lodge_x86::{CpuState, Segment};
use vm_memory::{Bytes, GuestAddress};

struct Io(Arc<dyn Notifier>);

impl CpuIo for Io {
    fn port_read(&self, _: u16, _: Width) -> u32 {
        0
    }
    fn port_write(&self, _: u16, _: Width, _: u32) {}
    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }
    fn mmio_write(&self, _: u64, _: &[u8]) {}
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
        self.0.stop();
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

/// What a run came to: translations made, translations loaded, registers, memory.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    made: u64,
    loaded: u64,
    gpr: [u64; 16],
    memory: Vec<u8>,
}

impl Run {
    /// Whether it did the same as `other`.
    fn is_like(&self, other: &Self) -> bool {
        self.gpr == other.gpr && self.memory == other.memory
    }
}

/// Runs 32-bit flat code without paging until HLT.
fn run(code: &[u8], folder: &Path, name: &str, cpuid: CpuidTable) -> Run {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
    memory.write_slice(code, GuestAddress(0x1000)).unwrap();
    let kept_code = Some(KeptCode { folder: folder.to_owned(), name: name.into(), verify: true });
    let spec = PartitionSpec {
        memory: memory.clone(),
        vcpus: 1,
        cpuid,
        tsc_hz: 1_000_000_000,
        code_cache: 4 << 20,
        mirroring: Default::default(),
        kept_code,
    };
    let partition = Translator.create(spec).unwrap();
    let mut vcpu = partition.bind_vcpu(0).unwrap();
    let mut state = CpuState::reset(0);
    state.cr0 = cr0::PE | cr0::ET;
    let flat = |selector, attributes| Segment { base: 0, limit: u32::MAX, selector, attributes };
    state.segment = [flat(16, 0xc093); 6];
    state.segment[1] = flat(8, 0xc09b);
    state.rip = 0x1000;
    state.gpr[4] = 0x8000;
    vcpu.set_state(&state).unwrap();
    let exit = vcpu.run(&Io(partition.notifier(0).unwrap())).unwrap();
    assert!(matches!(exit, Exit::Stopped), "{exit:?}");
    let gpr = vcpu.state().gpr;
    drop(vcpu);
    partition.retire();
    let counters = partition.statistics().counters;
    let counter = |name| counters.iter().find(|(other, _)| *other == name).unwrap().1;
    let mut bytes = vec![0; 0x4000];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    Run { made: counter("translations"), loaded: counter("translations_loaded"), gpr, memory: bytes }
}

/// Loops, stores, a call, a helper with an instruction to point at, and a string instruction.
fn code() -> Vec<u8> {
    let parts: [&[u8]; 6] = [
        &[0xb9, 0xe8, 3, 0, 0, 0xbf, 0, 0x20, 0, 0], // mov ecx, 1000; mov edi, 0x2000
        &[0x89, 0x0f, 0x83, 0xc7, 4, 0x49, 0x75, 0xf8], // l: mov [edi], ecx; add edi, 4; dec ecx; jnz l
        &[0xe8, 0x19, 0, 0, 0],                      // call f
        &[0x0f, 0x01, 0x05, 0, 0x18, 0, 0],          // sgdt [0x1800]
        // mov esi, 0x2000; mov edi, 0x3800; mov ecx, 9; rep movsd; hlt
        &[0xbe, 0, 0x20, 0, 0, 0xbf, 0, 0x38, 0, 0, 0xb9, 9, 0, 0, 0, 0xf3, 0xa5, 0xf4],
        &[0x40, 0xc3], // f: inc eax; ret
    ];
    parts.concat()
}

fn again(folder: &Path) -> Run {
    run(&code(), folder, "x", CpuidTable::default())
}

#[test]
fn a_second_run_loads_all_and_comes_to_the_same() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("kept");
    let first = again(&folder);
    assert!(first.made > 4 && first.loaded == 0, "{} {}", first.made, first.loaded);
    assert_eq!(first.gpr[0], 1);
    for _ in 0..2 {
        let second = again(&folder);
        assert!(second.is_like(&first));
        assert_eq!(second.made, 0);
        assert!(second.loaded > 4);
    }
}

#[test]
fn code_that_differs_is_not_taken() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("kept");
    again(&folder);
    let mut other = code();
    // Behind the first bytes of its block: `add edi, 8`.
    other[14] = 8;
    let fresh = run(&other, home.path().join("other").as_path(), "x", CpuidTable::default());
    let run = run(&other, &folder, "x", CpuidTable::default());
    assert!(run.is_like(&fresh));
    assert!(run.made > 0 && run.loaded > 0, "{} {}", run.made, run.loaded);
}

#[test]
fn another_name_or_processor_finds_nothing() {
    let home = tempfile::tempdir().unwrap();
    let first = again(home.path());
    let renamed = run(&code(), home.path(), "y", CpuidTable::default());
    assert_eq!((renamed.made, renamed.loaded), (first.made, 0));
    let entry = lodge_engine_api::CpuidEntry { leaf: 1, subleaf: None, registers: [0, 0, 1, 0] };
    let cpuid = CpuidTable { entries: vec![entry] };
    let processor = run(&code(), home.path(), "x", cpuid);
    assert_eq!((processor.made, processor.loaded), (first.made, 0));
    // Its file has taken the other's place.
    assert_eq!(again(home.path()).loaded, 0);
}

#[test]
fn damaged_files_are_ignored_and_replaced() {
    let home = tempfile::tempdir().unwrap();
    let first = again(home.path());
    let path = home.path().join("x.vault");
    let good = fs::read(&path).unwrap();
    // Each byte of the head, and a sample of chunks and directory.
    let places = (0..128).step_by(5).chain((4096..good.len()).step_by(211));
    for at in places {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let run = again(home.path());
        assert!(run.is_like(&first), "{at}");
        assert_eq!((run.made, run.loaded), (first.made, 0), "{at}");
        assert_eq!(again(home.path()).made, 0, "{at}: it was not replaced");
    }
    for length in [0, 8, 100, 4096, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        let run = again(home.path());
        assert!(run.is_like(&first) && run.loaded == 0, "{length}");
    }
    // Another key.
    fs::remove_file(home.path().join("key")).unwrap();
    assert_eq!(again(home.path()).loaded, 0);
}

#[test]
fn what_others_may_write_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let first = again(home.path());
    let allow = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    allow(&home.path().join("x.vault"), 0o666);
    let run = again(home.path());
    assert!(run.is_like(&first) && run.loaded == 0);
    allow(home.path(), 0o777);
    for _ in 0..2 {
        let run = again(home.path());
        assert!(run.is_like(&first) && run.loaded == 0);
    }
}
