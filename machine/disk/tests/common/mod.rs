//! What the test programs share: QEMU's tools, folders, chance.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rand::SeedableRng;
use rand::rngs::StdRng;

/// Runs one of QEMU's tools, which the package `qemu-utils` has.
pub fn tool(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program} can't be run ({error}); install the package qemu-utils"))
}

/// What `qemu-img` says; it has to succeed.
pub fn qemu_img(arguments: &[&str]) -> String {
    let output = tool("qemu-img", arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "qemu-img {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Carries out commands of `qemu-io` on an image.
pub fn qemu_io(path: &Path, commands: &[&str]) {
    let mut arguments = Vec::new();
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(name(path));
    let output = tool("qemu-io", &arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A path as text.
pub fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder and a way to name files in it.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// How many files there are.
    pub fn count(&self) -> usize {
        std::fs::read_dir(self.0.path()).unwrap().count()
    }
}

pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}
