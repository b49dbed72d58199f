//! The lifecycle: one thread owns the machine, and serves requests and events in turn.
//!
//! ```text
//!              pause                 reset (by user, or by guest if it may)
//!   Running ◄─────────► Paused      Running ──► rebuilt ──► Running
//!      │       resume     │
//!      └──────┬───────────┘
//!             ▼  power off, quit, crash, timeout, failure, last reset
//!           Ended
//! ```
//!
//! A guest that sleeps (Suspended) can be paused, too, and sleeps on when it is resumed, unless something woke it meanwhile.
//! A reset builds the machine anew from its configuration, with fresh memory, as power-cycling does; what stands
//! behind the devices on the host stays. Messages of an earlier incarnation are told by its number and dropped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lodge_bus::{AddressLine20, SystemControl};
use lodge_chipset::Rtc;
use lodge_engine_api::{CrashReport, Engine, Statistics};
use lodge_irq::Controllers;
use lodge_net::Cable;

use crate::assembly::{Backends, Machine};
use crate::report::peak_memory;
use crate::{Config, OnReboot, Outcome, Report, Times, VmError};

/// What reaches the driver.
pub(crate) enum Message {
    /// A front end asks for something.
    Request(Request),
    /// The guest of this incarnation switched the machine off.
    PowerOff(u64),
    /// It reset the machine.
    Reset(u64),
    /// It put the machine to sleep.
    Suspend(u64),
    /// Something wakes it up.
    Wake(u64),
    /// It ended the machine with a status.
    Exit(u64, u8),
    /// One of its processors had a triple fault.
    Crashed(u64, Box<CrashReport>),
    /// A part of lodge failed.
    Failed(u64, VmError),
}

/// What a front end can ask for.
pub(crate) enum Request {
    Pause,
    Resume,
    Reset,
    /// Press the power button; the answer is whether anyone listens to it.
    PowerButton(SyncSender<bool>),
    Quit,
    Status(SyncSender<Status>),
    /// Plug a network card's cable in, or pull it; the answer is whether there is such a card.
    Link {
        card: String,
        up: bool,
        reply: SyncSender<bool>,
    },
}

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its processors run.
    Running,
    /// They are held, and guest time stands still.
    Paused,
    /// The guest sleeps (ACPI S3).
    Suspended,
}

/// A machine's state at a moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// Time since its start.
    pub uptime: Duration,
    /// How often it was reset.
    pub resets: u64,
    /// The engine's name.
    pub engine: &'static str,
    /// The engine's counters.
    pub statistics: Statistics,
    /// The network cards, in order.
    pub links: Vec<Link>,
}

/// How it stands with a network card's cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The card's name ("net0").
    pub card: String,
    /// It is plugged in.
    pub up: bool,
}

/// Enqueues requests. Requests to a machine that has ended are dropped.
#[derive(Clone)]
pub struct Handle {
    messages: Sender<Message>,
}

impl Handle {
    /// Holds the processors and guest time.
    pub fn pause(&self) {
        self.request(Request::Pause);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.request(Request::Resume);
    }

    /// Restarts the machine, as its reset button does.
    pub fn reset(&self) {
        self.request(Request::Reset);
    }

    /// Presses the power button, which wakes a guest that sleeps. Whether the guest listens to it; `None` if the machine
    /// has ended.
    pub fn press_power_button(&self) -> Option<bool> {
        let (sender, receiver) = sync_channel(1);
        self.request(Request::PowerButton(sender));
        receiver.recv().ok()
    }

    /// Plugs a network card's cable in, or pulls it. Whether there is a card of that name; `None` if the machine has ended.
    pub fn set_link(&self, card: &str, up: bool) -> Option<bool> {
        let (reply, receiver) = sync_channel(1);
        self.request(Request::Link { card: card.to_owned(), up, reply });
        receiver.recv().ok()
    }

    /// Ends the machine at once.
    pub fn quit(&self) {
        self.request(Request::Quit);
    }

    /// What the machine is doing; `None` once it has ended.
    pub fn status(&self) -> Option<Status> {
        let (sender, receiver) = sync_channel(1);
        self.request(Request::Status(sender));
        receiver.recv().ok()
    }

    fn request(&self, request: Request) {
        // An error means that the driver, and with it the machine, is gone.
        let _ = self.messages.send(Message::Request(request));
    }
}

/// A running machine.
pub struct Vm {
    handle: Handle,
    driver: JoinHandle<Report>,
}

impl Vm {
    /// Builds a machine and starts it.
    ///
    /// # Errors
    ///
    /// It cannot be built: see [`VmError`].
    pub fn start(config: Config, engine: Arc<dyn Engine>, backends: Backends) -> Result<Self, VmError> {
        let start = Instant::now();
        let (messages, inbox) = channel();
        let machine = Machine::build(&config, &*engine, &backends, &messages, 0)?;
        let handle = Handle { messages: messages.clone() };
        let mut driver = Driver {
            config,
            engine,
            backends,
            messages,
            start,
            machine,
            phase: Phase::Paused,
            incarnation: 0,
            sleepy: false,
            awakened: false,
            times: Times::default(),
        };
        let serve = move || {
            driver.begin();
            let outcome = driver.serve(&inbox);
            driver.end(outcome)
        };
        let driver = std::thread::Builder::new()
            .name("driver".into())
            .spawn(serve)
            .map_err(|source| VmError::Host { what: "thread for the machine's driver", source })?;
        Ok(Self { handle, driver })
    }

    /// Where requests go.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits for the machine's end.
    ///
    /// # Errors
    ///
    /// The driver panicked.
    pub fn wait(self) -> Result<Report, VmError> {
        self.driver.join().map_err(|_| VmError::Internal("the machine's driver panicked".into()))
    }
}

struct Driver {
    config: Config,
    engine: Arc<dyn Engine>,
    backends: Backends,
    messages: Sender<Message>,
    start: Instant,
    machine: Machine,
    phase: Phase,
    incarnation: u64,
    /// The guest asked for sleep while, or sleeps and, the machine is paused.
    sleepy: bool,
    /// And something woke it up since.
    awakened: bool,
    times: Times,
}

impl Driver {
    fn begin(&mut self) {
        self.times.kernel.get_or_insert(self.start.elapsed());
        self.machine.resume();
        self.phase = Phase::Running;
    }

    fn serve(&mut self, inbox: &Receiver<Message>) -> Outcome {
        loop {
            let message = match self.config.timeout {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(timeout) => inbox.recv_timeout(timeout.saturating_sub(self.start.elapsed())),
            };
            let ended = match message {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => Some(Outcome::TimedOut),
                // The driver holds a sender itself, so this cannot happen while it lives.
                Err(RecvTimeoutError::Disconnected) => Some(Outcome::Quit),
            };
            if let Some(outcome) = ended {
                return outcome;
            }
        }
    }

    /// Serves one message; how the machine ended, if it did.
    fn take(&mut self, message: Message) -> Option<Outcome> {
        let now = self.incarnation;
        match message {
            Message::Request(request) => return self.request(request),
            Message::PowerOff(from) if from == now => return Some(Outcome::PoweredOff),
            Message::Suspend(from) if from == now => match self.phase {
                Phase::Running => self.suspend(),
                Phase::Paused => self.sleepy = true,
                Phase::Suspended => {}
            },
            Message::Wake(from) if from == now => match self.phase {
                Phase::Suspended => {
                    self.machine.wake();
                    self.phase = Phase::Running;
                }
                Phase::Paused if self.sleepy => self.awakened = true,
                Phase::Running | Phase::Paused => {}
            },
            Message::Exit(from, status) if from == now => return Some(Outcome::Exited(status)),
            Message::Crashed(from, report) if from == now => return Some(Outcome::Crashed(report)),
            Message::Failed(from, error) if from == now => return Some(Outcome::Failed(error)),
            Message::Reset(from) if from == now => match self.config.on_reboot {
                OnReboot::End => return Some(Outcome::Rebooted),
                OnReboot::Restart => return self.reset(),
            },
            // From before a reset.
            _ => {}
        }
        None
    }

    fn request(&mut self, request: Request) -> Option<Outcome> {
        match (request, self.phase) {
            (Request::Pause, Phase::Running | Phase::Suspended) => {
                self.sleepy = self.phase == Phase::Suspended;
                self.machine.pause();
                self.phase = Phase::Paused;
            }
            (Request::Resume, Phase::Paused) if std::mem::take(&mut self.sleepy) => {
                // Its processors stay where they are.
                self.machine.start_world();
                self.suspend();
                if std::mem::take(&mut self.awakened) {
                    self.machine.wake();
                    self.phase = Phase::Running;
                }
            }
            (Request::Resume, Phase::Paused) => {
                self.machine.resume();
                self.phase = Phase::Running;
            }
            // As any key would.
            (Request::Resume, Phase::Suspended) => _ = self.machine.press_power_button(),
            (Request::PowerButton(reply), _) => {
                let heard = self.machine.press_power_button();
                // The one who asked may not wait any more.
                let _ = reply.try_send(heard || self.phase == Phase::Suspended);
            }
            (Request::Pause | Request::Resume, _) => {}
            (Request::Link { card, up, reply }, _) => {
                let cable = self.cables().find(|cable| cable.name() == card);
                if let Some(cable) = cable {
                    cable.set_up(up);
                }
                // The one who asked may not wait any more.
                let _ = reply.try_send(cable.is_some());
            }
            (Request::Reset, _) => return self.reset(),
            (Request::Quit, _) => return Some(Outcome::Quit),
            (Request::Status(reply), phase) => {
                let status = Status {
                    phase,
                    uptime: self.start.elapsed(),
                    resets: self.incarnation,
                    engine: self.engine.name(),
                    statistics: self.machine.statistics(),
                    links: self
                        .cables()
                        .map(|cable| Link { card: cable.name().to_owned(), up: cable.is_up() })
                        .collect(),
                };
                // The one who asked may not wait any more.
                let _ = reply.try_send(status);
            }
        }
        None
    }

    /// The cables of the network cards, which stay as they are when the machine is reset.
    fn cables(&self) -> impl Iterator<Item = &Arc<Cable>> {
        self.backends.networks().iter().map(|attached| &attached.cable)
    }

    fn suspend(&mut self) {
        self.machine.suspend();
        self.phase = Phase::Suspended;
    }

    /// Builds the machine anew and starts it.
    fn reset(&mut self) -> Option<Outcome> {
        self.machine.halt();
        self.incarnation += 1;
        (self.sleepy, self.awakened) = (false, false);
        match Machine::build(&self.config, &*self.engine, &self.backends, &self.messages, self.incarnation) {
            Ok(machine) => self.machine = machine,
            Err(error) => return Some(Outcome::Failed(error)),
        }
        // A machine that was paused stays so.
        if self.phase != Phase::Paused {
            self.machine.resume();
            self.phase = Phase::Running;
        }
        None
    }

    fn end(mut self, outcome: Outcome) -> Report {
        self.times.exit = self.start.elapsed();
        self.times.first_output = self.backends.first_output(self.start);
        self.machine.halt();
        self.backends.flush(LAST_WORDS);
        Report {
            outcome,
            engine: self.engine.name(),
            times: self.times,
            resets: self.incarnation,
            statistics: self.machine.statistics(),
            peak_memory: peak_memory(),
        }
    }
}

/// Why a processor cannot go on.
pub(crate) enum Failure {
    /// A triple fault.
    Crash(Box<CrashReport>),
    /// A part of lodge failed.
    Lodge(VmError),
}

/// How devices act on the machine: they post, and the driver acts.
pub(crate) struct Control {
    messages: Sender<Message>,
    incarnation: u64,
    /// A guest that writes in a loop shall not fill the queue.
    posted: AtomicU64,
    restart: OnceLock<Restart>,
}

/// What decides whether processors that are reset go on where the guest wants them to, or the machine starts anew:
/// firmware goes by the shutdown status in CMOS memory.
struct Restart {
    rtc: Arc<Rtc>,
    interrupts: Arc<Controllers>,
    line_20: Arc<AddressLine20>,
}

/// How long the host may take to swallow what the guest wrote last.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Posts that one incarnation may make before the driver has acted.
const POSTS: u64 = 16;

impl Control {
    pub(crate) fn new(messages: Sender<Message>, incarnation: u64) -> Arc<Self> {
        Arc::new(Self { messages, incarnation, posted: AtomicU64::new(0), restart: OnceLock::new() })
    }

    /// From now on firmware decides what a reset of the processors means.
    pub(crate) fn connect(&self, rtc: Arc<Rtc>, interrupts: Arc<Controllers>, line_20: Arc<AddressLine20>) {
        // There is one clock per machine.
        let _ = self.restart.set(Restart { rtc, interrupts, line_20 });
    }

    /// Resets the processors if the guest said before where they shall go on. Whether it did.
    pub(crate) fn go_on_after_reset(&self) -> bool {
        let restart = self.restart.get().filter(|restart| restart.rtc.shutdown_status() != 0);
        if let Some(restart) = restart {
            // Or the processor would not find its first instruction.
            restart.line_20.set(true);
            restart.interrupts.reset_processors();
        }
        restart.is_some()
    }

    /// A processor cannot go on.
    pub(crate) fn failed(&self, failure: Failure) {
        let message = match failure {
            Failure::Crash(report) => Message::Crashed(self.incarnation, report),
            Failure::Lodge(error) => Message::Failed(self.incarnation, error),
        };
        // The driver may be gone already; then nobody wants to know.
        let _ = self.messages.send(message);
    }

    /// The driver has acted: the guest may ask for more.
    pub(crate) fn served(&self) {
        self.posted.store(0, Ordering::Relaxed);
    }

    fn post(&self, message: Message) {
        if self.posted.fetch_add(1, Ordering::Relaxed) < POSTS {
            let _ = self.messages.send(message);
        }
    }
}

impl SystemControl for Control {
    fn power_off(&self) {
        self.post(Message::PowerOff(self.incarnation));
    }

    fn reset(&self) {
        self.post(Message::Reset(self.incarnation));
    }

    fn reset_processors(&self) {
        if !self.go_on_after_reset() {
            self.reset();
        }
    }

    fn suspend(&self) {
        self.post(Message::Suspend(self.incarnation));
    }

    fn wake(&self) {
        self.post(Message::Wake(self.incarnation));
    }

    fn exit(&self, status: u8) {
        self.post(Message::Exit(self.incarnation, status));
    }
}
