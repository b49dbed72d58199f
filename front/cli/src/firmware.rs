//! Where firmware is: in the folder that was named, or where distributions put it.

use std::path::{Path, PathBuf};

/// Where distributions have SeaBIOS.
const BIOS_FOLDERS: [&str; 3] =
    ["/usr/share/seabios", "/usr/share/qemu", "/usr/local/share/qemu"];
/// Its image; smaller ones lack drivers.
const BIOS: &str = "bios-256k.bin";

/// The file of the BIOS, which need not be there: whoever opens it says so.
pub fn bios(folder: Option<&Path>) -> PathBuf {
    let places = folder.into_iter().chain(BIOS_FOLDERS.map(Path::new)).map(|folder| folder.join(BIOS));
    let mut places = places.peekable();
    let first = places.peek().cloned().unwrap_or_default();
    places.find(|place| place.is_file()).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_named_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join(BIOS);
        std::fs::write(&place, "x").unwrap();
        assert_eq!(bios(Some(folder.path())), place);
        let missing = Path::new("/no/such");
        let found = bios(Some(missing));
        assert!(found.is_file() || found == missing.join(BIOS), "the first place is named where there is none");
    }
}
