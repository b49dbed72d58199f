//! Maps ELF files as the kernel would: [`Image`]. ELF-64 Object File Format; System V ABI, chapter 5 "Program Loading".

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::Error;
use crate::memory::{PAGE, Reservation, page_down, page_up};

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// `e_type` of what can be loaded anywhere.
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
/// More than any number in a header of a program can be, so that sums of them do not overflow.
const LIMIT: u64 = 1 << 40;
/// Most bytes of the loader's name.
const NAME: u64 = 4096;

/// A part of the file that is to be mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    offset: u64,
    address: u64,
    in_file: u64,
    in_memory: u64,
    protection: i32,
}

/// An ELF file that can be mapped anywhere.
#[derive(Debug)]
pub struct Image {
    file: File,
    segments: Vec<Segment>,
    /// Its entry, relative to where it is loaded, as are all addresses here.
    pub entry: u64,
    /// Where its program headers are once it is loaded.
    pub headers: u64,
    /// How many there are.
    pub header_count: u64,
    /// Its dynamic loader.
    pub loader: Option<String>,
}

/// Little-endian number of `N` bytes at an offset.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(value)
}

impl Image {
    /// Reads a file's headers.
    pub fn open(path: &str) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::unreadable(path))?;
        let malformed = |what| Error::Malformed { path: path.into(), what };
        let read = |bytes: &mut [u8], at: u64| file.read_exact_at(bytes, at).map_err(Error::unreadable(path));
        let mut header = [0; HEADER];
        read(&mut header, 0)?;
        // 64 bits, little-endian, version 1.
        if !header.starts_with(b"\x7fELF\x02\x01\x01") || number::<2>(&header, 18) != u64::from(EM_X86_64) {
            return Err(malformed("it is not an ELF file of this architecture"));
        }
        if number::<2>(&header, 16) != u64::from(ET_DYN) {
            return Err(Error::Static);
        }
        let (table, count) = (number::<8>(&header, 32), number::<2>(&header, 56));
        if number::<2>(&header, 54) != PROGRAM_HEADER as u64 || count == 0 || table > LIMIT {
            return Err(malformed("its program headers are not where they should be"));
        }
        let mut headers = vec![0; count as usize * PROGRAM_HEADER];
        read(&mut headers, table)?;

        let mut segments = Vec::new();
        let mut loader = None;
        let mut at = None;
        for header in headers.chunks_exact(PROGRAM_HEADER) {
            let segment = Segment {
                offset: number::<8>(header, 8),
                address: number::<8>(header, 16),
                in_file: number::<8>(header, 32),
                in_memory: number::<8>(header, 40),
                protection: protection(number::<4>(header, 4) as u32),
            };
            match number::<4>(header, 0) as u32 {
                libc::PT_LOAD if segment.in_memory > 0 => segments.push(segment),
                libc::PT_PHDR => at = Some(segment.address),
                libc::PT_INTERP if (2..NAME).contains(&segment.in_file) => {
                    let mut name = vec![0; segment.in_file as usize - 1];
                    read(&mut name, segment.offset)?;
                    loader = Some(String::from_utf8(name).map_err(|_| malformed("its loader's name is no text"))?);
                }
                _ => {}
            }
        }
        if segments.is_empty() || !segments.iter().all(Segment::is_sound) {
            return Err(malformed("its segments cannot be mapped"));
        }
        let holds = |segment: &&Segment| (segment.offset..segment.offset + segment.in_file).contains(&table);
        let at = at.or_else(|| segments.iter().find(holds).map(|segment| segment.address + table - segment.offset));
        let headers = at.ok_or_else(|| malformed("its program headers are in no segment"))?;
        let entry = number::<8>(&header, 24);
        Ok(Self { file, segments, entry, headers, header_count: count, loader })
    }

    /// The addresses that it covers, in whole pages.
    pub fn span(&self) -> Range<u64> {
        let start = self.segments.iter().map(|segment| page_down(segment.address)).min();
        let end = self.segments.iter().map(|segment| page_up(segment.address + segment.in_memory)).max();
        start.unwrap_or(0)..end.unwrap_or(0)
    }

    /// Its code and its data, as proc(5) tells them: the segments with code, and the last one up to the end of what is
    /// in the file.
    pub fn code_and_data(&self) -> (Range<u64>, Range<u64>) {
        let code = self.segments.iter().filter(|segment| segment.protection & libc::PROT_EXEC != 0);
        let in_file = |segment: &Segment| segment.address..segment.address + segment.in_file;
        let code = code.map(in_file).reduce(|all, one| all.start.min(one.start)..all.end.max(one.end));
        let data = self.segments.iter().max_by_key(|segment| segment.address).map(in_file);
        (code.unwrap_or(0..0), data.unwrap_or(0..0))
    }

    /// Maps it `bias` bytes above the addresses that it names.
    pub fn map(&self, place: &Reservation, bias: u64) -> Result<(), Error> {
        let refused = |source| Error::Refused { what: "a new mapping of the program", source };
        for segment in &self.segments {
            let start = page_down(segment.address) + bias;
            let file_end = segment.address + segment.in_file + bias;
            let end = page_up(segment.address + segment.in_memory + bias);
            let zeros = if segment.in_file == 0 { start } else { page_up(file_end) };
            let from = Some((&self.file, page_down(segment.offset)));
            place.map(start..zeros, segment.protection, from).map_err(refused)?;
            let pads = segment.in_memory > segment.in_file && segment.in_file > 0;
            if pads && segment.protection & libc::PROT_WRITE != 0 {
                place.write(file_end, &[0; PAGE as usize][..(zeros - file_end) as usize]);
            }
            place.map(zeros..end.max(zeros), segment.protection, None).map_err(refused)?;
        }
        Ok(())
    }
}

impl Segment {
    fn is_sound(&self) -> bool {
        let numbers = [self.offset, self.address, self.in_file, self.in_memory];
        numbers.iter().all(|number| *number < LIMIT)
            && self.in_file <= self.in_memory
            && self.offset % PAGE == self.address % PAGE
    }
}

/// From `p_flags`.
fn protection(flags: u32) -> i32 {
    let kinds = [(libc::PF_R, libc::PROT_READ), (libc::PF_W, libc::PROT_WRITE), (libc::PF_X, libc::PROT_EXEC)];
    kinds.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, protection)| protection).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELF: &str = "/proc/self/exe";

    #[test]
    fn this_program_can_be_mapped() {
        let image = Image::open(SELF).unwrap();
        let span = image.span();
        assert!(span.contains(&image.entry) && span.contains(&image.headers));
        let (code, data) = image.code_and_data();
        assert!(code.contains(&image.entry) && data.start >= code.end && data.end <= span.end);
        let loader = Image::open(image.loader.as_deref().unwrap()).unwrap();
        assert!(loader.loader.is_none() && loader.entry > 0);
    }

    #[test]
    fn the_copy_is_the_original() {
        let image = Image::open(SELF).unwrap();
        let span = image.span();
        let place = Reservation::anywhere(span.end - span.start).unwrap();
        let bias = place.range().start - span.start;
        image.map(&place, bias).unwrap();
        let areas = crate::maps::read().unwrap();
        let here = |area: &&crate::maps::Area| area.is_in(place.range());
        assert!(areas.iter().filter(here).filter(|area| area.accessible).count() >= image.segments.len());
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(Image::open("/no/such/file"), Err(Error::Unreadable { .. })));
        let dir = std::env::temp_dir().join(format!("arena-image-{}", std::process::id()));
        let refused = |bytes: &[u8]| {
            std::fs::write(&dir, bytes).unwrap();
            Image::open(dir.to_str().unwrap()).unwrap_err()
        };
        let mut good = std::fs::read(SELF).unwrap();
        good.truncate(1 << 16);
        assert!(matches!(refused(b"#!/bin/sh"), Error::Unreadable { .. }));
        assert!(matches!(refused(&[0; 100]), Error::Malformed { .. }));
        let mut changed = |at: usize, value: u8| {
            let before = std::mem::replace(&mut good[at], value);
            let error = refused(&good);
            good[at] = before;
            error
        };
        // ET_EXEC; another machine; another size of program headers; an offset that is far away.
        assert!(matches!(changed(16, 2), Error::Static));
        assert!(matches!(changed(18, 3), Error::Malformed { .. }));
        assert!(matches!(changed(54, 1), Error::Malformed { .. }));
        assert!(matches!(changed(39, 0x7f), Error::Malformed { .. }));
        std::fs::remove_file(dir).unwrap();
    }
}
