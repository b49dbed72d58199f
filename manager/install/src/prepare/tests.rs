use lodge_guests::Catalogue;
use proptest::prelude::*;

use super::*;
use crate::answers::tests::{for_windows, sample};

fn prepared(id: &str, answers: &Answers) -> Result<Prepared, PrepareError> {
    let profile = Catalogue::built_in().find(id).unwrap();
    prepare(profile, answers, profile.firmware[0])
}

#[test]
fn each_installer_gets_its_answers_where_it_looks() {
    let debian = prepared("debian-12", &sample()).unwrap();
    assert!(matches!(&debian.carrier, Carrier::Initrd(archive) if archive.files().next().unwrap().0 == "preseed.cfg"));
    assert!(debian.kernel_parameters.contains("auto=true"));
    let mut more = sample();
    more.kernel_parameters = "a/b=c net.ifnames=0".into();
    // What is behind the dashes is the installed system's.
    let told = prepared("debian-12", &more).unwrap().kernel_parameters;
    assert!(told.contains(" a/b=c net.ifnames=0 --- console=ttyS0") && !told.contains("  "), "{told}");
    more.kernel_parameters = "a;b".into();
    assert!(matches!(prepared("fedora-43", &more), Err(PrepareError::Answers(_))));
    let label = |id: &str| match prepared(id, &sample()).unwrap().carrier {
        Carrier::Disk(volume) => volume.label,
        other => panic!("{id}: {other:?}"),
    };
    assert_eq!(["ubuntu-24.04", "fedora-43", "rocky-9"].map(label), ["CIDATA", "OEMDRV", "OEMDRV"]);
    assert!(matches!(prepared("windows-10", &for_windows()).unwrap().carrier, Carrier::Floppy(_)));
}

#[test]
fn every_profile_with_a_method_can_be_answered() {
    for profile in Catalogue::built_in().profiles() {
        let answers = if profile.unattended == Unattended::Autounattend { for_windows() } else { sample() };
        match (profile.unattended, prepare(profile, &answers, profile.firmware[0])) {
            (Unattended::None, Err(PrepareError::NoMethod(_))) | (_, Ok(_)) => {}
            (method, result) => panic!("{}, {method}: {result:?}", profile.id),
        }
    }
}

#[test]
fn all_wrong_answers_are_named_in_one_line() {
    let mut answers = sample();
    (answers.hostname, answers.keyboard) = ("a\nb".into(), "\"".into());
    let error = prepared("debian-12", &answers).unwrap_err().to_string();
    assert!(error.contains("the host name") && error.contains("; the keyboard") && !error.contains('\n'), "{error}");
    assert!(matches!(prepared("freebsd-14", &sample()), Err(PrepareError::NoMethod(_))));
}

#[test]
fn keys_and_packages_without_end_are_refused() {
    let mut answers = sample();
    answers.user.ssh_keys = vec![crate::answers::tests::KEY.into(); 20_000];
    answers.packages = vec!["vim".into(); 257];
    assert_eq!(
        prepared("ubuntu-24.04", &answers).unwrap_err().to_string(),
        "20000 public keys are too many; give up to 256; 257 packages are too many; give up to 256"
    );
    // As long as all may be, they are too long for a volume, and no trouble for an archive.
    answers.packages.clear();
    answers.user.ssh_keys = vec![format!("ssh-rsa {}", "A".repeat(9_900)); 256];
    let error = prepared("ubuntu-24.04", &answers).unwrap_err();
    assert!(matches!(error, PrepareError::Carrier(CarrierError::TooLong { .. })), "{error}");
    assert!(prepared("debian-12", &answers).is_ok());
}

proptest! {
    /// Whatever the answers are: what is prepared has as many lines as it has with plain ones, so that none became two.
    #[test]
    fn no_value_becomes_more_than_a_value(
        hostname in "\\PC{0,20}|[a-z\\n\"'$]{0,12}",
        full_name in "\\PC{0,20}|[a-zA-Z .'\\n\"\\\\-]{0,12}",
        package in "[a-z0-9+.%\\n -]{0,12}",
    ) {
        let lines = |answers: &Answers| {
            let kickstart = crate::anaconda::kickstart(answers);
            [crate::debian::preseed(answers).lines().count(), kickstart.lines().count()]
        };
        let mut answers = sample();
        (answers.hostname, answers.user.full_name) = (hostname, full_name);
        answers.packages = vec!["vim".into(), package];
        if prepared("debian-12", &answers).is_ok() {
            prop_assert_eq!(lines(&answers), lines(&sample()));
        }
    }
}
