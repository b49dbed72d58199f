//! What is measured in: a Debian root file system with all programs that the works run, an archive of the works'
//! scripts, and a scratch disk, in `cache/bench`.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::suite::{Doing, Work};
use super::transfers;
use crate::guests::{self, Extras, Recipe};
use crate::shell;

/// Packages of the root file system, all from Debian's main archive.
const PACKAGES: &str = "bash,kmod,iproute2,procps,7zip,zstd,linux-perf,sysbench,openssl,libssl-dev,ffmpeg,stress-ng,\
                        python3,perl,luajit,nodejs,sqlite3,linux-source-6.1,gcc,libc6-dev,make,flex,bison,bc,\
                        libelf-dev,mbw,rt-tests,fio,iperf3,redis-server,redis-tools,iputils-ping,xz-utils";
/// Bytes of its image.
const SIZE: &str = "4G";
/// Bytes of the scratch disk.
const SCRATCH: u64 = 256 << 20;
/// What each contender runs.
const SERVE: &str = include_str!("guest/serve.sh");

/// Files that contenders use.
pub struct Files {
    /// `lodge`.
    pub lodge: PathBuf,
    /// The guest's kernel.
    pub kernel: PathBuf,
    /// Its RAM disk.
    pub initrd: PathBuf,
    /// The root file system as an image.
    pub image: PathBuf,
    /// The root file system as a tree.
    pub tree: PathBuf,
    /// An archive of the works' scripts, fit for a disk.
    pub works: PathBuf,
    /// What disk works read.
    pub scratch: PathBuf,
    /// Firmware.
    pub firmware: PathBuf,
    /// A disk whose first sector ends the machine.
    pub sector: PathBuf,
    /// Where the rest goes.
    pub folder: PathBuf,
}

/// Builds what is missing.
pub fn build(works: &[Work]) -> Result<Files> {
    let guest = guests::cloud()?;
    let root = crate::root();
    let folder = root.join("cache/bench");
    let files: [(&str, &str); 2] =
        [("crypto.c", include_str!("guest/crypto.c")), ("prepare.sh", include_str!("guest/prepare.sh"))];
    let extras = Some(Extras { files: &files, script: "prepare.sh" });
    let recipe = Recipe { folder: folder.clone(), packages: PACKAGES, size: SIZE, extras };
    recipe.build().context("the root file system")?;
    let mut cargo = shell::command("cargo", ["build", "--quiet", "--release", "--package", "lodge"]);
    shell::run(cargo.current_dir(&root))?;
    let files = Files {
        lodge: root.join("target/release/lodge"),
        kernel: guest.join("vmlinuz"),
        initrd: guest.join("initrd"),
        image: recipe.image(),
        tree: recipe.tree(),
        works: folder.join("works.tar"),
        scratch: folder.join("scratch.img"),
        firmware: guests::firmware()?,
        sector: folder.join("sector.img"),
        folder,
    };
    pack(&files, works)?;
    scratch(&files)?;
    fs::write(&files.sector, sector())?;
    Ok(files)
}

/// Writes the works' scripts into an archive.
fn pack(files: &Files, works: &[Work]) -> Result<()> {
    let folder = files.folder.join("scripts");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(folder.join("works"))?;
    fs::write(folder.join("serve.sh"), SERVE)?;
    for work in works {
        let scripts = match work.doing {
            Doing::Script { set_up, run } => Some((set_up, run)),
            Doing::Transfer { .. } => Some((transfers::SET_UP, "")),
            _ => None,
        };
        if let Some((set_up, run)) = scripts {
            for (verb, text) in [("setup", set_up), ("run", run)] {
                fs::write(folder.join(format!("works/{}.{verb}", work.key)), format!("{text}\n"))?;
            }
        }
    }
    let mut tar = shell::command("tar", ["--create", "--owner=0", "--group=0", "--file"]);
    shell::run(tar.arg(&files.works).arg("--directory").arg(&folder).args(["serve.sh", "works"]))
}

/// A disk that a BIOS boots from. The first instructions of its sector end the machine, at the port of the debug exit.
fn sector() -> Vec<u8> {
    const CODE: &[u8] = &[
        0xb0, 0x00, // mov al, 0
        0xe6, 0xf4, // out 0xf4, al
        0xf4, // hlt
        0xeb, 0xfd, // jmp to it
    ];
    let mut disk = vec![0; 1 << 20];
    disk[..CODE.len()].copy_from_slice(CODE);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// Makes the scratch disk, full of numbers: a file with holes would not be read from anywhere.
fn scratch(files: &Files) -> Result<()> {
    if fs::metadata(&files.scratch).is_ok_and(|file| file.len() == SCRATCH) {
        return Ok(());
    }
    let mut file = std::io::BufWriter::new(File::create(&files.scratch)?);
    for number in 0..SCRATCH / 8 {
        file.write_all(&number.to_le_bytes())?;
    }
    file.flush()?;
    Ok(())
}
