use lodge_guests::{Catalogue, Nic as Model};

use super::*;

fn profile(id: &str) -> &'static Profile {
    Catalogue::built_in().find(id).unwrap()
}

/// What is found wrong with a plan that starts as the profile recommends, in words.
fn found(id: &str, change: impl FnOnce(&mut Plan)) -> Vec<String> {
    let mut plan = Plan::recommended(profile(id));
    change(&mut plan);
    check(profile(id), &plan).iter().map(ToString::to_string).collect()
}

fn gib(count: u64) -> Size {
    Size::from_bytes(count << 30)
}

#[test]
fn what_a_profile_recommends_can_be_installed() {
    for profile in Catalogue::built_in().profiles() {
        let problems = check(profile, &Plan::recommended(profile));
        let expected = profile.support == Support::Broken || profile.recommended.disk.bytes() == 0;
        assert_eq!(!problems.is_empty(), expected, "{}: {problems:?}", profile.id);
    }
}

#[test]
fn a_disk_of_8_gib_is_enough_for_debian() {
    let connected = |plan: &mut Plan| {
        (plan.disk, plan.unattended, plan.nics[0].connected) = (gib(8), true, true);
    };
    assert!(found("debian-12", connected).is_empty());
}

#[test]
fn each_problem_is_named_with_its_remedy() {
    let says = |id: &str, change: fn(&mut Plan), expected: &str| {
        assert_eq!(found(id, change), [expected], "{id}");
    };
    says(
        "windows-11",
        |_| {},
        "Windows 11 is known not to work here: it demands TPM 2.0 and Secure Boot, which a machine here does not have; Windows 10 is the nearest that may work",
    );
    says("memtest86plus", |_| {}, "Memtest86+ is not installed on a disk; start it from its medium with `lodge run`");
    says("windows-98", |plan| plan.firmware = Firmware::Uefi, "Windows 98 does not start from uefi; use bios");
    says(
        "debian-12",
        |plan| plan.disk = gib(1),
        "Debian 12 (bookworm) takes at least 2 GiB of disk, and 1 GiB are planned; give it 20 GiB",
    );
    says(
        "opensuse-16.0",
        |plan| plan.cpus = 1,
        "openSUSE Leap 16.0 takes at least 2 of processors, and 1 are planned; give it 2",
    );
    says(
        "windows-10",
        |plan| plan.bus = DiskBus::Virtio,
        "Windows 10 has no driver of its own for a disk on the bus 'virtio'; use sata or nvme or ide",
    );
    says(
        "windows-10",
        |plan| plan.nics[0].model = Model::Virtio,
        "Windows 10 has no driver of its own for a network card 'virtio'; use e1000",
    );
    says(
        "windows-10",
        |plan| (plan.start, plan.nics[0].offers_boot) = (Start::Pxe, true),
        "the installer of Windows 10 does not start by PXE; give its disc",
    );
    says(
        "debian-12",
        |plan| (plan.start, plan.nics) = (Start::Pxe, vec![]),
        "there is no network card to start from; add one, on a network that offers what to start",
    );
    says(
        "debian-12",
        |plan| plan.start = Start::Pxe,
        "no network card is on a network that offers what to start; name a folder with what to start, or a network with a server for PXE",
    );
    says(
        "debian-12",
        |plan| plan.medium_is = vec!["fedora-40".into()],
        "the medium is of fedora-40, and not of Debian 12 (bookworm); give the right one, or the right name",
    );
    says(
        "freebsd-14",
        |plan| plan.unattended = true,
        "lodge writes no answers for the installer of FreeBSD 14; install it attended",
    );
    says(
        "debian-12",
        |plan| plan.unattended = true,
        "unattended, the installer of Debian 12 (bookworm) fetches packages, and no network card is connected; connect one",
    );
}

#[test]
fn all_problems_are_found_at_once() {
    let all = found("windows-11", |plan| {
        (plan.memory, plan.disk, plan.cpus) = (gib(1), gib(1), 1);
        (plan.firmware, plan.bus, plan.start) = (Firmware::Bios, DiskBus::Virtio, Start::Pxe);
        plan.nics.clear();
    });
    assert_eq!(all.len(), 8, "{all:#?}");
}

#[test]
fn a_medium_that_may_be_of_several_is_of_any() {
    let medium = |plan: &mut Plan| plan.medium_is = vec!["windows-server-2019".into(), "windows-server-2022".into()];
    assert!(found("windows-server-2022", medium).is_empty());
}
