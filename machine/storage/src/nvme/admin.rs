//! Admin commands (NVMe 1.4 chapter 5).

use std::sync::atomic::Ordering;

use super::command::Command;
use super::core::{Core, Done};
use super::identify;
use super::registers::*;
use super::state::{AdminState, CompletionState, ErrorState, SubmissionState};

impl Core {
    /// Carries out an admin command.
    pub(super) fn admin(&self, command: &Command) -> Done {
        if !command.is_plain() {
            return Err(status::FIELD);
        }
        match command.opcode() {
            admin::CREATE_CQ => self.create_completion(command).map(Some),
            admin::CREATE_SQ => self.create_submission(command).map(Some),
            admin::DELETE_CQ => self.delete_completion(command).map(Some),
            admin::DELETE_SQ => self.delete_submission(command).map(Some),
            admin::IDENTIFY => self.identify(command).map(Some),
            admin::GET_LOG => self.get_log(command).map(Some),
            admin::GET_FEATURES => self.get_features(command).map(Some),
            admin::SET_FEATURES => self.set_features(command).map(Some),
            // Commands are carried out in order: what could be aborted has not been fetched.
            admin::ABORT => Ok(Some(1)),
            admin::EVENT => self.event(command),
            _ => Err(status::OPCODE),
        }
    }

    /// The number of a queue for I/O.
    fn number(&self, command: &Command) -> Result<usize, u16> {
        let number = command.0[10] as u16;
        if (1..=self.queues).contains(&number) { Ok(number.into()) } else { Err(status::QUEUE) }
    }

    fn entries(command: &Command) -> Result<u32, u16> {
        let entries = (command.0[10] >> 16) + 1;
        if (2..=MOST_ENTRIES).contains(&entries) { Ok(entries) } else { Err(status::QUEUE_SIZE) }
    }

    /// Where a queue lies: in one piece.
    fn base(&self, command: &Command) -> Result<u64, u16> {
        const CONTIGUOUS: u32 = 1;
        if command.0[11] & CONTIGUOUS == 0 {
            return Err(status::FIELD);
        }
        let base = command.prp1();
        if base.is_multiple_of(self.page.load(Ordering::Relaxed)) { Ok(base) } else { Err(status::PRP_OFFSET) }
    }

    fn create_completion(&self, command: &Command) -> Result<u32, u16> {
        const INTERRUPTS: u32 = 2;
        let number = self.number(command)?;
        let slot = &self.slots[number];
        if slot.completion.lock().is_some() {
            return Err(status::QUEUE);
        }
        let (entries, base) = (Self::entries(command)?, self.base(command)?);
        let vector = (command.0[11] >> 16) as u16;
        let interrupts = command.0[11] & INTERRUPTS != 0;
        if interrupts && vector >= self.interrupts.lock().msix.vectors() {
            return Err(status::VECTOR);
        }
        let queue = CompletionState { base, entries, vector, interrupts, ..CompletionState::default() };
        *slot.completion.lock() = Some(queue);
        Ok(0)
    }

    fn create_submission(&self, command: &Command) -> Result<u32, u16> {
        let number = self.number(command)?;
        let slot = &self.slots[number];
        if slot.entries.load(Ordering::Acquire) != 0 {
            return Err(status::QUEUE);
        }
        let completion = (command.0[11] >> 16) as u16;
        let there =
            |number: u16| self.slots.get(usize::from(number)).is_some_and(|slot| slot.completion.lock().is_some());
        if completion == 0 || !there(completion) {
            return Err(status::COMPLETION_QUEUE);
        }
        let (entries, base) = (Self::entries(command)?, self.base(command)?);
        self.open(number, SubmissionState { base, entries, head: 0, completion }, 0);
        Ok(0)
    }

    fn delete_submission(&self, command: &Command) -> Result<u32, u16> {
        let slot = &self.slots[self.number(command)?];
        if slot.entries.swap(0, Ordering::AcqRel) == 0 {
            return Err(status::QUEUE);
        }
        // Waits for the command of it that is under way.
        *slot.submission.lock() = None;
        slot.tail.store(0, Ordering::Release);
        Ok(0)
    }

    fn delete_completion(&self, command: &Command) -> Result<u32, u16> {
        let number = self.number(command)?;
        let uses = |slot: &super::core::Slot| {
            // No other thread deletes or makes any.
            slot.entries.load(Ordering::Acquire) != 0
                && slot.submission.lock().as_ref().is_some_and(|queue| usize::from(queue.completion) == number)
        };
        if self.slots[number].completion.lock().is_none() {
            return Err(status::QUEUE);
        }
        if self.slots.iter().skip(1).any(uses) {
            return Err(status::DELETION);
        }
        *self.slots[number].completion.lock() = None;
        let mut interrupts = self.interrupts.lock();
        interrupts.waiting &= !(1 << number);
        self.update(&interrupts);
        Ok(0)
    }

    /// Gives bytes to the guest.
    fn give(&self, command: &Command, bytes: &[u8]) -> Result<u32, u16> {
        let page = self.page.load(Ordering::Relaxed);
        let mut regions = command.regions(&self.memory, page, bytes.len() as u64)?;
        if regions.fill(&self.memory, bytes) { Ok(0) } else { Err(status::TRANSFER) }
    }

    fn identify(&self, command: &Command) -> Result<u32, u16> {
        const NAMESPACE: u32 = 0;
        const CONTROLLER: u32 = 1;
        const LIST: u32 = 2;
        const DESCRIPTORS: u32 = 3;
        let namespace = command.namespace();
        let there = || if namespace == 1 { Ok(()) } else { Err(status::NAMESPACE) };
        let bytes = match command.0[10] & 0xff {
            NAMESPACE => {
                there()?;
                identify::namespace(&*self.disk, &self.serial)
            }
            CONTROLLER => identify::controller(&self.serial),
            LIST if namespace >= 0xffff_fffe => return Err(status::NAMESPACE),
            LIST => identify::list(namespace),
            DESCRIPTORS => {
                there()?;
                identify::descriptors(&self.serial)
            }
            _ => return Err(status::FIELD),
        };
        self.give(command, &bytes)
    }

    fn get_log(&self, command: &Command) -> Result<u32, u16> {
        const KEEP_EVENTS: u32 = 1 << 15;
        let page = command.0[10] as u8;
        let words = u64::from(command.0[10] >> 16) | u64::from(command.0[11] & 0xffff) << 16;
        let (length, offset) = ((words + 1) * 4, command.wide(12));
        let mut bytes = match page {
            log::ERRORS => self.admin.lock().error_log(),
            log::HEALTH => self.health(),
            log::FIRMWARE => firmware(),
            log::EFFECTS => identify::effects(),
            _ => return Err(status::LOG_PAGE),
        };
        if offset & 3 != 0 || offset > bytes.len() as u64 || length > MOST_BYTES {
            return Err(status::FIELD);
        }
        bytes.drain(..offset as usize);
        bytes.resize(length as usize, 0);
        let result = self.give(command, &bytes)?;
        if page == log::ERRORS && command.0[10] & KEEP_EVENTS == 0 {
            self.admin.lock().reported = false;
            self.ring(0);
        }
        Ok(result)
    }

    /// The health log (figure 194).
    fn health(&self) -> Vec<u8> {
        /// Counts of data are in thousands of 512 bytes.
        const UNIT: u64 = 512_000;
        let mut bytes = vec![0; 512];
        // 40 degrees Celsius; spares are all there, a tenth of them would be too few.
        bytes[1..3].copy_from_slice(&313u16.to_le_bytes());
        (bytes[3], bytes[4]) = (100, 10);
        let counts = &self.counts;
        let read = counts.bytes_read.load(Ordering::Relaxed).div_ceil(UNIT);
        let written = counts.bytes_written.load(Ordering::Relaxed).div_ceil(UNIT);
        let commands = [&counts.reads, &counts.writes].map(|count| count.load(Ordering::Relaxed));
        let errors = self.admin.lock().error_count;
        for (at, value) in [(32, read), (48, written), (64, commands[0]), (80, commands[1]), (112, 1), (176, errors)] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    fn set_features(&self, command: &Command) -> Result<u32, u16> {
        const SAVE: u32 = 1 << 31;
        if command.0[10] & SAVE != 0 {
            return Err(status::NOT_SAVEABLE);
        }
        let value = command.0[11];
        let mut admin = self.admin.lock();
        match command.0[10] as u8 {
            feature::ARBITRATION => admin.arbitration = value,
            // There is one power state.
            feature::POWER if value & 0x1f != 0 => return Err(status::FIELD),
            feature::POWER => {}
            feature::TEMPERATURE => admin.temperature = value,
            feature::RECOVERY => admin.recovery = value & 0xffff,
            feature::WRITE_CACHE => {
                let was = admin.write_cache;
                admin.write_cache = value & 1 != 0;
                let now = admin.write_cache;
                drop(admin);
                if was && !now && self.disk.flush().is_err() {
                    return Err(status::INTERNAL);
                }
            }
            feature::QUEUES if value & 0xffff == 0xffff || value >> 16 == 0xffff => return Err(status::FIELD),
            feature::QUEUES => return Ok(self.queue_count()),
            // Interrupts come at once, which is as few as are asked for at most.
            feature::COALESCING => admin.coalescing = value & 0xffff,
            feature::VECTOR => {
                let number = usize::from(value as u16);
                let vectors = usize::from(self.interrupts.lock().msix.vectors());
                if number >= vectors {
                    return Err(status::FIELD);
                }
                admin.uncoalesced &= !(1 << number);
                admin.uncoalesced |= u128::from(value >> 16 & 1) << number;
            }
            feature::ATOMICITY => admin.atomicity = value & 1,
            feature::EVENTS => admin.event_mask = value,
            _ => return Err(status::FIELD),
        }
        Ok(0)
    }

    fn queue_count(&self) -> u32 {
        let count = u32::from(self.queues) - 1;
        count | count << 16
    }

    fn get_features(&self, command: &Command) -> Result<u32, u16> {
        const DEFAULT: u32 = 1;
        const SAVED: u32 = 2;
        const CAPABILITIES: u32 = 3;
        /// Capabilities: it can be changed.
        const CHANGEABLE: u32 = 4;
        let current = self.admin.lock();
        let fresh = AdminState::default();
        let select = command.0[10] >> 8 & 7;
        let admin = match select {
            0 | CAPABILITIES => &*current,
            DEFAULT | SAVED => &fresh,
            _ => return Err(status::FIELD),
        };
        let value = match command.0[10] as u8 {
            feature::ARBITRATION => admin.arbitration,
            feature::POWER => 0,
            feature::TEMPERATURE => admin.temperature,
            feature::RECOVERY => admin.recovery,
            feature::WRITE_CACHE => admin.write_cache.into(),
            feature::QUEUES => self.queue_count(),
            feature::COALESCING => admin.coalescing,
            feature::VECTOR => {
                let number = command.0[11] & 0xffff;
                if number >= u32::from(self.interrupts.lock().msix.vectors()) {
                    return Err(status::FIELD);
                }
                number | ((admin.uncoalesced >> number & 1) as u32) << 16
            }
            feature::ATOMICITY => admin.atomicity,
            feature::EVENTS => admin.event_mask,
            _ => return Err(status::FIELD),
        };
        Ok(if select == CAPABILITIES { CHANGEABLE } else { value })
    }

    /// ASYNCHRONOUS EVENT REQUEST: ends when there is an event.
    fn event(&self, command: &Command) -> Done {
        let mut admin = self.admin.lock();
        if admin.requests.len() >= EVENTS {
            return Err(status::EVENT_LIMIT);
        }
        admin.requests.push(command.id());
        drop(admin);
        self.ring(0);
        Ok(None)
    }

    /// Remembers an error for its log.
    pub(super) fn note_error(&self, queue: u16, command: &Command, status: u16) {
        let mut admin = self.admin.lock();
        admin.error_count += 1;
        let count = admin.error_count;
        let lba = if queue == 0 { 0 } else { command.wide(10) };
        let namespace = command.namespace();
        admin.errors.insert(0, ErrorState { count, queue, id: command.id(), status, lba, namespace });
        admin.errors.truncate(ERRORS);
    }
}

impl AdminState {
    /// The log of errors (figure 193).
    fn error_log(&self) -> Vec<u8> {
        let mut bytes = vec![0; 64 * ERRORS];
        for (entry, error) in bytes.chunks_exact_mut(64).zip(&self.errors) {
            entry[..8].copy_from_slice(&error.count.to_le_bytes());
            entry[8..10].copy_from_slice(&error.queue.to_le_bytes());
            entry[10..12].copy_from_slice(&error.id.to_le_bytes());
            entry[12..14].copy_from_slice(&(error.status << 1).to_le_bytes());
            // Where in the command it is, is not said.
            entry[14..16].copy_from_slice(&[0xff, 0xff]);
            entry[16..24].copy_from_slice(&error.lba.to_le_bytes());
            entry[24..28].copy_from_slice(&error.namespace.to_le_bytes());
        }
        bytes
    }
}

/// The log of firmware: the first slot is active (figure 195).
fn firmware() -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[0] = 1;
    for (byte, from) in bytes[8..16].iter_mut().zip(env!("CARGO_PKG_VERSION").bytes().chain(std::iter::repeat(b' '))) {
        *byte = from;
    }
    bytes
}
