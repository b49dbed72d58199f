//! Where firmware is: in the folder that was named, or where distributions put it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lodge_backend::{Disk, DiskError, Overlay, RawDisk};
use lodge_vm::{GraphicsCard, NetworkCard};

/// Where distributions have SeaBIOS.
const BIOS_FOLDERS: [&str; 3] = ["/usr/share/seabios", "/usr/share/qemu", "/usr/local/share/qemu"];
/// Its image; smaller ones lack drivers.
const BIOS: &str = "bios-256k.bin";

/// That of each graphics card.
fn vga_bios_name(card: GraphicsCard) -> &'static str {
    match card {
        GraphicsCard::Standard => "vgabios-stdvga.bin",
        GraphicsCard::Virtio => "vgabios-virtio.bin",
    }
}

/// Where distributions have OVMF: Debian, Fedora, Arch, SUSE, NixOS and QEMU itself.
const UEFI_FOLDERS: [&str; 7] = [
    "/usr/share/OVMF",
    "/usr/share/edk2/ovmf",
    "/usr/share/edk2/x64",
    "/usr/share/edk2-ovmf/x64",
    "/run/libvirt/nix-ovmf",
    "/usr/share/qemu",
    "/usr/local/share/qemu",
];
/// Its code and its empty variables, the roomiest first. None of those that need system management mode.
const UEFI: [[&str; 2]; 5] = [
    ["OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"],
    ["OVMF_CODE.4m.fd", "OVMF_VARS.4m.fd"],
    ["OVMF_CODE.fd", "OVMF_VARS.fd"],
    ["ovmf-x86_64-4m-code.bin", "ovmf-x86_64-4m-vars.bin"],
    ["ovmf-x86_64-code.bin", "ovmf-x86_64-vars.bin"],
];

/// Where distributions have the expansion ROMs of network cards: Debian, Fedora and QEMU itself.
const ROM_FOLDERS: [&str; 5] =
    ["/usr/lib/ipxe/qemu", "/usr/share/ipxe/qemu", "/usr/share/ipxe", "/usr/share/qemu", "/usr/local/share/qemu"];

/// Why there is no place for variables.
#[derive(Debug, thiserror::Error)]
pub enum VariablesError {
    /// Their file can't be made.
    #[error("the file of the firmware's variables {path} can't be made: {source}; name a place that you may write to")]
    Create {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: std::io::Error,
    },
    /// What they are when nothing has been set is not there.
    #[error(
        "the firmware's empty variables {path} can't be read: {source}; install the package `ovmf`, or name the folder \
         with --firmware-dir"
    )]
    Template {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: std::io::Error,
    },
    /// Their file can't be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The file of the BIOS, which need not be there: whoever opens it says so.
pub fn bios(folder: Option<&Path>) -> PathBuf {
    let [image] = find(folder, &BIOS_FOLDERS, &[[BIOS]]);
    image
}

/// The BIOS of the graphics card; none where there is none, without which UEFI and systems of today do.
pub fn vga_bios(folder: Option<&Path>, card: GraphicsCard) -> Vec<u8> {
    let [image] = find(folder, &BIOS_FOLDERS, &[[vga_bios_name(card)]]);
    fs::read(&image).unwrap_or_else(|error| {
        tracing::warn!("the graphics card has no BIOS: {}: {error}; the package `seabios` has it", image.display());
        Vec::new()
    })
}

/// The file of the ROM with which firmware boots off a card's network, which need not be there; none if firmware has a
/// driver of its own, or the card has no place for one.
pub fn boot_rom(folder: Option<&Path>, card: NetworkCard, uefi: bool) -> Option<PathBuf> {
    let name = match (card, uefi) {
        (NetworkCard::Virtio { .. }, false) => "pxe-virtio.rom",
        (NetworkCard::E1000, false) => "pxe-e1000.rom",
        (NetworkCard::Rtl8139, false) => "pxe-rtl8139.rom",
        (NetworkCard::Ne2000, false) => "pxe-ne2k_pci.rom",
        (NetworkCard::E1000, true) => "efi-e1000.rom",
        (NetworkCard::Rtl8139, true) => "efi-rtl8139.rom",
        (NetworkCard::Ne2000, true) => "efi-ne2k_pci.rom",
        // OVMF drives it.
        (NetworkCard::Virtio { .. }, true) | (NetworkCard::Ne2000Isa, _) => return None,
    };
    let [image] = find(folder, &ROM_FOLDERS, &[[name]]);
    Some(image)
}

/// The files of UEFI firmware and of its variables when nothing has been set, which need not be there.
pub fn uefi(folder: Option<&Path>) -> [PathBuf; 2] {
    find(folder, &UEFI_FOLDERS, &UEFI)
}

/// The first folder that has all of a set of files; the first set in the first folder if none has.
fn find<const N: usize>(folder: Option<&Path>, folders: &[&str], sets: &[[&str; N]]) -> [PathBuf; N] {
    let folders = folder.into_iter().chain(folders.iter().map(Path::new));
    let mut places =
        folders.flat_map(|folder| sets.iter().map(move |set| set.map(|name| folder.join(name)))).peekable();
    let first = places.peek().cloned();
    places.find(|set| set.iter().all(|file| file.is_file())).or(first).unwrap_or([const { PathBuf::new() }; N])
}

/// The disk that variables are kept on: `file`, a copy of `template` if it is not there; without it, what is written to
/// a copy of the template is forgotten.
///
/// # Errors
///
/// It can't be made or used.
pub fn variables(file: Option<&Path>, template: &Path) -> Result<Arc<dyn Disk>, VariablesError> {
    let missing = |source| VariablesError::Template { path: template.to_owned(), source };
    let Some(file) = file else {
        let template = RawDisk::open(template, true).map_err(|error| match error {
            DiskError::Open { source, .. } => missing(source),
            other => other.into(),
        })?;
        let template = Arc::new(template);
        return Ok(Arc::new(Overlay::new(template, &std::env::temp_dir())?));
    };
    let failed = |source| VariablesError::Create { path: file.to_owned(), source };
    // Nothing is made where there is nothing to fill it with.
    let template = if file.exists() { Ok(None) } else { fs::File::open(template).map(Some).map_err(missing) };
    let template = template?;
    match fs::File::create_new(file) {
        Ok(mut made) => {
            let Some(mut from) = template else { return Err(failed(ErrorKind::NotFound.into())) };
            std::io::copy(&mut from, &mut made).and_then(|_| made.sync_all()).map_err(failed)?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(Arc::new(RawDisk::open(file, false)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_named_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join(BIOS);
        fs::write(&place, "x").unwrap();
        assert_eq!(bios(Some(folder.path())), place);
        let missing = Path::new("/no/such");
        let found = bios(Some(missing));
        assert!(found.is_file() || found == missing.join(BIOS), "the first place is named where there is none");
    }

    #[test]
    fn code_and_variables_are_of_one_set() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["OVMF_CODE_4M.fd", "OVMF_CODE.fd", "OVMF_VARS.fd"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(uefi(Some(folder.path())), ["OVMF_CODE.fd", "OVMF_VARS.fd"].map(|name| folder.path().join(name)));
    }

    #[test]
    fn variables_are_kept_in_a_file_and_else_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let template = folder.path().join("template");
        fs::write(&template, [7; 4096]).unwrap();
        let kept = folder.path().join("kept");
        for file in [None, Some(&*kept)] {
            let disk = variables(file, &template).unwrap();
            disk.write_at(0, &[std::io::IoSlice::new(&[1])]).unwrap();
        }
        assert_eq!((fs::read(&template).unwrap()[0], fs::read(&kept).unwrap()[0]), (7, 1));
        let again = variables(Some(&kept), Path::new("/no/such")).unwrap();
        let new = folder.path().join("new");
        for file in [None, Some(&*new)] {
            let error = variables(file, Path::new("/no/such/OVMF_VARS.fd")).err().unwrap().to_string();
            assert!(error.contains("/no/such/OVMF_VARS.fd") && error.contains("`ovmf`"), "{error}");
            assert!(error.contains("--firmware-dir") && !new.exists(), "{error}");
        }
        let mut byte = [0];
        again.read_at(0, &mut [std::io::IoSliceMut::new(&mut byte)]).unwrap();
        assert_eq!(byte, [1], "what is there is used, not made anew");
        let error = variables(Some(Path::new("/no/such/folder/vars")), &template).err().unwrap().to_string();
        assert!(error.contains("/no/such/folder/vars") && error.contains("name a place"), "{error}");
    }
}
