//! Machines on an engine that plays scripts instead of executing instructions.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use lodge_engine_api::{
    Capabilities, CpuIo, CrashReport, Engine, EngineError, Event, Exit, MemoryChange, Notifier, Partition,
    PartitionSpec, Statistics, Vcpu, Verdict, Width,
};
use lodge_x86::CpuState;
use tempfile::NamedTempFile;

use super::*;

/// What a vCPU does in one run: told its index, the world, and whether it shall stop.
type Script = dyn Fn(u32, &dyn CpuIo, &AtomicBool) -> Result<Exit, EngineError> + Send + Sync;

#[derive(Clone)]
struct Scripted(Arc<Script>);

impl Engine for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }
    fn probe(&self) -> Verdict {
        Verdict::Usable("always".into())
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { max_vcpus: 4, physical_address_bits: 40, maps_at_guest_addresses: false }
    }
    fn create(&self, spec: PartitionSpec) -> Result<Arc<dyn Partition>, EngineError> {
        let flags = (0..spec.vcpus).map(|_| Arc::new(Flag::default())).collect();
        Ok(Arc::new(ScriptedPartition { script: self.0.clone(), flags }))
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Notifier for Flag {
    fn notify(&self) {}
    fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct ScriptedPartition {
    script: Arc<Script>,
    flags: Vec<Arc<Flag>>,
}

impl Partition for ScriptedPartition {
    fn bind_vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, EngineError> {
        let flag = self.flags[index as usize].clone();
        Ok(Box::new(ScriptedVcpu { index, script: self.script.clone(), flag, state: CpuState::reset(0) }))
    }
    fn notifier(&self, index: u32) -> Option<Arc<dyn Notifier>> {
        Some(self.flags.get(index as usize)?.clone())
    }
    fn change_memory(&self, _change: MemoryChange) {}
    fn statistics(&self) -> Statistics {
        Statistics { counters: vec![("runs", 7)], ..Statistics::default() }
    }
    fn retire(&self) {}
}

struct ScriptedVcpu {
    index: u32,
    script: Arc<Script>,
    flag: Arc<Flag>,
    state: CpuState,
}

impl Vcpu for ScriptedVcpu {
    fn state(&self) -> CpuState {
        self.state.clone()
    }
    fn set_state(&mut self, state: &CpuState) -> Result<(), EngineError> {
        self.state = state.clone();
        Ok(())
    }
    fn run(&mut self, io: &dyn CpuIo) -> Result<Exit, EngineError> {
        let exit = (self.script)(self.index, io, &self.flag.0);
        self.flag.0.store(false, Ordering::SeqCst);
        exit
    }
}

/// A kernel that every loader test accepts: Multiboot with address fields.
fn kernel() -> NamedTempFile {
    let flags = 1u32 << 16;
    let sum = 0u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
    let words = [0x1bad_b002, flags, sum, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020];
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    file
}

fn config(kernel: &NamedTempFile) -> Config {
    Config {
        machine: Default::default(),
        memory: 16 << 20,
        vcpus: 1,
        boot: Boot::Kernel(Kernel { path: kernel.path().to_owned(), initrd: None, command_line: String::new() }),
        display: false,
        vga_bios: Vec::new(),
        graphics: GraphicsCard::Standard,
        video_memory: VIDEO_MEMORY,
        tablet: false,
        sound: None,
        debug_exit: true,
        on_reboot: OnReboot::Restart,
        timeout: Some(Duration::from_secs(60)),
        code_cache: 1 << 20,
        mirroring: Default::default(),
        kept_code: None,
    }
}

fn engine(
    script: impl Fn(u32, &dyn CpuIo, &AtomicBool) -> Result<Exit, EngineError> + Send + Sync + 'static,
) -> Arc<Scripted> {
    Arc::new(Scripted(Arc::new(script)))
}

/// Sleeps, as a guest in HLT, until it shall stop.
fn idle(io: &dyn CpuIo, stop: &AtomicBool) -> Exit {
    while !stop.load(Ordering::SeqCst) {
        io.halt(true, true);
        io.take_event(true, true);
    }
    Exit::Stopped
}

fn crash() -> Exit {
    Exit::TripleFault(CrashReport {
        cause: "#GP".into(),
        state: Box::new(CpuState::reset(0)),
        instructions: vec![(0x10, "ud2".into())],
    })
}

#[test]
fn a_triple_fault_ends_the_machine_with_its_report() {
    let kernel = kernel();
    let vm = Vm::start(config(&kernel), engine(|_, _, _| Ok(crash())), Backends::default()).unwrap();
    let report = vm.wait().unwrap();
    let Outcome::Crashed(crash) = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(crash.instructions, [(0x10, "ud2".to_owned())]);
    assert_eq!(report.engine, "scripted");
    assert_eq!(report.statistics.counters, [("runs", 7)]);
    assert!(report.times.kernel.unwrap() <= report.times.exit);
}

#[test]
fn a_machine_pauses_resumes_and_quits() {
    let kernel = kernel();
    let turns = Arc::new(AtomicU32::new(0));
    let count = turns.clone();
    let script = move |_: u32, _: &dyn CpuIo, stop: &AtomicBool| {
        while !stop.load(Ordering::SeqCst) {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
        }
        Ok(Exit::Stopped)
    };
    let vm = Vm::start(Config { vcpus: 2, ..config(&kernel) }, engine(script), Backends::default()).unwrap();
    let handle = vm.handle();
    assert_eq!(handle.status().unwrap().phase, Phase::Running);
    handle.pause();
    assert_eq!(handle.status().unwrap().phase, Phase::Paused);
    let before = turns.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(turns.load(Ordering::SeqCst), before, "a paused machine does nothing");
    handle.resume();
    while turns.load(Ordering::SeqCst) == before {
        std::thread::yield_now();
    }
    assert_eq!(handle.status().unwrap().phase, Phase::Running);
    handle.quit();
    assert!(matches!(vm.wait().unwrap().outcome, Outcome::Quit));
    assert!(handle.status().is_none(), "nobody answers any more");
}

#[test]
fn sleeping_processors_come_back_to_be_stopped() {
    let kernel = kernel();
    let script = |_: u32, io: &dyn CpuIo, stop: &AtomicBool| Ok(idle(io, stop));
    let vm = Vm::start(Config { vcpus: 4, ..config(&kernel) }, engine(script), Backends::default()).unwrap();
    let handle = vm.handle();
    for _ in 0..50 {
        handle.pause();
        handle.resume();
    }
    assert!(handle.status().is_some());
    handle.quit();
    assert!(matches!(vm.wait().unwrap().outcome, Outcome::Quit));
}

#[test]
fn a_users_reset_restarts_the_guest_on_fresh_memory() {
    let kernel = kernel();
    let (sender, receiver) = channel();
    let sender: parking_lot::Mutex<Sender<()>> = parking_lot::Mutex::new(sender);
    let script = move |_: u32, io: &dyn CpuIo, stop: &AtomicBool| {
        sender.lock().send(()).unwrap();
        Ok(idle(io, stop))
    };
    let vm = Vm::start(config(&kernel), engine(script), Backends::default()).unwrap();
    let wait = || receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    wait();
    vm.handle().reset();
    wait();
    assert_eq!(vm.handle().status().unwrap().resets, 1);
    // A file that went away in between is an honest failure.
    drop(kernel);
    vm.handle().reset();
    let report = vm.wait().unwrap();
    assert!(matches!(report.outcome, Outcome::Failed(VmError::Load(_))), "{:?}", report.outcome);
}

#[test]
fn the_timeout_ends_the_machine() {
    let kernel = kernel();
    let timeout = Some(Duration::from_millis(50));
    let begin = Instant::now();
    let script = |_: u32, io: &dyn CpuIo, stop: &AtomicBool| Ok(idle(io, stop));
    let vm = Vm::start(Config { timeout, ..config(&kernel) }, engine(script), Backends::default()).unwrap();
    assert!(matches!(vm.wait().unwrap().outcome, Outcome::TimedOut));
    assert!(begin.elapsed() >= Duration::from_millis(50));
}

#[test]
fn failures_of_an_engine_are_reported_once() {
    let kernel = kernel();
    let fails = engine(|_, _, _| Err(EngineError::Internal("out of luck".into())));
    let report = Vm::start(config(&kernel), fails, Backends::default()).unwrap().wait().unwrap();
    let Outcome::Failed(error) = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(error.to_string(), "internal fault: out of luck");
    assert!(!error.is_users());

    let panics = engine(|vcpu, io, stop| if vcpu == 1 { panic!("on purpose") } else { Ok(idle(io, stop)) });
    let config = Config { vcpus: 2, ..config(&kernel) };
    let report = Vm::start(config, panics, Backends::default()).unwrap().wait().unwrap();
    let Outcome::Failed(error) = report.outcome else { panic!("{:?}", report.outcome) };
    assert!(error.to_string().contains("processor 1 panicked"), "{error}");
}

#[test]
fn what_cannot_be_built_is_refused() {
    let kernel = kernel();
    let start = |config| Vm::start(config, engine(|_, _, _| Ok(Exit::Stopped)), Backends::default()).map(|_| ());
    let error = start(Config { vcpus: 5, ..config(&kernel) }).unwrap_err();
    assert!(matches!(error, VmError::ProcessorCount { asked: 5, most: 4 }) && error.is_users());
    let error = start(Config { memory: 0, ..config(&kernel) }).unwrap_err();
    assert!(matches!(error, VmError::MemorySize { bytes: 0 }));
    let boot = Boot::Kernel(Kernel { path: PathBuf::from("/no/such"), initrd: None, command_line: String::new() });
    let error = start(Config { boot, ..config(&kernel) }).unwrap_err();
    assert!(matches!(error, VmError::Load(_)) && error.is_users());
}

#[test]
fn the_apic_timer_ends_a_halt() {
    const TIMER: u8 = 0x40;
    let kernel = kernel();
    let script = |_: u32, io: &dyn CpuIo, stop: &AtomicBool| {
        let write = |register: u64, value: u32| io.mmio_write(0xfee0_0000 + register, &value.to_le_bytes());
        write(0xf0, 0x1ff);
        // TSC-deadline mode, and a deadline a few milliseconds ahead.
        write(0x320, 2 << 17 | u32::from(TIMER));
        let deadline = io.host_tsc() + 10_000_000;
        io.apic_msr_write(lodge_x86::msr::TSC_DEADLINE, deadline).unwrap();
        assert_eq!(io.apic_msr_read(lodge_x86::msr::TSC_DEADLINE), Ok(deadline));
        while !stop.load(Ordering::SeqCst) {
            io.halt(true, true);
            if io.take_event(true, true) == Some(Event::Interrupt(TIMER)) {
                assert!(io.host_tsc() >= deadline);
                return Ok(crash());
            }
        }
        Ok(Exit::Stopped)
    };
    let report = Vm::start(config(&kernel), engine(script), Backends::default()).unwrap().wait().unwrap();
    assert!(matches!(report.outcome, Outcome::Crashed(_)), "{:?}", report.outcome);
}

#[test]
fn empty_buses_answer_ones_and_the_clock_is_shared() {
    let kernel = kernel();
    let script = |_: u32, io: &dyn CpuIo, _: &AtomicBool| {
        io.port_write(0x9999, Width::Dword, 1);
        assert_eq!(io.port_read(0x9999, Width::Word), 0xffff);
        let mut data = [0; 8];
        io.mmio_read(0xd000_0000, &mut data);
        assert_eq!(data, [0xff; 8]);
        let (first, second) = (io.clock(), io.clock());
        assert_eq!(first, second);
        assert!(first.tsc <= io.host_tsc() && first.wall_ns > 1_600_000_000 * 1_000_000_000);
        assert_ne!(io.random(), io.random());
        Ok(crash())
    };
    let report = Vm::start(config(&kernel), engine(script), Backends::default()).unwrap().wait().unwrap();
    assert!(matches!(report.outcome, Outcome::Crashed(_)), "{:?}", report.outcome);
}

/// Runs a script on one processor that ends by acting on the machine, and then idles.
fn outcome_of(config: Config, act: impl Fn(&dyn CpuIo) + Send + Sync + 'static) -> Report {
    let script = move |_: u32, io: &dyn CpuIo, stop: &AtomicBool| {
        act(io);
        Ok(idle(io, stop))
    };
    Vm::start(config, engine(script), Backends::default()).unwrap().wait().unwrap()
}

#[test]
fn the_guest_ends_the_machine_through_its_devices() {
    let kernel = kernel();
    let ends = Config { on_reboot: OnReboot::End, ..config(&kernel) };
    let report = outcome_of(ends.clone(), |io| io.port_write(0xf4, Width::Byte, 3));
    assert!(matches!(report.outcome, Outcome::Exited(7)), "{:?}", report.outcome);
    assert_eq!(report.outcome.status(), 7);

    // Into S5 through the power-management block's control register.
    let report = outcome_of(ends.clone(), |io| io.port_write(0x604, Width::Word, 1 << 13));
    assert!(matches!(report.outcome, Outcome::PoweredOff), "{:?}", report.outcome);

    // The keyboard controller's reset pulse, and the reset control register.
    let report = outcome_of(ends.clone(), |io| io.port_write(0x64, Width::Byte, 0xfe));
    assert!(matches!(report.outcome, Outcome::Rebooted), "{:?}", report.outcome);
    let report = outcome_of(ends, |io| {
        io.port_write(0xcf9, Width::Byte, 2);
        io.port_write(0xcf9, Width::Byte, 6);
    });
    assert!(matches!(report.outcome, Outcome::Rebooted), "{:?}", report.outcome);
}

#[test]
fn a_guest_that_resets_starts_anew_unless_it_may_not() {
    let kernel = kernel();
    let boots = Arc::new(AtomicU32::new(0));
    let count = boots.clone();
    let report = outcome_of(config(&kernel), move |io| match count.fetch_add(1, Ordering::SeqCst) {
        // A guest may well ask more than once.
        0 | 1 => (0..100).for_each(|_| io.port_write(0x64, Width::Byte, 0xfe)),
        _ => io.port_write(0xf4, Width::Byte, 0),
    });
    assert!(matches!(report.outcome, Outcome::Exited(1)), "{:?}", report.outcome);
    assert_eq!((report.resets, boots.load(Ordering::SeqCst)), (2, 3));
}

#[test]
fn what_the_guest_writes_to_a_serial_port_arrives_before_the_end() {
    let kernel = kernel();
    let file = NamedTempFile::new().unwrap();
    let stream: Arc<dyn lodge_backend::CharStream> = Arc::new(lodge_backend::FdStream::file(file.path()).unwrap());
    let script = |_: u32, io: &dyn CpuIo, stop: &AtomicBool| {
        for byte in b"last words" {
            while io.port_read(0x3fd, Width::Byte) & 0x20 == 0 {
                std::thread::yield_now();
            }
            io.port_write(0x3f8, Width::Byte, u32::from(*byte));
        }
        io.port_write(0xf4, Width::Byte, 0);
        Ok(idle(io, stop))
    };
    let backends = Backends::new(vec![stream], Vec::new());
    let report = Vm::start(config(&kernel), engine(script), backends).unwrap().wait().unwrap();
    assert_eq!(std::fs::read(file.path()).unwrap(), b"last words");
    let (kernel, first) = (report.times.kernel.unwrap(), report.times.first_output.unwrap());
    assert!(kernel <= first && first <= report.times.exit);
}

#[test]
fn pci_functions_are_there_and_have_addresses() {
    let kernel = kernel();
    let report = outcome_of(config(&kernel), |io| {
        let config = |device: u32, function: u32, register: u32| {
            io.port_write(0xcf8, Width::Dword, 1 << 31 | device << 11 | function << 8 | register);
            io.port_read(0xcfc, Width::Dword)
        };
        assert_eq!(config(0, 0, 0), 0x1237_8086, "the host bridge");
        assert_eq!(config(1, 0, 0), 0x7000_8086, "the ISA bridge");
        assert_eq!(config(1, 3, 0), 0x7113_8086, "power management");
        assert_eq!(config(1, 3, 0x40), 0x601);
        assert_eq!(config(31, 0, 0), u32::MAX, "nobody");
        io.port_write(0xf4, Width::Byte, 0);
    });
    assert!(matches!(report.outcome, Outcome::Exited(1)), "{:?}", report.outcome);
}

#[test]
fn a_pause_is_no_time_for_the_guest() {
    let kernel = kernel();
    let (sender, receiver) = channel();
    let sender: parking_lot::Mutex<Sender<_>> = parking_lot::Mutex::new(sender);
    let script = move |_: u32, io: &dyn CpuIo, stop: &AtomicBool| {
        let tell = || {
            let host = io.host_tsc();
            sender.lock().send((host, host.wrapping_add(io.tsc_shift()), io.clock())).unwrap();
        };
        tell();
        let exit = idle(io, stop);
        tell();
        Ok(exit)
    };
    let vm = Vm::start(config(&kernel), engine(script), Backends::default()).unwrap();
    let handle = vm.handle();
    let next = || receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    next();
    for _ in 0..3 {
        handle.pause();
        let (host_before, before, clock_before) = next();
        assert_eq!(handle.status().unwrap().phase, Phase::Paused);
        let begin = tsc::read();
        std::thread::sleep(Duration::from_millis(20));
        let length = tsc::read() - begin;
        handle.resume();
        let (host_after, after, clock_after) = next();
        let (host, machine) = (host_after - host_before, after.wrapping_sub(before));
        assert!(machine <= host - length, "{machine} ticks passed in the machine, {host} on the host, {length} paused");
        // The paravirtual clock still says how counter and time belong together, and the wall clock went on.
        assert_eq!((clock_after.tsc, clock_after.monotonic_ns), (clock_before.tsc, clock_before.monotonic_ns));
        assert!(clock_after.wall_ns >= clock_before.wall_ns + 20_000_000);
    }
    handle.quit();
    next();
    assert!(matches!(vm.wait().unwrap().outcome, Outcome::Quit));
}

#[test]
fn a_card_is_there_without_firmware_if_asked_for() {
    let kernel = kernel();
    let pci = |io: &dyn CpuIo, register: u32| {
        io.port_write(0xcf8, Width::Dword, 1 << 31 | 2 << 11 | register);
        io.port_read(0xcfc, Width::Dword)
    };
    let monitor = lodge_display::Monitor::new();
    let seen = monitor.clone();
    let script = move |_: u32, io: &dyn CpuIo, stop: &AtomicBool| {
        assert_eq!(pci(io, 0), 0x1111_1234);
        // Addresses for video memory, registers and ROM, all different, of which the ROM does not respond.
        let places = [0x10, 0x18, 0x30].map(|register| pci(io, register));
        assert_eq!((places[0], places[0] >= 0xc000_0000, places[2] & 1), (places[0] & 0xff00_0008 | 8, true, 0));
        assert!(places[1] != 0 && places[2] != 0 && places[1] != places[2], "{places:x?}");
        let mut id = [0; 2];
        io.mmio_read(u64::from(places[1]) + 0x500, &mut id);
        assert_eq!(id, [0xc5, 0xb0]);
        for (index, value) in [(1, 800), (2, 600), (3, 32), (4, 0x41)] {
            io.port_write(0x1ce, Width::Word, index);
            io.port_write(0x1cf, Width::Word, value);
        }
        let mode = lodge_display::Mode::Graphics { width: 800, height: 600, depth: 32 };
        assert_eq!(seen.mode(), Some(mode));
        io.port_write(0xf4, Width::Byte, 0);
        Ok(idle(io, stop))
    };
    let config = Config { display: true, vga_bios: vec![0x55; 2048], ..config(&kernel) };
    let backends = Backends::default().with_monitor(monitor.clone());
    let report = Vm::start(config.clone(), engine(script), backends).unwrap().wait().unwrap();
    assert!(matches!(report.outcome, Outcome::Exited(1)), "{:?}", report.outcome);
    assert_eq!(monitor.mode(), None, "the machine is gone, and its card with it");

    for (config, there) in [(Config { display: false, ..config.clone() }, false), (config.clone(), true)] {
        let report = outcome_of(config, move |io| {
            assert_eq!(pci(io, 0) == 0x1111_1234, there);
            io.port_write(0xf4, Width::Byte, 0);
        });
        assert!(matches!(report.outcome, Outcome::Exited(1)), "{:?}", report.outcome);
    }
    let odd = Config { video_memory: 3 << 20, ..config };
    let error = Vm::start(odd, engine(|_, _, _| Ok(Exit::Stopped)), Backends::default()).map(|_| ()).unwrap_err();
    assert!(matches!(error, VmError::VideoMemorySize { bytes: 0x30_0000 }) && error.is_users(), "{error}");
    assert!(error.to_string().ends_with("not 3 MiB"), "{error}");
}

#[test]
fn a_virtio_card_and_a_tablet_are_where_they_are_asked_for() {
    let kernel = kernel();
    let asked = Config { display: true, graphics: GraphicsCard::Virtio, tablet: true, ..config(&kernel) };
    for (config, there) in [(asked, true), (config(&kernel), false)] {
        let (monitor, desk) = (lodge_display::Monitor::new(), Arc::new(AtomicBool::new(true)));
        let (seen, absolute) = (monitor.clone(), desk.clone());
        let backends = Backends::default().with_monitor(monitor);
        let pointer = backends.desk().clone();
        let script = move |_: u32, io: &dyn CpuIo, stop: &AtomicBool| {
            let read = |device: u32, offset: u32| {
                io.port_write(0xcf8, Width::Dword, 0x8000_0000 | device << 11 | offset);
                io.port_read(0xcfc, Width::Dword)
            };
            // A VGA by its class, and in text mode until it has a driver; the tablet has none either.
            let card = (read(2, 0), read(2, 8) >> 8) == (0x1050_1af4, 0x03_0000);
            let tablet = (read(26, 0), read(26, 8) >> 8) == (0x1052_1af4, 0x09_8000);
            let mode = seen.mode().is_some();
            absolute.store(lodge_input::Pointer::is_absolute(&*pointer), Ordering::SeqCst);
            io.port_write(0xf4, Width::Byte, u32::from(card) | u32::from(tablet) << 1 | u32::from(mode) << 2);
            Ok(idle(io, stop))
        };
        let report = Vm::start(config, engine(script), backends).unwrap().wait().unwrap();
        let status = if there { 7 << 1 | 1 } else { 1 };
        assert!(matches!(report.outcome, Outcome::Exited(found) if found == status), "{:?}", report.outcome);
        assert!(!desk.load(Ordering::SeqCst));
    }
}

#[test]
fn the_speaker_and_the_cards_are_there_and_recorded() {
    let kernel = kernel();
    let folder = tempfile::tempdir().unwrap();
    for card in [None, Some(SoundCard::Ac97), Some(SoundCard::Sb16)] {
        let path = folder.path().join(format!("{card:?}.wav"));
        let script = move |_: u32, io: &dyn CpuIo, stop: &AtomicBool| {
            // PCI 23.0, and the version of the DSP that says it has been reset.
            io.port_write(0xcf8, Width::Dword, 0x8000_0000 | 23 << 11);
            let function = io.port_read(0xcfc, Width::Dword);
            io.port_write(0x226, Width::Byte, 1);
            io.port_write(0x226, Width::Byte, 0);
            let found = (function == 0x2415_8086, io.port_read(0x22a, Width::Byte) == 0xaa);
            if found == (card == Some(SoundCard::Ac97), card == Some(SoundCard::Sb16)) {
                // A tone of 1000 Hz, for half a second.
                for (port, value) in [(0x43, 0xb6), (0x42, 0xa9), (0x42, 0x04), (0x61, 3)] {
                    io.port_write(port, Width::Byte, value);
                }
                std::thread::sleep(Duration::from_millis(500));
                io.port_write(0x61, Width::Byte, 0);
            }
            io.port_write(0xf4, Width::Byte, 0);
            Ok(idle(io, stop))
        };
        let sink = Arc::new(WavSink::create(&path, 48_000).unwrap());
        let backends = Backends::default().with_sound(sink);
        let vm = Vm::start(Config { sound: card, ..config(&kernel) }, engine(script), backends).unwrap();
        assert!(matches!(vm.wait().unwrap().outcome, Outcome::Exited(_)));
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(u32::from_le_bytes(bytes[40..44].try_into().unwrap()) as usize, bytes.len() - 44);
        let left: Vec<_> = bytes[44..].chunks_exact(4).map(|frame| i16::from_le_bytes([frame[0], frame[1]])).collect();
        let rises: Vec<_> = (1..left.len()).filter(|n| left[n - 1] < 0 && left[*n] >= 0).collect();
        assert!(rises.len() > 400, "{card:?}: {} periods in {} frames", rises.len(), left.len());
        // However long the host took, each period has 48 frames.
        assert!(rises.windows(2).skip(20).take(350).all(|pair| (47..=49).contains(&(pair[1] - pair[0]))));
    }
}

#[test]
fn a_card_that_nobody_hears_is_there() {
    let kernel = kernel();
    let script = move |_: u32, io: &dyn CpuIo, stop: &AtomicBool| {
        io.port_write(0x226, Width::Byte, 1);
        io.port_write(0x226, Width::Byte, 0);
        let ready = io.port_read(0x22a, Width::Byte) == 0xaa;
        io.port_write(0xf4, Width::Byte, if ready { 3 } else { 0 });
        Ok(idle(io, stop))
    };
    let config = Config { sound: Some(SoundCard::Sb16), ..config(&kernel) };
    let report = Vm::start(config, engine(script), Backends::default()).unwrap().wait().unwrap();
    assert!(matches!(report.outcome, Outcome::Exited(7)), "{:?}", report.outcome);
}
