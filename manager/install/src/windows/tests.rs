use quick_xml::Reader;

use super::*;
use crate::answers::tests::{for_windows, sample};

fn file(firmware: Firmware) -> String {
    answer_file(&for_windows(), firmware, Architecture::X86_64).unwrap()
}

#[test]
fn the_answer_file_is_this() {
    assert_eq!(file(Firmware::Uefi), include_str!("expected.xml").trim_end());
}

#[test]
fn it_is_well_formed_and_values_are_quoted() {
    for firmware in [Firmware::Uefi, Firmware::Bios] {
        let text = file(firmware);
        let mut reader = Reader::from_str(&text);
        let mut depth = 0;
        loop {
            match reader.read_event().unwrap() {
                Event::Start(_) => depth += 1,
                Event::End(_) => depth -= 1,
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(depth, 0);
        assert!(text.contains("<Value>a&lt;b&gt;&amp;&quot;c&apos;d]]&gt;</Value>"), "{text}");
    }
}

#[test]
fn partitions_are_those_of_the_firmware() {
    let (uefi, bios) = (file(Firmware::Uefi), file(Firmware::Bios));
    assert!(uefi.contains("<Type>EFI</Type>") && uefi.contains("<PartitionID>3</PartitionID>"));
    assert!(!bios.contains("EFI</Type>") && bios.contains("<Active>true</Active>") && !uefi.contains("<Active>"));
    let text = answer_file(&for_windows(), Firmware::Bios, Architecture::I386).unwrap();
    assert!(text.contains("processorArchitecture=\"x86\""));
}

#[test]
fn what_windows_does_not_take_is_named() {
    let mut answers = sample();
    answers.timezone = "Antarctica/Troll".into();
    answers.hostname = "a-name-that-is-too-long".into();
    let found: Vec<_> = problems(&answers).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "the host name 'a-name-that-is-too-long' is not a name for Windows: up to 15 characters, not digits alone",
            "Windows' installer takes no hash of a password; give the password itself",
            "Windows' installer takes no public keys for SSH; give a password",
            "Windows' installer takes no packages; give none",
            "Windows' installer takes no mirror; give none",
            "no name that Windows has is known for the time zone 'Antarctica/Troll'; use UTC",
        ]
    );
    assert_eq!(problems(&for_windows()), []);
    let mut first = for_windows();
    first.windows.image = 0;
    assert_eq!(problems(&first).len(), 1);
    answers.timezone = "A\nB".into();
    answers.hostname = "\u{1b}[2J".into();
    assert!(problems(&answers).iter().all(|problem| !problem.to_string().contains(char::is_control)));
}
