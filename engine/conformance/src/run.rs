//! Running a case and holding its end against what it expects.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use lodge_engine_api::{
    CpuidTable, CrashReport, Engine, Exit, GuestMemory, KeptCode, Mirroring, Partition, PartitionSpec, Statistics,
};
use lodge_x86::bits::efer;
use lodge_x86::cpuid::{Profile, Shape};
use lodge_x86::segment::attribute;
use lodge_x86::{CpuState, Gpr};
use vm_memory::{Bytes, GuestAddress};

use crate::board::{Board, Io, Seen, memory};
use crate::case::{Case, End, Ending, Frame, Mode};
use crate::setup::{self, Code};
use crate::{layout, tables};

/// How long a case may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long its processors may take to stop after that.
const GRACE: Duration = Duration::from_secs(2);
/// When a late event comes.
const LATE: Duration = Duration::from_millis(20);
const TSC_HZ: u64 = 1_000_000_000;

/// Why a case failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The harness could not set the case up.
    #[error("cannot set the case up: {0}")]
    Setup(String),
    /// The engine refused or failed.
    #[error("the engine fails: {0}")]
    Engine(String),
    /// It did not end in time.
    #[error("it did not end within {limit} s; {text}", limit = LIMIT.as_secs())]
    Hang {
        /// What is known of it.
        text: String,
    },
    /// It ended otherwise than expected.
    #[error("{}", .0.join("\n"))]
    Differs(Vec<String>),
}

impl Failure {
    /// From an error of guest memory or the host.
    pub fn setup(error: impl std::fmt::Display) -> Self {
        Self::Setup(error.to_string())
    }
}

/// What came of processor 0.
enum Outcome {
    Stopped(Box<CpuState>),
    TripleFault(CrashReport),
    Failed(String),
}

/// Runs a case on an engine, which may mirror programs' memory or not.
///
/// # Errors
///
/// [`Failure`], if anything is otherwise than the case expects.
pub fn run(engine: &dyn Engine, case: &Case, mirroring: Mirroring) -> Result<(), Failure> {
    run_keeping(engine, case, mirroring, None).map(drop)
}

/// Runs a case on an engine that may keep code from one run to the next; the engine's counters.
///
/// # Errors
///
/// [`Failure`], if anything is otherwise than the case expects.
pub fn run_keeping(
    engine: &dyn Engine,
    case: &Case,
    mirroring: Mirroring,
    kept_code: Option<KeptCode>,
) -> Result<Statistics, Failure> {
    let memory = memory().map_err(Failure::setup)?;
    tables::build(&memory, case)?;
    let code = setup::assemble(&memory, case)?;
    setup::system(&memory, case, &code)?;
    for (address, bytes) in &case.pokes {
        memory.write_slice(bytes, GuestAddress(*address)).map_err(Failure::setup)?;
    }
    let cpuid = cpuid(case.vcpus)?;
    let start = setup::state(case, cpuid.lookup(1, 0)[0]);
    let spec = PartitionSpec {
        memory: memory.clone(),
        vcpus: case.vcpus,
        cpuid,
        tsc_hz: TSC_HZ,
        code_cache: 2 << 20,
        mirroring,
        kept_code,
    };
    let partition = engine.create(spec).map_err(|error| Failure::Engine(error.to_string()))?;
    let board = Arc::new(Board::new(case));
    board.connect(&partition, case.vcpus);
    let outcome = execute(&partition, &board, case, &start)?;
    partition.retire();
    Comparison { case, code: &code, memory: &memory, start: &start, problems: Vec::new() }
        .compare(outcome, board.seen())?;
    Ok(partition.statistics())
}

fn cpuid(vcpus: u32) -> Result<CpuidTable, Failure> {
    let host = |leaf, subleaf| {
        let answer = std::arch::x86_64::__cpuid_count(leaf, subleaf);
        [answer.eax, answer.ebx, answer.ecx, answer.edx]
    };
    let profile = Profile::for_host(host).map_err(Failure::setup)?;
    Ok(profile.table(&Shape { vcpus, tsc_hz: TSC_HZ, apic_hz: TSC_HZ, physical_address_bits: 40 }))
}

/// Runs all processors, each on a thread of its own; none is waited for beyond the limit.
fn execute(
    partition: &Arc<dyn Partition>,
    board: &Arc<Board>,
    case: &Case,
    start: &CpuState,
) -> Result<Outcome, Failure> {
    let (send, receive) = mpsc::channel();
    for &(vcpu, _) in case.events.iter().take(case.pending) {
        if let Some(notifier) = partition.notifier(vcpu) {
            notifier.notify();
        }
    }
    let mut threads = Vec::new();
    for index in 0..case.vcpus {
        let (partition, board, send) = (Arc::clone(partition), Arc::clone(board), send.clone());
        let start = (index == 0).then(|| start.clone());
        let thread = thread::Builder::new()
            .name(format!("{} {index}", case.name))
            .spawn(move || {
                let outcome = processor(&*partition, &board, index, start);
                let _ = send.send((index, outcome));
                board.stop();
            })
            .map_err(Failure::setup)?;
        threads.push(thread);
    }
    drop(send);
    let deadline = Instant::now() + LIMIT;
    let mut late = case.late;
    let mut first = None;
    for _ in 0..case.vcpus {
        let outcome = loop {
            let wait = if late.is_some() { LATE } else { deadline.saturating_duration_since(Instant::now()) };
            match receive.recv_timeout(wait) {
                Ok(outcome) => break Some(outcome),
                Err(RecvTimeoutError::Timeout) if late.is_some() => board.raise(late.take().unwrap_or(0)),
                Err(RecvTimeoutError::Timeout) => break None,
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::Engine("a processor's thread died".into())),
            }
        };
        match outcome {
            Some((0, outcome)) => first = Some(outcome),
            Some((_, Outcome::Failed(why))) => return Err(Failure::Engine(why)),
            Some(_) => {}
            None => {
                board.stop();
                let text = match receive.recv_timeout(GRACE) {
                    Ok((_, Outcome::Stopped(state))) => format!("it was at {:#x}", state.rip),
                    Ok(_) => "it ended then".into(),
                    Err(_) => "it could not be stopped".into(),
                };
                return Err(Failure::Hang { text });
            }
        }
    }
    // They have ended but for what they hold: an engine that maps a guest's memory in this process must be gone before
    // the next case.
    for thread in threads {
        thread.join().map_err(|_| Failure::Engine("a processor's thread died".into()))?;
    }
    match first {
        Some(Outcome::Failed(why)) => Err(Failure::Engine(why)),
        Some(outcome) => Ok(outcome),
        None => Err(Failure::Engine("processor 0 did not end".into())),
    }
}

fn processor(partition: &dyn Partition, board: &Arc<Board>, index: u32, start: Option<CpuState>) -> Outcome {
    let failed = |error: lodge_engine_api::EngineError| Outcome::Failed(error.to_string());
    let mut vcpu = match partition.bind_vcpu(index) {
        Ok(vcpu) => vcpu,
        Err(error) => return failed(error),
    };
    if let Some(start) = start
        && let Err(error) = vcpu.set_state(&start)
    {
        return failed(error);
    }
    let io = Io::new(Arc::clone(board), index);
    match vcpu.run(&io) {
        Ok(Exit::Stopped) => Outcome::Stopped(Box::new(vcpu.state())),
        Ok(Exit::TripleFault(report)) => Outcome::TripleFault(report),
        Err(error) => failed(error),
    }
}

/// The vector whose handler the processor is in.
fn handler(state: &CpuState) -> Option<u8> {
    let linear = state.rip.wrapping_add(state.segment[1].base);
    let offset = linear.checked_sub(layout::HANDLERS)?;
    u8::try_from(offset / layout::HANDLER_STRIDE).ok()
}

/// Vectors with an error code (SDM 3A table 6-1).
fn has_error(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}

struct Comparison<'a> {
    case: &'a Case,
    code: &'a Code,
    memory: &'a GuestMemory,
    start: &'a CpuState,
    problems: Vec<String>,
}

impl Comparison<'_> {
    fn wrong(&mut self, problem: String) {
        self.problems.push(problem);
    }

    fn compare(mut self, outcome: Outcome, seen: Seen) -> Result<(), Failure> {
        match (&outcome, self.case.ending) {
            (Outcome::TripleFault(report), Ending::TripleFault) => {
                self.expect_log(&seen);
                let end = End { state: &report.state, frame: Frame::default(), memory: self.memory };
                self.more(&end);
            }
            (Outcome::TripleFault(report), ending) => {
                self.wrong(format!("a triple fault rather than {ending:?}: {}", report.cause));
            }
            (Outcome::Stopped(state), ending) => self.stopped(state, ending, &seen),
            (Outcome::Failed(why), _) => self.wrong(why.clone()),
        }
        if self.problems.is_empty() { Ok(()) } else { Err(Failure::Differs(self.problems)) }
    }

    fn stopped(&mut self, state: &CpuState, ending: Ending, seen: &Seen) {
        let vector = handler(state);
        let mut frame = Frame { rip: state.rip, rflags: state.rflags, rsp: state.gpr[4], ..Frame::default() };
        (frame.cs, frame.ss) = (state.segment[1].selector, state.segment[2].selector);
        if let Some(vector) = vector {
            match self.frame(state, vector) {
                Some(found) => frame = found,
                None => self.wrong("the handler's stack is not in RAM".into()),
            }
        }
        let really = match vector {
            Some(vector) => {
                format!("vector {vector}, error {:x?}, at {:#x}, cr2 {:#x}", frame.error, frame.rip, state.cr2)
            }
            None if seen.stopped => "the stop port".into(),
            None if seen.halted => "HLT".into(),
            None => format!("a stop at {:#x}", state.rip),
        };
        match ending {
            Ending::Vector { vector: want, error, rip } => {
                let place = self.code.place(rip);
                let right = vector == Some(want) && frame.error == error && place.is_none_or(|rip| rip == frame.rip);
                if !right {
                    self.wrong(format!(
                        "ended with {really} rather than vector {want}, error {error:x?}, at {place:x?}"
                    ));
                }
            }
            Ending::Stop if vector.is_none() && seen.stopped => {}
            Ending::Halt if vector.is_none() && seen.halted => {}
            _ => self.wrong(format!("ended with {really} rather than {ending:?}")),
        }
        if let Some(cr2) = self.case.cr2
            && cr2 != state.cr2
        {
            self.wrong(format!("CR2 is {:#x} rather than {cr2:#x}", state.cr2));
        }
        self.registers(state, &frame);
        let (mask, value) = self.case.flags;
        if frame.rflags & mask != value {
            let differ = (frame.rflags ^ value) & mask;
            self.wrong(format!("flags are {:#x}, differing from {value:#x} in {differ:#x}", frame.rflags));
        }
        self.expect_log(seen);
        let end = End { state, frame, memory: self.memory };
        self.more(&end);
    }

    /// Reads the handler's stack.
    fn frame(&self, state: &CpuState, vector: u8) -> Option<Frame> {
        let cs = &state.segment[1];
        let long = state.msrs.efer & efer::LMA != 0 && cs.attributes & attribute::LONG != 0;
        let real = self.case.mode == Mode::Real16 && state.cr0 & 1 == 0;
        let size: u64 = if long {
            8
        } else if real {
            2
        } else {
            4
        };
        let ss = &state.segment[2];
        let base = if long { 0 } else { ss.base };
        let narrow = !long && ss.attributes & attribute::BIG == 0;
        let mut sp = if narrow { state.gpr[4] & 0xffff } else { state.gpr[4] };
        let mut pop = || {
            let mut bytes = [0; 8];
            self.memory.read_slice(&mut bytes[..size as usize], GuestAddress(base.wrapping_add(sp))).ok()?;
            sp = sp.wrapping_add(size);
            Some(u64::from_le_bytes(bytes))
        };
        let error = if has_error(vector) && !real { Some(pop()? as u32) } else { None };
        let (rip, cs, rflags) = (pop()?, pop()? as u16, pop()?);
        let inner = !real && (cs & 3 != state.segment[1].selector & 3 || rflags >> 17 & 1 != 0);
        let (rsp, ss) = if long || inner { (pop()?, pop()? as u16) } else { (sp, ss.selector) };
        let rsp = if long || inner || !narrow { rsp } else { state.gpr[4] & !0xffff | rsp & 0xffff };
        Some(Frame { error, rip, cs, rflags, rsp, ss })
    }

    fn registers(&mut self, state: &CpuState, frame: &Frame) {
        const NAMES: [&str; 16] = [
            "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14",
            "R15",
        ];
        let wide = self.case.mode.is_long();
        let (count, mask) = if wide { (16, u64::MAX) } else { (8, u64::from(u32::MAX)) };
        for (n, name) in NAMES.iter().enumerate().take(count) {
            let mut want = Some(self.start.gpr[n]);
            for &(_, value) in self.case.expected.iter().filter(|(register, _)| *register as usize == n) {
                want = value;
            }
            let got = if n == Gpr::Rsp as usize { frame.rsp } else { state.gpr[n] } & mask;
            if let Some(want) = want
                && got != want & mask
            {
                self.wrong(format!("{name} is {got:#x} rather than {want:#x}"));
            }
        }
    }

    fn expect_log(&mut self, seen: &Seen) {
        let (got, want) = (&seen.log, &self.case.log);
        if got != want {
            let at = got.iter().zip(want).position(|(a, b)| a != b).unwrap_or(got.len().min(want.len()));
            let (got, want) = (got.get(at), want.get(at));
            self.wrong(format!("access {at} was {got:x?} rather than {want:x?}"));
        }
    }

    fn more(&mut self, end: &End<'_>) {
        for (address, want) in &self.case.memory {
            let mut got = vec![0; want.len()];
            if self.memory.read_slice(&mut got, GuestAddress(*address)).is_err() || got != *want {
                self.wrong(format!("memory at {address:#x} is {got:02x?} rather than {want:02x?}"));
            }
        }
        for (name, mask, value) in &self.case.entries_after {
            match tables::look(self.memory, self.case, *name) {
                Ok(entry) if entry & mask == *value => {}
                Ok(entry) => self.wrong(format!(
                    "the entry of level {} for {:#x} is {entry:#x}: masked {mask:#x}, not {value:#x}",
                    name.level, name.linear
                )),
                Err(failure) => self.wrong(failure.to_string()),
            }
        }
        for check in &self.case.checks {
            if let Err(problem) = check(end) {
                self.wrong(problem);
            }
        }
    }
}
