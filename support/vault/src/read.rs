//! Reading a file: records by their number.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use crate::file::{CHUNKS, Chunk, Directory, Entry, HEAD, Head, Keys, Mac};
use crate::{Folder, Identity, Problem};

/// Chunks that are held in memory at a time.
const HELD: usize = 64;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    chunk: u32,
    offset: u32,
}

enum State {
    /// Not read yet, or not held any more.
    Away,
    Held(Vec<u8>),
    /// It does not verify.
    Bad,
}

/// A file that is open for reading.
pub struct Vault {
    file: OwnedFd,
    keys: Keys,
    directory: Directory,
    /// For each value of a number's highest bits, where entries with it begin.
    starts: Vec<u32>,
    shift: u32,
    chunks: Vec<State>,
    held: VecDeque<u32>,
    used: Vec<bool>,
    damaged: u32,
}

impl Vault {
    /// Opens a file, if there is one.
    ///
    /// # Errors
    ///
    /// It cannot be used.
    pub fn open(folder: &Folder, name: &str, identity: &Identity) -> Result<Option<Self>, Problem> {
        let Some(file) = folder.file(&file_name(name))? else { return Ok(None) };
        let host = Problem::host("a file cannot be read");
        let size = rustix::fs::fstat(&file).map_err(&host)?.st_size as u64;
        let keys = Keys::new(folder, name, identity);
        let mut bytes = [0; HEAD];
        read_at(&file, &mut bytes, 0).ok_or(Problem::Damaged("the file's head"))?;
        let head = Head::read(&bytes, size, &keys, identity)?;
        let mut bytes = vec![0; head.length as usize];
        read_at(&file, &mut bytes, head.directory).ok_or(Problem::Damaged("the file's directory"))?;
        let directory = head.directory(&bytes, &keys)?;
        let (starts, shift) = starts(&directory.entries);
        let count = directory.chunks.len();
        let chunks = directory.chunks.iter().map(|_| State::Away).collect();
        let held = VecDeque::with_capacity(HELD);
        let used = vec![false; count];
        Ok(Some(Self { file, keys, directory, starts, shift, chunks, held, used, damaged: 0 }))
    }

    /// Where records with this number are.
    pub fn find(&self, key: u64) -> impl Iterator<Item = Place> + use<'_> {
        let slot = (key >> self.shift) as usize;
        let (from, to) = (self.starts[slot] as usize, self.starts[slot + 1] as usize);
        let entries = &self.directory.entries[from..to];
        let first = entries.partition_point(|entry| entry.key < key);
        entries[first..]
            .iter()
            .take_while(move |entry| entry.key == key)
            .map(|entry| Place { chunk: entry.chunk, offset: entry.offset })
    }

    /// Whether there are at least `count` records whose numbers have the highest `bits` bits of `key`.
    pub fn has_like(&self, key: u64, bits: u32, count: usize) -> bool {
        let shift = 64 - bits;
        let first = self.directory.entries.partition_point(|entry| entry.key >> shift < key >> shift);
        let last = count.checked_sub(1).and_then(|more| self.directory.entries.get(first + more));
        count == 0 || last.is_some_and(|entry| entry.key >> shift == key >> shift)
    }

    /// Where the record lies that was added behind the one at `place`, of which [`Vault::record`] has this length.
    pub fn after(place: Place, length: usize) -> Place {
        Place { offset: place.offset + 4 + length as u32, ..place }
    }

    /// A record. `None`: it does not verify.
    pub fn record(&mut self, place: Place) -> Option<&[u8]> {
        let index = place.chunk as usize;
        if matches!(self.chunks.get(index)?, State::Away) {
            self.load(place.chunk);
        }
        let State::Held(bytes) = &self.chunks[index] else { return None };
        let rest = bytes.get(place.offset as usize..)?;
        let (length, rest) = rest.split_first_chunk()?;
        rest.get(..u32::from_le_bytes(*length) as usize)
    }

    /// Says that a record was of use: what is beside it is kept for longer.
    pub fn note_use(&mut self, place: Place) {
        if let Some(used) = self.used.get_mut(place.chunk as usize) {
            *used = true;
        }
    }

    fn load(&mut self, number: u32) {
        let chunk = self.directory.chunks[number as usize];
        // The memory of the one that has been held for longest.
        let oldest = if self.held.len() < HELD { None } else { self.held.pop_front() };
        let buffer = oldest.map_or(State::Away, |n| std::mem::replace(&mut self.chunks[n as usize], State::Away));
        let buffer = if let State::Held(buffer) = buffer { buffer } else { Vec::new() };
        let bytes = read_chunk(&self.file, &chunk, buffer).filter(|bytes| self.keys.is_chunk(bytes, &chunk.mac));
        let Some(bytes) = bytes else {
            self.damaged += 1;
            self.chunks[number as usize] = State::Bad;
            return;
        };
        self.chunks[number as usize] = State::Held(bytes);
        self.held.push_back(number);
    }

    /// Chunks that were found not to verify.
    pub fn damaged(&self) -> u32 {
        self.damaged
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.directory.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all chunks.
    pub fn bytes(&self) -> u64 {
        self.directory.chunks.iter().map(|chunk| u64::from(chunk.length)).sum()
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The MAC of the chunk that a record is in.
    pub(crate) fn mac_at(&self, place: Place) -> Option<&Mac> {
        self.directory.chunks.get(place.chunk as usize).map(|chunk| &chunk.mac)
    }

    /// A chunk as it is in the file, verified or not.
    pub(crate) fn raw(&self, chunk: &Chunk) -> Option<Vec<u8>> {
        read_chunk(&self.file, chunk, Vec::new())
    }

    /// The chunks that a record was used of, by their MAC, and those that do not verify.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (&Chunk, bool, bool)> {
        let states = self.used.iter().zip(&self.chunks);
        self.directory
            .chunks
            .iter()
            .zip(states)
            .map(|(chunk, (used, state))| (chunk, *used, matches!(state, State::Bad)))
    }

    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }
}

/// The name of a file.
pub(crate) fn file_name(name: &str) -> String {
    format!("{name}.vault")
}

/// Reads a chunk into `buffer`, whatever that held.
fn read_chunk(file: &OwnedFd, chunk: &Chunk, mut buffer: Vec<u8>) -> Option<Vec<u8>> {
    if chunk.at < CHUNKS {
        return None;
    }
    let length = chunk.length as usize;
    buffer.clear();
    buffer.reserve(length);
    while buffer.len() < length {
        let at = chunk.at.checked_add(buffer.len() as u64)?;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut buffer), at) {
            Ok(0) => return None,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    buffer.truncate(length);
    Some(buffer)
}

/// Fills `bytes`. `None`: the file ends before, or cannot be read.
fn read_at(file: &OwnedFd, bytes: &mut [u8], at: u64) -> Option<()> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pread(file, &mut bytes[done..], at.checked_add(done as u64)?) {
            Ok(0) => return None,
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(())
}

/// For each value of the highest bits of a number, where entries begin that have it; and by how much to shift.
fn starts(entries: &[Entry]) -> (Vec<u32>, u32) {
    // About four entries to a value.
    let bits = (entries.len() / 4).max(2).ilog2().min(24);
    let shift = 64 - bits;
    let mut starts = vec![0; (1 << bits) + 1];
    for entry in entries {
        starts[(entry.key >> shift) as usize + 1] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    (starts, shift)
}
