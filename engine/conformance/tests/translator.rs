//! The suite on the translator: one test per case, and one more for each with programs' memory mirrored.

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use lodge_conformance::Case;
use lodge_engine_api::Mirroring;
use lodge_translator::Translator;

/// A process can mirror one guest at a time.
static MIRROR: Mutex<()> = Mutex::new(());

fn run(case: &Case, mirroring: Mirroring) -> Result<(), Failed> {
    lodge_conformance::run(&Translator, case, mirroring).map_err(|failure| Failed::from(failure.to_string()))
}

fn main() -> ExitCode {
    // Starts the program over, before there is a second thread.
    let arena = lodge_arena::enter();
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for case in lodge_conformance::suite() {
        let case = std::sync::Arc::new(case);
        let again = std::sync::Arc::clone(&case);
        let mirrored = Trial::test(format!("mirrored/{}", case.name), move || {
            let _guard = MIRROR.lock().unwrap_or_else(PoisonError::into_inner);
            run(&again, Mirroring::Always)
        });
        trials.push(Trial::test(case.name.clone(), move || run(&case, Mirroring::Never)));
        trials.push(mirrored);
    }
    if let Err(error) = arena {
        trials.push(Trial::test("arena", move || Err(Failed::from(error.to_string()))));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
