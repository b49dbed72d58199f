//! The form of a file: head and directory as bytes, and their MACs.

use crate::{Folder, Identity, Problem};

/// Where chunks begin.
pub const CHUNKS: u64 = 4096;
/// Bytes after which a chunk is full: what is hashed fastest, and few enough that one is not read for little.
pub const CHUNK: usize = 16 << 10;
/// Most bytes of one record, and of a chunk.
pub const RECORD_MAX: usize = 1 << 20;
/// Most bytes of a directory: of more records than a file of the largest size can have.
const DIRECTORY_MAX: u64 = 256 << 20;

const MAGIC: [u8; 8] = *b"lodgvlt1";
/// Magic, identity, directory's place, its length, number of chunks, directory's MAC; the head's MAC.
pub const HEAD: usize = 8 + 32 + 8 + 8 + 8 + 32 + 32;
const CHUNK_ENTRY: usize = 8 + 4 + 4 + 32;
const RECORD_ENTRY: usize = 8 + 4 + 4;

/// A message authentication code.
pub type Mac = [u8; 32];

/// The keys of one file.
pub struct Keys {
    head: Mac,
    chunk: Mac,
}

impl Keys {
    /// From the folder's key, for a name and an identity: what one file holds is good in no other.
    pub fn new(folder: &Folder, name: &str, identity: &Identity) -> Self {
        let derive = |context: &str| {
            let mut hasher = blake3::Hasher::new_derive_key(context);
            hasher.update(&folder.key).update(identity).update(name.as_bytes());
            *hasher.finalize().as_bytes()
        };
        Self { head: derive("lodge vault 1: head and directory"), chunk: derive("lodge vault 1: chunk") }
    }

    /// A chunk's MAC.
    pub fn of_chunk(&self, bytes: &[u8]) -> Mac {
        *blake3::keyed_hash(&self.chunk, bytes).as_bytes()
    }

    /// Whether a chunk's MAC is this, told in a time that does not depend on where they differ.
    pub fn is_chunk(&self, bytes: &[u8], mac: &Mac) -> bool {
        blake3::keyed_hash(&self.chunk, bytes) == blake3::Hash::from(*mac)
    }
}

/// A chunk in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub at: u64,
    pub length: u32,
    /// Files made since a record of it was last used.
    pub age: u32,
    pub mac: Mac,
}

/// A record in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub key: u64,
    pub chunk: u32,
    pub offset: u32,
}

/// The directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Directory {
    pub chunks: Vec<Chunk>,
    /// By ascending key.
    pub entries: Vec<Entry>,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn mac(bytes: &[u8], at: usize) -> Mac {
    bytes.get(at..at + 32).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

/// What a head says.
pub struct Head {
    pub directory: u64,
    pub length: u64,
    chunks: u64,
    mac: Mac,
}

impl Head {
    /// Reads a head of a file of `size` bytes.
    pub fn read(bytes: &[u8], size: u64, keys: &Keys, identity: &Identity) -> Result<Self, Problem> {
        let damaged = || Problem::Damaged("the file's head");
        if bytes.len() < HEAD || bytes[..8] != MAGIC {
            return Err(damaged());
        }
        if bytes[8..40] != *identity {
            return Err(Problem::Stale);
        }
        let body = &bytes[..HEAD - 32];
        if blake3::keyed_hash(&keys.head, body) != blake3::Hash::from(mac(bytes, HEAD - 32)) {
            return Err(damaged());
        }
        let head =
            Self { directory: word(bytes, 40), length: word(bytes, 48), chunks: word(bytes, 56), mac: mac(bytes, 64) };
        let fits = head.length <= DIRECTORY_MAX && head.directory.checked_add(head.length) == Some(size);
        if fits { Ok(head) } else { Err(damaged()) }
    }

    /// Reads the directory that this head is of.
    pub fn directory(&self, bytes: &[u8], keys: &Keys) -> Result<Directory, Problem> {
        let damaged = || Problem::Damaged("the file's directory");
        if blake3::keyed_hash(&keys.head, bytes) != blake3::Hash::from(self.mac) {
            return Err(damaged());
        }
        let split = usize::try_from(self.chunks).ok().and_then(|chunks| chunks.checked_mul(CHUNK_ENTRY));
        let (chunks, entries) = split.and_then(|split| bytes.split_at_checked(split)).ok_or_else(damaged)?;
        let (chunks, _) = chunks.as_chunks::<CHUNK_ENTRY>();
        let (entries, rest) = entries.as_chunks::<RECORD_ENTRY>();
        let chunks: Vec<_> = chunks
            .iter()
            .map(|bytes| Chunk {
                at: word(bytes, 0),
                length: half(bytes, 8),
                age: half(bytes, 12),
                mac: mac(bytes, 16),
            })
            .collect();
        let entries: Vec<_> = entries
            .iter()
            .map(|bytes| Entry { key: word(bytes, 0), chunk: half(bytes, 8), offset: half(bytes, 12) })
            .collect();
        let good = rest.is_empty()
            && chunks.iter().all(|chunk| chunk.length as usize <= RECORD_MAX + CHUNK)
            && entries.is_sorted_by_key(|entry| entry.key);
        if good { Ok(Directory { chunks, entries }) } else { Err(damaged()) }
    }
}

/// Head and directory as bytes, for a directory that lies at `at`.
pub fn encode(directory: &Directory, at: u64, keys: &Keys, identity: &Identity) -> ([u8; HEAD], Vec<u8>) {
    let mut bytes = Vec::with_capacity(directory.chunks.len() * CHUNK_ENTRY + directory.entries.len() * RECORD_ENTRY);
    for chunk in &directory.chunks {
        bytes.extend_from_slice(&chunk.at.to_le_bytes());
        bytes.extend_from_slice(&chunk.length.to_le_bytes());
        bytes.extend_from_slice(&chunk.age.to_le_bytes());
        bytes.extend_from_slice(&chunk.mac);
    }
    for entry in &directory.entries {
        bytes.extend_from_slice(&entry.key.to_le_bytes());
        bytes.extend_from_slice(&entry.chunk.to_le_bytes());
        bytes.extend_from_slice(&entry.offset.to_le_bytes());
    }
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&MAGIC);
    head[8..40].copy_from_slice(identity);
    head[40..48].copy_from_slice(&at.to_le_bytes());
    head[48..56].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    head[56..64].copy_from_slice(&(directory.chunks.len() as u64).to_le_bytes());
    head[64..96].copy_from_slice(blake3::keyed_hash(&keys.head, &bytes).as_bytes());
    let own = blake3::keyed_hash(&keys.head, &head[..HEAD - 32]);
    head[HEAD - 32..].copy_from_slice(own.as_bytes());
    (head, bytes)
}
