//! `lodge run`: opens what the plan names, starts the machine, and sees it to its end.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lodge_backend::{CharStream, Disk, FdStream, NullStream, SocketStream};
use lodge_control::Server;
use lodge_disk::{DiskError, Options};
use lodge_display::Monitor;
use lodge_engine_api::Mirroring;
use lodge_input::Desk;
use lodge_net::TapError;
use lodge_net::switch::SwitchError;
use lodge_netboot::FolderError;
use lodge_usernet::UserNetError;
use lodge_vm::engines::{self, Choice, Chosen, NoEngine};
use lodge_vm::{
    Attached, AttachedCd, Backends, Boot, BootDevice, Config, Firmware, FloppyError, Handle, Kernel, OnReboot, Outcome,
    Phase, Sink, SoundCard, Vm, VmError, WavSink,
};
use lodge_vnc::{Password, VncConfig, VncError, VncWiring};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::args::{BootPlan, DiskPlan, DisplayPlan, Plan, RunArgs, SerialPlan, UsageError};
use crate::console::{Action, Escapes, PromptCommand};
use crate::net::{NetPlan, RomUse};
use crate::terminal::{self, Raw};
use crate::translations;
use crate::{firmware, media, net, report};

/// Most bytes of generated code that an engine may keep: an eighth of the guest's memory, or a quarter of what it has beyond
/// [`SMALL`], within these bounds. Compiling a kernel fills 190 MiB, and takes 1.6 times as long with 128 MiB.
const CODE_CACHE: RangeInclusive<u64> = 32 << 20..=512 << 20;
/// Memory of a guest that is small.
const SMALL: u64 = 256 << 20;
/// The kernel's command line where none is given: a console on the serial port.
const DEFAULT_COMMAND_LINE: &str = "console=ttyS0";

/// Why a machine did not come to run. The cause is in the text.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The command line.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// Who started this has gone.
    #[error("process {0}, with which this one ends, is not the one that started it, or has ended")]
    Abandoned(i32),
    /// No engine.
    #[error("{0}; `lodge doctor` says more")]
    Engine(#[from] NoEngine),
    /// A disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A disc.
    #[error("the disc {path} can't be opened: {source}; {}", media::remedy(.source))]
    Disc {
        /// Its file.
        path: PathBuf,
        /// The host's answer.
        source: std::io::Error,
    },
    /// A disc's image without anything in it.
    #[error("the disc {path} is empty; give the file of an ISO image, or `none` for a drive without a disc")]
    EmptyDisc {
        /// Its file.
        path: PathBuf,
    },
    /// A disc's image that ends in the middle of a sector.
    #[error(
        "the disc {path} has {size} bytes, which is no whole number of sectors: it was cut short; get another copy"
    )]
    CutDisc {
        /// Its file.
        path: PathBuf,
        /// Bytes.
        size: u64,
    },
    /// UEFI's variables.
    #[error(transparent)]
    Variables(#[from] firmware::VariablesError),
    /// A floppy's file.
    #[error("the floppy {path} can't be opened: {source}; {}", media::floppy_remedy(.source, .path, *.readonly))]
    FloppyFile {
        /// The file.
        path: PathBuf,
        /// It was to be read alone.
        readonly: bool,
        /// The host's answer.
        source: std::io::Error,
    },
    /// A floppy.
    #[error(transparent)]
    Floppy(#[from] FloppyError),
    /// A file or socket that would be made.
    #[error("the {what} '{path}' cannot be made: {source}{}", remedy(.source))]
    Output {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: String,
        /// The host's answer.
        source: std::io::Error,
    },
    /// Standard input and output.
    #[error("standard input and output cannot be used: {0}")]
    Stdio(std::io::Error),
    /// The viewers' password.
    #[error("the password in '{path}' can't be used: {problem}")]
    Password {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A network in user mode.
    #[error("--net user: {source}; {}", .source.remedy())]
    UserNet {
        /// Why there is none.
        #[from]
        source: UserNetError,
    },
    /// A tap.
    #[error("--net tap={interface}: {source}; {}", .source.remedy())]
    Tap {
        /// Its name.
        interface: String,
        /// Why there is none.
        source: TapError,
    },
    /// A switch.
    #[error("--net switch={name}: {source}; {}", .source.remedy())]
    Switch {
        /// Its name.
        name: String,
        /// Why this machine is not on it.
        source: SwitchError,
    },
    /// A card's expansion ROM.
    #[error(
        "the network card's boot ROM {path} can't be read: {source}; install the package `ipxe-qemu`, or name the \
         folder with --firmware-dir"
    )]
    BootRom {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Boot files.
    #[error("--net netboot: {source}; name a folder with netboot= and a file in it with bootfile=")]
    Netboot {
        /// What is wrong with them.
        source: FolderError,
    },
    /// A network card's cable.
    #[error("a network card can't be plugged in: {0}; end other programs, or raise their limits (ulimit -a)")]
    Network(std::io::Error),
    /// The viewers' server.
    #[error(transparent)]
    Vnc(#[from] VncError),
    /// The control socket's thread.
    #[error("the control socket can't be served: {0}")]
    Control(std::io::Error),
    /// The machine.
    #[error(transparent)]
    Vm(#[from] VmError),
}

impl RunError {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Vm(error) => error.status(),
            Self::Engine(NoEngine::None { .. }) => 5,
            _ => 2,
        }
    }
}

/// Starts lodge over where the engine that will be taken can map guest programs' memory directly, if it has use for that.
/// To be called before there is any thread or output. What is wrong with the arguments, [`run`] tells.
///
/// # Errors
///
/// lodge cannot be started over; it works all the same.
pub fn enter_arena(args: &RunArgs) -> Result<(), lodge_arena::Error> {
    // RAM has to find room there, twice.
    const MOST: u64 = 128 << 30;
    let wanted = |plan: &Plan| plan.mirroring != Mirroring::Never && args.memory <= MOST;
    let plan = args.plan().ok().filter(wanted);
    let chosen = plan.and_then(|plan| engines::choose(&engines::all(), &plan.engine).ok());
    if chosen.is_some_and(|chosen| chosen.engine.capabilities().maps_at_guest_addresses) {
        lodge_arena::enter()?;
    }
    Ok(())
}

/// What is booted, with UEFI's variables.
fn booted(args: &RunArgs, plan: BootPlan, serial_console: bool) -> Result<(Boot, Option<Arc<dyn Disk>>), RunError> {
    let folder = args.firmware_dir.as_deref();
    let kernel = |path| {
        let command_line = args.append.clone().unwrap_or_else(|| DEFAULT_COMMAND_LINE.into());
        Kernel { path, initrd: args.initrd.clone(), command_line }
    };
    let firmware = |image, order| {
        let kernel = args.kernel.clone().map(kernel);
        Boot::Firmware(Firmware { image, order, serial_console, kernel })
    };
    Ok(match plan {
        BootPlan::Kernel(path) => (Boot::Kernel(kernel(path)), None),
        BootPlan::Bios(order) => (firmware(firmware::bios(folder), order), None),
        BootPlan::Uefi(order) => {
            let [code, empty] = firmware::uefi(folder);
            let variables = firmware::variables(args.firmware_vars.as_deref(), &empty)?;
            (firmware(code, order), Some(variables))
        }
    })
}

/// What network cards' ROMs are for; nothing where no firmware looks for them.
fn roms<'a>(args: &'a RunArgs, plan: &Plan) -> Option<RomUse<'a>> {
    let (uefi, order) = match &plan.boot {
        BootPlan::Kernel(_) => return None,
        BootPlan::Bios(order) => (false, order),
        BootPlan::Uefi(order) => (true, order),
    };
    let nothing_else = plan.disks.is_empty() && plan.cds.is_empty() && plan.floppies.is_empty();
    let named = order.devices.contains(&BootDevice::Network);
    let needed = named || nothing_else || plan.networks.iter().any(NetPlan::serves_boot_files);
    Some(RomUse { folder: args.firmware_dir.as_deref(), uefi, needed })
}

/// Has this process end with the one that started it, in good order.
fn end_with(parent: i32) -> Result<(), RunError> {
    // Where the host knows nothing of this, it goes on as it would without.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    let is_there = rustix::process::getppid().is_some_and(|started| started.as_raw_nonzero().get() == parent);
    is_there.then_some(()).ok_or(RunError::Abandoned(parent))
}

/// Runs a machine. The exit status.
///
/// # Errors
///
/// It cannot be started, or lodge failed in a way that the machine's report cannot tell.
pub fn run(args: &RunArgs) -> Result<u8, RunError> {
    let plan = args.plan()?;
    args.ends_with.map(end_with).transpose()?;
    let report_file = args.report.as_deref().map(|path| create("report", path)).transpose()?;
    let handle = Arc::new(OnceLock::new());
    let disks = plan.disks.iter().map(open_disk).collect::<Result<_, _>>()?;
    let cds: Vec<_> = plan.cds.iter().map(media::open_cd).collect::<Result<_, _>>()?;
    let floppies: Vec<_> = plan.floppies.iter().map(media::open_floppy).collect::<Result<_, _>>()?;
    let cd_drives = (0..).zip(&cds).map(|(number, cd)| media::drive(format!("cd{number}"), &cd.tray, media::load_disc));
    let floppy_drives =
        (0..).zip(&floppies).map(|(number, tray)| media::drive(format!("floppy{number}"), tray, media::load_floppy));
    let drives = cd_drives.chain(floppy_drives).collect();
    warn_of_discs(&plan, &cds);
    let Chosen { engine, why } = engines::choose(&engines::all(), &plan.engine)?;
    let folder = args.firmware_dir.as_deref();
    let serial_console = plan.display == DisplayPlan::None && plan.serials.first() == Some(&SerialPlan::Stdio);
    let networks = net::attach(&plan.networks, &plan.disks, roms(args, &plan))?;
    let (boot, variables) = booted(args, plan.boot, serial_console)?;
    let (Boot::Kernel(Kernel { path: image, .. }) | Boot::Firmware(Firmware { image, .. })) = &boot;
    let kept_code = translations::kept_code(&plan.translations, image);
    let display = plan.display != DisplayPlan::None || plan.graphics.is_some();
    let has_card = display || boot.firmware().is_some();
    let graphics = plan.graphics.unwrap_or_default();
    let vga_bios = if has_card { firmware::vga_bios(folder, graphics) } else { Vec::new() };
    let config = Config {
        machine: plan.machine,
        memory: args.memory,
        vcpus: args.cpus,
        boot,
        display,
        graphics,
        vga_bios,
        video_memory: lodge_vm::VIDEO_MEMORY,
        tablet: plan.tablet,
        sound: plan.sound.card,
        debug_exit: args.debug_exit,
        on_reboot: if args.no_reboot { OnReboot::End } else { OnReboot::Restart },
        timeout: args.timeout,
        code_cache: code_cache(args.memory),
        mirroring: if lodge_arena::inside() { plan.mirroring } else { Mirroring::Never },
        kept_code,
    };
    let signal = watch_signals(handle.clone()).map_err(RunError::Stdio)?;
    eprintln!("lodge: {} engine ({why}), {} CPU, {} MiB", engine.name(), config.vcpus, config.memory >> 20);

    let uses_stdio = plan.serials.iter().chain([&plan.console]).any(|plan| *plan == SerialPlan::Stdio);
    let raw = if uses_stdio { Raw::enter() } else { None };
    let serials = plan
        .serials
        .iter()
        .map(|plan| open_stream(["serial file", "serial socket"], plan, raw.is_some(), &handle))
        .collect::<Result<_, _>>()?;
    let mut backends = Backends::new(serials, disks).with_cds(cds).with_floppies(floppies).with_networks(networks);
    if plan.console != SerialPlan::None {
        backends = backends.with_console(open_stream(
            ["console's file", "console's socket"],
            &plan.console,
            raw.is_some(),
            &handle,
        )?);
    }
    if plan.parallel != SerialPlan::None {
        backends = backends.with_parallel(open_stream(
            ["printer's file", "printer's socket"],
            &plan.parallel,
            false,
            &handle,
        )?);
    }
    if let Some(disk) = variables {
        backends = backends.with_variables(disk);
    }
    if let Some(path) = &plan.sound.recording {
        backends = backends.with_sound(record_sound(path, plan.sound.card)?);
    }
    if let Some(path) = &args.firmware_log {
        let log = FdStream::file(path).map_err(|source| output("firmware's log", path, source))?;
        backends = backends.with_firmware_log(Arc::new(log));
    }
    let control = args.control.as_deref().map(bind_control).transpose()?;
    let (monitor, desk) = (backends.monitor().clone(), backends.desk().clone());
    let _viewers = serve_display(&plan.display, &monitor, &desk)?;
    let vm = Vm::start(config, engine, backends)?;
    let machine = lodge_control::Machine { handle: vm.handle(), monitor, desk, drives };
    let control = control.map(|(listener, path)| Server::start(listener, path, machine).map_err(RunError::Control));
    let _control = control.transpose()?;
    // Set once, here; the signal and console threads look for it.
    let _ = handle.set(vm.handle());
    if signal.load(Ordering::SeqCst) != 0 {
        vm.handle().quit();
    }
    let ended = vm.wait();
    drop(raw);
    let ended = ended?;

    let status = match (&ended.outcome, signal.load(Ordering::SeqCst)) {
        (Outcome::Quit, number @ 1..) => 128u8.saturating_add(u8::try_from(number).unwrap_or(0)),
        _ => ended.outcome.status(),
    };
    match &ended.outcome {
        Outcome::Crashed(crash) => eprint!("{}", report::crash(crash)),
        Outcome::Failed(error) => eprintln!("lodge: {error}"),
        Outcome::TimedOut => eprintln!("lodge: the time is up (--timeout); the guest was still running"),
        _ => {}
    }
    if let (Some(file), Some(path)) = (report_file, &args.report) {
        report::write(file, &ended, status).map_err(|source| output("report", path, source))?;
    }
    Ok(status)
}

/// Says so where nothing that there is can be booted. Firmware will say it, too, but not which file is to blame.
fn warn_of_discs(plan: &Plan, cds: &[AttachedCd]) {
    if matches!(plan.boot, BootPlan::Bios(_) | BootPlan::Uefi(_))
        && plan.disks.is_empty()
        && plan.floppies.is_empty()
        && let Some(path) = media::unbootable(&plan.cds, cds)
    {
        let path = path.display();
        eprintln!(
            "lodge: warning: the disc {path} has no boot record, and there is nothing else to boot from; name a bootable one"
        );
    }
}

/// Most bytes of generated code for a guest with so much memory.
fn code_cache(memory: u64) -> usize {
    let wanted = (memory / 8).max(memory.saturating_sub(SMALL) / 4);
    wanted.clamp(*CODE_CACHE.start(), *CODE_CACHE.end()) as usize
}

/// What to do about a file that cannot be made.
fn remedy(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::NotFound => "; make its folder first",
        std::io::ErrorKind::PermissionDenied => "; name a place that you may write to",
        std::io::ErrorKind::IsADirectory => "; name a file",
        std::io::ErrorKind::AddrInUse => "; remove what is there, or name another place",
        _ => "",
    }
}

/// A file that cannot be made.
pub fn output(what: &'static str, path: &Path, source: std::io::Error) -> RunError {
    RunError::Output { what, path: path.display().to_string(), source }
}

fn create(what: &'static str, path: &Path) -> Result<File, RunError> {
    File::create(path).map_err(|source| output(what, path, source))
}

fn open_disk(plan: &DiskPlan) -> Result<Attached, RunError> {
    let options = Options { format: plan.format, readonly: plan.readonly, ephemeral: plan.ephemeral };
    Ok(Attached { bus: plan.bus, disk: lodge_disk::open(&plan.path, options)? })
}

/// Lets viewers in, if any are to see the screen.
fn serve_display(
    plan: &DisplayPlan,
    monitor: &Arc<Monitor>,
    desk: &Arc<Desk>,
) -> Result<Option<lodge_vnc::Server>, RunError> {
    let DisplayPlan::Vnc { address, password } = plan else { return Ok(None) };
    let password = password.as_deref().map(read_password).transpose()?;
    let config = VncConfig { address: address.clone(), password, name: "lodge".into() };
    let wiring = VncWiring { monitor: monitor.clone(), keyboard: desk.clone(), pointer: desk.clone() };
    let server = lodge_vnc::Server::start(config, wiring)?;
    eprintln!("lodge: the screen is at {} for VNC viewers", server.address());
    Ok(Some(server))
}

/// The password in a file's first line.
fn read_password(path: &Path) -> Result<Password, RunError> {
    let failed = |problem: String| RunError::Password { path: path.display().to_string(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let line = text.lines().next().unwrap_or_default();
    Password::new(line).ok_or_else(|| failed("its first line is empty".into()))
}

/// A recording, in which what the card plays is as it was.
fn record_sound(path: &Path, card: Option<SoundCard>) -> Result<Arc<dyn Sink>, RunError> {
    let rate = card.unwrap_or(SoundCard::Ac97).rate();
    let sink = WavSink::create(path, rate).map_err(|source| output("recording", path, source))?;
    Ok(Arc::new(sink))
}

/// Makes the control socket, before the machine: it is what is most likely to fail.
fn bind_control(path: &Path) -> Result<(UnixListener, &Path), RunError> {
    let listener = Server::bind(path).map_err(|source| output("control socket", path, source))?;
    Ok((listener, path))
}

/// What `plan` names; `what` is what its file and its socket are called.
fn open_stream(
    what: [&'static str; 2],
    plan: &SerialPlan,
    raw: bool,
    handle: &Arc<OnceLock<Handle>>,
) -> Result<Arc<dyn CharStream>, RunError> {
    Ok(match plan {
        SerialPlan::None => Arc::new(NullStream),
        SerialPlan::File(path) => Arc::new(FdStream::file(path).map_err(|source| output(what[0], path, source))?),
        SerialPlan::Unix(path) => Arc::new(SocketStream::listen(path).map_err(|source| output(what[1], path, source))?),
        SerialPlan::Stdio if raw => Arc::new(console(handle.clone()).map_err(RunError::Stdio)?),
        // A terminal that is not ours (a background job) is not read: reading would stop the process.
        SerialPlan::Stdio if std::io::stdin().is_terminal() => {
            let stdout = std::io::stdout().as_fd().try_clone_to_owned().map_err(RunError::Stdio)?;
            Arc::new(FdStream::new(None::<File>, File::from(stdout)).map_err(RunError::Stdio)?)
        }
        SerialPlan::Stdio => Arc::new(FdStream::stdio().map_err(RunError::Stdio)?),
    })
}

/// Standard input and output in raw mode, with escape keys.
fn console(handle: Arc<OnceLock<Handle>>) -> std::io::Result<FdStream> {
    let input = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    FdStream::new(Some(Keyboard { input, escapes: Escapes::default(), handle }), stdout)
}

/// Standard input without the escape keys.
struct Keyboard {
    input: File,
    escapes: Escapes,
    handle: Arc<OnceLock<Handle>>,
}

impl AsFd for Keyboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }
}

impl Read for Keyboard {
    /// As read(2), but that escape keys are taken out; where nothing else came, "interrupted", so that the reader asks
    /// again rather than seeing an end of file.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(buffer)?;
        let mut kept = 0;
        for index in 0..count {
            match self.escapes.feed(buffer[index]) {
                Action::Pass(byte) => {
                    buffer[kept] = byte;
                    kept += 1;
                }
                Action::Nothing => {}
                Action::Show(text) => say(&text),
                Action::Run(command) => self.command(command),
            }
        }
        if kept == 0 && count > 0 { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(kept) }
    }
}

impl Keyboard {
    fn command(&self, command: PromptCommand) {
        // A key may come before the machine is there. If it never comes, lodge ends, and this thread with it.
        let handle = self.handle.wait();
        say("\r\n");
        match command {
            PromptCommand::Pause => handle.pause(),
            PromptCommand::Resume => handle.resume(),
            PromptCommand::Reset => handle.reset(),
            PromptCommand::Quit => handle.quit(),
            PromptCommand::Status => {
                let Some(status) = handle.status() else { return };
                let phase = match status.phase {
                    Phase::Running => "running",
                    Phase::Paused => "paused",
                    Phase::Suspended => "asleep",
                };
                let seconds = Duration::as_secs(&status.uptime);
                say(&format!("{phase} for {seconds} s on the {} engine, {} resets\r\n", status.engine, status.resets));
            }
        }
    }
}

/// Writes to the terminal all at once: the guest writes to it too, and would come between the parts.
fn say(text: &str) {
    // Nobody is left to tell if the terminal is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Ends the machine, or lodge if there is none yet, at the first signal that asks for it, and lodge at once at the
/// second. The number of the signal that came, or zero.
fn watch_signals(handle: Arc<OnceLock<Handle>>) -> std::io::Result<Arc<AtomicI32>> {
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT])?;
    // A file that may not grow (`ulimit -f`) is an error of the write, for the guest to hear of, rather than lodge's end.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let came = Arc::new(AtomicI32::new(0));
    let noted = came.clone();
    let serve = move || {
        for number in signals.forever() {
            if noted.swap(number, Ordering::SeqCst) != 0 {
                terminal::restore();
                std::process::exit(128 + number);
            }
            if let Some(handle) = handle.get() {
                handle.quit();
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(serve)?;
    Ok(came)
}

/// What `lodge engines` prints, and whether any engine works.
pub fn list_engines() -> (String, bool) {
    let mut text = String::new();
    let mut any = false;
    for engine in engines::all() {
        let (verdict, usable) = match engine.probe() {
            lodge_engine_api::Verdict::Usable(how) => (format!("usable: {how}"), true),
            lodge_engine_api::Verdict::Unusable { cause, remedy } => {
                let remedy = remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
                (format!("not usable: {cause}{remedy}"), false)
            }
        };
        any |= usable;
        text += &format!("{:<12} {verdict}\n", engine.name());
    }
    match engines::choose(&engines::all(), &Choice::Auto) {
        Ok(chosen) => text += &format!("auto takes   {}\n", chosen.engine.name()),
        Err(error) => text += &format!("auto takes   nothing: {error}\n"),
    }
    (text, any)
}
