//! Gives the crate a number for its own source, `LODGE_TRANSLATOR_BUILD`: translations that are kept from one run to the
//! next ([`kept`](src/kept.rs)) are good for the very translator that made them only.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut hasher = DefaultHasher::new();
    // What emitted code depends on beside this crate: the seam, the processor as data, and, by the versions in the
    // lock file, decoder and encoder.
    for place in ["build.rs", "Cargo.toml", "src", "../api/src", "../../x86/src", "../../Cargo.lock"] {
        let path = here.join(place);
        println!("cargo::rerun-if-changed={}", path.display());
        hash(&path, &mut hasher);
    }
    // How it is built: the layout of types is the compiler's choice.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "TARGET", "PROFILE", "OPT_LEVEL", "DEBUG"] {
        println!("cargo::rerun-if-env-changed={name}");
        std::env::var_os(name).hash(&mut hasher);
    }
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = std::process::Command::new(rustc).arg("-vV").output();
    version.map(|output| output.stdout).unwrap_or_default().hash(&mut hasher);
    println!("cargo::rustc-env=LODGE_TRANSLATOR_BUILD={:016x}", hasher.finish());
}

/// A file's content, or that of all files of a folder, in the order of their names.
fn hash(path: &Path, hasher: &mut DefaultHasher) {
    if let Ok(entries) = std::fs::read_dir(path) {
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths.iter().for_each(|path| hash(path, hasher));
    } else if let Ok(bytes) = std::fs::read(path) {
        path.file_name().hash(hasher);
        bytes.hash(hasher);
    }
}
