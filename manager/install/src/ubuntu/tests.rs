use serde_json::{Value, json};

use super::*;
use crate::answers::tests::{HASH, KEY, sample, with_key_alone};

fn read(answers: &Answers) -> Value {
    let text = user_data(answers).unwrap();
    assert!(text.starts_with("#cloud-config\n"), "{text}");
    serde_saphyr::from_str(&text).unwrap()
}

#[test]
fn the_answers_are_this() {
    let expected = json!({
        "autoinstall": {
            "version": 1,
            "locale": "en_US.UTF-8",
            "keyboard": { "layout": "us" },
            "timezone": "Europe/Berlin",
            "identity": { "hostname": "guest", "username": "ann", "realname": "Ann O'Neill", "password": HASH },
            "ssh": { "install-server": true, "allow-pw": true, "authorized-keys": [KEY] },
            "storage": { "layout": { "name": "direct", "match": { "path": "/dev/vda" } } },
            "apt": { "primary": [{ "arches": ["amd64"], "uri": "http://mirror.example.org/debian" }] },
            "packages": ["vim", "g++"],
            "updates": "security",
            "shutdown": "poweroff",
        }
    });
    assert_eq!(read(&sample()), expected);
}

#[test]
fn texts_stay_texts() {
    // What YAML would take for a boolean, a number, nothing or a list if it were not quoted.
    for name in ["no", "null", "true", "1e3", "0x10", "12", "1", "y"] {
        let mut answers = sample();
        answers.hostname = name.into();
        answers.user.full_name = name.into();
        answers.keyboard = "no".into();
        assert_eq!(answers.problems(), []);
        let found = read(&answers);
        assert_eq!(found["autoinstall"]["identity"]["hostname"], json!(name));
        assert_eq!(found["autoinstall"]["identity"]["realname"], json!(name));
        assert_eq!(found["autoinstall"]["keyboard"]["layout"], json!("no"));
        let meta: Value = serde_saphyr::from_str(&meta_data(&answers)).unwrap();
        assert_eq!(meta["local-hostname"], json!(name));
    }
}

#[test]
fn one_with_a_key_alone_is_locked_and_may_become_root() {
    let found = read(&with_key_alone());
    let found = &found["autoinstall"];
    assert_eq!((&found["identity"]["password"], &found["ssh"]["allow-pw"]), (&json!("!"), &json!(false)));
    let command = "printf '%s\\n' 'ann ALL=(ALL:ALL) NOPASSWD: ALL' > /target/etc/sudoers.d/ann && chmod 440 \
                   /target/etc/sudoers.d/ann";
    assert_eq!(found["late-commands"], json!([["sh", "-c", command]]));
}
