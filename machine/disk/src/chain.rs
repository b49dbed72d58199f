//! Opening an image with the images that it stands on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::decide;
use crate::host::HostFile;
use crate::image::Image;
use crate::mapped::Mapped;
use crate::qcow2::{Header, Qcow2};
use crate::raw::RawImage;
use crate::vdi::Vdi;
use crate::vhd::Vhd;
use crate::vhdx::Vhdx;
use crate::vmdk::Vmdk;
use crate::{DiskError, Format};

/// Most images that stand on each other.
const MOST: usize = 64;

/// The images that are open so far, from the top.
#[derive(Default)]
pub(crate) struct Chain {
    seen: Vec<(u64, u64)>,
}

impl Chain {
    /// Opens an image and what it stands on. Only the top one is ever written.
    pub fn open(&mut self, path: &Path, format: Option<Format>, writable: bool) -> Result<Arc<dyn Image>, DiskError> {
        let (host, format, guarded) = self.file(path, format, writable)?;
        if format == Format::Qcow2 { Ok(Arc::new(self.qcow2(host)?)) } else { self.other(host, format, guarded) }
    }

    /// Opens a qcow2 image to be changed as such.
    pub fn open_qcow2(&mut self, path: &Path) -> Result<Qcow2, DiskError> {
        let (host, ..) = self.file(path, Some(Format::Qcow2), true)?;
        self.qcow2(host)
    }

    /// A locked file, its format, and whether it is only thought to be raw.
    fn file(
        &mut self,
        path: &Path,
        given: Option<Format>,
        writable: bool,
    ) -> Result<(HostFile, Format, bool), DiskError> {
        let host = HostFile::open(path, writable)?;
        if self.seen.contains(&host.identity()) {
            let problem = "it is named again further down, so that the chain never ends; name another backing file";
            return Err(DiskError::Refused(format!("{} can't be a backing file here: {problem}", path.display())));
        }
        if self.seen.len() == MOST {
            let problem = format!("there are more than {MOST} images; make one of them with `lodge disk convert`");
            return Err(DiskError::Refused(format!(
                "the chain of images at {} is too long: {problem}",
                path.display()
            )));
        }
        self.seen.push(host.identity());
        host.lock()?;
        let format = match given {
            Some(format) => format,
            None => decide(&host)?,
        };
        if writable && !format.is_writable() {
            return Err(DiskError::OnlyRead { path: path.to_owned(), format });
        }
        let guarded = given.is_none() || Format::from_extension(path).is_some();
        Ok((host, format, guarded))
    }

    fn other(&mut self, host: HostFile, format: Format, guarded: bool) -> Result<Arc<dyn Image>, DiskError> {
        let is_backing = self.seen.len() > 1;
        Ok(match format {
            Format::Raw => Arc::new(RawImage::open(host, guarded, is_backing)?),
            Format::Qcow2 => Arc::new(self.qcow2(host)?),
            Format::Vmdk => Arc::new(Mapped(Vmdk::open(host, &mut open_locked)?)),
            Format::Vdi => Arc::new(Mapped(Vdi::open(host)?)),
            Format::Vhd => Arc::new(Mapped(Vhd::open(host)?)),
            Format::Vhdx => Arc::new(Mapped(Vhdx::open(host)?)),
        })
    }

    fn qcow2(&mut self, host: HostFile) -> Result<Qcow2, DiskError> {
        let header = Header::read(&host)?;
        header.refuse_unknown(host.path())?;
        let backing = match &header.backing {
            Some(name) => Some(self.backing(host.path(), name, header.backing_format.as_deref())?),
            None => None,
        };
        Qcow2::open(host, backing)
    }

    /// Opens what an image stands on.
    fn backing(&mut self, image: &Path, name: &str, format: Option<&str>) -> Result<Arc<dyn Image>, DiskError> {
        let wrap = |problem: String| DiskError::Backing { path: image.to_owned(), problem };
        let path = backing_path(image, name).map_err(wrap)?;
        let format = match format {
            None => None,
            Some(format) => match Format::from_name(format) {
                Some(format) => Some(format),
                None => {
                    return Err(wrap(format!(
                        "lodge does not know its format, {format:?}; convert it with a program that does"
                    )));
                }
            },
        };
        let not_said = format.is_none();
        self.open_backing(&path, format).map_err(|error| match error {
            inner @ DiskError::Backing { .. } => inner,
            DiskError::File(lodge_backend::DiskError::Open { path: missing, source })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                let remedy = "put it back, or name another one with `qemu-img rebase -u`";
                wrap(format!("there is no file {}; {remedy}", missing.display()))
            }
            DiskError::Ambiguous(_) if not_said => wrap(format!(
                "the header does not say which format {} has; write it there with `qemu-img rebase -u -F FORMAT -b \
                 {name} {}`",
                path.display(),
                image.display()
            )),
            other => wrap(other.to_string()),
        })
    }

    fn open_backing(&mut self, path: &Path, given: Option<Format>) -> Result<Arc<dyn Image>, DiskError> {
        let (host, format, guarded) = self.file(path, given, false)?;
        if given.is_none() && format == Format::Raw {
            return Err(DiskError::Ambiguous(String::new()));
        }
        self.other(host, format, guarded)
    }
}

/// Opens and locks one of an image's other files.
fn open_locked(path: &Path) -> Result<HostFile, DiskError> {
    let host = HostFile::open(path, false)?;
    host.lock()?;
    Ok(host)
}

/// The file that an image calls its backing file: relative to the image. What is no file is refused.
pub(crate) fn backing_path(image: &Path, name: &str) -> Result<PathBuf, String> {
    let plain = name.strip_prefix("file:").unwrap_or(name);
    if plain.split('/').next().is_some_and(|first| first.contains(':')) {
        return Err(format!("'{name}' is not a file; copy it to one, and name that with `qemu-img rebase -u`"));
    }
    Ok(image.parent().unwrap_or(Path::new("")).join(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_to_the_image() {
        let of = |name| backing_path(Path::new("/a/b/c.qcow2"), name);
        assert_eq!(of("d.img"), Ok("/a/b/d.img".into()));
        assert_eq!(of("../d:e.img"), Ok("/a/b/../d:e.img".into()));
        assert_eq!(of("file:d.img"), Ok("/a/b/d.img".into()));
        assert_eq!(of("/x"), Ok("/x".into()));
        assert_eq!(backing_path(Path::new("c.qcow2"), "d"), Ok("d".into()));
        for name in ["nbd://host/x", "json:{}", "d:e.img"] {
            assert!(of(name).unwrap_err().contains("is not a file"));
        }
    }
}
