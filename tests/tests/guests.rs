//! `lodge guests` on discs and floppies as they are published.

use std::ffi::OsString;

use lodge_tests::{guest, lodge_with};

fn detect(file: &str) -> (i32, String) {
    lodge_with([OsString::from("guests"), "detect".into(), guest(file).into()])
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn published_media_are_recognised() {
    for (file, id, reason) in [
        ("media/memtest86+.iso", "memtest86plus", "the volume is labelled 'MT86PLUS"),
        ("media/grub-rescue.iso", "grub-rescue", "there is boot/grub"),
        ("media/grub-rescue.img", "grub-rescue", "there is boot/grub"),
        ("media/ipxe.iso", "ipxe", "its application identifier is 'IPXE"),
    ] {
        let (status, output) = detect(file);
        assert_eq!(status, 0, "{file}: {output}");
        assert!(output.starts_with(&format!("{id}  ")) && output.contains(reason), "{file}: {output}");
    }
}

#[test]
#[ignore = "runs the built command: run by `cargo xtask test`"]
fn what_is_not_known_is_one_error() {
    for (file, cause) in [
        ("media/isolinux.iso", "was not recognised: it is a disc labelled 'ISOIMAGE' that a BIOS can start"),
        ("cloud-amd64/vmlinuz", "it is not the image of a disc or floppy"),
    ] {
        let (status, output) = detect(file);
        assert_eq!(status, 2, "{file}: {output}");
        assert!(output.contains(cause) && output.lines().count() == 1, "{file}: {output}");
    }
}
