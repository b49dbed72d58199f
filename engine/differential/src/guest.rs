//! An engine: cases run as a 64-bit guest's program at CPL 3, from exception to exception.
//!
//! A monitor of some fifty instructions at CPL 0 does what [`crate::native`]'s signal handler does: it copies the
//! program's state out, and the next case's state in, so that one run of the engine is a whole batch.
//!
//! All of it is mapped at 0xffffffff80000000 for the monitor.
//!
//! ```text
//! 0x01000 monitor    0x10000 page tables   0x80000  states to begin with   0x200000 data at each end
//! 0x03000 variables  0x20000 template      0x100000 states at each end
//! 0x05000 GDT, IDT, TSS, stack             0x24000, 0x26000 data           0x40000 code
//! ```

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use iced_x86::code_asm::*;
use lodge_engine_api::{
    AccessError, ClockSample, CpuIo, Engine, EngineError, Event, Exit, GuestMemory, Mirroring, Notifier, PartitionSpec,
    Vcpu, Width,
};
use lodge_x86::bits::{cr0, cr4, efer, rflags};
use lodge_x86::cpuid::{Profile, Shape};
use lodge_x86::descriptor::{Gate, kind, pack, tss64};
use lodge_x86::segment::attribute;
use lodge_x86::{CpuState, Segment, TableRegister};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{Bytes, FileOffset, GuestAddress};

use crate::layout::{BATCH, CODE, CODE_BYTES, DATA, DATA_BYTES, GS_BASE, READ_ONLY, READ_ONLY_BYTES, Record};

/// Where the monitor sees physical memory: a program that reaches there gets what it gets in a system's half.
const HIGH: u64 = 0xffff_ffff_8000_0000;
const MONITOR: u64 = 0x1000;
/// The batch's variables: cases left, addresses of the state at the end, of the data at the end, of the next state.
const LEFT: u64 = 0x3000;
const OUTPUT: u64 = 0x3008;
const COPY: u64 = 0x3010;
const INPUT: u64 = 0x3018;
/// Set by the host to have a batch run.
const GO: u64 = 0x3020;
const GDT: u64 = 0x5000;
const IDT: u64 = 0x6000;
const TSS: u64 = 0x7000;
const STACK: u64 = 0xa000;
const TABLES: u64 = 0x1_0000;
const TEMPLATE: u64 = 0x2_0000;
const DATA_AT: u64 = 0x2_4000;
/// Where the pages of the data lie from there.
const FRAMES: [u64; 3] = [0x2000, 0, 0x1000];
const CODE_AT: u64 = 0x4_0000;
const INPUTS: u64 = 0x8_0000;
const OUTPUTS: u64 = 0x10_0000;
const COPIES: u64 = 0x20_0000;
const RAM: usize = 0x80_0000;
const PORT: u16 = 0xe0;
const TSC_HZ: u64 = 1_000_000_000;
/// How long a batch may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Handlers: bytes from one to the next.
const STRIDE: u64 = 16;
/// What all handlers jump to.
const COMMON: u64 = MONITOR + 0x200;

/// Why the engine's side failed.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The harness could not be set up.
    #[error("cannot set the guest up: {0}")]
    Setup(String),
    /// A case brought the guest down.
    #[error("case {case} of the batch brought the guest down: {text}")]
    Crash {
        /// The case.
        case: usize,
        /// What is known.
        text: String,
    },
}

fn setup(error: impl std::fmt::Display) -> GuestError {
    GuestError::Setup(error.to_string())
}

/// The engine's side.
pub struct Guest {
    memory: GuestMemory,
    io: Io,
    vcpu: Box<dyn Vcpu>,
    watch: Watch,
}

struct Io {
    stop: Arc<dyn Notifier>,
    finished: AtomicBool,
    time: AtomicU64,
}

impl CpuIo for Io {
    fn port_read(&self, _: u16, width: Width) -> u32 {
        width.ones()
    }
    fn port_write(&self, port: u16, _: Width, _: u32) {
        if port != PORT {
            return;
        }
        self.finished.store(true, Ordering::SeqCst);
        self.stop.stop();
    }
    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
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
        self.stop.stop();
    }
    fn host_tsc(&self) -> u64 {
        self.time.fetch_add(1, Ordering::Relaxed)
    }
    fn clock(&self) -> ClockSample {
        ClockSample { tsc: 0, monotonic_ns: 0, wall_ns: 0 }
    }
    fn random(&self) -> u64 {
        self.host_tsc()
    }
}

/// Stops a processor that takes too long.
struct Watch {
    begin: mpsc::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn new(stop: Arc<dyn Notifier>) -> Self {
        let (begin, receive) = mpsc::channel::<bool>();
        let thread = std::thread::spawn(move || {
            while let Ok(running) = receive.recv() {
                if !running {
                    continue;
                }
                // Until the end of the batch.
                match receive.recv_timeout(LIMIT) {
                    Ok(_) => {}
                    Err(RecvTimeoutError::Timeout) => stop.stop(),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Self { begin, thread: Some(thread) }
    }

    fn running(&self, running: bool) {
        let _ = self.begin.send(running);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel();
        self.begin = closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Guest {
    /// A guest on an engine, ready for batches.
    ///
    /// # Errors
    ///
    /// The engine refuses, or the host gives no memory.
    pub fn new(engine: &dyn Engine, mirroring: Mirroring) -> Result<Self, GuestError> {
        let memfd = memfd_create("lodge-differential-guest", MemfdFlags::CLOEXEC).map_err(setup)?;
        ftruncate(&memfd, RAM as u64).map_err(setup)?;
        let file = FileOffset::new(File::from(memfd), 0);
        let memory = GuestMemory::from_ranges_with_files([(GuestAddress(0), RAM, Some(file))]).map_err(setup)?;
        let host = |leaf, subleaf| {
            let answer = cpuid(leaf, subleaf);
            [answer.eax, answer.ebx, answer.ecx, answer.edx]
        };
        let profile = Profile::for_host(host).map_err(setup)?;
        let shape = Shape { vcpus: 1, tsc_hz: TSC_HZ, apic_hz: TSC_HZ, physical_address_bits: 40 };
        let cpuid = profile.table(&shape);
        let mut state = CpuState::reset(cpuid.lookup(1, 0)[0]);
        let spec = PartitionSpec {
            memory: memory.clone(),
            vcpus: 1,
            cpuid,
            tsc_hz: TSC_HZ,
            code_cache: 32 << 20,
            mirroring,
            kept_code: None,
        };
        let partition = engine.create(spec)?;
        let mut vcpu = partition.bind_vcpu(0)?;
        let stop = partition.notifier(0).ok_or_else(|| setup("no notifier"))?;
        let entry = monitor(&memory)?;
        tables(&memory)?;
        descriptors(&memory)?;
        begin(&mut state, entry);
        vcpu.set_state(&state)?;
        let io = Io { stop: Arc::clone(&stop), finished: AtomicBool::new(false), time: AtomicU64::new(0) };
        Ok(Self { memory, io, vcpu, watch: Watch::new(stop) })
    }

    /// Runs a batch.
    ///
    /// # Errors
    ///
    /// [`GuestError::Crash`] if a case ends the guest rather than itself; the guest is of no use then.
    pub fn run(&mut self, code: &[u8], template: &[u8], inputs: &[Record]) -> Result<(), GuestError> {
        let put = |at: u64, bytes: &[u8]| self.memory.write_slice(bytes, GuestAddress(at)).map_err(setup);
        put(CODE_AT, code)?;
        put(TEMPLATE, &template[..DATA_BYTES])?;
        put(DATA_AT + FRAMES[2], &template[DATA_BYTES..])?;
        for (at, input) in (INPUTS..).step_by(Record::BYTES).zip(inputs) {
            put(at, &input.0)?;
        }
        for (at, value) in [
            (LEFT, inputs.len() as u64),
            (OUTPUT, HIGH + OUTPUTS),
            (COPY, HIGH + COPIES),
            (INPUT, HIGH + INPUTS),
            (GO, 1),
        ] {
            put(at, &value.to_le_bytes())?;
        }
        self.io.finished.store(false, Ordering::SeqCst);
        self.watch.running(true);
        let exit = self.vcpu.run(&self.io);
        self.watch.running(false);
        let output: u64 = self.memory.read_obj(GuestAddress(OUTPUT)).map_err(setup)?;
        let case = (output.saturating_sub(HIGH + OUTPUTS) / Record::BYTES as u64) as usize;
        match exit? {
            Exit::Stopped if self.io.finished.load(Ordering::SeqCst) => Ok(()),
            Exit::Stopped => {
                let state = self.vcpu.state();
                Err(GuestError::Crash { case, text: format!("it went on without end, at {:#x}", state.rip) })
            }
            Exit::TripleFault(report) => Err(GuestError::Crash { case, text: report.cause }),
        }
    }

    /// A case's end.
    pub fn result(&self, number: usize, record: &mut Record, data: &mut [u8]) -> Result<(), GuestError> {
        let number = number as u64;
        let at = OUTPUTS + number * Record::BYTES as u64;
        self.memory.read_slice(&mut record.0, GuestAddress(at)).map_err(setup)?;
        self.memory.read_slice(data, GuestAddress(COPIES + number * DATA_BYTES as u64)).map_err(setup)
    }
}

fn cpuid(leaf: u32, subleaf: u32) -> std::arch::x86_64::CpuidResult {
    std::arch::x86_64::__cpuid_count(leaf, subleaf)
}

/// Vectors with an error code (SDM 3A table 6-1).
const WITH_CODE: [u64; 8] = [8, 10, 11, 12, 13, 14, 17, 21];

/// Assembles handlers and monitor; where it begins.
fn monitor(memory: &GuestMemory) -> Result<u64, GuestError> {
    let mut asm = CodeAssembler::new(64).map_err(setup)?;
    let entry = assemble(&mut asm).map_err(setup)?;
    let code = asm.assemble(HIGH + COMMON).map_err(setup)?;
    memory.write_slice(&code, GuestAddress(COMMON)).map_err(setup)?;
    for vector in 0..32 {
        let at = MONITOR + vector * STRIDE;
        let mut stub = CodeAssembler::new(64).map_err(setup)?;
        if !WITH_CODE.contains(&vector) {
            stub.push(0).map_err(setup)?;
        }
        stub.push(vector as i32).map_err(setup)?;
        stub.jmp(HIGH + COMMON).map_err(setup)?;
        let code = stub.assemble(HIGH + at).map_err(setup)?;
        memory.write_slice(&code, GuestAddress(at)).map_err(setup)?;
    }
    Ok(entry)
}

/// Registers but RSP, and those that the monitor works with.
const PLAIN: [(usize, AsmRegister64); 13] = [
    (0, rax),
    (1, rcx),
    (2, rdx),
    (5, rbp),
    (6, rsi),
    (8, r8),
    (9, r9),
    (10, r10),
    (11, r11),
    (12, r12),
    (13, r13),
    (14, r14),
    (15, r15),
];

/// The monitor: out with one state, in with the next. The address at which a batch begins.
fn assemble(a: &mut CodeAssembler) -> Result<u64, iced_x86::IcedError> {
    let (mut next, mut idle, mut end) = (a.create_label(), a.create_label(), a.create_label());
    let slot = |at: usize| at as u64;
    // On the stack: vector, error code, RIP, CS, RFLAGS, RSP, SS.
    a.push(rdi)?;
    a.mov(rdi, qword_ptr(HIGH + OUTPUT))?;
    for (number, register) in PLAIN {
        a.mov(qword_ptr(rdi + slot(number * 8)), register)?;
    }
    a.mov(qword_ptr(rdi + slot(3 * 8)), rbx)?;
    for (offset, pad) in
        [(7 * 8, 0), (Record::VECTOR, 0), (Record::ERROR, 0), (Record::RIP, 8), (Record::RFLAGS, 0), (4 * 8, 8)]
    {
        a.pop(rax)?;
        a.mov(qword_ptr(rdi + slot(offset)), rax)?;
        if pad != 0 {
            a.add(rsp, pad)?;
        }
    }
    a.mov(rax, cr2)?;
    a.mov(qword_ptr(rdi + slot(Record::CR2)), rax)?;
    a.mov(eax, 7)?;
    a.xor(edx, edx)?;
    a.xsave(ptr(rdi + slot(Record::XSAVE)))?;
    a.add(rdi, Record::BYTES as i32)?;
    a.mov(qword_ptr(HIGH + OUTPUT), rdi)?;
    a.cld()?;
    a.mov(rsi, DATA)?;
    a.mov(rdi, qword_ptr(HIGH + COPY))?;
    a.mov(ecx, DATA_BYTES as u32 / 8)?;
    a.rep().movsq()?;
    a.mov(qword_ptr(HIGH + COPY), rdi)?;
    a.dec(qword_ptr(HIGH + LEFT))?;
    a.jne(next)?;
    a.set_label(&mut end)?;
    a.out(PORT as u32, al)?;
    a.set_label(&mut idle)?;
    a.cmp(qword_ptr(HIGH + GO), 0)?;
    a.je(idle)?;
    a.mov(qword_ptr(HIGH + GO), 0)?;
    a.set_label(&mut next)?;
    a.mov(rsi, HIGH + TEMPLATE)?;
    a.mov(rdi, DATA)?;
    a.mov(ecx, DATA_BYTES as u32 / 8)?;
    a.rep().movsq()?;
    a.xor(eax, eax)?;
    a.mov(cr2, rax)?;
    a.mov(rbx, qword_ptr(HIGH + INPUT))?;
    a.mov(eax, 7)?;
    a.xor(edx, edx)?;
    a.xrstor(ptr(rbx + slot(Record::XSAVE)))?;
    a.add(qword_ptr(HIGH + INPUT), Record::BYTES as i32)?;
    a.push(0x2b)?;
    a.push(qword_ptr(rbx + slot(4 * 8)))?;
    a.push(qword_ptr(rbx + slot(Record::RFLAGS)))?;
    a.push(0x33)?;
    a.push(qword_ptr(rbx + slot(Record::RIP)))?;
    for (number, register) in PLAIN {
        a.mov(register, qword_ptr(rbx + slot(number * 8)))?;
    }
    a.mov(rdi, qword_ptr(rbx + slot(7 * 8)))?;
    a.mov(rbx, qword_ptr(rbx + slot(3 * 8)))?;
    a.iretq()?;
    let result = a.assemble_options(HIGH + COMMON, iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    result.label_ip(&idle)
}

/// Page tables: the first 8 MiB for the monitor, code and data for cases.
fn tables(memory: &GuestMemory) -> Result<(), GuestError> {
    const P: u64 = 1;
    const RW: u64 = 2;
    const US: u64 = 4;
    const PS: u64 = 0x80;
    const NX: u64 = 1 << 63;
    let put = |at: u64, value: u64| memory.write_obj(value, GuestAddress(at)).map_err(setup);
    let table = |n: u64| TABLES + n * 0x1000;
    put(table(0), table(1) | P | RW | US)?;
    put(table(1), table(2) | P | RW | US)?;
    put(table(0) + 511 * 8, table(6) | P | RW)?;
    put(table(6) + 510 * 8, table(7) | P | RW)?;
    put(table(7), table(3) | P | RW)?;
    for large in 1..4 {
        put(table(7) + large * 8, large << 21 | P | RW | PS)?;
    }
    for page in 0..512 {
        put(table(3) + page * 8, page << 12 | P | RW)?;
    }
    put(table(2) + (CODE >> 21) * 8, table(4) | P | RW | US)?;
    for page in 0..CODE_BYTES as u64 / 0x1000 {
        put(table(4) + page * 8, (CODE_AT + page * 0x1000) | P | US)?;
    }
    put(table(2) + (DATA >> 21) * 8, table(5) | P | RW | US)?;
    for page in 0..(DATA_BYTES + READ_ONLY_BYTES) as u64 / 0x1000 {
        let writable = if DATA + page * 0x1000 < READ_ONLY { RW } else { 0 };
        // Not in the order of their linear addresses, so that an access across the edge goes to two places.
        put(table(5) + page * 8, (DATA_AT + FRAMES[page as usize]) | P | US | NX | writable)?;
    }
    Ok(())
}

const CODE_0: u16 = 0x08;
const DATA_0: u16 = 0x10;
const USER_DATA: u16 = 0x2b;
const USER_CODE: u16 = 0x33;
const TASK: u16 = 0x38;

fn segment(selector: u16, code: bool) -> Segment {
    let dpl = (selector & 3) << attribute::DPL_SHIFT;
    let kind = if code { attribute::CODE | attribute::LONG } else { attribute::BIG };
    let attributes = attribute::PRESENT
        | attribute::NON_SYSTEM
        | attribute::READ_WRITE
        | attribute::ACCESSED
        | attribute::GRANULARITY
        | kind
        | dpl;
    Segment { base: 0, limit: u32::MAX, selector, attributes }
}

fn task() -> Segment {
    let attributes = attribute::PRESENT | u16::from(kind::TSS_32_BUSY);
    Segment { base: HIGH + TSS, limit: tss64::MIN_LIMIT, selector: TASK, attributes }
}

/// GDT with the selectors that Linux programs have, IDT and TSS.
fn descriptors(memory: &GuestMemory) -> Result<(), GuestError> {
    let put = |at: u64, value: u64| memory.write_obj(value, GuestAddress(at)).map_err(setup);
    for (selector, code) in [(CODE_0, true), (DATA_0, false), (USER_DATA, false), (USER_CODE, true)] {
        put(GDT + u64::from(selector & !7), pack(&segment(selector, code)))?;
    }
    put(GDT + u64::from(TASK), pack(&task()))?;
    put(TSS + tss64::RSP0, HIGH + STACK)?;
    put(TSS + tss64::IST1, HIGH + STACK - 0x1000)?;
    // No map of ports.
    memory.write_obj(tss64::MIN_LIMIT as u16 + 1, GuestAddress(TSS + tss64::IO_MAP)).map_err(setup)?;
    for vector in 0..32 {
        let gate = Gate {
            offset: HIGH + MONITOR + vector * STRIDE,
            selector: CODE_0,
            kind: kind::INTERRUPT_GATE_32,
            dpl: if matches!(vector, 3 | 4) { 3 } else { 0 },
            present: true,
            ist: 0,
            parameters: 0,
        };
        let (low, high) = gate.to_long();
        put(IDT + vector * 16, low)?;
        put(IDT + vector * 16 + 8, high)?;
    }
    Ok(())
}

/// The monitor's state before the first batch.
fn begin(state: &mut CpuState, entry: u64) {
    state.cr0 = cr0::ET | cr0::NE | cr0::MP | cr0::PE | cr0::WP | cr0::PG | cr0::AM;
    state.cr3 = TABLES;
    state.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE | cr4::FSGSBASE | cr4::UMIP;
    state.msrs.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
    state.xcr0 = 7;
    state.gdtr = TableRegister { base: HIGH + GDT, limit: 0x4f };
    state.idtr = TableRegister { base: HIGH + IDT, limit: 0x1ff };
    // Null selectors, as Linux programs have; GS with a base.
    state.segment = [Segment::default(); 6];
    state.segment[1] = segment(CODE_0, true);
    state.segment[2] = segment(DATA_0, false);
    state.segment[5].base = GS_BASE;
    state.tr = task();
    state.ldtr = Segment::default();
    state.gpr[4] = HIGH + STACK;
    state.rip = entry;
    state.rflags = rflags::FIXED;
}

/// Whether all lies where it has room.
const _: () = {
    assert!(CODE_AT + (CODE_BYTES as u64) <= INPUTS);
    assert!(INPUTS + (BATCH * Record::BYTES) as u64 <= OUTPUTS);
    assert!(OUTPUTS + (BATCH * Record::BYTES) as u64 <= COPIES);
    assert!(COPIES as usize + BATCH * DATA_BYTES <= RAM);
    assert!(BATCH * crate::layout::SLOT <= CODE_BYTES);
};
