use std::os::unix::fs::PermissionsExt;

use super::protocol::{Hello, Refusal, decode, encode};
use super::{Place, PlaceError};
use crate::MacAddress;

#[test]
fn hellos_and_answers_are_read_as_they_were_written() {
    for (spoof, nat) in [(false, false), (true, false), (false, true), (true, true)] {
        let hello = Hello { mac: MacAddress([2, 1, 2, 3, 4, 5]), spoof, nat };
        let packet = hello.encode();
        assert_eq!(Hello::decode(&packet), Ok(hello));
        for (at, value) in [(0, b'L'), (8, 9), (9, 1), (10, 4), (11, 1), (12, 3)] {
            let mut other = packet;
            other[at] = value;
            assert_eq!(Hello::decode(&other), Err(Refusal::Version), "byte {at}");
        }
        assert!(Hello::decode(&packet[1..]).is_err() && Hello::decode(&[&packet[..], &[0]].concat()).is_err());
    }
    use Refusal::*;
    for answer in [Ok(()), Err(Version), Err(MacTaken), Err(NatDiffers), Err(Full), Err(NoNat)] {
        assert_eq!(decode(&encode(answer)), Some(answer));
    }
    assert_eq!(decode(&[]), None);
}

#[test]
fn a_place_is_ones_own() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path().join("lodge");
    let place = Place::within(&base, "lab_2").unwrap();
    assert_eq!(Place::within(&base, "lab_2").unwrap(), place);
    assert_eq!(place.socket(), base.join("switch/lab_2"));
    let long = "x".repeat(33);
    for name in ["", ".", "..", "a/b", "a.lock", "caf\u{e9}", "a b", &long] {
        assert!(matches!(Place::within(&base, name), Err(PlaceError::Name(_))), "{name}");
    }
    std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(Place::within(&base, "lab"), Err(PlaceError::Folder(_))));
    let link = base.with_file_name("link");
    std::os::unix::fs::symlink(&base, &link).unwrap();
    assert!(matches!(Place::within(&link, "lab"), Err(PlaceError::Folder(_))));
}
