use super::*;

/// A hash as `openssl passwd -6` prints it.
pub const HASH: &str =
    "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/";
/// A public key.
pub const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE ann@home";

/// Answers with all that a Linux takes.
pub fn sample() -> Answers {
    Answers {
        hostname: "guest".into(),
        user: User {
            name: "ann".into(),
            full_name: "Ann O'Neill".into(),
            password_hash: Some(HASH.into()),
            ssh_keys: vec![KEY.into()],
        },
        locale: "en_US.UTF-8".into(),
        keyboard: "us".into(),
        timezone: "Europe/Berlin".into(),
        disk: "/dev/vda".into(),
        mirror: Some(Mirror { host: "mirror.example.org".into(), folder: "/debian".into() }),
        packages: vec!["vim".into(), "g++".into()],
        kernel_parameters: String::new(),
        finish: Finish::PowerOff,
        windows: WindowsAnswers::default(),
    }
}

/// Answers of one who has a key and no password.
pub fn with_key_alone() -> Answers {
    let mut answers = sample();
    answers.user.password_hash = None;
    answers
}

/// Answers for Windows, with a password that XML has to quote.
pub fn for_windows() -> Answers {
    let mut answers = sample();
    answers.user.password_hash = None;
    answers.user.ssh_keys.clear();
    answers.mirror = None;
    answers.packages.clear();
    answers.windows.password = Some("a<b>&\"c'd]]>".into());
    answers
}

/// Puts a text in the place of each answer in turn; what is found wrong.
fn with_each(text: &str) -> Vec<(&'static str, Vec<AnswerError>)> {
    let place = |what, change: &dyn Fn(&mut Answers, String)| {
        let mut answers = sample();
        change(&mut answers, text.to_owned());
        (what, answers.problems())
    };
    vec![
        place("host name", &|answers, text| answers.hostname = text),
        place("user", &|answers, text| answers.user.name = text),
        place("full name", &|answers, text| answers.user.full_name = text),
        place("hash", &|answers, text| answers.user.password_hash = Some(text)),
        place("key", &|answers, text| answers.user.ssh_keys = vec![text]),
        place("locale", &|answers, text| answers.locale = text),
        place("keyboard", &|answers, text| answers.keyboard = text),
        place("time zone", &|answers, text| answers.timezone = text),
        place("disk", &|answers, text| answers.disk = text),
        place("host", &|answers, text| answers.mirror = Some(Mirror { host: text, folder: "/x".into() })),
        place("folder", &|answers, text| answers.mirror = Some(Mirror { host: "x".into(), folder: text })),
        place("package", &|answers, text| answers.packages = vec![text]),
        place("product key", &|answers, text| answers.windows.product_key = Some(text)),
    ]
}

#[test]
fn plain_answers_are_taken() {
    assert_eq!(sample().problems_on_linux(), []);
    assert_eq!(with_key_alone().problems_on_linux(), []);
    let mut answers = sample();
    answers.user.full_name = String::new();
    answers.locale = "de_DE".into();
    answers.timezone = "America/Argentina/Buenos_Aires".into();
    answers.user.full_name = "Jürgen Ångström Jr.".into();
    answers.mirror = Some(Mirror { host: "10.0.2.2:8080".into(), folder: "/debian/".into() });
    assert_eq!(answers.problems(), []);
}

#[test]
fn what_means_something_in_a_format_is_refused_everywhere() {
    for text in [
        "x\nd-i preseed/late_command string reboot",
        "x\ry",
        "x\\",
        "x\"y",
        "$(reboot)",
        "`reboot`",
        "x;reboot",
        "x|y",
        "x&y",
        "x<y",
        "x: y #",
        "{x: y}",
        "%include /x",
        "\u{202e}x",
        "x\0",
        " x",
        "-x",
        "",
    ] {
        for (what, problems) in with_each(text) {
            let may_be_empty = text.is_empty() && what == "full name";
            assert_eq!(problems.is_empty(), may_be_empty, "{what}: {text:?}: {problems:?}");
        }
    }
    for (what, problems) in with_each(&"x".repeat(100_000)) {
        assert!(!problems.is_empty(), "{what} may be as long as one likes");
    }
}

#[test]
fn passwords_for_windows_may_hold_what_xml_quotes_but_no_line_ends() {
    assert_eq!(for_windows().problems(), []);
    let mut answers = for_windows();
    answers.windows.password = Some("a\nb".into());
    let problems = answers.problems();
    assert!(matches!(problems.as_slice(), [AnswerError::Secret { .. }]), "{problems:?}");
    assert!(!format!("{answers:?} {}", problems[0]).contains('\n'), "a secret is shown");
}

#[test]
fn secrets_are_not_shown() {
    let mut answers = sample();
    assert!(!format!("{answers:?}").contains(HASH));
    answers.user.password_hash = Some("secret".into());
    let problems = answers.problems();
    assert!(matches!(problems.as_slice(), [AnswerError::Secret { .. }]));
    assert!(!problems[0].to_string().contains("secret"), "{}", problems[0]);
}

#[test]
fn somebody_has_to_be_able_to_log_in() {
    let mut answers = with_key_alone();
    answers.user.ssh_keys.clear();
    assert_eq!(answers.problems_on_linux(), [AnswerError::NoLogin]);
    answers.user.name = "root".into();
    assert_eq!(answers.problems().len(), 1);
}

#[test]
fn errors_name_the_answer_and_what_it_should_be() {
    let mut answers = sample();
    answers.hostname = "my\nhost".into();
    assert_eq!(
        answers.problems()[0].to_string(),
        "the host name 'my\u{fffd}host' is not up to 63 letters, digits and, within, hyphens (RFC 1123, 2.1)"
    );
}
