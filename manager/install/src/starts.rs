//! Whether firmware finds something to start on a disk.

use std::io::{self, Error, ErrorKind, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use fatfs::{FileSystem, FsOptions};
use lodge_disk::{Disk, Format, Options};
use lodge_guests::Firmware;

use crate::InstallError;

/// Bytes of a sector; disks of a machine have no others.
const SECTOR: u64 = 512;
/// The boot sector, and a GUID partition table with its usual 128 entries (UEFI specification 2.10, 5.3).
const LOOKED_AT: usize = 34 * SECTOR as usize;
/// An EFI system partition: its type in a boot sector's table (5.2.2), and its GUID (5.3.3).
const SYSTEM: u8 = 0xef;
const SYSTEM_GUID: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
/// The most entries of a folder that are looked at: a folder that leads back to itself ends, too.
const MOST_ENTRIES: usize = 1024;

/// Whether firmware finds something to start on a disk: the BIOS, a boot sector with code; UEFI, a loader where systems put
/// them on an EFI system partition (`\EFI\BOOT` or a folder of their own beside it, UEFI specification 2.10, 13.3.1.3).
///
/// # Errors
///
/// The disk can't be read.
pub fn boots(disk: &Path, format: Format, firmware: Firmware) -> Result<bool, InstallError> {
    let image = lodge_disk::open(disk, Options { format: Some(format), readonly: true, ephemeral: false })?;
    let mut start = vec![0; LOOKED_AT.min(usize::try_from(image.size()).unwrap_or(LOOKED_AT))];
    let failed = |source| InstallError::File { path: disk.to_owned(), source };
    image.read_at(0, &mut [IoSliceMut::new(&mut start)]).map_err(failed)?;
    let Some((sector, table)) = start.split_at_checked(SECTOR as usize) else { return Ok(false) };
    if sector[510..] != [0x55, 0xaa] {
        return Ok(false);
    }
    Ok(match firmware {
        Firmware::Bios => sector[..440].iter().any(|byte| *byte != 0),
        Firmware::Uefi => system_partitions(sector, table).into_iter().any(|(first, count)| {
            let partition = Partition { image: image.clone(), start: first * SECTOR, length: count * SECTOR, at: 0 };
            // What is no file system of the kind has no loader either.
            has_loader(partition).unwrap_or(false)
        }),
    })
}

/// First sector and number of sectors of what is said to be an EFI system partition.
fn system_partitions(sector: &[u8], table: &[u8]) -> Vec<(u64, u64)> {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let entries = table.get(SECTOR as usize..).filter(|_| table.starts_with(b"EFI PART")).unwrap_or_default();
    let by_guid = entries.chunks_exact(128).filter(|entry| entry.starts_with(&SYSTEM_GUID)).map(|entry| {
        let (first, last) = (number(&entry[32..40]), number(&entry[40..48]));
        (first, last.saturating_sub(first).saturating_add(1))
    });
    let by_type = sector[446..510]
        .chunks_exact(16)
        .filter(|entry| entry[4] == SYSTEM)
        .map(|entry| (number(&entry[8..12]), number(&entry[12..16])));
    // What is behind the end of all disks is nowhere.
    by_guid.chain(by_type).filter(|(first, count)| first.saturating_add(*count) < u64::MAX / SECTOR).collect()
}

/// Whether a FAT file system has `\EFI\*\*.EFI`.
fn has_loader(partition: Partition) -> io::Result<bool> {
    let volume = FileSystem::new(partition, FsOptions::new().update_accessed_date(false))?;
    let folders = volume.root_dir().open_dir("EFI")?;
    for folder in folders.iter().take(MOST_ENTRIES) {
        let folder = folder?;
        if !folder.is_dir() || folder.short_file_name_as_bytes().starts_with(b".") {
            continue;
        }
        for file in folder.to_dir().iter().take(MOST_ENTRIES) {
            let file = file?;
            let name = file.short_file_name_as_bytes().to_ascii_uppercase();
            if file.is_file() && name.ends_with(b".EFI") && file.len() > 0 {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A part of a disk, which is only read.
struct Partition {
    image: Arc<dyn Disk>,
    /// Where it begins, in bytes.
    start: u64,
    /// Bytes.
    length: u64,
    /// Where the next byte is read.
    at: u64,
}

impl Read for Partition {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = self.length.min(self.image.size().saturating_sub(self.start)).saturating_sub(self.at);
        let count = buffer.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        if count > 0 {
            self.image.read_at(self.start + self.at, &mut [IoSliceMut::new(&mut buffer[..count])])?;
            self.at += count as u64;
        }
        Ok(count)
    }
}

impl Seek for Partition {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = at.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Nothing is written: the library asks for one who could.
impl Write for Partition {
    fn write(&mut self, _buffer: &[u8]) -> io::Result<usize> {
        Err(Error::from(ErrorKind::PermissionDenied))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use lodge_trial::Random;

    use super::*;

    /// A FAT file system with a file, or an empty folder.
    fn volume(path: &str, file: Option<&str>) -> Vec<u8> {
        let mut image = io::Cursor::new(vec![0; 256 << 10]);
        fatfs::format_volume(&mut image, fatfs::FormatVolumeOptions::new()).unwrap();
        let volume = FileSystem::new(&mut image, FsOptions::new()).unwrap();
        let mut folder = volume.root_dir();
        for name in path.split('/') {
            folder = folder.create_dir(name).unwrap();
        }
        if let Some(name) = file {
            folder.create_file(name).unwrap().write_all(b"MZ").unwrap();
        }
        drop(folder);
        volume.unmount().unwrap();
        image.into_inner()
    }

    #[test]
    fn what_firmware_starts_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.img");
        let mut disk = vec![0; 1 << 20];
        let starts = |disk: &[u8]| {
            fs::write(&path, disk).unwrap();
            [Firmware::Bios, Firmware::Uefi].map(|firmware| boots(&path, Format::Raw, firmware).unwrap())
        };
        assert_eq!(starts(&disk), [false, false]);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk[446 + 4] = 0xee;
        disk[512..520].copy_from_slice(b"EFI PART");
        assert_eq!(starts(&disk), [false, false], "a disk that was only initialised");
        let entry = 1024 + 128;
        disk[entry..][..16].copy_from_slice(&SYSTEM_GUID);
        disk[entry + 32..][..8].copy_from_slice(&64u64.to_le_bytes());
        disk[entry + 40..][..8].copy_from_slice(&575u64.to_le_bytes());
        assert_eq!(starts(&disk), [false, false], "a partition without a file system");
        let put = |disk: &mut Vec<u8>, path: &str, file| {
            disk[64 * 512..][..256 << 10].copy_from_slice(&volume(path, file));
            starts(disk)
        };
        assert_eq!(put(&mut disk, "EFI/BOOT", None), [false, false], "nothing is in it");
        assert_eq!(put(&mut disk, "EFI/BOOT", Some("README.TXT")), [false, false]);
        assert_eq!(put(&mut disk, "BOOT", Some("BOOTX64.EFI")), [false, false], "nobody looks there");
        assert_eq!(put(&mut disk, "EFI/debian", Some("shimx64.efi")), [false, true]);
        assert_eq!(put(&mut disk, "EFI/BOOT", Some("BOOTX64.EFI")), [false, true]);
        disk[0] = 0xeb;
        assert_eq!(starts(&disk), [true, true]);
        // The same by a boot sector's table.
        disk[512] = 0;
        assert_eq!(starts(&disk), [true, false]);
        disk[446 + 4] = SYSTEM;
        disk[446 + 8..446 + 16].copy_from_slice(&[64, 0, 0, 0, 0, 2, 0, 0]);
        assert_eq!(starts(&disk), [true, true]);
        // It leads behind the end.
        disk[446 + 8..446 + 16].fill(0xff);
        assert_eq!(starts(&disk), [true, false]);
        assert_eq!(starts(&[0; 512]), [false, false]);
    }

    #[test]
    fn damaged_partitions_do_no_harm() {
        let whole = volume("EFI/BOOT", Some("BOOTX64.EFI"));
        let mut random = Random(0x1234_5678);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.img");
        for _ in 0..300 {
            let mut damaged = whole.clone();
            for _ in 0..=random.below(7) {
                // The file system's own description, or its tables and folders.
                let most = random.pick(&[64, 16 << 10]);
                damaged[random.below(most) as usize] = random.next() as u8;
            }
            fs::write(&path, damaged).unwrap();
            let options = Options { format: Some(Format::Raw), readonly: true, ephemeral: false };
            let image = lodge_disk::open(&path, options).unwrap();
            // Either is an answer.
            let _ = has_loader(Partition { length: image.size(), image, start: 0, at: 0 });
        }
    }
}
