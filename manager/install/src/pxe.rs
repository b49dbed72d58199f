//! A tree for the network that answers: what a folder has, with an initial RAM disk that carries the answers, and loaders that
//! ask nobody.
//!
//! The tree is of hard links where it can be. What changes is replaced, so that the folder itself stays as it is.

use std::fs;
use std::io::{Error, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use lodge_guests::{Firmware, Profile};

use crate::boot_files::{LinuxFiles, linux_in, loader_in};
use crate::carrier::{Archive, CarrierError, append_archive};
use crate::prepare::{Carrier, Prepared};

/// How deep folders may lie in each other.
const DEEPEST: usize = 12;
/// Loaders that are GRUB, or start it.
const GRUBS: [&str; 5] = ["bootnetx64.efi", "grubx64.efi", "grubnetx64.efi", "shimx64.efi", "bootx64.efi"];
/// Most files in a tree.
const MOST: usize = 20_000;

/// Why there is no such tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// There is no boot loader for the firmware.
    #[error(
        "'{folder}' has no boot loader for {firmware} where installers have theirs; name it with --bootfile, a path in the folder"
    )]
    NoLoader {
        /// The folder.
        folder: PathBuf,
        /// The firmware.
        firmware: Firmware,
    },
    /// There is no kernel or no initial RAM disk.
    #[error(
        "'{folder}' has no installer of {name}: there is no kernel or no initial RAM disk where its installers have them"
    )]
    NoKernel {
        /// The folder.
        folder: PathBuf,
        /// The system.
        name: String,
    },
    /// The answers can't go with a kernel from the network.
    #[error(
        "lodge writes no answers for the installer of {name} when it is started over the network; give its disc, or install it attended"
    )]
    NotByNetwork {
        /// The system.
        name: String,
    },
    /// A loader whose configuration is not known.
    #[error("what {loader} starts can't be said for it: unattended, use PXELINUX (pxelinux.0) or GRUB of Debian's")]
    UnknownLoader {
        /// The loader.
        loader: String,
    },
    /// There is too much in the folder.
    #[error("'{0}' has more than {MOST} files; name the folder with the installer's files alone")]
    TooMuch(PathBuf),
    /// A file can't be read or written.
    #[error("'{path}' can't be read or copied: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Error,
    },
    /// The answers can't be written.
    #[error(transparent)]
    Carrier(#[from] CarrierError),
}

/// The boot loader for firmware in a folder, as DHCP names it.
///
/// # Errors
///
/// There is none where loaders are.
pub fn loader(folder: &Path, firmware: Firmware) -> Result<&'static str, TreeError> {
    loader_in(folder, firmware).ok_or_else(|| TreeError::NoLoader { folder: folder.to_owned(), firmware })
}

/// Makes a tree in `into`, which is empty, from `folder`: what `loader` starts is the installer with the answers.
///
/// # Errors
///
/// The folder has no installer of the system, the loader is not known, or files can't be read or written.
pub fn answering(
    folder: &Path,
    into: &Path,
    loader: &str,
    profile: &Profile,
    prepared: &Prepared,
) -> Result<(), TreeError> {
    let Carrier::Initrd(archive) = &prepared.carrier else {
        return Err(TreeError::NotByNetwork { name: profile.name.clone() });
    };
    let found = linux_in(folder, profile);
    let found = found.ok_or_else(|| TreeError::NoKernel { folder: folder.to_owned(), name: profile.name.clone() })?;
    let mut left = MOST;
    copy(folder, into, 0, &mut left)?;
    carry(into, found, archive)?;
    let configured = configure(into, loader, found, &prepared.kernel_parameters)?;
    if configured { Ok(()) } else { Err(TreeError::UnknownLoader { loader: loader.to_owned() }) }
}

/// Links or copies all that is in a folder.
fn copy(from: &Path, to: &Path, depth: usize, left: &mut usize) -> Result<(), TreeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TreeError::File { path, source }
    };
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let entry = entry.map_err(failed(from))?;
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed(&old))?;
        *left = left.checked_sub(1).filter(|_| depth < DEEPEST).ok_or_else(|| TreeError::TooMuch(from.to_owned()))?;
        if kind.is_dir() {
            fs::create_dir(&new).map_err(failed(&new))?;
            copy(&old, &new, depth + 1, left)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&old).map_err(failed(&old))?;
            std::os::unix::fs::symlink(target, &new).map_err(failed(&new))?;
        } else if kind.is_file() {
            // On another file system it is copied; so is what belongs to others, where the host forbids such links.
            fs::hard_link(&old, &new).or_else(|_| fs::copy(&old, &new).map(drop)).map_err(failed(&old))?;
        }
    }
    Ok(())
}

/// Puts the answers behind the initial RAM disk.
fn carry(tree: &Path, files: LinuxFiles, archive: &Archive) -> Result<(), TreeError> {
    let path = tree.join(files.initrd);
    let failed = |source| TreeError::File { path: path.clone(), source };
    let whole = append_archive(fs::read(&path).map_err(failed)?, archive)?;
    replace(tree, &path, &whole).map_err(failed)
}

/// Writes a new file in place of one that may be linked to others. It stays in the tree whatever links there are.
fn replace(tree: &Path, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let folder = folder.canonicalize()?;
    if !folder.starts_with(tree.canonicalize()?) {
        return Err(Error::other("a symbolic link leads out of the folder"));
    }
    // Not one that is there: it might be a link.
    let mut partial = tempfile::NamedTempFile::new_in(&folder)?;
    partial.write_all(bytes)?;
    partial.persist(folder.join(name)).map_err(|error| error.error)?;
    Ok(())
}

/// Has the loaders start the kernel at once. Whether one of them is `loader`.
fn configure(tree: &Path, loader: &str, files: LinuxFiles, parameters: &str) -> Result<bool, TreeError> {
    let LinuxFiles { kernel, initrd } = files;
    let (place, name) = loader.rsplit_once('/').unwrap_or(("", loader));
    let path = tree.join(place);
    let failed = |source| TreeError::File { path: path.clone(), source };
    let inside = path.canonicalize().and_then(|path| Ok(path.starts_with(tree.canonicalize()?))).map_err(failed)?;
    if !inside {
        return Err(failed(Error::other("it is outside of the folder")));
    }
    let (path, text) = if matches!(name, "pxelinux.0" | "lpxelinux.0") {
        // PXELINUX takes paths from its own folder on, but for those behind two colons.
        let text = format!("DEFAULT lodge\nLABEL lodge\nKERNEL ::{kernel}\nINITRD ::{initrd}\nAPPEND {parameters}\n");
        let folder = tree.join(place).join("pxelinux.cfg");
        if !folder.is_dir() {
            fs::create_dir(&folder).map_err(|source| TreeError::File { path: folder.clone(), source })?;
        }
        (folder.join("default"), text)
    } else if GRUBS.contains(&name) {
        let grub = ["debian-installer/amd64/grub", "grub"].map(|name| tree.join(name));
        let Some(folder) = grub.into_iter().find(|folder| folder.join("grub.cfg").exists()) else { return Ok(false) };
        (folder.join("grub.cfg"), format!("linux /{kernel} {parameters}\ninitrd /{initrd}\nboot\n"))
    } else {
        return Ok(false);
    };
    replace(tree, &path, text.as_bytes()).map_err(|source| TreeError::File { path, source })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use lodge_guests::Catalogue;

    use super::*;
    use crate::answers::tests::sample;
    use crate::prepare::prepare;

    /// A tree as Debian's package has it.
    fn debian(place: &Path) {
        let images = place.join("debian-installer/amd64");
        fs::create_dir_all(images.join("grub")).unwrap();
        fs::create_dir_all(images.join("boot-screens")).unwrap();
        for name in ["linux", "initrd.gz", "bootnetx64.efi", "pxelinux.0", "grub/grub.cfg", "boot-screens/syslinux.cfg"]
        {
            fs::write(images.join(name), name).unwrap();
        }
        fs::create_dir(images.join("pxelinux.cfg")).unwrap();
        let link = |to: &str, from: &Path| std::os::unix::fs::symlink(to, from).unwrap();
        link("../boot-screens/syslinux.cfg", &images.join("pxelinux.cfg/default"));
        link("debian-installer/amd64/pxelinux.0", &place.join("pxelinux.0"));
        link("debian-installer/amd64/pxelinux.cfg", &place.join("pxelinux.cfg"));
    }

    #[test]
    fn a_tree_answers_and_the_folder_stays_as_it_is() {
        let (folder, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        debian(folder.path());
        let profile = Catalogue::built_in().find("debian-12").unwrap();
        let prepared = prepare(profile, &sample(), Firmware::Bios).unwrap();
        for (firmware, configuration) in
            [(Firmware::Bios, "pxelinux.cfg/default"), (Firmware::Uefi, "debian-installer/amd64/grub/grub.cfg")]
        {
            let into = into.path().join(firmware.name());
            fs::create_dir(&into).unwrap();
            let loader = loader(folder.path(), firmware).unwrap();
            answering(folder.path(), &into, loader, profile, &prepared).unwrap();
            let text = fs::read_to_string(into.join(configuration)).unwrap();
            assert!(text.contains("debian-installer/amd64/linux") && text.contains("auto=true"), "{text}");
            let initrd = fs::read(into.join("debian-installer/amd64/initrd.gz")).unwrap();
            assert!(initrd.starts_with(b"initrd.gz") && initrd.len() > 1000);
            assert_eq!(fs::read(into.join(loader)).unwrap(), fs::read(folder.path().join(loader)).unwrap());
        }
        for name in ["initrd.gz", "grub/grub.cfg", "boot-screens/syslinux.cfg"] {
            assert_eq!(fs::read_to_string(folder.path().join("debian-installer/amd64").join(name)).unwrap(), name);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let (folder, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let profile = Catalogue::built_in().find("debian-12").unwrap();
        let prepared = prepare(profile, &sample(), Firmware::Bios).unwrap();
        let error = loader(folder.path(), Firmware::Uefi).unwrap_err().to_string();
        assert!(error.contains("uefi") && error.contains("--bootfile"), "{error}");
        let answer = |folder: &Path, loader: &str| answering(folder, into.path(), loader, profile, &prepared);
        assert!(matches!(answer(folder.path(), "pxelinux.0"), Err(TreeError::NoKernel { .. })));
        debian(folder.path());
        let another = || {
            let into = tempfile::tempdir().unwrap();
            let loader = "ipxe.efi";
            answering(folder.path(), into.path(), loader, profile, &prepared)
        };
        assert!(matches!(another(), Err(TreeError::UnknownLoader { .. })));
        assert!(matches!(answer(folder.path(), "../pxelinux.0"), Err(TreeError::File { .. })));
    }

    #[test]
    fn a_link_that_leads_out_is_not_written_through() {
        let (folder, into, outside) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        debian(folder.path());
        let link = folder.path().join("pxelinux.cfg");
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(outside.path(), &link).unwrap();
        let profile = Catalogue::built_in().find("debian-12").unwrap();
        let prepared = prepare(profile, &sample(), Firmware::Bios).unwrap();
        let result = answering(folder.path(), into.path(), "pxelinux.0", profile, &prepared);
        assert!(matches!(result, Err(TreeError::File { .. })), "{result:?}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
