//! `cargo xtask bench`: the same work on the bare host, under QEMU's TCG and under lodge, in turn.
//!
//! Each run of a work boots a machine with Debian's cloud kernel and our root file system and measures, on the host's
//! clock, the time between two lines that the guest prints around it. The bare host runs it in a chroot of the same
//! tree. Runs of the three are interleaved, so that a drifting machine troubles all alike; medians are compared.
//! Results go to `cache/bench.json` and into the table in `docs/performance.md`.

mod works;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use crate::{guests, shell};
use works::WORKS;

/// Options of `bench`.
#[derive(Args)]
pub struct Options {
    /// Runs of each work on each contender
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Only works whose name holds this
    #[arg(long)]
    only: Option<String>,
    /// Leave QEMU out
    #[arg(long)]
    no_qemu: bool,
    /// Give up on a run after so many seconds
    #[arg(long, default_value_t = 300)]
    limit: u64,
}

/// Who runs a work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Contender {
    Native,
    Qemu,
    Lodge,
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Qemu => "qemu-tcg",
            Self::Lodge => "lodge",
        }
    }
}

/// Printed by the guest around the work; the kernel's and init's first words stand for the boot itself.
const BEGIN: &str = "bench: begin";
const END: &str = "bench: end";
const KERNEL: &str = "Linux version";
const INIT: &str = "lodge: init";

/// A work's name for the boot itself.
const BOOT: &str = "kernel start to init";

/// Seconds of every run.
type Results = BTreeMap<(&'static str, Contender), Vec<f64>>;

/// Measures, and writes what came out.
pub fn run(options: &Options) -> Result<()> {
    guests::run(true)?;
    let root = crate::root();
    shell::run(shell::command("cargo", ["build", "--quiet", "--release", "--package", "lodge"]).current_dir(&root))?;
    let mut contenders = vec![Contender::Lodge];
    if !options.no_qemu {
        install_qemu()?;
        contenders.insert(0, Contender::Qemu);
    }
    if shell::is_root() {
        contenders.insert(0, Contender::Native);
    } else {
        eprintln!("bench: the bare host is left out: its chroot needs root");
    }
    let wanted = |name: &str| options.only.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let limit = Duration::from_secs(options.limit);
    let mut results = Results::new();
    for (name, script) in WORKS.iter().filter(|(name, _)| wanted(name)) {
        for _ in 0..options.runs {
            for &contender in &contenders {
                let times =
                    once(contender, script, limit).with_context(|| format!("{name} on {}", contender.name()))?;
                results.entry((name, contender)).or_default().push(times.work);
                if let Some(boot) = times.boot {
                    results.entry((BOOT, contender)).or_default().push(boot);
                }
            }
        }
        print!("{}", table(&results, Some(name)));
    }
    write(&root, &results)
}

/// What one run took, in seconds.
struct Times {
    work: f64,
    boot: Option<f64>,
}

fn once(contender: Contender, script: &str, limit: Duration) -> Result<Times> {
    let script = format!("echo {BEGIN}; {script}; echo {END}");
    let folder = guests::folder();
    let (kernel, initrd) = (folder.join("cloud-amd64/vmlinuz"), folder.join("cloud-amd64/initrd"));
    let image = guests::root_image();
    let append =
        format!("console=ttyS0 earlyprintk=serial loglevel=4 panic=-1 lodge.root=/dev/vda lodge.run=\"{script}\"");
    let mut command = match contender {
        Contender::Native => {
            let mut command = Command::new("chroot");
            command.arg(guests::root_tree()).args(["/bin/sh", "-c", &script]);
            command
        }
        Contender::Qemu => {
            let mut command = Command::new("qemu-system-x86_64");
            command.args(["-accel", "tcg", "-cpu", "max", "-m", "2048", "-nographic", "-no-reboot", "-nodefaults"]);
            command.args(["-serial", "stdio", "-append", &append]);
            command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).arg("-drive");
            command.arg(format!("file={},format=raw,if=virtio,snapshot=on", image.display()));
            command
        }
        Contender::Lodge => {
            let mut command = Command::new(crate::root().join("target/release/lodge"));
            command.args(["run", "--engine", "translator", "--memory", "2G", "--no-reboot", "--append", &append]);
            command.arg("--kernel").arg(kernel).arg("--initrd").arg(initrd).arg("--disk");
            command.arg(format!("{},format=raw,bus=virtio,ephemeral", image.display()));
            command
        }
    };
    let mut moments = moments(&mut command, limit)?;
    let mut take = |text| moments.remove(text);
    let (begin, end) = (take(BEGIN), take(END));
    let boot = take(KERNEL).zip(take(INIT)).map(|(kernel, init)| init - kernel);
    match begin.zip(end) {
        Some((begin, end)) => Ok(Times { work: end - begin, boot }),
        None => bail!("it ended before the work did"),
    }
}

/// Runs a command, and tells when each marker was first printed, in seconds since its start.
fn moments(command: &mut Command, limit: Duration) -> Result<BTreeMap<&'static str, f64>> {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = child.stdout.take().context("no output")?;
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let now = start.elapsed().as_secs_f64();
            if sender.send((now, String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
        }
    });
    let mut found = BTreeMap::new();
    while let Ok((now, line)) = receiver.recv_timeout(limit.saturating_sub(start.elapsed())) {
        // The kernel echoes its command line, which holds the markers too.
        if line.contains("lodge.run=") {
            continue;
        }
        for marker in [BEGIN, END, KERNEL, INIT] {
            if line.contains(marker) {
                found.entry(marker).or_insert(now);
            }
        }
        if found.contains_key(END) {
            break;
        }
    }
    // It may have ended by itself.
    let _ = child.kill();
    child.wait()?;
    drop(receiver);
    if reader.join().is_err() {
        bail!("the reader of its output failed");
    }
    Ok(found)
}

/// Debian's QEMU. Where parts of it come from backports already, the rest has to as well.
fn install_qemu() -> Result<()> {
    if shell::has("qemu-system-x86_64") {
        return Ok(());
    }
    if !shell::is_root() {
        bail!("QEMU is missing; `sudo apt-get install qemu-system-x86` brings it, or leave it out with --no-qemu");
    }
    let install = |more: &[&str]| {
        let mut command = shell::command("apt-get", ["-q", "-y", "--no-install-recommends"]);
        command.args(more).args(["install", "qemu-system-x86"]).env("DEBIAN_FRONTEND", "noninteractive");
        shell::run(&mut command)
    };
    install(&[]).or_else(|_| install(&["-t", "bookworm-backports"]))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => (sorted[length / 2 - 1] + sorted[length / 2]) / 2.0,
    }
}

/// Rows of the table: all, or those of one work.
fn table(results: &Results, only: Option<&str>) -> String {
    let mut names: Vec<_> = results.keys().map(|(name, _)| *name).collect();
    names.dedup();
    let mut text = String::new();
    for name in names.into_iter().filter(|name| only.is_none_or(|only| only == *name)) {
        let of = |contender| results.get(&(name, contender)).map(|values| median(values));
        let (native, qemu, lodge) = (of(Contender::Native), of(Contender::Qemu), of(Contender::Lodge));
        let seconds = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
        let ratio = |a: Option<f64>, b: Option<f64>| a.zip(b).map_or("-".into(), |(a, b)| format!("{:.2}", a / b));
        text += &format!(
            "| {name} | {} | {} | {} | {} | {} |\n",
            seconds(native),
            seconds(qemu),
            seconds(lodge),
            ratio(lodge, native),
            ratio(qemu, lodge)
        );
    }
    text
}

/// Writes the JSON, and the table between its marks.
fn write(root: &Path, results: &Results) -> Result<()> {
    const FROM: &str = "<!-- table -->\n";
    const TO: &str = "<!-- end of table -->";
    let runs: Vec<_> = results
        .iter()
        .map(|((name, contender), seconds)| {
            json!({"work": name, "on": contender.name(), "seconds": seconds, "median": median(seconds)})
        })
        .collect();
    let path: PathBuf = root.join("cache/bench.json");
    fs::write(&path, serde_json::to_string_pretty(&runs)? + "\n")?;
    let page = root.join("docs/performance.md");
    let text = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let Some((before, rest)) = text.split_once(FROM) else { bail!("{} has no mark for the table", page.display()) };
    let Some((_, after)) = rest.split_once(TO) else { bail!("{} has no mark for the table's end", page.display()) };
    let head =
        "| work | native s | QEMU TCG s | lodge s | lodge / native | QEMU / lodge |\n|---|--:|--:|--:|--:|--:|\n";
    fs::write(&page, format!("{before}{FROM}{head}{}{TO}{after}", table(results, None)))?;
    println!("bench: {} and the table in {}", path.display(), page.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn rows_have_ratios_where_both_sides_ran() {
        let mut results = Results::new();
        results.insert(("w", Contender::Lodge), vec![2.0]);
        results.insert(("w", Contender::Qemu), vec![8.0]);
        assert_eq!(table(&results, None), "| w | - | 8.000 | 2.000 | - | 4.00 |\n");
    }

    #[test]
    fn moments_are_taken_from_lines_but_not_from_the_echoed_command() {
        let script = format!("echo lodge.run={END}; echo {BEGIN}; sleep 0.05; echo {END}; exec sleep 60");
        let found = moments(&mut shell::command("sh", ["-c", &script]), Duration::from_secs(30)).unwrap();
        let took = found[END] - found[BEGIN];
        assert!((0.05..20.0).contains(&took), "{took}");
    }
}
