//! A vCPU on its thread: the dispatcher.
//!
//! ```text
//!          +-------------------------------------------------------------+
//!          v                                                             |
//!   what the last helper wants (exception, halt, bounce, shutdown)       |
//!   stop?  chores?  interrupt, NMI, INIT, start-up?                      |
//!   find or make the block at `lip`  --fault-->  exception --------------+
//!   enter it                                                             |
//!   why did it come back: lookup, chain, poll, helper, host signal ------+
//! ```
#![expect(unsafe_code, reason = "enters emitted code")]
// UNSAFETY: one call into the code cache, one write of the GS base, and the state behind it; one call of the allocator.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lodge_engine_api::{CpuIo, EngineError, Event, Exit, Vcpu};
use lodge_x86::bits::rflags;
use lodge_x86::exception::Exception;
use lodge_x86::paging::{AccessKind, PagingContext};
use lodge_x86::state::{Activity, CpuState};

use crate::access::Privilege;
use crate::context::{After, Context, Counts};
use crate::cpu::{Cpu, ExitReason};
use crate::debug::DR6_BS;
use crate::frames::Frames;
use crate::memory::PAGE;
use crate::mode::Mode;
use crate::partition::Shared;
use crate::signal::{AlternateStack, Quiet};
use crate::tlb::Regions;
use crate::translate::{Found, ModeStubs, Trouble};
use crate::worth::Program;

mod fault;
mod report;

/// One virtual processor.
pub struct TranslatorVcpu {
    shared: Arc<Shared>,
    context: Box<Context>,
    _stack: AlternateStack,
    _quiet: Quiet,
    enter: extern "sysv64" fn(u64),
    generation: u64,
    /// Which address space is shown ([`crate::mirror::Mirror::number`]).
    mirror: u64,
    frames: Frames,
    fault: fault::Fault,
    /// The last branch came from elsewhere: from another page, or by a lookup.
    afar: bool,
    rested: Option<Rested>,
}

/// When memory was last given back, and what had happened by then.
struct Rested {
    at: Instant,
    clock: u64,
    translations: u64,
}

impl TranslatorVcpu {
    /// Makes vCPU `index` on the calling thread, in the state after RESET.
    pub fn new(shared: Arc<Shared>, index: u32) -> io::Result<Self> {
        let stack = crate::signal::alternate_stack()?;
        let (stubs, miss, generation) = {
            let code = shared.code.lock();
            (code.stubs, code.stubs.leave_lookup, code.generation)
        };
        let regions = Regions::new(miss)?;
        let mut context = Box::new(Context {
            shared: Arc::clone(&shared),
            index,
            io: None,
            regions,
            ways: Default::default(),
            in_code: false,
            paging: PagingContext::default(),
            after: After::Continue,
            bounced: Default::default(),
            debug_hits: 0,
            shadow: false,
            code_hit: false,
            no_step: false,
            activity: Activity::Running,
            clock: Default::default(),
            plain_msrs: Vec::new(),
            exceptions: Default::default(),
            counts: Counts::default(),
            helped: Default::default(),
            met: Default::default(),
            asked: Default::default(),
        });
        let cpu = context.regions.cpu();
        // SAFETY: the regions are mapped and zeroed, which is a valid state; this thread owns them.
        unsafe { (*cpu).context = &raw mut *context };
        // SAFETY: the stub follows this ABI.
        let enter = unsafe { std::mem::transmute::<u64, extern "sysv64" fn(u64)>(stubs.enter) };
        let frames = Frames::new()?;
        let _quiet = crate::signal::keep_off();
        let mut vcpu = Self {
            shared,
            context,
            _stack: stack,
            _quiet,
            enter,
            generation,
            mirror: 0,
            frames,
            fault: Default::default(),
            afar: false,
            rested: None,
        };
        vcpu.cpu().frames_top = vcpu.frames.top();
        let mut state = CpuState::reset(vcpu.signature());
        if index != 0 {
            state.activity = Activity::WaitForSipi;
        }
        vcpu.cpu().host_mxcsr = 0x1f80;
        vcpu.cpu().host_fs = host_fs_base();
        vcpu.cpu().walk.ram = vcpu.shared.ram.views();
        vcpu.cpu().import(&state);
        vcpu.mailbox().tie(cpu);
        Ok(vcpu)
    }

    fn signature(&self) -> u32 {
        self.shared.cpuid.lookup(1, 0)[0]
    }

    fn mailbox(&self) -> &crate::partition::Mailbox {
        &self.shared.mailboxes[self.context.index as usize]
    }

    /// The state, at the address that emitted code uses now.
    fn cpu(&mut self) -> &mut Cpu {
        // SAFETY: mapped as long as the context lives; this thread owns it while no emitted code runs.
        unsafe { &mut *self.context.regions.cpu() }
    }

    /// Things that others asked this vCPU to do to its own tables.
    fn chores(&mut self) {
        self.shared.settle_memory_changes(self.context.index);
        if !self.mailbox().chores.swap(false, Ordering::SeqCst) {
            return;
        }
        if self.mailbox().flush.swap(false, Ordering::SeqCst) {
            self.context.regions.flush_all();
            let paging = self.context.paging;
            self.cpu().renew_walk(&paging);
        }
        let pages = std::mem::take(&mut *self.mailbox().protect.lock());
        for page in pages {
            self.context.regions.forbid_writes(page);
        }
        self.cpu().renew_mirrored();
        let number = self.shared.mirror.number();
        if number != self.mirror {
            // What a program's code was found by may be of another time.
            self.mirror = number;
            self.context.regions.forget_code();
        }
        let generation = self.shared.code.lock().generation;
        if generation != self.generation {
            self.generation = generation;
            self.context.ways.forget();
            self.cpu().renew_sides();
            self.context.regions.forget_code();
            self.context.regions.forget_blocks();
        }
        self.cpu().renew_branches();
    }

    /// Takes and delivers what the interrupt controller has.
    fn events(&mut self, io: &dyn CpuIo) {
        let cpu = self.cpu();
        let pending = cpu.pending.swap(0, Ordering::SeqCst) != 0;
        if !pending && cpu.latched == 0 {
            return;
        }
        self.shared.settle_foreign_writes();
        let shadow = self.context.shadow;
        let cpu = self.cpu();
        let open = cpu.interrupt_flag != 0 && !shadow;
        let nmi_open = !cpu.nmi_blocked && !shadow;
        match io.take_event(open, nmi_open) {
            None => {
                // Nothing that can be delivered; if IF is what stands in the way, STI and its kin must look again.
                self.cpu().latched = u32::from(!open || !nmi_open);
            }
            Some(event) => {
                self.cpu().pending.store(1, Ordering::SeqCst);
                self.event(event);
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Init => {
                let signature = self.signature();
                let index = self.context.index;
                self.cpu().init(signature);
                self.context.activity = if index == 0 { Activity::Running } else { Activity::WaitForSipi };
            }
            Event::StartUp(page) => {
                if self.context.activity == Activity::WaitForSipi {
                    self.cpu().start_up(page);
                    self.context.activity = Activity::Running;
                }
            }
            Event::Nmi | Event::Interrupt(_) if self.context.activity == Activity::WaitForSipi => {}
            Event::Nmi => {
                self.context.activity = Activity::Running;
                self.context.counts.interrupts += 1;
                let result = self.cpu().deliver(2, None, crate::deliver::Source::External);
                self.cpu().nmi_blocked = true;
                self.after_delivery(result);
            }
            Event::Interrupt(vector) => {
                self.context.activity = Activity::Running;
                self.context.counts.interrupts += 1;
                self.sample();
                let result = self.cpu().deliver(vector, None, crate::deliver::Source::External);
                self.after_delivery(result);
            }
        }
    }

    /// An interrupt has come: whoever runs now runs often. A program that was met several times in a row is mirrored.
    fn sample(&mut self) {
        let shared = Arc::clone(&self.shared);
        if !shared.mirror.is_possible() {
            return;
        }
        let now = Instant::now();
        let cpu = self.cpu();
        if !cpu.is_64() || cpu.cpl() != 3 {
            if shared.mirror.is_gone(now) {
                self.show(None);
            }
            return;
        }
        let program = Program::at(&shared.ram, self.context.paging.root);
        let often = self.context.met.meet(program, now);
        if self.cpu().mirrored {
            if shared.mirror.has_to_end(program, now) {
                self.show(None);
            }
        } else if often && shared.mirror.may_show(program, now) {
            self.show(Some(program));
        }
    }

    /// Mirrors a program, or none.
    fn show(&mut self, program: Option<Program>) {
        let shared = Arc::clone(&self.shared);
        let world = shared.stop_others(self.context.index);
        shared.mirror.show(program);
        shared.sever();
        for mailbox in &shared.mailboxes {
            mailbox.chores.store(true, Ordering::SeqCst);
        }
        drop(world);
        self.chores();
    }

    fn after_delivery(&mut self, result: Result<(), Exception>) {
        if let Err(exception) = result {
            self.raise(exception);
        }
    }

    /// Delivers an exception, and what comes of it (SDM 3A 6.15, double fault).
    fn raise(&mut self, exception: Exception) {
        if !self.cpu().raise_noted(exception) {
            self.context.after = After::Shutdown;
        }
    }

    /// Finds or makes the block at `lip`. Faults of the fetch are left in `after`.
    fn find(&mut self, how: u32) -> Option<Found> {
        let lip = self.cpu().lip;
        let mut mode = self.cpu().mode | how;
        let access = self.fetch_access();
        let translation = match self.context.regions.fetch(lip) {
            Some(known) if known.permits(&self.context.paging, access) => known,
            _ => match self.fetch_page(lip) {
                Ok(translation) => translation,
                Err(exception) => {
                    self.context.after = After::Raise(exception);
                    return None;
                }
            },
        };
        if crate::mirror::in_arena(lip) || crate::mirror::in_arena(self.cpu().gpr[4]) {
            // Mirrored code reaches what lies around it, and around the stack pointer, without a check.
            mode &= !Mode::MIRRORED;
        }
        // A part of a large page may be somewhere else while an address line is held low.
        let large = translation.page_size > PAGE && self.shared.ram.line_20();
        let page = if large { 2 << 20 } else { PAGE };
        if large {
            mode |= Mode::LARGE;
        }
        let base = lip & !(page - 1);
        self.cpu().code_base = base;
        let mode = Mode(mode);
        let mirrored = mode.has(Mode::MIRRORED);
        if mirrored {
            self.note_code(translation.gpa, lip, large);
        }
        let found = self.shared.code.lock().find(translation.gpa, mode);
        let found = match found {
            Some(found) => self.check_second(found, lip, page)?,
            None => {
                if mirrored {
                    self.shared.mirror.note_made();
                }
                self.make(translation.gpa, mode, lip, page)?
            }
        };
        if mirrored && let Some(second) = found.second {
            self.note_code(second, base.wrapping_add(page), large);
        }
        Some(found)
    }

    /// Code at `gpa` is about to be run at `linear` by the program that is mirrored.
    fn note_code(&mut self, gpa: u64, linear: u64, large: bool) {
        self.shared.note_code(gpa, linear, large);
        self.cpu().renew_branches();
    }

    fn fetch_access(&mut self) -> lodge_x86::paging::Access {
        self.cpu().access(AccessKind::Execute, Privilege::Current)
    }

    fn fetch_page(&mut self, linear: u64) -> Result<lodge_x86::paging::Translation, Exception> {
        let access = self.fetch_access();
        let cpu = self.cpu();
        cpu.check_canonical(linear, 1, 1)?;
        if !cpu.is_64() {
            let cs = &cpu.segment[1];
            if u64::from(linear.wrapping_sub(cs.base) as u32) > u64::from(cs.segment.limit) {
                return Err(Exception::general_protection(0));
            }
        }
        let translation = cpu.translate(linear, access)?;
        self.context.regions.fill_fetch(linear, &translation);
        Ok(translation)
    }

    /// A block that goes on in a second page is good only as long as that page is where it was.
    fn check_second(&mut self, found: Found, lip: u64, page: u64) -> Option<Found> {
        let Some(second) = found.second else { return Some(found) };
        match self.fetch_page((lip & !(page - 1)).wrapping_add(page)) {
            Ok(translation) if translation.gpa & !(PAGE - 1) == second & !(PAGE - 1) => Some(found),
            Ok(translation) => {
                // The same first page with another neighbour: make the block anew.
                let gpa = self.context.regions.fetch(lip)?.gpa;
                self.shared.code.lock().drop_range(&self.shared.ram, gpa, 1);
                let _ = translation;
                None
            }
            Err(exception) => {
                self.context.after = After::Raise(exception);
                None
            }
        }
    }

    /// Translates the block at `gpa`.
    fn make(&mut self, gpa: u64, mode: Mode, lip: u64, page: u64) -> Option<Found> {
        let mut second = None;
        let shared = Arc::clone(&self.shared);
        let large = mode.has(Mode::LARGE).then_some(gpa + PAGE);
        loop {
            let pages = || [Some(gpa), large, second].into_iter().flatten();
            let written = || pages().any(|page| shared.ram.has_writers(page));
            let mut world = None;
            if written() {
                // None of the others may be between its look at a page and its store; what is shown may be hidden.
                let others = shared.mailboxes.len() > 1;
                world = others.then(|| shared.stop_others(self.context.index));
                pages().for_each(|page| self.protect(page));
            }
            let result = {
                // Marks of writers stay as they are as long as this is held: only who has stopped all takes them away.
                let _calm = world.is_none().then(|| shared.world.read());
                let mut code = shared.code.lock();
                match code.find(gpa, mode) {
                    Some(found) if found.second.is_none() => Ok(found),
                    _ => {
                        let made = code.translate(&shared.ram, gpa, mode, lip & (page - 1), second, self.afar);
                        if made.is_ok() {
                            code.name_new(lip);
                        }
                        if world.is_none() && written() {
                            // Another vCPU has begun to write meanwhile, perhaps before the page was watched.
                            for page in pages() {
                                code.drop_range(&shared.ram, page & !(PAGE - 1), PAGE);
                            }
                            continue;
                        }
                        made
                    }
                }
            };
            match result {
                Ok(found) => return Some(found),
                Err(Trouble::NeedsSecond) => match self.fetch_page((lip & !(page - 1)).wrapping_add(page)) {
                    Ok(translation) => second = Some(translation.gpa),
                    Err(exception) => {
                        self.context.after = After::Raise(exception);
                        return None;
                    }
                },
                Err(Trouble::Full) => {
                    drop(world);
                    self.reset_code();
                }
            }
        }
    }

    /// Takes write permission for the page at `gpa` out of all TLBs that may have it. No other vCPU runs.
    fn protect(&mut self, gpa: u64) {
        let ram = &self.shared.ram;
        let page = gpa & !(PAGE - 1);
        let Some(host) = ram.host(page).map(|host| host as u64) else { return };
        if !ram.take_writers(page) {
            return;
        }
        self.context.regions.forbid_writes(host);
        self.shared.mirror.forbid_writes(page);
        for (n, mailbox) in self.shared.mailboxes.iter().enumerate() {
            if n != self.context.index as usize {
                mailbox.protect.lock().push(host);
                mailbox.chores.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Empties the code cache with all vCPUs out of it.
    fn reset_code(&mut self) {
        let shared = Arc::clone(&self.shared);
        let world = shared.stop_others(self.context.index);
        shared.code.lock().reset(&shared.ram);
        for mailbox in &shared.mailboxes {
            mailbox.chores.store(true, Ordering::SeqCst);
        }
        // What is done next may have to stop the others itself.
        drop(world);
        self.chores();
    }

    /// The stubs of a mode that has a block.
    fn ways(&mut self, mode: Mode) -> Option<ModeStubs> {
        if let Some(own) = self.context.ways.get(mode) {
            return Some(own);
        }
        let own = self.shared.code.lock().mode_stubs(mode)?;
        self.context.ways.learn(mode, own);
        self.cpu().renew_sides();
        Some(own)
    }

    /// Runs the block and says why it came back.
    fn enter(&mut self, entry: u64, mode: Mode) -> Option<ExitReason> {
        let own = self.ways(mode);
        let shared = Arc::clone(&self.shared);
        let world = shared.world.read();
        if self.mailbox().chores.load(Ordering::SeqCst) {
            // What the block was found by may be stale.
            return None;
        }
        self.frames.set_underflow(own.map_or(0, |own| own.underflow));
        self.cpu().how = mode.0 & Mode::HOW;
        let cpu = self.context.regions.cpu();
        self.context.counts.entries += 1;
        self.context.in_code = true;
        let enter = self.enter;
        let run = |cpu: *mut Cpu, entry: u64| {
            // SAFETY: FSGSBASE was checked when the engine was made; nothing else on this thread uses the GS base. The
            // code is what the stubs expect, and `world` keeps it there.
            unsafe {
                std::arch::asm!("wrgsbase {}", in(reg) cpu as u64 + crate::cpu::STATE_SIZE as u64, options(nostack, preserves_flags));
                enter(entry);
            }
        };
        run(cpu, entry);
        if self.cpu().exit_reason == ExitReason::Fault as u32 {
            // While the code that has faulted is still there.
            let (fault, remake) = self.look_at_fault();
            if let Some(remake) = remake {
                let lip = self.cpu().lip;
                run(self.context.regions.cpu(), remake);
                self.cpu().lip = lip;
            }
            self.cpu().exit_reason = ExitReason::Fault as u32;
            self.fault = fault;
        }
        self.context.in_code = false;
        drop(world);
        Some(match self.cpu().exit_reason {
            0 => ExitReason::Lookup,
            1 => ExitReason::Chain,
            2 => ExitReason::Poll,
            3 => ExitReason::Helper,
            _ => ExitReason::Fault,
        })
    }

    /// Goes on after a block has left by an exit to be chained; how.
    fn chain(&mut self) -> u32 {
        let number = self.cpu().exit_arg;
        let generation = self.generation;
        let (exit, current) = {
            let code = self.shared.code.lock();
            // A record is good only as long as the code it lies in.
            let exit = if code.generation == generation { code.exit(number) } else { None };
            (exit, code.generation)
        };
        let Some(exit) = exit else { return 0 };
        let how = if exit.plain { Mode::PLAIN } else { 0 };
        // Where a call comes back, flags may be parked, too.
        self.afar = exit.far || exit.parked || exit.polled;
        let cpu = self.cpu();
        let distance = if exit.far { i64::from(exit.target as i32) } else { exit.target.into() };
        let linear = cpu.code_base.wrapping_add_signed(distance);
        cpu.lip = if cpu.is_64() { linear } else { linear & 0xffff_ffff };
        cpu.source = exit.source;
        if current != generation || self.stop_requested() || self.cpu().refuses_target() {
            return how;
        }
        if self.cpu().is_near_code_end() {
            return how;
        }
        let before = self.cpu().code_base;
        let severed = self.shared.mirror.severed();
        if let Some(found) = self.find(how)
            && if exit.far { self.may_link() } else { self.cpu().code_base == before }
        {
            let mut code = self.shared.code.lock();
            let still = !exit.far || self.shared.mirror.severed() == severed;
            // Code that may lie in the arena never leads straight to code that must not.
            let alike = exit.mirrored == Mode(found.mode).has(Mode::MIRRORED);
            if still && alike && code.generation == generation && code.is_current(&found) {
                code.chain(exit, &found);
            }
        }
        how
    }

    /// Whether a far exit may lead straight to its target: as long as programs' code is where it is.
    fn may_link(&mut self) -> bool {
        Mode(self.cpu().mode).is_mirrored() && self.shared.mirror.may_link()
    }

    fn stop_requested(&self) -> bool {
        self.mailbox().stop.load(Ordering::SeqCst)
    }

    /// Carries out what the last helper wants; `Some` ends the run.
    fn settle(&mut self, io: &dyn CpuIo, how: &mut u32) -> Option<Exit> {
        match std::mem::take(&mut self.context.after) {
            After::Continue => {}
            After::Raise(exception) => self.raise(exception),
            After::Bounce => *how |= Mode::BOUNCE,
            After::Halt => self.context.activity = Activity::Halted,
            // Only INIT ends it.
            After::Shutdown if io.take_event(false, false) == Some(Event::Init) => self.event(Event::Init),
            After::Shutdown => {
                self.context.after = After::Shutdown;
                return Some(Exit::TripleFault(self.crash_report()));
            }
        }
        if self.context.activity != Activity::Running {
            return self.wait(io);
        }
        None
    }

    /// Halted, or waiting for a start-up IPI.
    fn wait(&mut self, io: &dyn CpuIo) -> Option<Exit> {
        loop {
            if self.mailbox().stop.swap(false, Ordering::SeqCst) {
                return Some(Exit::Stopped);
            }
            self.cpu().pending.store(1, Ordering::SeqCst);
            self.context.shadow = false;
            self.events(io);
            if self.context.activity == Activity::Running || self.context.after != After::Continue {
                return None;
            }
            self.rest();
            let cpu = self.cpu();
            let (open, nmi_open) = (cpu.interrupt_flag != 0, !cpu.nmi_blocked);
            io.halt(open, nmi_open);
        }
    }

    /// The guest has nothing to do: gives back memory that it has not made use of lately.
    fn rest(&mut self) {
        const EVERY: Duration = Duration::from_secs(2);
        let now = Instant::now();
        if self.rested.as_ref().is_some_and(|rested| now - rested.at < EVERY) {
            return;
        }
        let before = self.rested.take().unwrap_or(Rested { at: now, clock: 0, translations: 0 });
        let translations = self.shared.code.lock().counts.translations;
        if translations != before.translations {
            // SAFETY: the allocator takes its own locks, and this thread is not in it.
            unsafe { libc::malloc_trim(0) };
        }
        let clock = self.context.regions.release_unused(before.clock);
        self.rested = Some(Rested { at: now, clock, translations });
    }

    /// The dispatcher.
    fn dispatch(&mut self, io: &dyn CpuIo) -> Exit {
        let mut how = 0;
        loop {
            if let Some(exit) = self.settle(io, &mut how) {
                return exit;
            }
            if self.stop_requested() {
                self.mailbox().stop.store(false, Ordering::SeqCst);
                return Exit::Stopped;
            }
            self.chores();
            if how == 0 {
                self.events(io);
            }
            if self.context.after != After::Continue || self.context.activity != Activity::Running {
                continue;
            }
            if self.shared.mirror.is_eager() && self.cpu().is_64() && self.cpu().cpl() == 3 && !self.cpu().mirrored {
                let program = Program::at(&self.shared.ram, self.context.paging.root);
                self.show(Some(program));
            }
            let stepping = self.cpu().system_flags & rflags::TF != 0;
            let shadow = std::mem::take(&mut self.context.shadow);
            if stepping || shadow {
                how |= Mode::SINGLE;
            }
            debug_assert_eq!(Mode(self.cpu().mode), Mode::of(self.cpu()), "the mode key is kept up to date");
            if !self.look_first(&mut how) {
                continue;
            }
            let Some(found) = self.find(how) else { continue };
            self.remember_jump(&found, how);
            let entry = if how == 0 { found.poll_entry } else { found.entry };
            let Some(reason) = self.enter(entry, Mode(found.mode)) else { continue };
            how = 0;
            self.afar = reason == ExitReason::Lookup;
            let counts = &mut self.context.counts;
            match reason {
                ExitReason::Lookup => counts.lookups += 1,
                ExitReason::Poll => counts.polls += 1,
                ExitReason::Helper => counts.helper_exits += 1,
                ExitReason::Chain => {
                    counts.unchained += 1;
                    how = self.chain();
                }
                ExitReason::Fault => {
                    counts.host_faults += 1;
                    how = self.fault();
                }
            }
            let done = matches!(self.context.after, After::Continue | After::Halt);
            let no_step = std::mem::take(&mut self.context.no_step);
            if done {
                let hits = std::mem::take(&mut self.context.debug_hits);
                let hits = hits | if stepping && !no_step { DR6_BS } else { 0 };
                if hits != 0 {
                    self.cpu().dr[6] |= hits;
                    self.context.after = After::Raise(Exception::DEBUG);
                }
            }
        }
    }

    /// What has to be known of the next instruction before it runs: breakpoints, and the end of the code segment.
    /// `false`: it faults instead.
    fn look_first(&mut self, how: &mut u32) -> bool {
        if self.cpu().refuses_target() {
            return false;
        }
        let debug = self.cpu().debug_how();
        *how |= debug;
        self.context.debug_hits = 0;
        if debug != 0 {
            let hits = self.cpu().instruction_breakpoints();
            if hits != 0 {
                self.cpu().dr[6] |= hits;
                self.context.after = After::Raise(Exception::DEBUG);
                return false;
            }
        }
        if self.cpu().owes_virtual_interrupt() {
            self.context.after = After::Raise(Exception::general_protection(0));
            return false;
        }
        self.cpu().system_flags &= !rflags::RF;
        if self.cpu().is_near_code_end() {
            *how |= Mode::SINGLE;
            if self.cpu().passes_code_end() {
                self.context.after = After::Raise(Exception::general_protection(0));
                return false;
            }
        }
        true
    }

    /// Lets emitted code find this block by itself next time.
    fn remember_jump(&mut self, found: &Found, how: u32) {
        if how != 0 || self.cpu().exit_reason != ExitReason::Lookup as u32 {
            return;
        }
        let lip = self.cpu().lip;
        let mode = Mode(self.cpu().mode);
        if !mode.is_like(Mode(found.mode)) {
            return;
        }
        let Some(own) = self.ways(mode) else { return };
        let crosses = found.second.is_some();
        self.context.regions.fill_jump(lip, own.salt, found.indirect_entry, crosses);
        if mode.is_64() && !crosses {
            self.context.regions.learn_block(lip, mode, own.salt, found.indirect_entry);
        }
    }
}

/// The FS base of the calling thread: its thread-local storage.
fn host_fs_base() -> u64 {
    let base;
    // SAFETY: FSGSBASE was checked when the engine was made.
    unsafe { std::arch::asm!("rdfsbase {}", out(reg) base, options(nostack, nomem, preserves_flags)) };
    base
}

impl Vcpu for TranslatorVcpu {
    fn state(&self) -> CpuState {
        // SAFETY: as for `cpu`; nothing runs.
        let cpu = unsafe { &mut *self.context.regions.cpu() };
        cpu.export()
    }

    fn set_state(&mut self, state: &CpuState) -> Result<(), EngineError> {
        self.cpu().import(state);
        Ok(())
    }

    fn run(&mut self, io: &dyn CpuIo) -> Result<Exit, EngineError> {
        // SAFETY: only the lifetime is erased; it is cleared before this returns.
        self.context.io = Some(unsafe { std::mem::transmute::<*const dyn CpuIo, *const (dyn CpuIo + 'static)>(io) });
        self.cpu().shift_tsc(io.tsc_shift());
        if self.mailbox().notified.swap(false, Ordering::SeqCst) {
            self.cpu().pending.store(1, Ordering::SeqCst);
        }
        let exit = self.dispatch(io);
        self.context.io = None;
        self.publish_counts();
        Ok(exit)
    }
}

impl Drop for TranslatorVcpu {
    fn drop(&mut self) {
        self.mailbox().tie(std::ptr::null_mut());
    }
}
