//! apt with a state directory of its own.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell;

/// How long package lists are used before they are fetched again.
const LISTS_GOOD_FOR: Duration = Duration::from_secs(24 * 3600);

/// apt over the host's sources, for amd64 and i386, whatever the host itself is configured for.
pub struct Apt {
    folder: PathBuf,
    updated: OnceCell<()>,
}

impl Apt {
    /// Keeps everything in `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg-deb"] {
            if !shell::has(program) {
                bail!("{program} is missing: guests are fetched as Debian packages, on Debian or one of its kin");
            }
        }
        for part in ["state/lists/partial", "cache/archives/partial", "packages", "unpacked"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(Self { folder: folder.to_owned(), updated: OnceCell::new() })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let set = |name: &str, value: &str| format!("{name}={value}");
        let path = |part: &str| self.folder.join(part).display().to_string();
        for option in [
            set("APT::Architecture", "amd64"),
            set("APT::Architectures", "amd64,i386"),
            set("Dir::State", &path("state")),
            set("Dir::State::status", "/dev/null"),
            set("Dir::Cache", &path("cache")),
            // Its helpers would otherwise run as a user who may not write here.
            set("APT::Sandbox::User", "root"),
            set("Acquire::Languages", "none"),
        ] {
            command.args(["-o", &option]);
        }
        command.current_dir(self.folder.join("packages"));
        command
    }

    /// Fetches the lists, once a day. A source that fails is apt's to complain about; what matters is whether the
    /// packages are found.
    fn update(&self) {
        self.updated.get_or_init(|| {
            let stamp = self.folder.join("updated");
            let age = fs::metadata(&stamp).and_then(|file| file.modified()).ok().and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age < LISTS_GOOD_FOR) {
                return;
            }
            if let Err(error) = shell::run(self.command("apt-get").args(["-q", "update"])) {
                eprintln!("guests: going on with the lists there are: {error:#}");
            }
            // Without the stamp the lists are merely fetched again next time.
            let _ = fs::write(&stamp, "");
        });
    }

    /// The dependency of `package` whose name begins with `prefix`.
    pub fn dependency(&self, package: &str, architecture: &str, prefix: &str) -> Result<String> {
        self.update();
        let name = format!("{package}:{architecture}");
        let text = shell::output(self.command("apt-cache").args(["depends", &name]))?;
        let depends = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let found = depends.map(|name| name.split(':').next().unwrap_or(name)).find(|name| name.starts_with(prefix));
        found.map(str::to_owned).with_context(|| format!("{name} depends on nothing that begins with {prefix}"))
    }

    /// The folder with a package's files, fetched and unpacked if need be.
    pub fn unpacked(&self, package: &str, architecture: &str) -> Result<PathBuf> {
        let folder = self.folder.join("unpacked").join(format!("{package}_{architecture}"));
        if folder.is_dir() {
            return Ok(folder);
        }
        self.update();
        shell::run(self.command("apt-get").args(["-q", "download", &format!("{package}:{architecture}")]))?;
        let archive = self.downloaded(package, architecture)?;
        let partial = folder.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        shell::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&partial))?;
        fs::rename(&partial, &folder)?;
        fs::remove_file(archive)?;
        Ok(folder)
    }

    /// The archive that was just fetched: its name begins with the package's and ends with the architecture's, or `all`.
    fn downloaded(&self, package: &str, architecture: &str) -> Result<PathBuf> {
        let folder = self.folder.join("packages");
        let start = format!("{package}_");
        let ends = [format!("_{architecture}.deb"), "_all.deb".into()];
        let matches = |path: &PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(&start) && ends.iter().any(|end| name.ends_with(end)))
        };
        let mut files = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
        files.find(matches).with_context(|| format!("apt left no archive of {package} in {}", folder.display()))
    }
}
