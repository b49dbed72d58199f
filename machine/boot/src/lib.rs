//! Booting without firmware: loaders for kernels that can be entered directly.
//!
//! * [`load`] looks at a kernel file, finds its boot protocol, places it with its initial RAM disk and command line in
//!   guest memory, and gives the state in which the first processor starts ([`Loaded`]).
//! * Linux bzImages (64-bit and 32-bit entry; memtest86+ is one too), ELF images with a PVH entry point, and Multiboot 1
//!   images (ELF and the older address fields) are understood.
//! * [`layout`] says where all of them put their data, and makes the memory map that guests are told.
//!
//! Neighbours: `vm` calls [`load`] at power-on and at each reset; the address of the ACPI tables is passed through.
#![forbid(unsafe_code)]

pub mod acpi;
mod bzimage;
mod elf;
mod entry;
mod error;
mod handover;
mod image;
pub mod layout;
mod multiboot;
mod pvh;
pub mod smbios;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;

use lodge_engine_api::GuestMemory;
use lodge_x86::CpuState;

pub use error::LoadError;
pub use handover::{HandOver, hand_over};
use image::Image;

/// What shall be booted.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Guest memory, with RAM from address 0 on.
    pub memory: &'a GuestMemory,
    /// The kernel's file.
    pub kernel: &'a Path,
    /// The initial RAM disk's file, or a Multiboot kernel's module.
    pub initrd: Option<&'a Path>,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Physical address of the ACPI root pointer, where there are ACPI tables.
    pub rsdp: Option<u64>,
}

/// How a kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Linux, in 64-bit mode.
    Linux64,
    /// Linux, in 32-bit protected mode.
    Linux32,
    /// PVH: 32-bit protected mode with Xen's start information.
    Pvh,
    /// Multiboot 1.
    Multiboot,
}

impl Protocol {
    /// What users call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linux64 => "Linux, 64-bit entry",
            Self::Linux32 => "Linux, 32-bit entry",
            Self::Pvh => "PVH",
            Self::Multiboot => "Multiboot",
        }
    }
}

/// A kernel in memory.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// How it is entered.
    pub protocol: Protocol,
    /// The first processor at its entry.
    pub state: CpuState,
    /// Physical addresses that the kernel takes at first.
    pub kernel: Range<u64>,
    /// Physical addresses of the initial RAM disk.
    pub initrd: Option<Range<u64>>,
}

/// Loads a kernel.
///
/// # Errors
///
/// A file cannot be read, is not a kernel of any known kind, is damaged, or does not fit the memory. Guest memory may
/// have been written to.
pub fn load(request: &Request<'_>) -> Result<Loaded, LoadError> {
    load_image(request, &Image::read(request.kernel, "kernel")?)
}

/// Loads a kernel whose file has been read.
fn load_image(request: &Request<'_>, image: &Image) -> Result<Loaded, LoadError> {
    if bzimage::recognizes(image.bytes()) {
        bzimage::load(request, image)
    } else if elf::recognizes(image.bytes())
        && let Some(entry) = elf::pvh_entry(image)?
    {
        pvh::load(request, image, entry)
    } else if let Some(header) = multiboot::find_header(image.bytes()) {
        multiboot::load(request, image, header)
    } else {
        Err(LoadError::NotAKernel { path: request.kernel.to_owned(), looks: image.looks() })
    }
}
