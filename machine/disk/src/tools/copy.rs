//! Copying images: into another format, and into less space.

use std::io::{IoSlice, IoSliceMut};
use std::ops::ControlFlow;
use std::path::Path;

use lodge_backend::Disk;

use super::create::refuse_format;
use super::output::Output;
use crate::chain::Chain;
use crate::format::decide;
use crate::host::HostFile;
use crate::image::{Image, Kind, resolved};
use crate::qcow2::{self, Layout, Qcow2};
use crate::{DiskError, Format, open_image};

/// Bytes that are read at once: a multiple of all cluster sizes.
const PIECE: u64 = 2 << 20;
/// Zeroes of this length are left out of raw images.
const BLOCK: usize = 4096;

/// Is told bytes done and all bytes, and says whether to go on.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

/// Tells of progress. An error if that is the end.
fn tell(progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>, done: u64, all: u64) -> std::io::Result<()> {
    match progress(done, all) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(std::io::Error::new(std::io::ErrorKind::Interrupted, "it was called off")),
    }
}

/// How to convert.
#[derive(Clone, Copy, Debug)]
pub struct Convert {
    /// The source's format.
    pub from: Option<Format>,
    /// The new image's.
    pub format: Format,
    /// Clusters are compressed; for qcow2 only.
    pub compress: bool,
    /// A file that is there is replaced.
    pub force: bool,
}

/// What compacting changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Compacted {
    /// Bytes on the host before.
    pub before: u64,
    /// And after.
    pub after: u64,
}

/// Where a copy goes.
enum Target {
    Raw(HostFile),
    Qcow2(Box<Qcow2>),
}

impl Target {
    /// Bytes below which zeroes are not looked for.
    fn block(&self) -> usize {
        match self {
            Self::Raw(_) => BLOCK,
            Self::Qcow2(image) => image.header().cluster() as usize,
        }
    }

    /// Writes those of the blocks that are not zero.
    fn put(&self, at: u64, data: &[u8], compressed: bool) -> std::io::Result<()> {
        let block = self.block();
        let mut done = 0;
        while done < data.len() {
            let is_zero = |from: usize| is_zero(&data[from..(from + block).min(data.len())]);
            let mut end = done + block;
            if is_zero(done) {
                done = end;
                continue;
            }
            while end < data.len() && !compressed && !is_zero(end) {
                end += block;
            }
            let piece = &data[done..end.min(data.len())];
            match self {
                Self::Raw(host) => host.write(at + done as u64, piece)?,
                Self::Qcow2(image) => image.put(at + done as u64, piece, compressed)?,
            }
            done = end;
        }
        Ok(())
    }

    fn finish(self) -> std::io::Result<()> {
        match self {
            Self::Raw(host) => host.sync(),
            Self::Qcow2(image) => image.flush(),
        }
    }
}

fn is_zero(data: &[u8]) -> bool {
    let (words, rest) = data.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Copies an image with all that it stands on into a new one. ///
/// # Errors
/// The source can't be opened or read, the target is there already or can't be written. Nothing is left of it then.
pub fn convert(source: &Path, target: &Path, how: Convert, progress: Progress<'_>) -> Result<(), DiskError> {
    refuse_format(target, how.format)?;
    if how.compress && how.format != Format::Qcow2 {
        let problem = "only qcow2 images are compressed; add `--format qcow2`";
        return Err(DiskError::Refused(format!("{} can't be made: {problem}", target.display())));
    }
    let image = open_image(source, how.from, false)?;
    let output = Output::new(target, how.force).map_err(|error| match error {
        // The source is locked for reading, by us.
        DiskError::File(lodge_backend::DiskError::InUse { .. }) if is_same(source, target) => {
            DiskError::Refused(format!("{} can't be converted into itself; name another file", source.display()))
        }
        other => other,
    })?;
    let host = output.host()?;
    let size = image.size();
    let into = match how.format {
        Format::Qcow2 => {
            qcow2::create(&host, &Layout::new(size))?;
            Target::Qcow2(Box::new(Qcow2::open(host, None)?))
        }
        _ => {
            host.set_length(size).map_err(DiskError::io(target, "written"))?;
            Target::Raw(host)
        }
    };
    let mut buffer = vec![0; PIECE as usize];
    let mut at = 0;
    while at < size {
        tell(progress, at, size).map_err(DiskError::io(target, "written"))?;
        // Pieces end at multiples of their length, so that clusters are written whole.
        let most = (at / PIECE + 1) * PIECE;
        let extent = resolved(&*image, at, size - at).map_err(DiskError::io(source, "read"))?;
        if extent.kind == Kind::Zero && (at + extent.length >= most || at + extent.length == size) {
            at = if at + extent.length == size { size } else { (at + extent.length) / PIECE * PIECE };
            continue;
        }
        let start = at / PIECE * PIECE;
        let end = most.min(size);
        let piece = &mut buffer[..(end - start) as usize];
        // From the start of the piece: what was passed over of it is zero, and its clusters may be half so.
        image.read_at(start, &mut [IoSliceMut::new(piece)]).map_err(DiskError::io(source, "read"))?;
        into.put(start, piece, how.compress).map_err(DiskError::io(target, "written"))?;
        at = end;
    }
    tell(progress, size, size).map_err(DiskError::io(target, "written"))?;
    into.finish().map_err(DiskError::io(target, "written"))?;
    output.finish(how.force)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| HostFile::open(path, false).map(|host| host.identity()).ok();
    identity(one).is_some() && identity(one) == identity(other)
}

/// Gives space back that an image holds for zeroes and for nothing: a raw image's in place, a qcow2 image's by a copy
/// that takes its place when it is whole.
///
/// # Errors
/// It can't be opened for writing, has snapshots within, or a format that is only read.
pub fn compact(path: &Path, format: Option<Format>, progress: Progress<'_>) -> Result<Compacted, DiskError> {
    let format = match format {
        Some(format) => format,
        None => decide(&HostFile::open(path, false)?)?,
    };
    let fault = DiskError::io(path, "compacted");
    match format {
        Format::Raw => {
            let host = HostFile::open(path, true)?;
            host.lock()?;
            let before = host.allocated().map_err(&fault)?;
            punch_zeroes(&host, progress).map_err(&fault)?;
            Ok(Compacted { before, after: host.allocated().map_err(&fault)? })
        }
        Format::Qcow2 => {
            let path = std::fs::canonicalize(path).map_err(&fault)?;
            let image = Chain::default().open_qcow2(&path)?;
            if image.header().has_snapshots() {
                return Err(DiskError::Refused(format!(
                    "{} can't be compacted: its snapshots would be lost; delete them with `qemu-img snapshot -d`, or \
                     make a copy without with `lodge disk convert`",
                    path.display()
                )));
            }
            let before = HostFile::open(&path, false)?.allocated().map_err(&fault)?;
            let output = Output::replacing(path.clone())?;
            output.like(&path)?;
            rewrite(&image, &output, progress)?;
            let after = HostFile::open(output.path(), false)?.allocated().map_err(&fault)?;
            // The image stays locked until the copy is in its place.
            output.finish(true)?;
            Ok(Compacted { before, after })
        }
        other => Err(DiskError::Refused(format!(
            "{} can't be compacted: lodge only reads {other}; make a qcow2 of it with `lodge disk convert`",
            path.display()
        ))),
    }
}

/// Makes holes where a raw image holds zeroes.
fn punch_zeroes(host: &HostFile, progress: Progress<'_>) -> std::io::Result<()> {
    let length = host.length()?;
    let mut buffer = vec![0; PIECE as usize];
    let mut at = 0;
    while at < length {
        tell(progress, at, length)?;
        let (is_data, run) = host.data_run(at, length);
        if !is_data {
            at = run.next_multiple_of(BLOCK as u64).min(length);
            continue;
        }
        let piece = &mut buffer[..(length - at).min(PIECE) as usize];
        host.read_padded(at, piece)?;
        let mut hole = 0..0;
        for (index, block) in piece.chunks(BLOCK).enumerate() {
            if !is_zero(block) || block.len() < BLOCK {
                continue;
            }
            if hole.end != index {
                host.punch(at + (hole.start * BLOCK) as u64, (hole.len() * BLOCK) as u64)?;
                hole = index..index;
            }
            hole.end = index + 1;
        }
        host.punch(at + (hole.start * BLOCK) as u64, (hole.len() * BLOCK) as u64)?;
        at += piece.len() as u64;
    }
    host.sync()
}

/// Writes what a qcow2 image holds into a new one like it.
fn rewrite(image: &Qcow2, output: &Output, progress: Progress<'_>) -> Result<(), DiskError> {
    let old = image.header();
    let host = output.host()?;
    let named = |format: &String| Format::from_name(format);
    let layout = Layout {
        size: old.size,
        version: old.version,
        cluster_bits: old.cluster_bits,
        refcount_order: old.refcount_order,
        compression: old.compression,
        // What it stands on was opened: its format is known.
        backing: old.backing.clone().map(|name| {
            let known = old.backing_format.as_ref().and_then(named);
            (name, known.or(image.backing().map(|below| below.format())).unwrap_or(Format::Raw))
        }),
    };
    qcow2::create(&host, &layout)?;
    // The copy has the same image below, which is open and locked already.
    let copy = Qcow2::open(host, image.backing().cloned())?;
    let has_zeroes = old.version >= 3 && old.backing.is_some();
    let cluster = old.cluster();
    let path = output.target();
    let reading = DiskError::io(path, "read");
    let writing = DiskError::io(path, "compacted");
    let mut buffer = vec![0; PIECE as usize];
    let mut at = 0;
    while at < old.size {
        tell(progress, at, old.size).map_err(&writing)?;
        let extent = image.extent(at, old.size - at).map_err(&reading)?;
        let end = at + extent.length;
        match extent.kind {
            Kind::Below => {}
            Kind::Zero if has_zeroes => copy.write_zeroes(at, end - at, true).map_err(&writing)?,
            Kind::Zero => {}
            Kind::Data | Kind::Compressed => {
                while at < end {
                    let piece = &mut buffer[..(end - at).min(PIECE) as usize];
                    image.read_at(at, &mut [IoSliceMut::new(piece)]).map_err(&reading)?;
                    for block in piece.chunks(cluster as usize) {
                        let length = block.len() as u64;
                        let written = match (is_zero(block), &old.backing) {
                            (true, None) => Ok(()),
                            (true, Some(_)) if has_zeroes => copy.write_zeroes(at, length, true),
                            _ if extent.kind == Kind::Compressed => copy.put(at, block, true),
                            _ => copy.write_at(at, &[IoSlice::new(block)]),
                        };
                        written.map_err(&writing)?;
                        at += length;
                    }
                }
            }
        }
        at = end;
    }
    tell(progress, old.size, old.size).map_err(&writing)?;
    copy.flush().map_err(&writing)
}
