//! Why a kernel cannot be loaded.

use std::path::PathBuf;

/// Why a kernel cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("the {what} '{}' does not exist; check the name", .path.display())]
    Missing {
        /// "kernel" or "initial RAM disk".
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("the {what} '{}' cannot be read: {source}{}", .path.display(), remedy(.source))]
    Unreadable {
        /// "kernel" or "initial RAM disk".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is empty.
    #[error("the {what} '{}' is empty; fetch or build it anew", .path.display())]
    Empty {
        /// "kernel" or "initial RAM disk".
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The file is no kernel that can be booted directly.
    #[error("'{}' is not a kernel that can be booted directly (it looks like {looks}); \
             give a Linux bzImage, an ELF image with a PVH note, or a Multiboot image", .path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What it is rather.
        looks: &'static str,
    },
    /// The file ends before what its own header promises.
    #[error("the kernel '{}' is cut short: {detail}; fetch it anew", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What is missing.
        detail: String,
    },
    /// The kernel is of a known kind but cannot be booted.
    #[error("the kernel '{}' cannot be booted: {detail}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// The guest has too little memory.
    #[error(
        "{available_mib} MiB of memory are too little for the {what}; it needs {needed_mib} MiB: say --memory {needed_mib}M or more"
    )]
    MemoryTooSmall {
        /// What does not fit.
        what: &'static str,
        /// What would do, in MiB.
        needed_mib: u64,
        /// What there is below 4 GiB, in MiB.
        available_mib: u64,
    },
    /// The command line is too long.
    #[error("the kernel's command line has {length} bytes; this kernel takes at most {limit}")]
    CommandLineTooLong {
        /// Bytes given.
        length: usize,
        /// Bytes possible.
        limit: usize,
    },
    /// The command line has a NUL in it.
    #[error("the kernel's command line has a NUL character")]
    CommandLineNul,
    /// Guest memory is not laid out as the loaders expect. Not the user's fault.
    #[error("guest memory at {address:#x} cannot be written: {source}")]
    Memory {
        /// The first address.
        address: u64,
        /// What the memory says.
        source: vm_memory::GuestMemoryError,
    },
}

fn remedy(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => "; make it readable with chmod, or copy it to where it is",
        _ => "",
    }
}
