//! The test harness itself runs in the arena, and so do its tests' threads.

lodge_arena::enter_before_main!();
// UNSAFETY: the macro names the section of functions that are called before `main`.

#[test]
fn tests_run_in_the_arena() {
    assert!(lodge_arena::inside());
    lodge_arena::verify().unwrap();
    let local = 0_u8;
    assert!(lodge_arena::USABLE.contains(&(std::ptr::from_ref(&local) as u64)));
}

#[test]
fn arguments_are_kept() {
    assert!(std::env::args().next().is_some_and(|name| name.contains("before_main")));
    assert_eq!(std::env::current_exe().unwrap(), std::fs::read_link("/proc/self/exe").unwrap());
}

#[test]
#[should_panic(expected = "as it should")]
fn panics_are_caught() {
    panic!("as it should");
}

#[test]
fn entering_again_says_inside() {
    assert_eq!(lodge_arena::enter().unwrap(), lodge_arena::Entered::Inside);
    lodge_arena::examine().unwrap();
}
