//! Where translations are kept from one run to the next, and under which name.

use std::ffi::OsString;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};

use lodge_vm::KeptCode;

use crate::args::TranslationsPlan;

/// Bytes of a kernel by which it is known; those of a Linux image hold its version and length.
const BEGINNING: u64 = 64 << 10;

/// The variable that asks for each kept translation to be compared with what would be made anew.
const VERIFY: &str = "LODGE_VERIFY_TRANSLATIONS";

/// Where a guest with this kernel has its translations. `None`: nowhere.
pub fn kept_code(plan: &TranslationsPlan, kernel: &Path) -> Option<KeptCode> {
    let folder = match plan {
        TranslationsPlan::Off => return None,
        TranslationsPlan::Folder(folder) => folder.clone(),
        TranslationsPlan::Auto => cache(std::env::var_os("XDG_CACHE_HOME"), std::env::home_dir())?,
    };
    let verify = std::env::var_os(VERIFY).is_some_and(|value| value != "0");
    Some(KeptCode { folder, name: name(kernel)?, verify })
}

/// The folder for translations where the user's caches are (XDG Base Directory Specification).
fn cache(named: Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let named = named.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.filter(|path| path.is_absolute());
    Some(named.or_else(|| Some(home?.join(".cache")))?.join("lodge/translations"))
}

/// A name for guests that boot this file: the same for copies of it. It only decides which guests share a file; that
/// two kernels had the same would cost time and nothing else. `None`: it cannot be read, which is said elsewhere.
fn name(kernel: &Path) -> Option<String> {
    let file = File::open(kernel).ok()?;
    let mut hasher = DefaultHasher::new();
    file.metadata().ok()?.len().hash(&mut hasher);
    let mut beginning = Vec::new();
    file.take(BEGINNING).read_to_end(&mut beginning).ok()?;
    beginning.hash(&mut hasher);
    Some(format!("kernel-{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_where_the_user_has_them() {
        let some = |path: &str| Some(PathBuf::from(path));
        assert_eq!(cache(Some("/c".into()), some("/h")), some("/c/lodge/translations"));
        assert_eq!(cache(None, some("/h")), some("/h/.cache/lodge/translations"));
        assert_eq!(cache(Some("c".into()), some("/h")), some("/h/.cache/lodge/translations"), "not relative");
        assert_eq!(cache(Some("".into()), None), None);
        assert_eq!(cache(None, some("")), None);
    }

    #[test]
    fn kernels_are_known_by_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, bytes: &[u8]| {
            let path = folder.path().join(file);
            std::fs::write(&path, bytes).unwrap();
            name(&path).unwrap()
        };
        assert_eq!(write("a", b"kernel"), write("b", b"kernel"));
        assert_ne!(write("a", b"kernel"), write("b", b"kernem"));
        assert_ne!(write("a", &[0; 70_000]), write("b", &[0; 70_001]));
        assert_eq!(name(&folder.path().join("c")), None);
        let there = TranslationsPlan::Folder("/d".into());
        let kept = kept_code(&there, &folder.path().join("a")).unwrap();
        assert_eq!(kept.folder, Path::new("/d"));
        assert_eq!(kept_code(&TranslationsPlan::Off, &folder.path().join("a")), None);
    }
}
