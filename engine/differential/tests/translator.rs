//! The translator against the host's processor, with a fixed seed.

use lodge_differential::Tester;
use lodge_engine_api::Mirroring;
use lodge_translator::Translator;

/// Cases that a run has; `LODGE_DIFFERENTIAL_CASES` and `LODGE_DIFFERENTIAL_SEED` change what is run.
const CASES: u64 = 100_000;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

// Where a guest program's memory is mirrored, lodge's own has to be out of its way.
lodge_arena::enter_before_main!();

#[test]
fn random_instructions_leave_what_the_host_leaves() {
    compare(Mirroring::Never);
}

#[test]
fn and_so_they_do_where_memory_is_mirrored() {
    lodge_arena::verify().unwrap();
    compare(Mirroring::Always);
}

fn compare(mirroring: Mirroring) {
    let mut tester = Tester::new(&Translator, mirroring, number("LODGE_DIFFERENTIAL_SEED", 1)).unwrap();
    let cases = number("LODGE_DIFFERENTIAL_CASES", CASES);
    let mut found = Vec::new();
    while tester.summary().cases < cases && found.len() < 5 {
        found.extend(tester.batch().unwrap());
    }
    let text: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "{}", text.join("\n"));
    // About half of the cases run to their end; were it much less, they would say little.
    let summary = tester.summary();
    let ended = summary.endings.get(&3).copied().unwrap_or(0);
    assert!(ended * 5 > summary.cases * 2, "only {ended} of {} cases ran to their end", summary.cases);
    assert_eq!(summary.skipped, 0);
}
