//! A channel: the registers that two drives share, the data that wait to be moved, and the thread that does the I/O.
//!
//! ```text
//!             command                     data there           guest has read, or written, a block
//!   idle ---------------> busy (thread) -----------> DRQ -------------------------------------------> busy, or idle
//!     ^                     |  DMA: all moved                                                           |
//!     +---------------------+---------------------------------------------------------------------------+
//! ```
//!
//! What the thread is asked for is a [`Request`]; it works without the lock, and what comes of it counts only if it is still
//! wanted. A reset that finds the thread at work ends when that is done: until then the drive is busy. A pause waits for it, but
//! not for a vast TRIM: that is held, and asked for anew when the machine goes on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use lodge_bus::IrqLine;
use lodge_engine_api::GuestMemory;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use super::master::{self, Master};
use super::registers::*;
use crate::ata::{By, Drive, Source, Task, Unit, Work, packet};
use crate::scsi::Sense;
use crate::transfer::{Failure, PIECE, Transfer};

/// A register of which the guest can write two bytes: the last one and the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pair {
    /// The last one.
    pub now: u8,
    /// The one before.
    pub before: u8,
}

impl Pair {
    fn set(&mut self, value: u8) {
        (self.before, self.now) = (self.now, value);
    }
}

/// A drive's registers, but for those that both share; the names are the standard's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registers {
    pub features: u8,
    pub count: Pair,
    pub low: Pair,
    pub mid: Pair,
    pub high: Pair,
    pub status: u8,
    pub error: u8,
}

impl Registers {
    fn task(&self, device: u8) -> Task {
        let [low, mid, high] = [self.low, self.mid, self.high];
        let lba = u64::from_le_bytes([low.now, mid.now, high.now, low.before, mid.before, high.before, 0, 0]);
        let count = u16::from_le_bytes([self.count.now, self.count.before]);
        Task { features: self.features.into(), count, lba, device }
    }

    fn set_task(&mut self, task: &Task) {
        let [b0, b1, b2, b3, b4, b5, ..] = task.lba.to_le_bytes();
        let [now, before] = task.count.to_le_bytes();
        self.count = Pair { now, before };
        self.low = Pair { now: b0, before: b3 };
        self.mid = Pair { now: b1, before: b4 };
        self.high = Pair { now: b2, before: b5 };
    }
}

/// What the thread is asked for.
struct Request {
    generation: u64,
    unit: usize,
    what: What,
}

enum What {
    /// Read for the data register.
    Read(u64, usize),
    /// Write what the guest has put into the data register, and perhaps flush it.
    Write(u64, Vec<u8>, bool),
    /// Move by the bus master, whose table is there.
    Master(Work, u32),
    Flush,
}

/// What came of it.
enum Answer {
    Data(Vec<u8>),
    Done,
    /// The bus master has moved all; `exhausted`: there was no more room.
    Moved {
        exhausted: bool,
    },
    Failed(Failure),
}

/// What ends when the thread lets go of a request that is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// A reset of both drives.
    Reset,
    /// DEVICE RESET.
    DeviceReset,
    /// The guest has stopped the bus master.
    Abort,
}

pub(super) struct State {
    /// Those of each drive.
    pub registers: [Registers; 2],
    /// The device register, which both have.
    pub device: u8,
    pub control: u8,
    pub units: [Option<Unit>; 2],
    pub master: Master,
    pub work: Option<Work>,
    pub interrupt: bool,
    /// What the guest reads or writes, and how far it has come.
    pub data: Vec<u8>,
    pub at: usize,
    /// The end of what moves before the next interrupt.
    pub end: usize,
    /// Bytes between two interrupts.
    pub block: usize,
    /// It waits for the bus master to be started.
    pub waits: bool,
    /// A pause did not wait for it: it is begun anew when the machine goes on.
    pub held: bool,
    /// Requests that the thread has not answered.
    outstanding: usize,
    ending: Option<Ending>,
    generation: Arc<AtomicU64>,
}

/// A channel.
pub(super) struct Channel {
    irq: IrqLine,
    memory: GuestMemory,
    pub state: Mutex<State>,
    answered: Condvar,
    requests: Sender<Request>,
    /// What may take minutes is left to be begun anew.
    pausing: AtomicBool,
}

impl Channel {
    /// A channel with its thread.
    pub fn new(
        name: &str,
        drives: [Option<Drive>; 2],
        irq: IrqLine,
        memory: GuestMemory,
    ) -> std::io::Result<Arc<Self>> {
        let (requests, inbox) = channel();
        let mut number = 0;
        let units = drives.map(|drive| {
            number += 1;
            drive.map(|drive| Unit::new(drive, &format!("{name}-{number}"), false))
        });
        let mut state = State {
            registers: [Registers::default(); 2],
            device: 0,
            control: 0,
            units,
            master: Master::default(),
            work: None,
            interrupt: false,
            data: Vec::new(),
            at: 0,
            end: 0,
            block: 0,
            waits: false,
            held: false,
            outstanding: 0,
            ending: None,
            generation: Arc::default(),
        };
        state.reset();
        let (state, answered, pausing) = (Mutex::new(state), Condvar::new(), AtomicBool::new(false));
        let this = Arc::new(Self { irq, memory, state, answered, requests, pausing });
        let weak = Arc::downgrade(&this);
        std::thread::Builder::new().name(format!("io-{name}")).spawn(move || serve(&weak, &inbox))?;
        Ok(this)
    }

    pub fn drive_line(&self, state: &State) {
        self.irq.set(state.interrupt && state.control & CONTROL_NIEN == 0);
    }

    /// Reads a register of the command block.
    pub fn read(&self, offset: u16, bytes: usize) -> u32 {
        let mut state = self.state.lock();
        if offset == DATA {
            return self.read_data(&mut state, bytes);
        }
        let value = state.read(offset);
        if offset == STATUS {
            state.interrupt = false;
            self.drive_line(&state);
        }
        value.into()
    }

    /// The status, without a change of anything.
    pub fn alternate_status(&self) -> u8 {
        self.state.lock().read(STATUS)
    }

    /// Writes a register of the command block.
    pub fn write(&self, offset: u16, bytes: usize, value: u32) {
        let mut state = self.state.lock();
        match offset {
            DATA => self.write_data(&mut state, bytes, value),
            STATUS => self.command(&mut state, value as u8),
            _ => state.write(offset, value as u8),
        }
    }

    /// Writes the device control register.
    pub fn control(&self, value: u8) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.control, value);
        if value & CONTROL_SRST != 0 {
            state.cancel();
            state.interrupt = false;
            state.registers.iter_mut().for_each(|registers| registers.status = BSY);
        } else if before & CONTROL_SRST != 0 {
            state.end_with(Ending::Reset);
        }
        self.drive_line(&state);
    }

    /// Back to the state after power-on.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.cancel();
        self.quiesce(&mut state);
        state.control = 0;
        state.master = Master::default();
        state.units.iter_mut().flatten().for_each(Unit::power_on);
        state.reset();
        self.drive_line(&state);
    }

    /// Comes to rest.
    pub fn pause(&self) {
        self.pausing.store(true, Ordering::Release);
        self.quiesce(&mut self.state.lock());
    }

    /// Goes on with what was held.
    pub fn resume(&self) {
        let mut state = self.state.lock();
        self.pausing.store(false, Ordering::Release);
        self.release(&mut state);
        self.drive_line(&state);
    }

    /// Begins anew what was held, but for a pause.
    pub fn release(&self, state: &mut State) {
        if !self.pausing.load(Ordering::Acquire) && std::mem::take(&mut state.held) {
            self.proceed(state);
        }
    }

    /// Gives up what goes on: nobody will see what comes of it.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.cancel();
        self.quiesce(&mut state);
    }

    /// Waits until the thread has nothing to do.
    pub fn quiesce(&self, state: &mut parking_lot::MutexGuard<'_, State>) {
        while state.outstanding > 0 {
            self.answered.wait(state);
        }
    }

    /// A register of the bus master.
    pub fn read_master(&self, offset: u16) -> u8 {
        self.state.lock().master.read(offset)
    }

    /// Writes a register of the bus master.
    pub fn write_master(&self, offset: u16, value: u8) {
        let mut state = self.state.lock();
        let ran = state.master.is_started();
        if state.master.write(offset, value) && std::mem::take(&mut state.waits) {
            self.proceed(&mut state);
        }
        let stops = ran && !state.master.is_started() && state.moves_by_master();
        if stops && state.outstanding > 0 {
            // The drive is left in the middle of its transfer.
            state.cancel();
            state.end_with(Ending::Abort);
        }
        self.drive_line(&state);
    }

    fn command(&self, state: &mut State, command: u8) {
        let number = state.number();
        let Some(unit) = &state.units[number] else { return };
        let resets = unit.is_cd() && command == command::DEVICE_RESET;
        let busy = state.registers[number].status & (BSY | DRQ) != 0;
        if state.ending.is_some() || state.control & CONTROL_SRST != 0 || busy && !resets {
            return;
        }
        state.interrupt = false;
        state.cancel();
        if resets {
            state.end_with(Ending::DeviceReset);
            return self.drive_line(state);
        }
        let mut task = state.registers[number].task(state.device);
        let registers = &mut state.registers[number];
        (registers.error, registers.status) = (0, DRDY | DSC);
        let Some(unit) = &mut state.units[number] else { return };
        let begun = unit.command(&mut task, command);
        state.registers[number].set_task(&task);
        state.device = task.device;
        match begun {
            Ok(Some(work)) => {
                state.work = Some(work);
                self.proceed(state);
            }
            Ok(None) => {
                if command == command::DIAGNOSE {
                    state.diagnosed();
                }
                state.interrupt = true;
            }
            Err(error) => state.fail(error),
        }
        self.drive_line(state);
    }

    /// Goes on with the work of the command.
    fn proceed(&self, state: &mut State) {
        let what = match state.work.clone() {
            None => return,
            Some(_) if state.moves_by_master() && !state.master.is_started() => {
                state.waits = true;
                state.set_status(DRDY | DSC | DRQ);
                return;
            }
            Some(work) if state.moves_by_master() => What::Master(work, state.master.table),
            Some(Work::Give(Source::Bytes(bytes), By::Ports(block))) => {
                state.work = Some(Work::Give(Source::Bytes(Vec::new()), By::Ports(block)));
                state.block = block;
                return state.offer(bytes);
            }
            Some(Work::Give(Source::Medium(from, left), By::Ports(block))) => {
                state.block = block;
                What::Read(from, left.min(PIECE) as usize)
            }
            // The first block is asked for without an interrupt.
            Some(Work::Take { left, by: By::Ports(block), .. }) => {
                return state.want((block as u64).min(left) as usize);
            }
            Some(Work::Packet) => return state.want(packet::PACKET),
            Some(_) => What::Flush,
        };
        self.ask(state, what);
    }

    fn ask(&self, state: &mut State, what: What) {
        state.set_status(BSY | DRDY | DSC);
        let generation = state.generation.load(Ordering::Acquire);
        state.outstanding += 1;
        // The thread ends only with the channel.
        let _ = self.requests.send(Request { generation, unit: state.number(), what });
    }

    fn read_data(&self, state: &mut State, bytes: usize) -> u32 {
        let gives = matches!(state.work, Some(Work::Give(..)));
        if state.status() & DRQ == 0 || !gives {
            return 0;
        }
        let mut value = [0; 4];
        let count = bytes.min(state.end - state.at);
        value[..count].copy_from_slice(&state.data[state.at..state.at + count]);
        state.at += count;
        if state.at == state.end && !state.waits {
            self.block_read(state);
        }
        u32::from_le_bytes(value)
    }

    /// The guest has read what was offered.
    fn block_read(&self, state: &mut State) {
        if state.end < state.data.len() {
            state.next_block();
            return self.drive_line(state);
        }
        match &state.work {
            Some(Work::Give(Source::Medium(_, left), _)) if *left > 0 => self.proceed(state),
            _ => state.finish(),
        }
        self.drive_line(state);
    }

    fn write_data(&self, state: &mut State, bytes: usize, value: u32) {
        let takes = matches!(state.work, Some(Work::Take { .. } | Work::Packet));
        if state.status() & DRQ == 0 || !takes || state.waits {
            return;
        }
        let count = bytes.min(state.end - state.at);
        let at = state.at;
        state.data[at..at + count].copy_from_slice(&value.to_le_bytes()[..count]);
        state.at += count;
        if state.at < state.end {
            return;
        }
        let data = std::mem::take(&mut state.data);
        (state.at, state.end) = (0, 0);
        match state.work.clone() {
            Some(Work::Take { from, left, durable, .. }) => {
                let last = data.len() as u64 >= left;
                self.ask(state, What::Write(from, data, durable && last));
            }
            _ => self.packet(state, &data),
        }
    }

    fn packet(&self, state: &mut State, packet: &[u8]) {
        state.work = None;
        state.set_status(DRDY | DSC);
        let number = state.number();
        let Some(unit) = &mut state.units[number] else { return };
        match unit.packet(packet) {
            Ok(Some(work)) => {
                state.work = Some(work);
                self.proceed(state);
            }
            Ok(None) => state.finish(),
            Err(sense) => state.fail_packet(sense),
        }
        self.drive_line(state);
    }

    /// What the thread has done.
    fn answer(&self, request: &Request, answer: Answer) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.outstanding -= 1;
        self.answered.notify_all();
        if state.generation.load(Ordering::Acquire) != request.generation {
            if let Some(ending) = state.ending.take() {
                state.end_with(ending);
                self.drive_line(state);
            }
            return;
        }
        match answer {
            Answer::Data(data) => {
                if let Some(Work::Give(Source::Medium(from, left), _)) = &mut state.work {
                    *from += data.len() as u64;
                    *left -= (data.len() as u64).min(*left);
                }
                state.offer(data);
            }
            Answer::Moved { exhausted } => {
                state.master.finish(exhausted, false);
                state.finish();
            }
            Answer::Done => match (&request.what, &mut state.work) {
                (What::Write(_, data, _), Some(Work::Take { from, left, by: By::Ports(block), .. })) => {
                    *from += data.len() as u64;
                    *left -= (data.len() as u64).min(*left);
                    let next = (*block as u64).min(*left) as usize;
                    if next == 0 {
                        state.finish();
                    } else {
                        state.want(next);
                        state.interrupt = true;
                    }
                }
                _ => state.finish(),
            },
            Answer::Failed(Failure::Cancelled) => state.held = true,
            Answer::Failed(failure) => {
                if matches!(request.what, What::Master(..)) {
                    state.master.finish(true, matches!(failure, Failure::Memory | Failure::Short));
                }
                state.failed(failure);
            }
        }
        self.drive_line(state);
    }
}

impl State {
    fn number(&self) -> usize {
        usize::from(self.device & DEVICE_SECOND != 0)
    }

    fn status(&self) -> u8 {
        self.registers[self.number()].status
    }

    fn set_status(&mut self, status: u8) {
        self.registers[self.number()].status = status;
    }

    fn selected_is_cd(&self) -> bool {
        self.units[self.number()].as_ref().is_some_and(Unit::is_cd)
    }

    fn moves_by_master(&self) -> bool {
        matches!(self.work, Some(Work::Give(_, By::Dma) | Work::Take { by: By::Dma, .. } | Work::Trim(_)))
    }

    fn read(&self, offset: u16) -> u8 {
        let number = self.number();
        if self.units[number].is_none() {
            // The other drive answers for it, with nothing.
            return if offset == DEVICE { self.device | DEVICE_ONES } else { 0 };
        }
        let registers = &self.registers[number];
        let earlier = self.control & CONTROL_HOB != 0;
        let byte = |pair: Pair| if earlier { pair.before } else { pair.now };
        match offset {
            ERROR => registers.error,
            COUNT => byte(registers.count),
            LBA_LOW => byte(registers.low),
            LBA_MID => byte(registers.mid),
            LBA_HIGH => byte(registers.high),
            DEVICE => self.device | DEVICE_ONES,
            _ => registers.status,
        }
    }

    /// Both drives take what is written, but not while one of them is at work.
    fn write(&mut self, offset: u16, value: u8) {
        if self.registers.iter().any(|registers| registers.status & (BSY | DRQ) != 0) {
            return;
        }
        self.control &= !CONTROL_HOB;
        if offset == DEVICE {
            self.device = value;
            return;
        }
        for registers in &mut self.registers {
            match offset {
                ERROR => registers.features = value,
                COUNT => registers.count.set(value),
                LBA_LOW => registers.low.set(value),
                LBA_MID => registers.mid.set(value),
                _ => registers.high.set(value),
            }
        }
    }

    /// Forgets what goes on.
    fn cancel(&mut self) {
        self.work = None;
        (self.waits, self.held) = (false, false);
        self.data.clear();
        (self.at, self.end, self.block) = (0, 0, 0);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends what was cancelled, now or when the thread lets go of it.
    fn end_with(&mut self, ending: Ending) {
        if self.outstanding > 0 {
            self.ending = Some(ending);
            let busy = |registers: &mut Registers| registers.status = BSY;
            if ending == Ending::Reset {
                self.registers.iter_mut().for_each(busy);
            } else {
                self.set_status(BSY);
            }
            return;
        }
        match ending {
            Ending::Reset => self.reset(),
            Ending::DeviceReset => self.reset_drive(self.number()),
            Ending::Abort => self.fail(ABRT),
        }
    }

    /// A drive's registers after a reset of it; there is no interrupt.
    fn reset_drive(&mut self, number: usize) {
        self.registers[number] = Registers::default();
        let Some(unit) = &mut self.units[number] else { return };
        unit.reset();
        let registers = &mut self.registers[number];
        registers.set_task(&unit.signature());
        (registers.error, registers.status) = (1, unit.fresh_status());
    }

    fn reset(&mut self) {
        self.cancel();
        self.ending = None;
        self.interrupt = false;
        self.device = 0;
        self.reset_drive(0);
        self.reset_drive(1);
    }

    /// EXECUTE DEVICE DIAGNOSTIC is for both drives, and the first one answers.
    fn diagnosed(&mut self) {
        self.device &= !DEVICE_SECOND;
        for (registers, unit) in self.registers.iter_mut().zip(&self.units) {
            let Some(unit) = unit else { continue };
            registers.set_task(&unit.signature());
            (registers.error, registers.status) = (1, unit.fresh_status());
        }
    }

    /// Shows data to the guest, and the first block of them.
    fn offer(&mut self, data: Vec<u8>) {
        self.data = data;
        (self.at, self.end) = (0, 0);
        if self.data.is_empty() { self.finish() } else { self.next_block() }
    }

    /// Takes so many bytes from the guest.
    fn want(&mut self, bytes: usize) {
        self.data = vec![0; bytes];
        (self.at, self.end) = (0, bytes);
        self.set_status(DRDY | DSC | DRQ);
    }

    fn next_block(&mut self) {
        let left = self.data.len() - self.end;
        let block = left.min(self.block.max(1));
        if self.selected_is_cd() {
            // The registers say how much there is, and whose it is.
            let [mid, high] = (block as u16).to_le_bytes();
            let number = self.number();
            let registers = &mut self.registers[number];
            (registers.mid.now, registers.high.now) = (mid, high);
            registers.count.now = REASON_TO_HOST;
        }
        self.end += block;
        self.set_status(DRDY | DSC | DRQ);
        self.interrupt = true;
    }

    fn ended(&mut self, error: u8, status: u8) {
        self.cancel();
        let is_cd = self.selected_is_cd();
        let number = self.number();
        let registers = &mut self.registers[number];
        if is_cd {
            registers.count.now = REASON_COMMAND | REASON_TO_HOST;
        }
        (registers.error, registers.status) = (error, status);
        self.interrupt = true;
    }

    /// The command has done what it had to.
    fn finish(&mut self) {
        self.ended(0, DRDY | DSC);
    }

    fn fail(&mut self, error: u8) {
        let [count, low, mid, high] = {
            let registers = &self.registers[self.number()];
            [registers.count, registers.low, registers.mid, registers.high]
        };
        self.ended(error, DRDY | DSC | ERR);
        // The signature of a drive that refuses to be a disk stays.
        let number = self.number();
        let registers = &mut self.registers[number];
        (registers.count, registers.low, registers.mid, registers.high) = (count, low, mid, high);
    }

    fn failed(&mut self, failure: Failure) {
        match failure {
            _ if self.selected_is_cd() => self.fail_packet(Sense::UNREADABLE),
            Failure::Read => self.fail(UNC),
            Failure::Refused(error) => self.fail(error),
            Failure::Write | Failure::Memory | Failure::Short | Failure::Cancelled => self.fail(ABRT),
        }
    }

    fn fail_packet(&mut self, sense: Sense) {
        let number = self.number();
        let error = self.units[number].as_mut().map_or(ABRT, |unit| unit.packet_failed(sense));
        self.ended(error, DRDY | ERR);
    }
}

/// The thread of a channel.
fn serve(channel: &Weak<Channel>, inbox: &Receiver<Request>) {
    while let Ok(request) = inbox.recv() {
        let Some(channel) = channel.upgrade() else { return };
        let (disk, generation) = {
            let state = channel.state.lock();
            (state.units[request.unit].as_ref().and_then(Unit::medium), state.generation.clone())
        };
        let current = || generation.load(Ordering::Acquire) == request.generation;
        let transfer =
            Transfer { disk: disk.as_deref(), memory: &channel.memory, current: &current, pausing: &channel.pausing };
        let answer = carry_out(&request.what, &transfer).unwrap_or_else(Answer::Failed);
        channel.answer(&request, answer);
    }
}

fn carry_out(what: &What, transfer: &Transfer<'_>) -> Result<Answer, Failure> {
    match what {
        What::Read(from, length) => {
            let mut data = vec![0; *length];
            transfer.read(*from, &mut data)?;
            Ok(Answer::Data(data))
        }
        What::Write(from, data, durable) => {
            transfer.write(*from, data)?;
            if *durable {
                transfer.flush()?;
            }
            Ok(Answer::Done)
        }
        What::Flush => transfer.flush().map(|()| Answer::Done),
        What::Master(work, table) => {
            let mut regions = master::regions(transfer.memory, *table).ok_or(Failure::Memory)?;
            transfer.work(work, &mut regions)?;
            Ok(Answer::Moved { exhausted: regions.left() == 0 })
        }
    }
}
