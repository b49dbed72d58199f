//! A Linux kernel for firmware to start: UEFI finds it in the machine's configuration, as with QEMU (docs/specs/fw_cfg, and
//! OVMF's QemuKernelLoaderFsDxe), and starts it as a program of UEFI's.

use std::path::Path;

use crate::LoadError;
use crate::bzimage;
use crate::image::Image;

/// A kernel, its RAM disk and its command line, as firmware is given them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// The kernel's first sectors, which say how it is loaded.
    pub setup: Vec<u8>,
    /// The rest of the kernel.
    pub kernel: Vec<u8>,
    /// The initial RAM disk; empty for none.
    pub initrd: Vec<u8>,
    /// The command line, with a zero behind it.
    pub command_line: Vec<u8>,
}

/// Reads a kernel for firmware.
///
/// # Errors
///
/// A file can't be read, or the kernel is no bzImage, which alone is a program of UEFI's.
pub fn hand_over(kernel: &Path, initrd: Option<&Path>, command_line: &str) -> Result<HandOver, LoadError> {
    let image = Image::read(kernel, "kernel")?;
    if !bzimage::recognizes(image.bytes()) {
        return Err(LoadError::NotAKernel { path: kernel.to_owned(), looks: image.looks() });
    }
    if command_line.contains('\0') {
        return Err(LoadError::CommandLineNul);
    }
    let (setup, rest) = image
        .bytes()
        .split_at_checked(bzimage::setup_length(&image)?)
        .ok_or_else(|| image.truncated("it ends within its first sectors".into()))?;
    let initrd = initrd.map(|path| Image::read(path, "initial RAM disk")).transpose()?;
    Ok(HandOver {
        setup: setup.to_vec(),
        kernel: rest.to_vec(),
        initrd: initrd.map_or_else(Vec::new, |image| image.bytes().to_vec()),
        command_line: [command_line.as_bytes(), &[0]].concat(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_comes_in_two_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinuz");
        let mut bytes = vec![1; 512 * 3];
        bytes.extend([2; 100]);
        (bytes[0x1f1], bytes[0x201]) = (2, 0x66);
        bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        std::fs::write(&path, &bytes).unwrap();
        let given = hand_over(&path, None, "quiet").unwrap();
        assert_eq!((given.setup.len(), &given.kernel[..]), (1536, &[2; 100][..]));
        assert_eq!((&given.command_line[..], given.initrd.len()), (&b"quiet\0"[..], 0));
        std::fs::write(&path, &bytes[..1000]).unwrap();
        assert!(matches!(hand_over(&path, None, ""), Err(LoadError::Truncated { .. })));
        std::fs::write(&path, "text").unwrap();
        assert!(matches!(hand_over(&path, None, ""), Err(LoadError::NotAKernel { .. })));
        assert!(matches!(hand_over(Path::new("/no/such"), None, ""), Err(LoadError::Missing { .. })));
    }
}
