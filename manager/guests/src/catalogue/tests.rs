use std::collections::HashSet;
use std::path::Path;

use super::*;
use crate::{Architecture, Firmware, Unattended};

fn all() -> &'static [Profile] {
    Catalogue::built_in().profiles()
}

#[test]
fn ids_are_words_and_each_is_there_once() {
    let mut seen = HashSet::new();
    for profile in all() {
        let id = &profile.id;
        assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'), "{id}");
        assert!(seen.insert(id), "{id} is there twice");
        assert!(!profile.name.is_empty() && !profile.family.is_empty(), "{id}");
    }
    assert!(all().len() >= 120, "{} profiles", all().len());
}

#[test]
fn what_is_recommended_is_not_less_than_the_minimum() {
    for Profile { id, minimum, recommended, .. } in all() {
        assert!(minimum.memory <= recommended.memory && minimum.memory.bytes() > 0, "{id}: memory");
        assert!(minimum.disk <= recommended.disk, "{id}: disk");
        assert!(minimum.cpus <= recommended.cpus && minimum.cpus > 0, "{id}: cpus");
    }
}

#[test]
fn every_profile_says_what_a_machine_for_it_is_made_of() {
    for profile in all() {
        let id = &profile.id;
        assert!(!profile.architectures.is_empty() && !profile.firmware.is_empty(), "{id}");
        assert!(!profile.disks.is_empty() && !profile.graphics.is_empty() && !profile.pointers.is_empty(), "{id}");
        assert!(profile.source.as_ref().is_some_and(|source| !source.is_empty()), "{id}: where is it from?");
        let lists = [
            profile.architectures.iter().map(|item| item.name()).collect::<Vec<_>>(),
            profile.firmware.iter().map(|item| item.name()).collect(),
            profile.disks.iter().map(|item| item.name()).collect(),
            profile.nics.iter().map(|item| item.name()).collect(),
        ];
        for list in lists {
            let distinct: HashSet<_> = list.iter().collect();
            assert_eq!(distinct.len(), list.len(), "{id}: {list:?}");
        }
        // UEFI here is 64 bits wide.
        let starts_wide = profile.architectures.contains(&Architecture::X86_64);
        assert!(starts_wide || profile.firmware == [Firmware::Bios], "{id}");
    }
}

#[test]
fn dates_are_dates() {
    for profile in all() {
        for date in [&profile.released, &profile.ends].into_iter().flatten() {
            let parts: Vec<u32> = date.split('-').map(|part| part.parse().expect("a number")).collect();
            let [year, month, day] = [parts[0], *parts.get(1).unwrap_or(&1), *parts.get(2).unwrap_or(&1)];
            assert!((1970..2060).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day), "{date}");
            assert_eq!(date.len(), [0, 4, 7, 10][parts.len()], "{}: {date}", profile.id);
        }
        if let (Some(released), Some(ends)) = (&profile.released, &profile.ends) {
            assert!(released < ends, "{}", profile.id);
        }
    }
}

#[test]
fn rules_ask_for_something_and_no_two_profiles_for_the_same() {
    let mut seen = HashSet::new();
    for profile in all() {
        for rule in &profile.media {
            assert!(rule.certainty() > (0, 0), "{}: a rule that always holds", profile.id);
            let text = toml::to_string(rule).unwrap();
            assert!(!text.contains("{version}"), "{}: {text}", profile.id);
            // Labels of Windows are the same for 10 and 11, and for servers from 2016 on.
            let shared = profile.id.starts_with("windows-server-20") || profile.id == "windows-11";
            assert!(seen.insert(text.clone()) || shared, "{}: {text}", profile.id);
        }
    }
}

#[test]
fn what_is_said_to_be_tested_is() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tests");
    for profile in all() {
        match (&profile.proof, profile.support) {
            (Some(proof), Support::Tested) => {
                let (file, test) = proof.split_once("::").expect("FILE::TEST");
                let text = std::fs::read_to_string(tests.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
                assert!(text.contains("#[test]\n") && text.contains(&format!("fn {test}()")), "{proof}");
            }
            (None, Support::Tested) => panic!("{} is tested, and no test is named", profile.id),
            (Some(_), _) => panic!("{} names a test and is not said to be tested", profile.id),
            (None, Support::Broken) => assert!(profile.note.is_some(), "{}: why does it not work?", profile.id),
            (None, Support::Expected) => {}
        }
    }
}

#[test]
fn windows_11_is_known_not_to_work_and_why() {
    let profile = Catalogue::built_in().find("windows-11").unwrap();
    assert_eq!(profile.support, Support::Broken);
    assert!(profile.note.as_ref().unwrap().contains("TPM 2.0 and Secure Boot"));
}

#[test]
fn entries_are_found_and_searched() {
    let catalogue = Catalogue::built_in();
    assert_eq!(catalogue.find("Debian-12").unwrap().unattended, Unattended::Preseed);
    assert!(catalogue.find("debian").is_none());
    let found = |words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        catalogue.search(&words).iter().map(|profile| profile.id.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(found(&["BOOKWORM"]), ["debian-12"]);
    assert_eq!(found(&["server", "2008", "r2"]), ["windows-server-2008-r2"]);
    assert_eq!(found(&["broken"]), ["windows-11"]);
    assert_eq!(found(&[]).len(), catalogue.profiles().len());
    assert!(found(&["no such thing"]).is_empty());
}

#[test]
fn near_misses_are_suggested() {
    let catalogue = Catalogue::built_in();
    assert_eq!(catalogue.suggestions("debain-12")[0], "debian-12");
    assert_eq!(catalogue.suggestions("debian12")[0], "debian-12");
    assert!(catalogue.suggestions("something else entirely").is_empty());
    assert!(catalogue.suggestions(&"x".repeat(100_000)).is_empty());
    assert_eq!(distance("kitten", "sitting"), 3);
}

#[test]
fn an_entry_stands_on_its_familys_defaults() {
    let text = r#"
        family = "F"
        [defaults]
        name = "N"
        architectures = ["i386"]
        minimum = { memory = "1M", disk = "1M" }
        recommended = { memory = "1M", disk = "1M" }
        firmware = ["bios"]
        disks = ["ide"]
        nics = []
        graphics = ["std"]
        pointers = ["ps2"]
        sound = []
        pxe = false
        unattended = "none"
        media = [{ label = 'F {version}' }]
        support = "expected"
        [[guest]]
        id = "f-1.5"
        version = "1.5"
        [[guest]]
        id = "f-2"
        minimum = { memory = "2M", disk = "2M", cpus = 2 }
    "#;
    let catalogue = Catalogue::from_files(&[("f.toml", text)]).unwrap();
    let [first, second] = catalogue.profiles() else { panic!("two entries") };
    assert_eq!((first.family.as_str(), first.minimum.cpus, second.minimum.cpus), ("F", 1, 2));
    let label = first.media[0].label.as_ref().unwrap();
    assert!(label.matches("F 1.5") && !label.matches("F 1x5"), "{label}");
}

#[test]
fn wrong_data_are_told_with_their_place() {
    let told = |text: &str| Catalogue::from_files(&[("f.toml", text)]).unwrap_err().to_string();
    assert!(told("family = ").starts_with("f.toml: "), "{}", told("family = "));
    let text = "family = \"F\"\n[[guest]]\nid = \"x\"\nname = \"N\"\nfrob = 1\n";
    assert!(told(text).starts_with("f.toml: the entry 'x': "), "{}", told(text));
    let text = "family = \"F\"\n[[guest]]\nmedia = [{ label = '(' }]\n";
    assert!(told(text).starts_with("f.toml: the entry 'number 0': "), "{}", told(text));
}
