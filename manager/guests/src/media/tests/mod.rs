//! Images made here, known ones and hostile ones. `tests/tests/guests.rs` tries real ones.

mod images;

use proptest::prelude::*;

use super::{Kind, MediaError, detect};
use crate::{Catalogue, Detection};
use images::{IsoImage, floppy, udf, windows_image};

fn look(image: &[u8]) -> Result<Detection<'static>, MediaError> {
    detect(&image.to_vec(), Catalogue::built_in())
}

/// The ids that an image is recognised as.
fn ids(image: &[u8]) -> Vec<&'static str> {
    look(image).unwrap().profiles.iter().map(|profile| profile.id.as_str()).collect()
}

fn labelled(label: &str) -> IsoImage {
    IsoImage { label: label.into(), ..IsoImage::default() }
}

#[test]
fn labels_of_published_discs_are_recognised() {
    for (label, id) in [
        ("Debian 12.5.0 amd64 n", "debian-12"),
        ("Debian 13.1.0 amd64 1", "debian-13"),
        ("Debian 9.13.0 i386 n", "debian-9"),
        ("d-live 12.5.0 gn amd64", "debian-12"),
        ("Ubuntu-Server 22.04.3 LTS amd64", "ubuntu-22.04"),
        ("Ubuntu 24.04.1 LTS amd64", "ubuntu-24.04"),
        ("Fedora-S-dvd-x86_64-40", "fedora-40"),
        ("Fedora-WS-Live-43-1-6", "fedora-43"),
        ("AlmaLinux-9-3-x86_64-dvd", "almalinux-9"),
        ("Rocky-8-10-x86_64-dvd", "rocky-8"),
        ("CentOS-Stream-9-BaseOS-x86_64", "centos-stream-9"),
        ("RHEL-9-4-0-BaseOS-x86_64", "rhel-9"),
        ("openSUSE-Leap-15.6-DVD-x86_64710", "opensuse-15.6"),
        ("ARCH_202406", "archlinux"),
        ("alpine-std 3.20.1 x86_64", "alpine-3.20"),
        ("nixos-minimal-24.05-x86_64", "nixos-24.05"),
        ("VOID_LIVE", "void"),
        ("haiku-r1~beta4-x86_64", "haiku-r1beta4"),
        ("CCCOMA_X86FRE_EN-US_DV9", "windows-10"),
        ("GSP1RMCPRXFRER_EN_DVD", "windows-7"),
        ("WXPVOL_EN", "windows-xp"),
    ] {
        assert_eq!(ids(&labelled(label).build()), [id], "{label}");
    }
    // More than the label speaks for these.
    for (system, label, id) in [
        ("FreeBSD", "14_0_RELEASE_AMD64_DVD", "freebsd-14"),
        ("OpenBSD", "OpenBSD/amd64   7.8 Install CD", "openbsd-7.8"),
        ("NetBSD", "NETBSD_100", "netbsd-10"),
        ("DragonFly", "DragonFly v6.4.0", "dragonfly-6"),
    ] {
        let image = IsoImage { system: system.into(), ..labelled(label) };
        assert_eq!(ids(&image.build()), [id], "{label}");
        assert_eq!(ids(&labelled(label).build()), <[&str; 0]>::default(), "{label} without its system identifier");
    }
}

#[test]
fn files_speak_where_labels_do_not() {
    for (path, text, id) in [
        (".disk/info", "Debian GNU/Linux 11.7.0 \"Bullseye\" - Official amd64 NETINST\n", "debian-11"),
        (".disk/info", "Ubuntu-Server 20.04.6 LTS \"Focal Fossa\" - Release amd64 (20230314)", "ubuntu-20.04"),
        (".treeinfo", "[general]\nfamily = CentOS\nversion = 7\narch = x86_64\n", "centos-7"),
        (".treeinfo", "[release]\nname = Fedora\nversion = 42\n[tree]\narch = x86_64\n", "fedora-42"),
        ("CDROM_W.40", "", "windows-nt-4.0-workstation"),
        ("WIN98/SETUP.EXE", "MZ", "windows-98"),
        ("reactos/reactos.inf", "", "reactos"),
    ] {
        for names in [images::Names::RockRidge, images::Names::Joliet] {
            let mut image = IsoImage { names, ..labelled("CDROM") };
            image.add(path, text.as_bytes());
            assert_eq!(ids(&image.build()), [id], "{path}: {text} ({names:?})");
        }
    }
    let mut image = labelled("X");
    image.add("WIN51", b"");
    image.add("win51ip.sp2", b"");
    assert!(ids(&image.build()).is_empty(), "a file of another name");
    image.add("win51ip", b"");
    let found = look(&image.build()).unwrap();
    assert_eq!(found.profiles[0].id, "windows-xp");
    assert_eq!(found.reasons, ["there is WIN51", "there is WIN51IP"]);
}

#[test]
fn what_a_disc_says_of_itself_counts_before_its_files() {
    let mut image = labelled("Ubuntu-Server 22.04.3 LTS amd64");
    image.add("boot/grub/grub.cfg", b"");
    image.add("WIN98/SETUP.EXE", b"");
    image.add("CDROM_W.40", b"");
    assert_eq!(ids(&image.build()), ["ubuntu-22.04"]);
}

#[test]
fn a_rule_may_ask_that_files_are_not_there() {
    let text = include_str!("../../../data/tools.toml").split("[[guest]]").next().unwrap();
    let entry = "[[guest]]\nid = \"x\"\nname = \"X\"\nmedia = [{ files = [\"grub.cfg\"], absent = [\"live\"] }]";
    let catalogue = Catalogue::from_files(&[("x.toml", &format!("{text}{entry}"))]).unwrap();
    let found = |image: &IsoImage| detect(&image.build(), &catalogue).unwrap().profiles.len();
    let mut image = labelled("X");
    image.add("grub.cfg", b"");
    assert_eq!(found(&image), 1);
    image.add("live", b"");
    assert_eq!(found(&image), 0);
}

#[test]
fn windows_is_told_by_the_build_in_its_image() {
    for (build, product, id) in [
        ("20348", "ServerNT", "windows-server-2022"),
        ("17763", "ServerNT", "windows-server-2019"),
        ("14393", "ServerNT", "windows-server-2016"),
        ("26100", "ServerNT", "windows-server-2025"),
        ("19041", "WinNT", "windows-10"),
        ("22621", "WinNT", "windows-11"),
        ("26100", "WinNT", "windows-11"),
        ("7601", "WinNT", "windows-7"),
        ("7601", "ServerNT", "windows-server-2008-r2"),
    ] {
        let wim = windows_image(build, product);
        let mut image = labelled("SSS_X64FREE_EN-US_DV9");
        image.add("sources/install.wim", &wim);
        assert_eq!(ids(&image.build()), [id], "{build} {product}");
        // As published: the files are in UDF, beside ISO 9660 with a note for those who can't read it.
        let mut bridge = labelled("SSS_X64FREE_EN-US_DV9");
        bridge.add("README.TXT", b"This disc contains a \"UDF\" file system");
        let image = udf(bridge.build(), "SSS_X64FREE_EN-US_DV9", &[("sources", "install.wim", &wim)]);
        let found = look(&image).unwrap();
        assert_eq!(found.profiles[0].id, id, "{build} {product} in UDF");
        assert_eq!(found.medium.windows.unwrap().edition, "Standard");
    }
    // The label alone leaves it open which of the servers it is.
    assert_eq!(ids(&labelled("CCCOMA_X64FRE_EN-US_DV9").build()), ["windows-10", "windows-11"]);
    let found = ids(&labelled("SSS_X64FREE_EN-US_DV9").build());
    assert_eq!(found, ["windows-server-2016", "windows-server-2019", "windows-server-2022", "windows-server-2025"]);
}

#[test]
fn floppies_are_told_by_boot_sector_and_root() {
    let dos = floppy("MSDOS5.0", "DISK 1", b"Non-System disk IO      SYSMSDOS   SYS", &["IO.SYS", "MSDOS.SYS"]);
    assert_eq!(ids(&dos), ["msdos-6.22"]);
    let free = floppy("FRDOS5.1", "FREEDOS", b"FreeDOS KERNEL  SYS", &["KERNEL.SYS", "COMMAND.COM"]);
    let found = look(&free).unwrap();
    assert_eq!((found.profiles[0].id.as_str(), found.kind), ("freedos-1.3", Kind::Floppy));
    assert!(found.medium.bios && found.medium.label == "FREEDOS");
    assert_eq!(ids(&floppy("KOLIBRI ", "", b"", &["KERNEL.MNT"])), ["kolibrios"]);
    assert_eq!(ids(&floppy("mkfs.fat", "", b"", &["LETTER.TXT"])), <[&str; 0]>::default());
}

#[test]
fn what_starts_a_disc_is_told() {
    let image = IsoImage { boot: vec![0x00, 0xef], ..labelled("X") };
    let medium = look(&image.build()).unwrap().medium;
    assert!(medium.bios && medium.uefi);
    let medium = look(&IsoImage { boot: vec![0xef], ..labelled("X") }.build()).unwrap().medium;
    assert!(!medium.bios && medium.uefi);
    let medium = look(&labelled("X").build()).unwrap().medium;
    assert!(!medium.bios && !medium.uefi);
}

#[test]
fn what_is_no_medium_is_said_so() {
    for image in [vec![], vec![0; 512], vec![0xff; 1 << 20], b"QFI\xfb".repeat(100_000), vec![0; 40 << 10]] {
        assert!(matches!(look(&image), Err(MediaError::NotAnImage)), "{} bytes", image.len());
    }
}

#[test]
fn a_disc_that_is_cut_short_is_known_by_its_label_and_told() {
    let mut image = labelled("Debian 12.5.0 amd64 n");
    image.add("pool/x", &[1; 100_000]);
    let whole = image.build();
    assert_eq!(look(&whole).unwrap().medium.missing, 0);
    let found = look(&whole[..whole.len() - 40_000]).unwrap();
    assert_eq!((found.profiles[0].id.as_str(), found.medium.missing), ("debian-12", 40_000));
    // Without a label that is known, what can't be read is the answer.
    let unknown = labelled("X").build();
    let root = unknown.len() - 2048;
    assert!(matches!(look(&unknown[..root]), Err(MediaError::Damaged(_))), "the root directory is cut off");
}

#[test]
fn a_directory_in_itself_is_no_trouble() {
    let mut image = labelled("X");
    image.add("sources/x", b"");
    let mut built = image.build();
    // The directory's record leads to the root.
    let root = 158 + 16 * 2048;
    let extent: [u8; 4] = built[root..root + 4].try_into().unwrap();
    let at = built.windows(7).position(|part| part == b"SOURCES").unwrap() - 33;
    built[at + 2..at + 6].copy_from_slice(&extent);
    assert!(ids(&built).is_empty());
}

#[test]
fn sizes_that_lie_are_damage() {
    let built = labelled("X").build();
    for (at, value) in [(166, u32::MAX), (158, u32::MAX), (158, 0x7fff_ffff)] {
        let mut image = built.clone();
        image[16 * 2048 + at..16 * 2048 + at + 4].copy_from_slice(&value.to_le_bytes());
        assert!(matches!(look(&image), Err(MediaError::Damaged(_))), "{at}: {value:#x}");
    }
    let mut image = built;
    image[16 * 2048 + 128] = 3;
    assert!(matches!(look(&image), Err(MediaError::Damaged(_))), "blocks of three bytes");
}

#[test]
fn names_of_profiles_in_a_hostile_label_stay_text() {
    let found = look(&labelled("Debian 12.5.0 amd64 n\u{1b}[2J").build()).unwrap();
    assert!(found.profiles.is_empty());
    let image = IsoImage { system: "OpenBSD".into(), ..labelled("OpenBSD/amd64 \n 7.8 Install CD") };
    assert!(look(&image.build()).unwrap().reasons.iter().all(|reason| !reason.contains('\n')));
}

/// A disc with all that is read of any.
fn rich() -> Vec<u8> {
    let mut image = IsoImage { boot: vec![0, 0xef], names: images::Names::Joliet, ..labelled("CDROM") };
    image.add(".disk/info", b"Debian GNU/Linux 11.7.0");
    image.add(".treeinfo", b"[general]\nfamily = CentOS\nversion = 7\n");
    image.add("WIN98/SETUP.EXE", b"MZ");
    let wim = windows_image("20348", "ServerNT");
    image.add("sources/boot.wim", &wim);
    udf(image.build(), "UDF", &[("sources", "install.wim", &wim)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever bytes are changed where it matters, and wherever it is cut: an answer or an error.
    #[test]
    fn mutated_discs_are_an_answer_or_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut image = rich();
        // All before the descriptors is zero, and most of what is behind them.
        let places: Vec<usize> = (0..image.len()).filter(|at| image[*at] != 0).collect();
        for (place, value) in changes {
            image[places[place.index(places.len())]] = value;
        }
        if let Some(cut) = cut {
            image.truncate(cut.index(image.len()));
        }
        let _answered = look(&image);
    }

    #[test]
    fn mutated_floppies_are_an_answer_or_an_error(
        changes in prop::collection::vec((0..1024usize, any::<u8>()), 1..24),
    ) {
        let mut image = floppy("MSDOS5.0", "DISK 1", b"IO      SYS", &["IO.SYS"]);
        for (place, value) in changes {
            image[place] = value;
        }
        let _answered = look(&image);
    }

    #[test]
    fn any_tree_info_is_understood_or_not(text in "[\\[\\]= a-z\\n;#\"\\\\:]{0,400}") {
        let _answered = super::TreeInfo::parse(&text);
    }
}
