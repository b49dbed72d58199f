use super::*;
use crate::answers::tests::{sample, with_key_alone};

#[test]
fn the_kickstart_file_is_this() {
    assert_eq!(kickstart(&sample()), include_str!("expected.ks"));
}

#[test]
fn one_with_a_key_alone_is_locked_and_may_become_root() {
    let text = kickstart(&with_key_alone());
    assert!(text.contains("--groups=wheel --lock\n"), "{text}");
    assert!(text.contains("\nprintf '%s\\n' 'ann ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/ann\n"), "{text}");
}

#[test]
fn sections_are_ended_and_nothing_else_begins_with_a_percent() {
    for answers in [sample(), with_key_alone()] {
        let text = kickstart(&answers);
        let mut open = 0;
        for line in text.lines().filter(|line| line.starts_with('%')) {
            open += if line == "%end" { -1 } else { 1 };
            assert!(open == 0 || open == 1, "{text}");
        }
        assert_eq!(open, 0, "{text}");
    }
}
