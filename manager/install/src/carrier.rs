//! What carries answers to an installer: an [`Archive`] behind its initial RAM disk, or a small [`Volume`].

use std::io::{self, Cursor, Write};

use cpio::newc::{Builder, ModeFileType, trailer};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};

/// Files for a Linux's initial RAM disk (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    path: String,
    mode: u32,
    /// `None` for a directory.
    data: Option<Vec<u8>>,
}

/// Why a carrier can't be made.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// The answers are too long for it.
    #[error(
        "the answers are too long: {size} bytes are more than the {most} that there is room for; give fewer keys or packages"
    )]
    TooLong {
        /// Bytes that there are.
        size: usize,
        /// Bytes that there may be.
        most: usize,
    },
    /// It could not be written, which in memory is a fault of lodge's own.
    #[error("the answers can't be written: {0}")]
    Write(#[from] io::Error),
}

impl Archive {
    /// Adds a file; its directory comes first.
    pub fn file(&mut self, path: &str, mode: u32, data: Vec<u8>) {
        self.entries.push(Entry { path: path.to_owned(), mode, data: Some(data) });
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &str) {
        self.entries.push(Entry { path: path.to_owned(), mode: 0o755, data: None });
    }

    /// The files in it, each with its contents.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().filter_map(|entry| Some((entry.path.as_str(), entry.data.as_deref()?)))
    }

    /// The archive's bytes. Everything belongs to root.
    ///
    /// # Errors
    ///
    /// A file is longer than the format allows.
    pub fn bytes(&self) -> Result<Vec<u8>, CarrierError> {
        let mut bytes = Vec::new();
        for (number, entry) in (1..).zip(&self.entries) {
            let data = entry.data.as_deref().unwrap_or_default();
            let most = u32::MAX as usize;
            let size = u32::try_from(data.len()).map_err(|_| CarrierError::TooLong { size: data.len(), most })?;
            let kind = if entry.data.is_some() { ModeFileType::Regular } else { ModeFileType::Directory };
            let builder = Builder::new(&entry.path).ino(number).mode(entry.mode).nlink(1).set_mode_file_type(kind);
            let mut writer = builder.write(bytes, size);
            writer.write_all(data)?;
            bytes = writer.finish()?;
        }
        Ok(trailer(bytes)?)
    }
}

/// An initial RAM disk with an archive behind it. Its own format, compressed or not, does not matter; archives begin at
/// multiples of four.
///
/// # Errors
///
/// The archive can't be written.
pub fn append_archive(mut initrd: Vec<u8>, archive: &Archive) -> Result<Vec<u8>, CarrierError> {
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    initrd.extend(archive.bytes()?);
    Ok(initrd)
}

/// A FAT volume of the size of a floppy of 1440 KiB, which serves as a floppy and as a disk without partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its label.
    pub label: String,
    /// Its bytes.
    pub image: Vec<u8>,
}

impl Volume {
    /// Its size in bytes.
    pub const SIZE: usize = 1440 << 10;
    /// What files in it may have together; the rest is for file allocation tables and what clusters waste.
    pub const MOST: usize = 1 << 20;

    /// Makes one with these files in its root.
    ///
    /// # Errors
    ///
    /// They are too long together.
    pub fn new(label: &str, files: &[(&str, &[u8])]) -> Result<Self, CarrierError> {
        let size = files.iter().map(|(_, data)| data.len()).sum();
        if size > Self::MOST {
            return Err(CarrierError::TooLong { size, most: Self::MOST });
        }
        let mut padded = [b' '; 11];
        for (place, byte) in padded.iter_mut().zip(label.bytes()) {
            *place = byte;
        }
        let mut image = Cursor::new(vec![0; Self::SIZE]);
        // What a floppy of 3.5 inches has, so that DOS and Windows take it for one.
        let options = FormatVolumeOptions::new()
            .fat_type(FatType::Fat12)
            .bytes_per_cluster(512)
            .max_root_dir_entries(224)
            .media(0xf0)
            .sectors_per_track(18)
            .heads(2)
            .drive_num(0)
            .volume_id(0x6c6f_6467)
            .volume_label(padded);
        fatfs::format_volume(&mut image, options)?;
        let volume = FileSystem::new(&mut image, FsOptions::new())?;
        for (name, data) in files {
            let mut file = volume.root_dir().create_file(name)?;
            file.write_all(data)?;
            file.flush()?;
        }
        volume.unmount()?;
        Ok(Self { label: label.to_owned(), image: image.into_inner() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_archive_is_read_back_and_begins_at_a_multiple_of_four() {
        let mut archive = Archive::default();
        archive.directory("lodge");
        archive.file("lodge/finish", 0o755, b"#!/bin/sh\n".to_vec());
        let whole = append_archive(vec![1, 2, 3], &archive).unwrap();
        assert_eq!(&whole[..10], b"\x01\x02\x03\x00070701");
        assert_eq!(archive.bytes().unwrap().len() % 4, 0);
        let reader = cpio::newc::Reader::new(&whole[4..]).unwrap();
        assert_eq!((reader.entry().name(), reader.entry().mode()), ("lodge", 0o040_755));
        let mut reader = cpio::newc::Reader::new(reader.finish().unwrap()).unwrap();
        assert_eq!((reader.entry().name(), reader.entry().mode()), ("lodge/finish", 0o100_755));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "#!/bin/sh\n");
        let last = cpio::newc::Reader::new(reader.finish().unwrap()).unwrap();
        assert!(last.entry().is_trailer());
    }

    #[test]
    fn a_volume_has_its_label_and_files() {
        let volume = Volume::new("CIDATA", &[("user-data", b"a"), ("meta-data", &[7; 5000])]).unwrap();
        assert_eq!(volume.image.len(), Volume::SIZE);
        let opened = FileSystem::new(Cursor::new(volume.image.clone()), FsOptions::new()).unwrap();
        assert_eq!(opened.read_volume_label_from_root_dir().unwrap().unwrap().trim_end(), "CIDATA");
        let names: Vec<_> = opened.root_dir().iter().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["user-data", "meta-data"]);
        let mut data = Vec::new();
        opened.root_dir().open_file("meta-data").unwrap().read_to_end(&mut data).unwrap();
        assert_eq!(data, [7; 5000]);
        assert_eq!(volume, Volume::new("CIDATA", &[("user-data", b"a"), ("meta-data", &[7; 5000])]).unwrap());
    }

    #[test]
    fn what_has_no_room_is_refused() {
        let error = Volume::new("X", &[("x", &vec![0; (1 << 20) + 1])]).unwrap_err();
        assert!(matches!(error, CarrierError::TooLong { size: 1_048_577, .. }), "{error}");
        assert!(Volume::new("X", &[("x", &vec![0; 1 << 20])]).is_ok());
    }
}
