//! The suite on the translator: one test per case, and one that runs it twice, with translations kept in between.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use lodge_conformance::Case;
use lodge_engine_api::{KeptCode, Statistics};
use lodge_translator::Translator;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let home = match tempfile::tempdir() {
        Ok(home) => home,
        Err(error) => {
            eprintln!("no folder for translations: {error}");
            return ExitCode::FAILURE;
        }
    };
    let folder = home.path().to_owned();
    let once = lodge_conformance::suite().into_iter().map(|case| {
        Trial::test(case.name.clone(), move || {
            lodge_conformance::run(&Translator, &case).map_err(|failure| Failed::from(failure.to_string()))
        })
    });
    let twice = lodge_conformance::suite().into_iter().enumerate().map(|(number, case)| {
        let kept = KeptCode { folder: folder.clone(), name: number.to_string(), verify: true };
        Trial::test(format!("kept/{}", case.name), move || twice(&case, &kept))
    });
    libtest_mimic::run(&arguments, once.chain(twice).collect()).exit_code()
}

/// Runs a case twice: the second time with what was kept of the first, each block of which is compared with what would
/// be emitted.
fn twice(case: &Case, kept: &KeptCode) -> Result<(), Failed> {
    let run = || lodge_conformance::run_keeping(&Translator, case, Some(kept.clone()));
    let made = |statistics: &Statistics, name| {
        statistics.counters.iter().find(|(counter, _)| *counter == name).map_or(0, |(_, count)| *count)
    };
    let first = run().map_err(|failure| format!("the first time: {failure}"))?;
    let second = run().map_err(|failure| format!("the second time: {failure}"))?;
    if made(&first, "translations") > 0 && made(&second, "translations_loaded") == 0 {
        return Err("the second time nothing was loaded".into());
    }
    Ok(())
}
