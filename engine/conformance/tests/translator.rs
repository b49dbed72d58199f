//! The suite on the translator: each case by itself, with programs' memory mirrored, and twice with translations kept in
//! between.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use lodge_conformance::Case;
use lodge_engine_api::{KeptCode, Mirroring, Statistics};
use lodge_translator::Translator;

const PAGE: usize = 4096;
/// What the pages that no program may reach are filled with.
const OWN: u8 = 0xa5;

/// A process can mirror one guest at a time.
static MIRROR: Mutex<()> = Mutex::new(());

fn main() -> ExitCode {
    // Starts the program over, before there is a second thread.
    let arena = lodge_arena::enter();
    let arguments = Arguments::from_args();
    let home = match tempfile::tempdir() {
        Ok(home) => home,
        Err(error) => {
            eprintln!("no folder for translations: {error}");
            return ExitCode::FAILURE;
        }
    };
    let folder = home.path().to_owned();
    let mut trials = Vec::new();
    for (number, case) in lodge_conformance::suite().into_iter().enumerate() {
        let case = Arc::new(case);
        let name = case.name.clone();
        let mut add = |prefix: &str, run: fn(&Case, KeptCode) -> Result<(), Failed>| {
            let case = Arc::clone(&case);
            let kept = KeptCode { folder: folder.clone(), name: number.to_string(), verify: true };
            trials.push(Trial::test(format!("{prefix}{name}"), move || run(&case, kept)));
        };
        add("", |case, _| once(case, Mirroring::Never));
        add("mirrored/", |case, _| mirrored(case));
        add("kept/", twice);
    }
    let page = own_page();
    for case in lodge_conformance::escapes(page.as_ptr() as u64) {
        let name = format!("mirrored/{}", case.name);
        trials.push(Trial::test(name, move || escape(&case, page)));
    }
    if let Err(error) = arena {
        trials.push(Trial::test("arena", move || Err(Failed::from(error.to_string()))));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn once(case: &Case, mirroring: Mirroring) -> Result<(), Failed> {
    lodge_conformance::run(&Translator, case, mirroring).map_err(|failure| Failed::from(failure.to_string()))
}

fn mirrored(case: &Case) -> Result<(), Failed> {
    let _guard = MIRROR.lock().unwrap_or_else(PoisonError::into_inner);
    lodge_arena::verify().map_err(|error| Failed::from(error.to_string()))?;
    once(case, Mirroring::Always)
}

/// Two pages of this process, filled with [`OWN`], for as long as it runs.
fn own_page() -> &'static [AtomicU8] {
    let all: &'static [AtomicU8] = Vec::leak((0..3 * PAGE).map(|_| AtomicU8::new(OWN)).collect());
    let skip = all.as_ptr().align_offset(PAGE);
    &all[skip..skip + 2 * PAGE]
}

/// Runs a program that has mapped memory where this process has `page`, which must stay as it is.
fn escape(case: &Case, page: &[AtomicU8]) -> Result<(), Failed> {
    let statistics = {
        let _guard = MIRROR.lock().unwrap_or_else(PoisonError::into_inner);
        lodge_arena::verify().map_err(|error| Failed::from(error.to_string()))?;
        lodge_conformance::run_keeping(&Translator, case, Mirroring::Always, None)
            .map_err(|failure| Failed::from(failure.to_string()))?
    };
    if counted(&statistics, "shown") == 0 {
        return Err("the program was not mirrored".into());
    }
    match page.iter().position(|byte| byte.load(Ordering::Relaxed) != OWN) {
        None => Ok(()),
        Some(place) => {
            page.iter().for_each(|byte| byte.store(OWN, Ordering::Relaxed));
            Err(format!("the program has reached the engine's memory, at offset {place:#x}").into())
        }
    }
}

/// A counter at the end of a run.
fn counted(statistics: &Statistics, name: &str) -> u64 {
    statistics.counters.iter().find(|(counter, _)| *counter == name).map_or(0, |(_, count)| *count)
}

/// Runs a case twice: the second time with what was kept of the first, each block of which is compared with what would
/// be emitted.
fn twice(case: &Case, kept: KeptCode) -> Result<(), Failed> {
    let run = || lodge_conformance::run_keeping(&Translator, case, Mirroring::Never, Some(kept.clone()));
    let first = run().map_err(|failure| format!("the first time: {failure}"))?;
    let second = run().map_err(|failure| format!("the second time: {failure}"))?;
    if counted(&first, "translations") > 0 && counted(&second, "translations_loaded") == 0 {
        return Err("the second time nothing was loaded".into());
    }
    Ok(())
}
