//! Formats: their names, and which one a file's first bytes and its name speak for.
//!
//! A guest that writes to a raw image decides what its first bytes are. So contents alone never decide a format: a file
//! that has no format given is taken for what its header says only if its name says the same, and [`decide`] refuses it
//! where the two disagree.

use std::fmt;
use std::path::Path;

use crate::DiskError;
use crate::host::HostFile;

/// A disk image's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes of the disk themselves.
    Raw,
    /// QEMU's, versions 2 and 3.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// VirtualBox's.
    Vdi,
    /// Virtual PC's.
    Vhd,
    /// Hyper-V's.
    Vhdx,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Raw, Self::Qcow2, Self::Vmdk, Self::Vdi, Self::Vhd, Self::Vhdx];

    /// Its name in options and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
        }
    }

    /// The format of a name; QEMU's `vpc` is known too.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "vpc" {
            return Some(Self::Vhd);
        }
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Whether lodge writes it.
    pub const fn is_writable(self) -> bool {
        matches!(self, Self::Raw | Self::Qcow2)
    }

    /// What a file's extension says, if it says anything.
    pub fn from_extension(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "qcow2" | "qcow" | "qc2" => Some(Self::Qcow2),
            "vmdk" => Some(Self::Vmdk),
            "vdi" => Some(Self::Vdi),
            "vhd" | "vpc" => Some(Self::Vhd),
            "vhdx" | "avhdx" => Some(Self::Vhdx),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a disk's first 512 bytes look like. Raw is what looks like nothing else.
pub(crate) fn probe(head: &[u8]) -> Format {
    let starts = |magic: &[u8]| head.starts_with(magic);
    if starts(b"QFI\xfb") {
        Format::Qcow2
    } else if starts(b"KDMV") || starts(b"COWD") || starts(b"# Disk DescriptorFile") {
        Format::Vmdk
    } else if head.get(64..68) == Some(&0xbeda_107f_u32.to_le_bytes()) {
        Format::Vdi
    } else if starts(b"conectix") {
        Format::Vhd
    } else if starts(b"vhdxfile") {
        Format::Vhdx
    } else {
        Format::Raw
    }
}

/// What a file looks like, with its end looked at too: a VHD of fixed size has its only mark there.
pub(crate) fn probe_file(host: &HostFile) -> std::io::Result<Format> {
    let mut head = [0; 512];
    host.read_padded(0, &mut head)?;
    let found = probe(&head);
    let length = host.length()?;
    if found == Format::Raw && length >= 512 && Format::from_extension(host.path()) == Some(Format::Vhd) {
        host.read_padded(length - 512, &mut head)?;
        if head.starts_with(b"conectix") {
            return Ok(Format::Vhd);
        }
    }
    Ok(found)
}

/// The format of a file for which none was given.
pub(crate) fn decide(host: &HostFile) -> Result<Format, DiskError> {
    let path = host.path();
    let looks = probe_file(host).map_err(DiskError::io(path, "read"))?;
    let shown = path.display();
    match (looks, Format::from_extension(path)) {
        (looks, Some(named)) if looks == named => Ok(looks),
        (Format::Raw, None) => Ok(Format::Raw),
        (Format::Raw, Some(named)) => Err(DiskError::Ambiguous(format!(
            "the disk {shown} is named like a {named} image and isn't one; say `format=raw` if it is the disk itself, \
             or use an intact copy"
        ))),
        (looks, _) => Err(DiskError::Ambiguous(format!(
            "the disk {shown} begins like a {looks} image but isn't named like one; say `format={looks}` if you trust \
             it, or `format=raw` if a guest wrote that"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for format in Format::ALL {
            assert_eq!(Format::from_name(format.name()), Some(format));
            assert_eq!(format.to_string(), format.name());
        }
        assert_eq!(Format::from_name("vpc"), Some(Format::Vhd));
        assert_eq!(Format::from_name("qed"), None);
    }
}
