//! The suite on the translator: one test per case.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use lodge_translator::Translator;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = lodge_conformance::suite()
        .into_iter()
        .map(|case| {
            Trial::test(case.name.clone(), move || {
                lodge_conformance::run(&Translator, &case).map_err(|failure| Failed::from(failure.to_string()))
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
