//! apt with a state directory of its own.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell;

/// How long package lists are used before they are fetched again.
const LISTS_GOOD_FOR: Duration = Duration::from_secs(24 * 3600);

/// The keys that Debian's mirrors are signed with.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt over the host's sources, for amd64 and i386, whatever the host itself is configured for.
pub struct Apt {
    folder: PathBuf,
    /// Sources instead of the host's.
    sources: Option<PathBuf>,
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
        Ok(Self { folder: folder.to_owned(), sources: None, updated: OnceCell::new() })
    }

    /// apt over the parts of installers (udebs) on the same mirror: those of some suites.
    pub fn of_parts(&self, suites: &[&str]) -> Result<Self> {
        let mirror = self.mirror("bookworm")?;
        let line = |suite: &&str| format!("deb [signed-by={KEYS}] {mirror} {suite} main/debian-installer\n");
        let mut apt = Self::new(&self.folder.join("parts"))?;
        let sources = apt.folder.join("sources.list");
        fs::write(&sources, suites.iter().map(line).collect::<String>())?;
        apt.sources = Some(sources);
        Ok(apt)
    }

    /// The mirror that a suite comes from, as the host's sources name it.
    pub fn mirror(&self, suite: &str) -> Result<String> {
        let format = ["indextargets", "--format", "$(RELEASE) $(COMPONENT) $(SITE)", "Identifier: Packages"];
        let targets = shell::output(self.command("apt-get").args(format))?;
        let start = format!("{suite} main ");
        let found = targets.lines().find_map(|line| line.strip_prefix(&start));
        found.map(str::to_owned).with_context(|| format!("none of apt's sources is a mirror of {suite}"))
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
        if let Some(sources) = &self.sources {
            command.args(["-o", &set("Dir::Etc::sourcelist", &sources.display().to_string())]);
            command.args(["-o", "Dir::Etc::sourceparts=/dev/null"]);
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

    /// Fetches a part as a suite has it into a folder; whether the mirror has it.
    pub fn part(&self, name: &str, suite: &str, into: &Path) -> Result<bool> {
        self.update();
        let mut download = self.command("apt-get");
        download.args(["-qq", "download", &format!("{name}/{suite}")]).current_dir(into);
        Ok(download.stderr(Stdio::null()).status().context("cannot run apt-get")?.success())
    }

    /// The control file of a package or part as a suite describes it, without what is about its archive.
    pub fn description(&self, name: &str, suite: &str) -> Result<String> {
        self.update();
        let text = shell::output(self.command("apt-cache").args(["show", &format!("{name}/{suite}")]))?;
        let of_archive = ["Filename:", "Size:", "MD5sum:", "SHA1:", "SHA256:", "SHA512:", "Description-md5:"];
        let first = text.split("\n\n").next().unwrap_or_default().lines();
        let lines = first.filter(|line| !of_archive.iter().any(|field| line.starts_with(field)));
        Ok(lines.flat_map(|line| [line, "\n"]).collect())
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
