//! Making a file: records are collected in chunks, which a thread of its own writes while the program goes on.

use std::collections::HashSet;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, atomic::AtomicU32, atomic::Ordering};
use std::thread::JoinHandle;

use crate::file::{CHUNK, CHUNKS, Chunk, Directory, Entry, Keys, Mac, RECORD_MAX};
use crate::read::file_name;
use crate::{Folder, Identity, Problem, Vault, file};

/// What a file under way is called in the end.
const UNDER_WAY: &str = ".new";
/// Chunks that are handed to the thread at once: to wake it takes longer than to copy one.
const BATCH: usize = 8;
/// Buffers that are kept for further chunks.
const SPARE: usize = 2 * BATCH;

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one file's chunks.
    pub file: u64,
    /// Bytes of all files of the folder.
    pub folder: u64,
}

/// What came of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was so little new that the old one was left as it is.
    Left,
    /// It was made, with so many records.
    Made(usize),
}

/// What the thread has written.
struct Spool {
    file: OwnedFd,
    chunks: Vec<Chunk>,
    end: u64,
    keys: Keys,
}

type Thread = JoinHandle<Result<Spool, Problem>>;

/// Collects records for a file.
pub struct Writer {
    folder: Arc<Folder>,
    name: String,
    identity: Identity,
    temporary: String,
    limits: Limits,
    chunk: Vec<u8>,
    full: u32,
    /// Full chunks for the thread.
    waiting: Vec<Vec<u8>>,
    bytes: u64,
    entries: Vec<Entry>,
    thread: Option<(Sender<Vec<Vec<u8>>>, Thread)>,
    /// Buffers that have been written.
    spare: Option<Receiver<Vec<u8>>>,
    failed: bool,
}

impl Writer {
    /// A writer of the file with this name.
    pub fn new(folder: Arc<Folder>, name: &str, identity: Identity, limits: Limits) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            folder,
            name: name.to_owned(),
            identity,
            temporary: format!("{name}-{}-{number}{UNDER_WAY}", std::process::id()),
            limits,
            chunk: Vec::new(),
            full: 0,
            waiting: Vec::new(),
            bytes: 0,
            entries: Vec::new(),
            thread: None,
            spare: None,
            failed: false,
        }
    }

    /// Adds a record; whether there was room.
    pub fn add(&mut self, key: u64, record: &[u8]) -> bool {
        self.add_with(key, |out| {
            out.extend_from_slice(record);
            true
        })
    }

    /// Adds what `write` appends; whether there was room, and `write` said that it shall be kept.
    pub fn add_with(&mut self, key: u64, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        if self.failed {
            return false;
        }
        if self.chunk.capacity() == 0 {
            let spare = self.spare.as_ref().and_then(|spare| spare.try_recv().ok());
            self.chunk = spare.unwrap_or_else(|| Vec::with_capacity(CHUNK + (4 << 10)));
            self.chunk.clear();
        }
        let begin = self.chunk.len();
        self.chunk.extend_from_slice(&[0; 4]);
        let keep = write(&mut self.chunk);
        let length = self.chunk.len().saturating_sub(begin + 4);
        let room = self.limits.file.saturating_sub(self.bytes);
        if !keep || length > RECORD_MAX || room < length as u64 + 4 {
            self.chunk.truncate(begin);
            return false;
        }
        self.chunk[begin..begin + 4].copy_from_slice(&(length as u32).to_le_bytes());
        self.entries.push(Entry { key, chunk: self.full, offset: begin as u32 });
        self.bytes += length as u64 + 4;
        if self.chunk.len() >= CHUNK {
            self.fill();
        }
        true
    }

    /// Bytes added.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The chunk is full.
    fn fill(&mut self) {
        self.full += 1;
        self.waiting.push(std::mem::take(&mut self.chunk));
        if self.waiting.len() >= BATCH {
            self.send();
        }
    }

    /// Hands full chunks to the thread.
    fn send(&mut self) {
        let chunks = std::mem::take(&mut self.waiting);
        if self.thread.is_none() {
            // Whoever adds must not wait for the disk; the limit on the file bounds what can pile up here.
            let (sender, receiver) = channel();
            let (done, spare) = sync_channel(SPARE);
            self.spare = Some(spare);
            let keys = Keys::new(&self.folder, &self.name, &self.identity);
            let (folder, temporary) = (self.folder.clone(), self.temporary.clone());
            let work = move || spool(&folder, &temporary, keys, &receiver, &done);
            match std::thread::Builder::new().name("vault".into()).spawn(work) {
                Ok(thread) => self.thread = Some((sender, thread)),
                Err(_) => return self.failed = true,
            }
        }
        // Where the thread has failed it says so at the end.
        self.failed |= self.thread.as_ref().is_none_or(|(sender, _)| sender.send(chunks).is_err());
    }

    /// Makes the file of what was added and of what is kept of `old`, the file that records were read from.
    ///
    /// # Errors
    ///
    /// It cannot be made; there is then no new file, and the old one if there was one.
    pub fn finish(mut self, old: Option<&Vault>) -> Result<Outcome, Problem> {
        let is_little = |vault: &Vault| self.bytes <= vault.bytes() / 64 && vault.damaged() == 0;
        if self.bytes == 0 && old.is_none_or(|vault| vault.damaged() == 0) || old.is_some_and(is_little) {
            if let Some(old) = old {
                touch(old);
            }
            return Ok(Outcome::Left);
        }
        self.fill();
        self.send();
        let Some((sender, thread)) = self.thread.take() else {
            return Err(Problem::Host { what: "starting a thread", source: std::io::ErrorKind::OutOfMemory.into() });
        };
        drop(sender);
        let panicked = |_| Problem::Damaged("the thread that writes");
        let spool = thread.join().map_err(panicked)??;
        let made = self.merge(spool, old);
        if made.is_err() {
            let _ = self.folder.remove(&self.temporary);
        }
        made
    }

    fn merge(&mut self, mut spool: Spool, old: Option<&Vault>) -> Result<Outcome, Problem> {
        let busy = || Problem::Host { what: "locking the folder", source: std::io::ErrorKind::WouldBlock.into() };
        let _lock = self.folder.lock().ok_or_else(busy)?;
        // Someone may have replaced the file since it was opened. What cannot be used is replaced.
        let current = Vault::open(&self.folder, &self.name, &self.identity).ok().flatten();
        let uses = || old.into_iter().flat_map(Vault::uses);
        let used: HashSet<Mac> = uses().filter(|(_, used, _)| *used).map(|(chunk, ..)| chunk.mac).collect();
        let bad: HashSet<Mac> = uses().filter(|(.., bad)| *bad).map(|(chunk, ..)| chunk.mac).collect();
        let mut directory = self.fresh(&spool, current.as_ref(), &bad);
        if let Some(current) = &current {
            self.carry(&mut spool, &mut directory, current, &used, &bad)?;
        }
        directory.entries.sort_unstable();
        let (head, bytes) = file::encode(&directory, spool.end, &spool.keys, &self.identity);
        write_at(&spool.file, &bytes, spool.end)?;
        write_at(&spool.file, &head, 0)?;
        let host = Problem::host("the file cannot be given its name");
        self.folder.rename(&self.temporary, &file_name(&self.name)).map_err(host)?;
        self.prune();
        Ok(Outcome::Made(directory.entries.len()))
    }

    /// The directory of what was added, but for chunks of which `current` has all already, in chunks that verify.
    fn fresh(&self, spool: &Spool, current: Option<&Vault>, bad: &HashSet<Mac>) -> Directory {
        let mut directory = Directory::default();
        let mut entries = &self.entries[..];
        for (number, chunk) in (0..).zip(&spool.chunks) {
            let mine = entries.partition_point(|entry| entry.chunk <= number);
            let (these, rest) = entries.split_at(mine);
            entries = rest;
            let is_good = |vault: &Vault, place| vault.mac_at(place).is_some_and(|mac| !bad.contains(mac));
            let known = |entry: &Entry| current.is_some_and(|vault| vault.find(entry.key).any(|at| is_good(vault, at)));
            if these.iter().all(known) {
                continue;
            }
            let chunk_number = directory.chunks.len() as u32;
            directory.entries.extend(these.iter().map(|entry| Entry { chunk: chunk_number, ..*entry }));
            directory.chunks.push(*chunk);
        }
        directory
    }

    /// Copies chunks of `current`, those used last first, as long as there is room. They are not verified here: that is
    /// done when they are used.
    fn carry(
        &self,
        spool: &mut Spool,
        directory: &mut Directory,
        current: &Vault,
        used: &HashSet<Mac>,
        bad: &HashSet<Mac>,
    ) -> Result<(), Problem> {
        let mut order: Vec<(u32, usize)> = current
            .directory()
            .chunks
            .iter()
            .enumerate()
            .filter(|(_, chunk)| !bad.contains(&chunk.mac))
            .map(|(n, chunk)| (if used.contains(&chunk.mac) { 0 } else { chunk.age.saturating_add(1) }, n))
            .collect();
        order.sort_unstable();
        let mut total: u64 = directory.chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        let mut numbers = vec![None; current.directory().chunks.len()];
        for (age, n) in order {
            let chunk = current.directory().chunks[n];
            total += u64::from(chunk.length);
            if total > self.limits.file {
                break;
            }
            let Some(bytes) = current.raw(&chunk) else { continue };
            write_at(&spool.file, &bytes, spool.end)?;
            numbers[n] = Some(directory.chunks.len() as u32);
            directory.chunks.push(Chunk { at: spool.end, age, ..chunk });
            spool.end += u64::from(chunk.length);
        }
        let moved = |entry: &Entry| {
            let chunk = (*numbers.get(entry.chunk as usize)?)?;
            Some(Entry { chunk, ..*entry })
        };
        directory.entries.extend(current.directory().entries.iter().filter_map(moved));
        Ok(())
    }

    /// Removes the files that were made or used longest ago until the rest is within the limit, and what others left
    /// half made.
    fn prune(&self) {
        self.folder.sweep(UNDER_WAY);
        let mut files = self.folder.list(&file_name("")).unwrap_or_default();
        files.sort_by_key(|(_, _, changed)| std::cmp::Reverse(*changed));
        let mut total = 0;
        for (name, size, _) in files {
            total += size;
            if total > self.limits.folder && name != file_name(&self.name) {
                let _ = self.folder.remove(&name);
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            let _ = thread.join();
            let _ = self.folder.remove(&self.temporary);
        }
    }
}

/// Notes that a file was of use.
fn touch(vault: &Vault) {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    // It only tells which file is to go first.
    let _ = rustix::fs::futimens(vault.file(), &times);
}

/// Writes chunks as they come, and gives their buffers back.
fn spool(
    folder: &Folder,
    temporary: &str,
    keys: Keys,
    chunks: &Receiver<Vec<Vec<u8>>>,
    done: &SyncSender<Vec<u8>>,
) -> Result<Spool, Problem> {
    let file = folder.create(temporary).map_err(Problem::host("a file cannot be made"))?;
    let mut spool = Spool { file, chunks: Vec::new(), end: CHUNKS, keys };
    // Nobody waits for this thread before the end, and somebody may for the processor. It matters little if it cannot be.
    let _ = rustix::process::nice(10);
    for batch in chunks {
        let written = write_all_at(&spool.file, &batch, spool.end);
        if let Err(error) = written {
            let _ = folder.remove(temporary);
            return Err(error);
        }
        for bytes in batch {
            let mac = spool.keys.of_chunk(&bytes);
            spool.chunks.push(Chunk { at: spool.end, length: bytes.len() as u32, age: 0, mac });
            spool.end += bytes.len() as u64;
            // One that nobody takes is freed.
            let _ = done.try_send(bytes);
        }
    }
    Ok(spool)
}

/// Writes chunks one behind the other, at once if the host takes them at once.
fn write_all_at(file: &OwnedFd, chunks: &[Vec<u8>], mut at: u64) -> Result<(), Problem> {
    let slices: Vec<_> = chunks.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let mut written = rustix::io::pwritev(file, &slices, at).unwrap_or(0);
    for bytes in chunks {
        // What is left is written one by one, which says what is wrong.
        let done = written.min(bytes.len());
        write_at(file, &bytes[done..], at + done as u64)?;
        written -= done;
        at += bytes.len() as u64;
    }
    Ok(())
}

fn write_at(file: &OwnedFd, bytes: &[u8], at: u64) -> Result<(), Problem> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pwrite(file, &bytes[done..], at + done as u64) {
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Problem::host("a file cannot be written")(error)),
        }
    }
    Ok(())
}
