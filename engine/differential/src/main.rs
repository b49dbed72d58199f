//! Open-ended differential testing of the translator: `lodge-differential [--mirrored] [CASES [SEED]]`. Without a number
//! of cases it goes on until something differs.

use std::process::ExitCode;
use std::time::Instant;

use lodge_differential::Tester;
use lodge_engine_api::Mirroring;
use lodge_translator::Translator;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut mirroring = Mirroring::Never;
    if arguments.first().is_some_and(|first| first == "--mirrored") {
        arguments.remove(0);
        if let Err(error) = lodge_arena::enter() {
            eprintln!("lodge-differential: {error}");
            return ExitCode::from(5);
        }
        mirroring = Mirroring::Always;
    }
    let mut arguments = arguments.into_iter().map(|argument| argument.parse::<u64>());
    let (cases, seed) = match (arguments.next().transpose(), arguments.next().transpose()) {
        (Ok(cases), Ok(seed)) => (cases, seed.unwrap_or(1)),
        _ => {
            eprintln!("usage: lodge-differential [--mirrored] [CASES [SEED]]: both are numbers");
            return ExitCode::from(2);
        }
    };
    match run(mirroring, cases, seed) {
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

fn run(mirroring: Mirroring, cases: Option<u64>, seed: u64) -> Result<u64, lodge_differential::Error> {
    let mut tester = Tester::new(&Translator, mirroring, seed)?;
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
