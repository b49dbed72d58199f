//! Open-ended differential testing of the translator: `lodge-differential [CASES [SEED]]`. Without a number of cases
//! it goes on until something differs.

use std::process::ExitCode;
use std::time::Instant;

use lodge_differential::Tester;
use lodge_translator::Translator;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (cases, seed) = match (arguments.next().transpose(), arguments.next().transpose()) {
        (Ok(cases), Ok(seed)) => (cases, seed.unwrap_or(1)),
        _ => {
            eprintln!("usage: lodge-differential [CASES [SEED]]: both are numbers");
            return ExitCode::from(2);
        }
    };
    match run(cases, seed) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lodge-differential: {error}");
            ExitCode::from(5)
        }
    }
}

/// How many mismatches end a run.
const ENOUGH: u64 = 20;

fn run(cases: Option<u64>, seed: u64) -> Result<u64, lodge_differential::Error> {
    let mut tester = Tester::new(&Translator, seed)?;
    println!("seed {seed}, {} instruction codes", tester.codes());
    let begin = Instant::now();
    let (mut mismatches, mut told) = (0, 0);
    while cases.is_none_or(|cases| tester.summary().cases < cases) && mismatches < ENOUGH {
        for mismatch in tester.batch()? {
            println!("{mismatch}");
            mismatches += 1;
        }
        let summary = tester.summary();
        if summary.cases - told >= 1 << 20 {
            told = summary.cases;
            println!("{told} cases, {:.0} a second", told as f64 / begin.elapsed().as_secs_f64());
        }
    }
    let summary = tester.summary();
    println!(
        "{} cases in {:.1} s ({} skipped); {mismatches} differ; native endings by vector: {:?}",
        summary.cases,
        begin.elapsed().as_secs_f64(),
        summary.skipped,
        summary.endings
    );
    Ok(mismatches)
}
