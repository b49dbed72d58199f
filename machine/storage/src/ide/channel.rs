//! A channel: the registers that two drives share, the data that wait to be moved, and the thread that does the I/O.
//!
//! ```text
//!             command                     data there           guest has read, or written, a block
//!   idle ---------------> busy (thread) -----------> DRQ -------------------------------------------> busy, or idle
//!     ^                     |  DMA: all moved                                                           |
//!     +---------------------+---------------------------------------------------------------------------+
//! ```
//!
//! What the thread is asked for is a [`Request`]; it works without the lock, and what comes of it counts only if the channel
//! has not been reset meanwhile.

use std::io::{IoSlice, IoSliceMut};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use lodge_backend::{Disk, Tray};
use lodge_bus::IrqLine;
use lodge_engine_api::GuestMemory;
use parking_lot::Mutex;

use super::identify::{HEADS, SECTORS, Settings};
use super::master::{Master, Regions};
use super::registers::*;
use super::{atapi, disk};

/// Bytes that the thread moves at a time.
pub(super) const PIECE: usize = 128 << 10;

/// What is connected to a channel.
#[derive(Clone)]
pub enum Drive {
    /// A hard disk.
    Disk(Arc<dyn Disk>),
    /// A CD drive.
    Cd(Arc<Tray>),
}

/// A drive with what it remembers.
pub(super) struct Unit {
    pub drive: Drive,
    pub serial: String,
    pub settings: Settings,
    pub cd: atapi::State,
}

/// Registers of which the guest can write two bytes: the last one and the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pair {
    pub now: u8,
    pub before: u8,
}

impl Pair {
    fn set(&mut self, value: u8) {
        (self.before, self.now) = (self.now, value);
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Registers {
    pub features: u8,
    pub count: Pair,
    pub low: Pair,
    pub mid: Pair,
    pub high: Pair,
    pub device: u8,
    pub status: u8,
    pub error: u8,
    pub control: u8,
}

/// Where data for the guest are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// They are here.
    Bytes(Vec<u8>),
    /// The medium: so many bytes from this one on.
    Medium(u64, u64),
}

/// How data move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The guest reads or writes the data register, so many bytes between two interrupts.
    Ports(usize),
    /// The bus master.
    Dma,
}

/// What a command that has been begun still has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Give data to the guest.
    Give(Source, By),
    /// Take so many bytes for the medium, from this one on.
    Take(u64, u64, By),
    /// Take a packet.
    Packet,
    /// Make what was written durable.
    Flush,
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
    /// Write what the guest has put into the data register.
    Write(u64, Vec<u8>),
    /// Move by the bus master.
    Give(Source, u32),
    Take(u64, u64, u32),
    Flush,
}

/// What came of it.
enum Answer {
    Data(Vec<u8>),
    Done { exhausted: bool },
    Failed { medium: bool },
}

pub(super) struct State {
    pub registers: Registers,
    pub units: [Option<Unit>; 2],
    pub master: Master,
    pub work: Option<Work>,
    interrupt: bool,
    /// The block that the guest reads or writes, and how far it has come.
    data: Vec<u8>,
    at: usize,
    /// The end of what moves before the next interrupt.
    end: usize,
    /// It waits for the bus master to be started.
    waits: bool,
    generation: u64,
}

/// A channel.
pub(super) struct Channel {
    pub name: String,
    irq: IrqLine,
    memory: GuestMemory,
    pub state: Mutex<State>,
    requests: Sender<Request>,
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
            let settings = Settings { geometry: (HEADS, SECTORS), ..Settings::default() };
            drive.map(|drive| Unit { drive, serial: format!("{name}-{number}"), settings, cd: atapi::State::default() })
        });
        let mut state = State {
            registers: Registers::default(),
            units,
            master: Master::default(),
            work: None,
            interrupt: false,
            data: Vec::new(),
            at: 0,
            end: 0,
            waits: false,
            generation: 0,
        };
        state.reset();
        let this = Arc::new(Self { name: name.to_owned(), irq, memory, state: Mutex::new(state), requests });
        let weak = Arc::downgrade(&this);
        std::thread::Builder::new().name(format!("io-{name}")).spawn(move || serve(&weak, &inbox))?;
        Ok(this)
    }

    fn drive_line(&self, state: &State) {
        self.irq.set(state.interrupt && state.registers.control & CONTROL_NIEN == 0);
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
        let before = std::mem::replace(&mut state.registers.control, value);
        if value & CONTROL_SRST != 0 {
            state.cancel();
            state.registers.status = BSY;
        } else if before & CONTROL_SRST != 0 {
            let control = state.registers.control;
            state.reset();
            state.registers.control = control;
        }
        self.drive_line(&state);
    }

    /// Back to the state after power-on.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.reset();
        state.master = Master::default();
        self.drive_line(&state);
    }

    /// A register of the bus master.
    pub fn read_master(&self, offset: u16) -> u8 {
        self.state.lock().master.read(offset)
    }

    /// Writes a register of the bus master.
    pub fn write_master(&self, offset: u16, value: u8) {
        let mut state = self.state.lock();
        if state.master.write(offset, value) && std::mem::take(&mut state.waits) {
            self.proceed(&mut state);
        }
    }

    fn command(&self, state: &mut State, command: u8) {
        let Some(unit) = state.selected() else { return };
        let is_cd = matches!(unit.drive, Drive::Cd(_));
        if state.registers.status & (BSY | DRQ) != 0 && !(is_cd && command == command::DEVICE_RESET) {
            return;
        }
        state.interrupt = false;
        state.cancel();
        state.registers.error = 0;
        state.registers.status = DRDY | DSC;
        let begun = if is_cd { atapi::command(state, command) } else { disk::command(state, command) };
        match begun {
            Ok(Some(work)) => {
                state.work = Some(work);
                self.proceed(state);
            }
            Ok(None) => state.interrupt = command != command::DEVICE_RESET,
            Err(error) => state.fail(error),
        }
        self.drive_line(state);
    }

    /// Goes on with the work of the command.
    fn proceed(&self, state: &mut State) {
        let by_dma = |by: &By| *by == By::Dma;
        let what = match state.work.clone() {
            None => return,
            Some(Work::Give(_, by) | Work::Take(_, _, by)) if by_dma(&by) && !state.master.is_started() => {
                state.waits = true;
                state.registers.status = DRDY | DSC | DRQ;
                return;
            }
            Some(Work::Give(source, By::Dma)) => What::Give(source, state.master.table),
            Some(Work::Take(from, left, By::Dma)) => What::Take(from, left, state.master.table),
            Some(Work::Give(Source::Bytes(bytes), By::Ports(_))) => {
                state.work = Some(Work::Give(Source::Bytes(Vec::new()), By::Ports(0)));
                return state.offer(bytes);
            }
            Some(Work::Give(Source::Medium(from, left), By::Ports(_))) => {
                What::Read(from, left.min(PIECE as u64) as usize)
            }
            Some(Work::Take(_, left, By::Ports(block))) => {
                // The first block is asked for without an interrupt.
                state.data = vec![0; (block as u64).min(left) as usize];
                (state.at, state.end) = (0, state.data.len());
                state.registers.status = DRDY | DSC | DRQ;
                return;
            }
            Some(Work::Packet) => {
                state.data = vec![0; atapi::PACKET];
                (state.at, state.end) = (0, state.data.len());
                state.registers.status = DRDY | DSC | DRQ;
                return;
            }
            Some(Work::Flush) => What::Flush,
        };
        self.ask(state, what);
    }

    fn ask(&self, state: &mut State, what: What) {
        state.registers.status = BSY | DRDY | DSC;
        let request = Request { generation: state.generation, unit: state.number(), what };
        // The thread ends only with the channel.
        let _ = self.requests.send(request);
    }

    fn read_data(&self, state: &mut State, bytes: usize) -> u32 {
        let gives = matches!(state.work, Some(Work::Give(..)));
        if state.registers.status & DRQ == 0 || !gives {
            return 0;
        }
        let mut value = [0; 4];
        let count = bytes.min(state.end - state.at);
        value[..count].copy_from_slice(&state.data[state.at..state.at + count]);
        state.at += count;
        if state.at == state.end {
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
        let takes = matches!(state.work, Some(Work::Take(..) | Work::Packet));
        if state.registers.status & DRQ == 0 || !takes {
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
            Some(Work::Take(from, ..)) => self.ask(state, What::Write(from, data)),
            _ => self.packet(state, &data),
        }
    }

    fn packet(&self, state: &mut State, packet: &[u8]) {
        state.work = None;
        state.registers.status = DRDY | DSC;
        match atapi::packet(state, packet) {
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
    fn answered(&self, request: &Request, answer: Answer) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.generation != request.generation {
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
            Answer::Done { exhausted } => match (&request.what, &mut state.work) {
                (What::Write(_, data), Some(Work::Take(from, left, By::Ports(block)))) => {
                    *from += data.len() as u64;
                    *left -= (data.len() as u64).min(*left);
                    let next = (*block as u64).min(*left) as usize;
                    if next == 0 {
                        state.finish();
                    } else {
                        state.data = vec![0; next];
                        (state.at, state.end) = (0, next);
                        state.registers.status = DRDY | DSC | DRQ;
                        state.interrupt = true;
                    }
                }
                (What::Give(..) | What::Take(..), _) => {
                    state.master.finish(exhausted, false);
                    state.finish();
                }
                _ => state.finish(),
            },
            Answer::Failed { medium } => {
                if matches!(request.what, What::Give(..) | What::Take(..)) {
                    state.master.finish(true, !medium);
                }
                match state.selected().map(|unit| &unit.drive) {
                    Some(Drive::Cd(_)) => state.fail_packet(atapi::Sense::UNREADABLE),
                    _ => state.fail(if medium { UNC } else { ABRT }),
                }
            }
        }
        self.drive_line(state);
    }
}

impl State {
    fn number(&self) -> usize {
        usize::from(self.registers.device & DEVICE_SECOND != 0)
    }

    /// The drive that is selected.
    pub fn selected(&mut self) -> Option<&mut Unit> {
        let number = self.number();
        self.units[number].as_mut()
    }

    fn read(&self, offset: u16) -> u8 {
        let registers = &self.registers;
        if self.units[self.number()].is_none() {
            // The other drive answers for it, with nothing.
            return if offset == DEVICE { registers.device | DEVICE_ONES } else { 0 };
        }
        let earlier = registers.control & CONTROL_HOB != 0;
        let byte = |pair: Pair| if earlier { pair.before } else { pair.now };
        match offset {
            ERROR => registers.error,
            COUNT => byte(registers.count),
            LBA_LOW => byte(registers.low),
            LBA_MID => byte(registers.mid),
            LBA_HIGH => byte(registers.high),
            DEVICE => registers.device | DEVICE_ONES,
            _ => registers.status,
        }
    }

    fn write(&mut self, offset: u16, value: u8) {
        let busy = self.registers.status & (BSY | DRQ) != 0;
        if busy && offset != DEVICE {
            return;
        }
        self.registers.control &= !CONTROL_HOB;
        let registers = &mut self.registers;
        match offset {
            ERROR => registers.features = value,
            COUNT => registers.count.set(value),
            LBA_LOW => registers.low.set(value),
            LBA_MID => registers.mid.set(value),
            LBA_HIGH => registers.high.set(value),
            _ if busy => {}
            _ => registers.device = value & !DEVICE_ONES | value & DEVICE_ONES,
        }
    }

    /// Puts the signature of the selected drive into the registers.
    pub fn sign(&mut self) {
        let is_cd = matches!(self.selected().map(|unit| &unit.drive), Some(Drive::Cd(_)));
        let pair = |now| Pair { now, before: 0 };
        let (mid, high) = if is_cd { (0x14, 0xeb) } else { (0, 0) };
        let registers = &mut self.registers;
        (registers.count, registers.low) = (pair(1), pair(1));
        (registers.mid, registers.high) = (pair(mid), pair(high));
    }

    /// Forgets what goes on.
    fn cancel(&mut self) {
        self.work = None;
        self.waits = false;
        self.data.clear();
        (self.at, self.end) = (0, 0);
        self.generation += 1;
    }

    fn reset(&mut self) {
        self.cancel();
        self.interrupt = false;
        self.registers = Registers { error: 1, ..Registers::default() };
        for unit in self.units.iter_mut().flatten() {
            unit.settings = Settings { geometry: unit.settings.geometry, ..Settings::default() };
            unit.cd.reset();
        }
        self.sign();
        let is_disk = matches!(self.selected().map(|unit| &unit.drive), Some(Drive::Disk(_)));
        // A packet drive is not ready before its first command.
        self.registers.status = if is_disk { DRDY | DSC } else { 0 };
    }

    /// Shows data to the guest, and the first block of them.
    fn offer(&mut self, data: Vec<u8>) {
        self.data = data;
        (self.at, self.end) = (0, 0);
        if self.data.is_empty() { self.finish() } else { self.next_block() }
    }

    fn next_block(&mut self) {
        let left = self.data.len() - self.end;
        let block = if self.selected_is_cd() {
            atapi::block(self, left)
        } else {
            match &self.work {
                Some(Work::Give(_, By::Ports(block))) if *block > 0 => (*block).min(left),
                _ => left,
            }
        };
        self.end += block;
        self.registers.status = DRDY | DSC | DRQ;
        self.interrupt = true;
    }

    fn selected_is_cd(&mut self) -> bool {
        matches!(self.selected().map(|unit| &unit.drive), Some(Drive::Cd(_)))
    }

    /// The command has done what it had to.
    fn finish(&mut self) {
        if self.selected_is_cd() {
            self.registers.count.now = REASON_COMMAND | REASON_TO_HOST;
        }
        self.cancel();
        self.registers.status = DRDY | DSC;
        self.interrupt = true;
    }

    fn fail(&mut self, error: u8) {
        self.cancel();
        self.registers.error = error;
        self.registers.status = DRDY | DSC | ERR;
        self.interrupt = true;
    }

    fn fail_packet(&mut self, sense: atapi::Sense) {
        self.cancel();
        if let Some(unit) = self.selected() {
            unit.cd.sense = sense;
        }
        self.registers.count.now = REASON_COMMAND | REASON_TO_HOST;
        self.registers.error = sense.key << 4 | if sense.key == atapi::ILLEGAL { ABRT } else { 0 };
        self.registers.status = DRDY | ERR;
        self.interrupt = true;
    }
}

/// The thread of a channel.
fn serve(channel: &Weak<Channel>, inbox: &Receiver<Request>) {
    while let Ok(request) = inbox.recv() {
        let Some(channel) = channel.upgrade() else { return };
        let disk = channel.state.lock().units[request.unit].as_ref().and_then(|unit| match &unit.drive {
            Drive::Disk(disk) => Some(disk.clone()),
            Drive::Cd(tray) => tray.medium(),
        });
        let answer = carry_out(&request.what, disk.as_deref(), &channel.memory);
        channel.answered(&request, answer);
    }
}

fn carry_out(what: &What, disk: Option<&dyn Disk>, memory: &GuestMemory) -> Answer {
    let no_medium = || std::io::Error::new(std::io::ErrorKind::NotFound, "no medium");
    let disk = disk.ok_or_else(no_medium);
    let read = |from: u64, data: &mut [u8]| disk.as_ref().is_ok_and(|d| d.read_at(from, &mut [IoSliceMut::new(data)]).is_ok());
    let write = |from: u64, data: &[u8]| disk.as_ref().is_ok_and(|d| d.write_at(from, &[IoSlice::new(data)]).is_ok());
    let failed = Answer::Failed { medium: true };
    let done = Answer::Done { exhausted: true };
    match what {
        What::Read(from, length) => {
            let mut data = vec![0; *length];
            if read(*from, &mut data) { Answer::Data(data) } else { failed }
        }
        What::Write(from, data) => if write(*from, data) { done } else { failed },
        What::Flush => if disk.as_ref().is_ok_and(|disk| disk.flush().is_ok()) { done } else { failed },
        What::Give(source, table) => {
            let Some(mut regions) = Regions::read(memory, *table) else { return Answer::Failed { medium: false } };
            match source {
                Source::Bytes(bytes) => {
                    let count = bytes.len().min(regions.left());
                    if !regions.fill(memory, &bytes[..count]) {
                        return Answer::Failed { medium: false };
                    }
                }
                Source::Medium(from, length) => {
                    let (mut from, mut left) = (*from, (*length).min(regions.left() as u64));
                    while left > 0 {
                        let mut data = vec![0; left.min(PIECE as u64) as usize];
                        if !read(from, &mut data) {
                            return failed;
                        }
                        if !regions.fill(memory, &data) {
                            return Answer::Failed { medium: false };
                        }
                        (from, left) = (from + data.len() as u64, left - data.len() as u64);
                    }
                }
            }
            Answer::Done { exhausted: regions.left() == 0 }
        }
        What::Take(from, length, table) => {
            let Some(mut regions) = Regions::read(memory, *table) else { return Answer::Failed { medium: false } };
            let (mut from, mut left) = (*from, (*length).min(regions.left() as u64));
            while left > 0 {
                let mut data = vec![0; left.min(PIECE as u64) as usize];
                if !regions.drain(memory, &mut data) {
                    return Answer::Failed { medium: false };
                }
                if !write(from, &data) {
                    return failed;
                }
                (from, left) = (from + data.len() as u64, left - data.len() as u64);
            }
            Answer::Done { exhausted: regions.left() == 0 }
        }
    }
}
