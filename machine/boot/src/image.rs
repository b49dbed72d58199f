//! Reading kernel and RAM disk files, and writing into guest memory.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use lodge_engine_api::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::LoadError;

/// Largest kernel file that is read. Distribution kernels have some 15 MB, with debugging information up to 1 GB.
const MAX_KERNEL: u64 = 2 << 30;

/// A kernel file in the host's memory.
pub(crate) struct Image {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Image {
    /// Reads a whole file.
    pub(crate) fn read(path: &Path, what: &'static str) -> Result<Self, LoadError> {
        let (file, length) = open(path, what)?;
        let mut bytes = Vec::new();
        file.take(length.min(MAX_KERNEL)).read_to_end(&mut bytes).map_err(|source| LoadError::Unreadable {
            what,
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { path: path.to_owned(), bytes })
    }

    /// An image for tests.
    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { path: PathBuf::from("test"), bytes }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// `length` bytes at `offset`, or the error that the file is cut short.
    pub(crate) fn slice(&self, offset: u64, length: u64) -> Result<&[u8], LoadError> {
        let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
        range
            .and_then(|(offset, length)| self.bytes.get(offset..offset.checked_add(length)?))
            .ok_or_else(|| self.truncated(format!("bytes {offset} to {} are missing", offset.saturating_add(length))))
    }

    pub(crate) fn truncated(&self, detail: String) -> LoadError {
        LoadError::Truncated { path: self.path.clone(), detail }
    }

    pub(crate) fn unsupported(&self, detail: impl Into<String>) -> LoadError {
        LoadError::Unsupported { path: self.path.clone(), detail: detail.into() }
    }

    /// What a file looks like that is no kernel.
    pub(crate) fn looks(&self) -> &'static str {
        const KINDS: &[(usize, &[u8], &str)] = &[
            (0, b"\x7fELF", "an ELF file without a PVH note or Multiboot header"),
            (0, b"\x1f\x8b", "a gzip file"),
            (0, b"\xfd7zXZ", "an xz file"),
            (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
            (0, b"MZ", "an EFI or Windows program"),
            (0, b"QFI\xfb", "a qcow2 disk image"),
            (0, b"070701", "an initial RAM disk"),
            (0, b"!<arch>", "a Debian package"),
            (0, b"PK\x03\x04", "a zip file"),
            (0, b"#!", "a script"),
            (0x8001, b"CD001", "a CD image"),
            (0x1fe, b"\x55\xaa", "a boot sector or disk image"),
        ];
        let machine = self.bytes.get(18..20).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        if let (true, Some(machine)) = (self.bytes.starts_with(b"\x7fELF"), machine) {
            match machine {
                ELF_386 | ELF_X86_64 => {}
                ELF_AARCH64 => return "an ELF file for another processor, AArch64",
                _ => return "an ELF file for another processor",
            }
        }
        let text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r') || *byte >= 0x80;
        let start = &self.bytes[..self.bytes.len().min(512)];
        let is_text = !start.is_empty() && start.iter().all(text);
        let holds = |&&(at, magic, _): &&(usize, &[u8], &str)| self.bytes.get(at..at + magic.len()) == Some(magic);
        let otherwise = if is_text { "text" } else { "something else" };
        KINDS.iter().find(holds).map_or(otherwise, |kind| kind.2)
    }
}

/// Machines of ELF files (gABI, e_machine).
const ELF_386: u16 = 3;
const ELF_X86_64: u16 = 62;
const ELF_AARCH64: u16 = 183;

/// Opens a regular file that is not empty.
pub(crate) fn open(path: &Path, what: &'static str) -> Result<(File, u64), LoadError> {
    let unreadable = |source: std::io::Error| {
        if source.kind() == std::io::ErrorKind::NotFound {
            LoadError::Missing { what, path: path.to_owned() }
        } else {
            LoadError::Unreadable { what, path: path.to_owned(), source }
        }
    };
    // Asked before opening, so that a FIFO does not block.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        let kind = if metadata.is_dir() { "it is a directory" } else { "it is not a regular file" };
        return Err(unreadable(std::io::Error::other(kind)));
    }
    if metadata.len() == 0 {
        return Err(LoadError::Empty { what, path: path.to_owned() });
    }
    Ok((File::open(path).map_err(unreadable)?, metadata.len()))
}

/// Copies a file of `length` bytes to guest memory.
pub(crate) fn copy_file(
    memory: &GuestMemory,
    path: &Path,
    what: &'static str,
    mut file: File,
    length: u64,
    address: u64,
) -> Result<(), LoadError> {
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < length {
        let piece = usize::try_from(length - done).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact(&mut buffer[..piece]).map_err(|source| LoadError::Unreadable {
            what,
            path: path.to_owned(),
            source,
        })?;
        write(memory, address + done, &buffer[..piece])?;
        done += piece as u64;
    }
    Ok(())
}

/// Writes to guest memory.
pub(crate) fn write(memory: &GuestMemory, address: u64, bytes: &[u8]) -> Result<(), LoadError> {
    memory.write_slice(bytes, GuestAddress(address)).map_err(|source| LoadError::Memory { address, source })
}

/// Zeroes guest memory.
pub(crate) fn zero(memory: &GuestMemory, address: u64, length: u64) -> Result<(), LoadError> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut done = 0;
    while done < length {
        let piece = usize::try_from(length - done).unwrap_or(usize::MAX).min(ZEROS.len());
        write(memory, address.saturating_add(done), &ZEROS[..piece])?;
        done += piece as u64;
    }
    Ok(())
}

/// A command line as it lies in memory, with its final NUL. `limit` is without that.
pub(crate) fn command_line(text: &str, limit: usize) -> Result<Vec<u8>, LoadError> {
    if text.len() > limit {
        return Err(LoadError::CommandLineTooLong { length: text.len(), limit });
    }
    if text.contains('\0') {
        return Err(LoadError::CommandLineNul);
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    Ok(bytes)
}
