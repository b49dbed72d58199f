//! A Debian root file system: a tree, which the bare host can chroot into, and a raw ext4 image of it, made without
//! mounting anything.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Programs that build it, and the packages that bring them.
pub const PROGRAMS: &[(&str, &str)] = &[("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")];

/// What to build, and where.
pub struct Recipe<'a> {
    /// Holds `tree` and `root.img`.
    pub folder: PathBuf,
    /// Packages besides the least that Debian calls a system, with commas.
    pub packages: &'a str,
    /// Size of the image, as mke2fs understands it.
    pub size: &'a str,
    /// Files that are put into /bench, and a shell script among them that is then run in the root.
    pub extras: Option<Extras<'a>>,
}

/// What is added to the packages.
pub struct Extras<'a> {
    /// Name and text of each file.
    pub files: &'a [(&'a str, &'a str)],
    /// The script's name.
    pub script: &'a str,
}

impl Recipe<'_> {
    /// The image.
    pub fn image(&self) -> PathBuf {
        self.folder.join("root.img")
    }

    /// The tree.
    pub fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// Says what an image was made from: another recipe makes another image.
    fn stamp(&self) -> String {
        let mut text = self.packages.to_owned();
        for (name, content) in self.extras.iter().flat_map(|extras| extras.files) {
            text += &format!("\n=== {name}\n{content}");
        }
        text
    }

    /// Builds both, unless they are there already.
    pub fn build(&self) -> Result<()> {
        let (image, tree) = (self.image(), self.tree());
        let stamp = image.with_extension("packages");
        if image.is_file() && tree.is_dir() && fs::read_to_string(&stamp).is_ok_and(|text| text == self.stamp()) {
            return Ok(());
        }
        for (program, package) in PROGRAMS {
            if !shell::has(program) {
                bail!("{program} is missing; `sudo apt-get install {package}` brings it");
            }
        }
        fs::create_dir_all(&self.folder)?;
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        let mut debootstrap = shell::command("mmdebstrap", ["--variant=minbase"]);
        debootstrap.arg(format!("--include={}", self.packages));
        debootstrap.args(["--customize-hook=echo lodge > \"$1/etc/hostname\""]);
        debootstrap.args(["--customize-hook=chroot \"$1\" passwd --delete root"]);
        if let Some(extras) = &self.extras {
            let files = self.folder.join("files");
            fs::create_dir_all(&files)?;
            for (name, content) in extras.files {
                fs::write(files.join(name), content).with_context(|| format!("cannot write {name}"))?;
                let copy = format!("install -D -m 644 '{}' \"$1/bench/{name}\"", files.join(name).display());
                debootstrap.arg(format!("--customize-hook={copy}"));
            }
            debootstrap.arg(format!("--customize-hook=chroot \"$1\" sh /bench/{}", extras.script));
        }
        shell::run(debootstrap.arg("bookworm").arg(&tree))?;
        let partial = image.with_extension("partial");
        if partial.exists() {
            fs::remove_file(&partial)?;
        }
        let mut mke2fs = shell::command("mke2fs", ["-q", "-t", "ext4", "-L", "root", "-d"]);
        shell::run(mke2fs.arg(&tree).arg(&partial).arg(self.size))?;
        fs::rename(&partial, image)?;
        fs::write(stamp, self.stamp())?;
        Ok(())
    }
}
