use super::*;
use crate::answers::tests::{KEY, sample, with_key_alone};

#[test]
fn the_preseed_file_is_this() {
    assert_eq!(preseed(&sample()), include_str!("expected.cfg"));
}

#[test]
fn every_line_is_a_question_with_type_and_value() {
    for line in preseed(&with_key_alone()).lines().skip(1) {
        let mut words = line.split(' ');
        let (owner, question, kind) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        assert!(["d-i", "tasksel", "popularity-contest"].contains(&owner), "{line}");
        assert!(question.contains('/'), "{line}");
        assert!(["string", "boolean", "select", "multiselect", "password", "note"].contains(&kind), "{line}");
    }
}

#[test]
fn one_with_a_key_alone_is_locked_and_may_become_root() {
    let answers = with_key_alone();
    assert!(preseed(&answers).contains("\nd-i passwd/user-password-crypted password !\n"));
    assert_eq!(sudoers(&answers), "ann ALL=(ALL:ALL) NOPASSWD: ALL\n");
    assert_eq!(sudoers(&sample()), "");
}

#[test]
fn without_a_poweroff_it_reboots() {
    let mut answers = sample();
    answers.finish = Finish::Reboot;
    assert!(!preseed(&answers).contains("exit/poweroff"));
}

#[test]
fn the_archive_has_the_answers_at_its_root_and_the_script_beside_them() {
    let archive = archive(&sample());
    let files: Vec<_> = archive.files().map(|(path, _)| path).collect();
    assert_eq!(files, ["preseed.cfg", "lodge/log", "lodge/finish", "lodge/authorized_keys", "lodge/sudoers"]);
    let text = |wanted: &str| {
        let (_, data) = archive.files().find(|(path, _)| *path == wanted).unwrap();
        String::from_utf8(data.to_vec()).unwrap()
    };
    assert_eq!(text("lodge/authorized_keys"), format!("{KEY}\n"));
    assert!(text("lodge/finish").contains("cp /lodge/authorized_keys /target/home/ann/.ssh/authorized_keys\n"));
}
