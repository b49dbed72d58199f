//! One thread per vCPU.
//!
//! ```text
//!            pass()                 run() returns
//!  bound ──► gate ──► running ──► stopped ──► gate
//!             │ End     │ triple fault, failure
//!             ▼         ▼
//!            done ◄── waiting for End
//! ```
//!
//! The [`Gate`] says whether vCPUs shall run; the driver sets it and rings every bell, and [`Gate::wait_parked`] tells
//! when all have come to rest.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use lodge_engine_api::{EngineError, Exit, Partition, Vcpu};
use lodge_x86::CpuState;
use parking_lot::{Condvar, Mutex};

use crate::VmError;
use crate::driver::{Control, Failure};
use crate::inputs::{Bells, Inputs, World};

/// What vCPUs shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run,
    Pause,
    End,
}

struct GateState {
    order: Order,
    /// Threads that wait, or are done.
    parked: u32,
}

/// Lets vCPUs run, or holds them.
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

impl Gate {
    fn new() -> Self {
        Self { state: Mutex::new(GateState { order: Order::Pause, parked: 0 }), changed: Condvar::new() }
    }

    /// Waits while vCPUs shall not run. Whether to run; false: end.
    fn pass(&self) -> bool {
        self.wait_while(|order| order == Order::Pause) == Order::Run
    }

    /// Waits for the end.
    fn wait_end(&self) {
        self.wait_while(|order| order != Order::End);
    }

    fn wait_while(&self, condition: impl Fn(Order) -> bool) -> Order {
        let mut state = self.state.lock();
        if condition(state.order) {
            state.parked += 1;
            self.changed.notify_all();
            self.changed.wait_while(&mut state, |state| condition(state.order));
            state.parked -= 1;
        }
        state.order
    }

    fn set(&self, order: Order) {
        self.state.lock().order = order;
        self.changed.notify_all();
    }

    /// Waits until `threads` threads wait or are done.
    fn wait_parked(&self, threads: u32) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.parked < threads);
    }

    /// The calling thread is done.
    fn leave(&self) {
        self.state.lock().parked += 1;
        self.changed.notify_all();
    }
}

/// The vCPUs of one machine between two resets.
pub struct Processors {
    gate: Arc<Gate>,
    bells: Arc<Bells>,
    threads: Vec<JoinHandle<()>>,
}

impl Processors {
    /// Makes the threads, which bind their vCPUs and then wait for [`Processors::resume`]. vCPU 0 gets `boot` as its
    /// state, and the others what firmware gives to all. What goes wrong on a thread is told to `control`.
    ///
    /// # Errors
    ///
    /// The host gives no more threads.
    pub fn start(
        partition: &Arc<dyn Partition>,
        world: &World,
        bells: &Arc<Bells>,
        boot: &CpuState,
        control: &Arc<Control>,
    ) -> Result<Self, VmError> {
        let mut processors = Self { gate: Arc::new(Gate::new()), bells: bells.clone(), threads: Vec::new() };
        for (vcpu, bell) in (0..).zip(bells.iter()) {
            let (partition, gate, bell) = (partition.clone(), processors.gate.clone(), bell.clone());
            let inputs = Inputs::new(vcpu, world.clone(), bell.clone());
            let boot = boot.clone();
            let control = control.clone();
            let work = move || {
                let run = AssertUnwindSafe(|| {
                    if let Some(notifier) = partition.notifier(vcpu) {
                        bell.tie(notifier);
                    }
                    let mut bound = partition.bind_vcpu(vcpu)?;
                    let state = if vcpu == 0 { boot } else { beside(&boot, bound.state()) };
                    bound.set_state(&state)?;
                    serve(&mut *bound, &inputs, &gate, &control, || bell.stopped())
                });
                let failure = match catch_unwind(run) {
                    Ok(Ok(None)) => None,
                    Ok(Ok(Some(crash))) => Some(Failure::Crash(crash)),
                    Ok(Err(error)) => Some(Failure::Lodge(VmError::Engine(error))),
                    Err(_) => {
                        let what = format!("the thread of processor {vcpu} panicked");
                        Some(Failure::Lodge(VmError::Internal(what)))
                    }
                };
                if let Some(failure) = failure {
                    control.failed(failure);
                    gate.wait_end();
                }
                gate.leave();
            };
            let spawned = std::thread::Builder::new().name(format!("vcpu{vcpu}")).spawn(work);
            match spawned {
                Ok(thread) => processors.threads.push(thread),
                Err(source) => return Err(VmError::Host { what: "thread for a processor", source }),
            }
        }
        Ok(processors)
    }

    /// Lets all run.
    pub fn resume(&self) {
        self.gate.set(Order::Run);
    }

    /// Halts all, and waits until they rest.
    pub fn pause(&self) {
        self.give(Order::Pause);
        self.gate.wait_parked(self.threads.len() as u32);
    }

    fn give(&self, order: Order) {
        self.gate.set(order);
        self.bells.iter().for_each(|bell| bell.stop());
    }
}

impl Drop for Processors {
    /// Ends all threads and waits for them.
    fn drop(&mut self) {
        self.give(Order::End);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a processor's thread panicked outside its guard");
            }
        }
    }
}

/// The state of an application processor, which waits to be started: firmware has set its memory types as those of the
/// boot processor (SDM 3A 11.11.8, MTRR considerations in MP systems), and INIT leaves them.
fn beside(boot: &CpuState, mut state: CpuState) -> CpuState {
    state.msrs.mtrr_def_type = boot.msrs.mtrr_def_type;
    state.msrs.mtrr_fixed = boot.msrs.mtrr_fixed;
    state.msrs.mtrr_variable = boot.msrs.mtrr_variable;
    state.msrs.pat = boot.msrs.pat;
    state
}

/// Runs a vCPU until the end; what crashed it, if anything did.
fn serve(
    vcpu: &mut dyn Vcpu,
    inputs: &Inputs,
    gate: &Gate,
    control: &Control,
    stopped: impl Fn(),
) -> Result<Option<Box<lodge_engine_api::CrashReport>>, EngineError> {
    while gate.pass() {
        match vcpu.run(inputs)? {
            Exit::Stopped => stopped(),
            // The board answers a shutdown by resetting the processors.
            Exit::TripleFault(_) if control.go_on_after_reset() => {}
            Exit::TripleFault(report) => return Ok(Some(Box::new(report))),
        }
    }
    Ok(None)
}
