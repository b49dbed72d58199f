//! `cargo xtask bench`: the same work on the bare host, under QEMU's TCG and under lodge, in turn.
//!
//! Each contender is started once ([`contender`]) and then waits on its console for the name of a work ([`session`]).
//! So runs of the three are interleaved, a drifting machine troubling all alike, and no run pays for a boot. A work's
//! first run is its cold one and is kept apart; medians of the others are compared ([`results`]). What a work prints has
//! to be the same for all: a fast wrong answer is a failure. A contender that fails, crashes or does not answer in time
//! is started anew for the next work.
//!
//! Works are described in [`suite`], and listed in [`full`] and [`small`]; what they need is built by [`root`].
//! [`machines`] measures what has no script: booting and idling; [`transfers`] what needs somebody on the host. Results go to `cache/bench/*.json`, and, if the
//! measurement was a whole one, into `docs/performance.md` ([`page`]).

mod contender;
mod full;
mod machines;
mod page;
mod results;
mod root;
mod session;
mod small;
mod suite;
mod transfers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::{shell, test};
use contender::{Boots, Contender, Start};
use results::{Measured, Row};
use root::Files;
use session::Session;
use suite::{Doing, Suite, Work};

/// Options of `bench`.
#[derive(Args)]
pub struct Options {
    /// Which works
    #[arg(long, value_enum, default_value = "full")]
    suite: Suite,
    /// Warm runs of each work on each contender, after a cold one [default: 5; 2 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Only works whose name or class holds this
    #[arg(long)]
    only: Option<String>,
    /// Ten minutes' worth: one work or two of each row, two warm runs, but one for who is slow
    #[arg(long)]
    quick: bool,
    /// Leave QEMU out
    #[arg(long)]
    no_qemu: bool,
    /// Also tell lodge's counters for one run of each work, in the JSON
    #[arg(long)]
    counters: bool,
    /// Give up on a run after so many seconds
    #[arg(long, default_value_t = 180)]
    limit: u64,
}

/// Runs that make a measurement fit for the page.
const ENOUGH_RUNS: u32 = 5;
/// Longest boot.
const BOOT: Duration = Duration::from_secs(120);

/// Measures, and writes what came out.
pub fn run(options: &Options) -> Result<()> {
    test::install_what_is_needed()?;
    let contenders = contenders(options)?;
    let works = wanted(options)?;
    let files = root::build(&works)?;
    let mut bench = Bench::new(options, contenders, files)?;
    let mut rows = Vec::new();
    for work in &works {
        let row = bench.measure(work);
        print!("{}", page::line(&row));
        for (contender, measured) in &row.by {
            if let Some(why) = &measured.failure {
                eprintln!("bench: {} on {}: {why}", work.key, contender.name());
            }
        }
        rows.push(row);
        // As it goes: what is there is not lost if somebody stops it.
        bench.write_json(options, &rows)?;
    }
    bench.sessions.clear();
    if options.counters {
        for row in &mut rows {
            row.counters = bench.counters(&row.work).unwrap_or_else(|error| Some(json!(format!("{error:#}"))));
        }
        bench.write_json(options, &rows)?;
    }
    rows.sort_by_key(|row| row.work.row);
    let tables = page::tables(options.suite, &rows);
    println!("\n{tables}\nbench: {}", bench.json_path(options).display());
    let whole = options.only.is_none() && !options.quick && bench.runs >= ENOUGH_RUNS && bench.contenders.len() == 3;
    if whole {
        let page = crate::root().join("docs/performance.md");
        page::write(&page, options.suite, &format!("{}\n{tables}", bench.introduction()))?;
        println!("bench: the tables are in {}", page.display());
    } else {
        println!("bench: docs/performance.md stays as it is: it takes whole measurements of {ENOUGH_RUNS} runs only");
    }
    Ok(())
}

/// Who takes part.
fn contenders(options: &Options) -> Result<Vec<Contender>> {
    let mut contenders = Vec::new();
    for contender in Contender::ALL {
        match contender {
            Contender::Native if !shell::is_root() => {
                eprintln!("bench: the bare host is left out: its chroot needs root");
            }
            Contender::Qemu if options.no_qemu => {}
            Contender::Qemu => {
                install_qemu()?;
                contenders.push(contender);
            }
            Contender::Native | Contender::Lodge => contenders.push(contender),
        }
    }
    Ok(contenders)
}

/// The works that are asked for: those for one processor first, so that few machines run at a time.
fn wanted(options: &Options) -> Result<Vec<Work>> {
    let is_wanted = |work: &&Work| {
        (work.quick || !options.quick) && options.only.as_ref().is_none_or(|part| work.is_meant_by(part))
    };
    let mut works: Vec<_> = options.suite.works().iter().filter(is_wanted).copied().collect();
    if works.is_empty() {
        bail!("no work of the {} suite is meant by that", options.suite.name());
    }
    works.sort_by_key(|work| (!matches!(work.doing, Doing::Script { .. }), work.cpus, work.row));
    Ok(works)
}

/// A bench under way.
struct Bench {
    contenders: Vec<Contender>,
    files: Files,
    sessions: BTreeMap<(Contender, u32), Session>,
    runs: u32,
    limit: Duration,
    /// Who takes longer than this, in seconds, gets one warm run only.
    patience: Option<f64>,
    /// The host's processor that works for one run on.
    pin: Option<u32>,
    /// Seconds over which idling is measured.
    idle: u64,
    about: Value,
}

impl Bench {
    fn new(options: &Options, contenders: Vec<Contender>, files: Files) -> Result<Self> {
        let processors = contender::processors();
        let pin = processors.last().copied();
        if let Some(pin) = pin {
            contender::keep_off(&processors, pin)?;
        }
        let consoles = files.folder.join("console");
        if consoles.exists() {
            fs::remove_dir_all(&consoles)?;
        }
        fs::create_dir_all(&consoles)?;
        let runs = options.runs.unwrap_or(if options.quick { 2 } else { ENOUGH_RUNS });
        let about = about(&contenders, &files, runs, processors.len(), pin)?;
        Ok(Self {
            contenders,
            files,
            sessions: BTreeMap::new(),
            runs,
            limit: Duration::from_secs(options.limit),
            patience: options.quick.then_some(3.0),
            pin,
            idle: if options.quick { 10 } else { 30 },
            about,
        })
    }

    /// Runs one work as often as it takes.
    fn measure(&mut self, work: &Work) -> Row {
        self.sessions.retain(|(_, cpus), _| *cpus == work.cpus && matches!(work.doing, Doing::Script { .. }));
        let mut row = Row::new(*work);
        let takes_part = |contender: &Contender| work.native || *contender != Contender::Native;
        for contender in self.contenders.clone().into_iter().filter(takes_part) {
            row.by.insert(contender, Measured::default());
        }
        match work.doing {
            Doing::Script { .. } => self.scripts(work, &mut row),
            Doing::Transfer { back } => self.transfers(back, &mut row),
            Doing::Boot { to_end } => self.boots(to_end, &mut row),
            Doing::Firmware => self.firmware(&mut row),
            Doing::Idle { append } => self.idles(append, &mut row),
        }
        row
    }

    /// The runs of a script, in turn.
    fn scripts(&mut self, work: &Work, row: &mut Row) {
        for (&contender, measured) in &mut row.by {
            let set_up = self.session(contender, work.cpus).and_then(|(session, limit)| {
                session.order("setup", work.key, limit)?;
                Ok(())
            });
            self.note(contender, work.cpus, set_up, measured);
        }
        let mut expected: Option<(Contender, String)> = None;
        for run in 0..=self.runs {
            for (&contender, measured) in &mut row.by {
                let is_slow = measured.cold.zip(self.patience).is_some_and(|(cold, patience)| cold > patience);
                if measured.failure.is_some() || (is_slow && !measured.warm.is_empty()) {
                    continue;
                }
                let ran = self.session(contender, work.cpus).and_then(|(session, limit)| {
                    let reply = session.order("run", work.key, limit)?;
                    let (who, answer) = expected.get_or_insert_with(|| (contender, reply.answer.clone()));
                    if *answer != reply.answer {
                        bail!("wrong answer: checksum {}, and {} on {}", reply.answer, answer, who.name());
                    }
                    if run == 0 {
                        measured.cold = Some(reply.seconds);
                    } else {
                        measured.warm.push(reply.seconds);
                    }
                    Ok(())
                });
                self.note(contender, work.cpus, ran, measured);
            }
        }
    }

    /// After a failure the contender is not to be trusted: it is started anew when it is next wanted.
    fn note(&mut self, contender: Contender, cpus: u32, result: Result<()>, measured: &mut Measured) {
        if let Err(error) = result {
            measured.failure = Some(format!("{error:#}"));
            self.sessions.remove(&(contender, cpus));
        }
    }

    /// A contender that waits for orders, and how long it may take over one.
    fn session(&mut self, contender: Contender, cpus: u32) -> Result<(&mut Session, Duration)> {
        if !self.sessions.contains_key(&(contender, cpus)) {
            let session = self.start_serving(contender, cpus, None)?;
            self.sessions.insert((contender, cpus), session);
        }
        let session = self.sessions.get_mut(&(contender, cpus)).context("it was just started")?;
        Ok((session, self.limit))
    }

    fn start_serving(&self, contender: Contender, cpus: u32, report: Option<PathBuf>) -> Result<Session> {
        let pin = self.pin.filter(|_| cpus == 1);
        let start = Start { cpus, pin, boots: Boots::Serve, append: "", report, forward: None };
        let mut session = Session::start(start.command(contender, &self.files), &self.log(contender))?;
        session.ready(BOOT)?;
        Ok(session)
    }

    fn log(&self, contender: Contender) -> PathBuf {
        self.files.folder.join(format!("console/{}.log", contender.name()))
    }

    /// lodge's counters for one warm run: of a machine that does the work three times, less those of one that does it
    /// once, by two.
    fn counters(&self, work: &Work) -> Result<Option<Value>> {
        if !matches!(work.doing, Doing::Script { .. }) {
            return Ok(None);
        }
        let report = |runs: u32| -> Result<Value> {
            let path = self.files.folder.join("report.json");
            let mut session = self.start_serving(Contender::Lodge, work.cpus, Some(path.clone()))?;
            session.order("setup", work.key, self.limit)?;
            for _ in 0..runs {
                session.order("run", work.key, self.limit)?;
            }
            session.quit()?;
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(serde_json::from_str(&text)?)
        };
        let (few, many) = (report(1)?, report(3)?);
        let per_run = |group: &str| -> Result<Value> {
            let counters = many[group].as_object().with_context(|| format!("the report has no {group}"))?;
            let difference = counters.iter().map(|(name, many)| {
                let few = few[group][name].as_f64().unwrap_or(0.0);
                (name.clone(), json!((many.as_f64().unwrap_or(0.0) - few) / 2.0))
            });
            Ok(Value::Object(difference.collect()))
        };
        const HELPED: &str = "helped_instructions";
        Ok(Some(json!({"counters": per_run("counters")?, HELPED: per_run(HELPED)?})))
    }

    fn json_path(&self, options: &Options) -> PathBuf {
        let part = if options.quick { "-quick" } else { "" };
        self.files.folder.join(format!("{}{part}.json", options.suite.name()))
    }

    fn write_json(&self, options: &Options, rows: &[Row]) -> Result<()> {
        let text = serde_json::to_string_pretty(&results::json(rows, &self.about))? + "\n";
        let path = self.json_path(options);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What stands before the tables: on what they were measured.
    fn introduction(&self) -> String {
        let about = |name: &str| self.about[name].as_str().unwrap_or("unknown").to_owned();
        format!(
            "Measured on {}, on {} ({} processors, Linux {}), with {}; medians of {} warm runs.\n",
            about("date"),
            about("processor"),
            self.about["processors"],
            about("kernel"),
            about("qemu"),
            self.runs
        )
    }
}

/// What is to be known of the host and the contenders.
fn about(contenders: &[Contender], files: &Files, runs: u32, processors: usize, pin: Option<u32>) -> Result<Value> {
    let first = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.rsplit_once(": ").map_or(line, |(_, value)| value).to_owned()
    };
    let git = shell::output(shell::command("git", ["describe", "--always", "--dirty"]).current_dir(crate::root()));
    let qemu = contenders.contains(&Contender::Qemu).then(|| contender::version(Path::new("qemu-system-x86_64")));
    Ok(json!({
        "date": shell::output(&mut shell::command("date", ["--utc", "+%Y-%m-%d"]))?.trim(),
        "processor": first("/proc/cpuinfo", "model name"),
        "processors": processors,
        "kernel": first("/proc/sys/kernel/osrelease", ""),
        "load_before": first("/proc/loadavg", ""),
        "pinned_to": pin,
        "runs": runs,
        "qemu": qemu,
        "lodge": contender::version(&files.lodge),
        "source": git.unwrap_or_default().trim(),
    }))
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
