use dhcproto::Encodable;
use dhcproto::v4::{MessageType, Opcode};
use lodge_trial::{Random, steps};

use super::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const GUID: [u8; 17] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
/// What UEFI's PXE asks for (PxeBcDhcp4.c of EDK II); its HTTP boot, the same to the UUID but for option 66.
const UEFI_ASKS: [u8; 35] = [
    1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 60, 66, 67, 97, 128, 129,
    130, 131, 132, 133, 134, 135,
];
/// What iPXE asks for (dhcp.c).
const IPXE_ASKS: [u8; 22] =
    [1, 3, 6, 7, 12, 15, 17, 43, 60, 66, 67, 119, 128, 129, 130, 131, 132, 133, 134, 135, 175, 203];

/// A client's packet.
fn packet(options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut packet = vec![0; OPTIONS];
    packet[..4].copy_from_slice(&[1, 1, 6, 0]);
    packet[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    packet[236..240].copy_from_slice(&[99, 130, 83, 99]);
    for (code, value) in options {
        packet.extend([*code, value.len() as u8]);
        packet.extend_from_slice(value);
    }
    packet.push(255);
    packet
}

fn asked(options: &[(u8, &[u8])]) -> Message {
    decode_request(&packet(options)).unwrap()
}

fn config(bootfile: BootFile) -> OfferConfig {
    OfferConfig { server: SERVER, bootfile }
}

fn by_architecture() -> OfferConfig {
    config(BootFile::ByArchitecture("boot/{arch}.bin".into()))
}

/// The options of an offer as a reply has them, in bytes.
fn options(offer: &Offer) -> Vec<(u8, Vec<u8>)> {
    let all = offer.options.iter().map(|option| {
        let bytes = option.to_vec().unwrap();
        assert_eq!(usize::from(bytes[1]), bytes.len() - 2);
        (bytes[0], bytes[2..].to_vec())
    });
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}

#[test]
fn uefi_is_told_of_its_file() {
    for (architecture, name) in [(7, "boot/efi64.bin"), (9, "boot/efi64.bin"), (6, "boot/efi32.bin")] {
        let class = format!("PXEClient:Arch:{architecture:05}:UNDI:003000");
        let request = asked(&[
            (53, &[1]),
            (57, &[5, 0xc0]),
            (55, &UEFI_ASKS),
            (97, &GUID),
            (94, &[1, 3, 0]),
            (93, &[0, architecture]),
            (60, class.as_bytes()),
        ]);
        assert_eq!(request.opts().msg_type(), Some(MessageType::Discover));
        let offer = offer(&request, &by_architecture()).unwrap();
        assert_eq!(offer.siaddr, SERVER);
        assert_eq!(offer.fname.as_deref(), Some(name.as_bytes()));
        let expected = [
            (43, vec![6, 1, 8, 255]),
            (60, b"PXEClient".to_vec()),
            (66, b"10.0.2.2".to_vec()),
            (67, [name.as_bytes(), b"\0"].concat()),
            (97, GUID.to_vec()),
        ];
        assert_eq!(options(&offer), expected);
    }
}

#[test]
fn uefi_is_told_of_its_url() {
    for (architecture, url) in [(16, "http://10.0.2.2/boot/efi64.bin"), (15, "http://10.0.2.2/boot/efi32.bin")] {
        let class = format!("HTTPClient:Arch:{architecture:05}:UNDI:003000");
        let asks: Vec<u8> = UEFI_ASKS[..27].iter().copied().filter(|code| *code != 66).collect();
        let request = asked(&[
            (53, &[1]),
            (55, &asks),
            (97, &GUID),
            (94, &[1, 3, 0]),
            (93, &[0, architecture]),
            (60, class.as_bytes()),
        ]);
        let offer = offer(&request, &by_architecture()).unwrap();
        assert_eq!(offer.fname, None);
        let expected = [(60, b"HTTPClient".to_vec()), (67, [url.as_bytes(), b"\0"].concat()), (97, GUID.to_vec())];
        assert_eq!(options(&offer), expected);
    }
}

#[test]
fn ipxe_waits_for_nobody_else() {
    // As the ROM that SeaBIOS starts asks; the features are a version and HTTP.
    let request = asked(&[
        (53, &[1]),
        (57, &[5, 0xc0]),
        (93, &[0, 0]),
        (94, &[1, 2, 1]),
        (60, b"PXEClient:Arch:00000:UNDI:002001"),
        (77, b"iPXE"),
        (55, &IPXE_ASKS),
        (175, &[177, 5, 1, 0x80, 0x86, 0x10, 0x0e, 235, 3, 1, 21, 1, 19, 1, 1]),
        (61, &[1, 0x52, 0x54, 0, 0x12, 0x34, 0x56]),
        (97, &GUID),
    ]);
    let offer = offer(&request, &by_architecture()).unwrap();
    assert_eq!(offer.fname.as_deref(), Some(b"boot/bios.bin".as_slice()));
    let expected = [
        (43, vec![6, 1, 8, 255]),
        (60, b"PXEClient".to_vec()),
        (66, b"10.0.2.2".to_vec()),
        (67, b"boot/bios.bin\0".to_vec()),
        (97, GUID.to_vec()),
        (175, vec![176, 1, 1]),
    ];
    assert_eq!(options(&offer), expected);
    for class in [b"iPXE".as_slice(), b"\x04iPXE"] {
        assert!(is_ipxe(&asked(&[(53, &[1]), (77, class)])));
    }
    assert!(!is_ipxe(&asked(&[(53, &[1]), (77, b"gPXE")])));
}

#[test]
fn grub_finds_its_file_in_the_header() {
    // Its DISCOVER has nothing but the type, its REQUEST asks for no boot file (bootp.c).
    let discover: &[(u8, &[u8])] = &[(53, &[1])];
    let request: &[(u8, &[u8])] = &[(53, &[3]), (55, &[1, 3, 6, 15, 12, 17, 18])];
    for packet in [discover, request, &[]] {
        let offer = offer(&asked(packet), &config(BootFile::Same("grub/core.0".into()))).unwrap();
        assert_eq!(offer.siaddr, SERVER);
        assert_eq!(offer.fname.as_deref(), Some(b"grub/core.0".as_slice()));
        assert_eq!(options(&offer), []);
    }
    // Others ask for it.
    let offer = offer(&asked(&[(53, &[1]), (55, &[66, 67, 150])]), &config(BootFile::Same("u-boot".into()))).unwrap();
    let expected = [(66, b"10.0.2.2".to_vec()), (67, b"u-boot".to_vec()), (150, vec![10, 0, 2, 2])];
    assert_eq!(options(&offer), expected);
}

#[test]
fn who_has_no_file_is_told_nothing() {
    let arm = asked(&[(93, &[0, 11]), (60, b"PXEClient:Arch:00011:UNDI:003000")]);
    assert_eq!(offer(&arm, &by_architecture()), None);
    assert!(offer(&arm, &config(BootFile::Same("arm.efi".into()))).is_some());
}

#[test]
fn long_names_and_odd_ones_are_told_whole() {
    let pxe = asked(&[(93, &[0, 0]), (60, b"PXEClient:Arch:00000:UNDI:002001")]);
    let http = asked(&[(93, &[0, 16]), (60, b"HTTPClient:Arch:00016:UNDI:003000")]);
    let long = "a".repeat(128);
    let told = offer(&pxe, &config(BootFile::Same(long.clone()))).unwrap();
    assert_eq!(told.fname, None);
    assert!(options(&told).contains(&(67, (long + "\0").into_bytes())));
    assert_eq!(offer(&pxe, &config(BootFile::Same("a".repeat(255)))), None);
    let told = offer(&http, &config(BootFile::Same("\\a b/\u{e4}#%.efi".into()))).unwrap();
    assert!(options(&told).contains(&(67, b"http://10.0.2.2/a%20b/%C3%A4%23%25.efi\0".to_vec())));
}

#[test]
fn options_of_odd_lengths_spoil_nothing() {
    let request = asked(&[
        // Two architectures, an interface and a message size that are too short, a capability with a value.
        (93, &[0, 7, 0, 9]),
        (94, &[1]),
        (57, &[1]),
        (80, &[1, 2, 3]),
        (23, &[]),
        (60, b"PXEClient"),
        (97, &GUID[..5]),
    ]);
    let told = offer(&request, &by_architecture()).unwrap();
    assert_eq!(told.fname.as_deref(), Some(b"boot/efi64.bin".as_slice()));
    assert!(options(&told).iter().all(|(code, _)| *code != 97));
    // What ends in the middle is read as far as it goes.
    let mut cut = packet(&[(60, b"PXEClient"), (93, &[0, 7])]);
    cut.truncate(cut.len() - 2);
    let told = decode_request(&cut).unwrap();
    assert!(told.opts().contains(OptionCode::ClassIdentifier));
    assert!(!told.opts().contains(OptionCode::ClientSystemArchitecture));
    assert_eq!(decode_request(&cut[..OPTIONS - 1]), None);
    // One that comes twice is not one of twice the length, and a name that is none does not spoil the rest.
    let told = asked(&[(94, &[1, 3, 0]), (94, &[1, 3, 0]), (53, &[1]), (12, &[0xff, 0xfe])]);
    assert!(told.opts().contains(OptionCode::ClientNetworkInterface));
    assert!(told.opts().contains(OptionCode::MessageType) && !told.opts().contains(OptionCode::Hostname));
    let mut other = packet(&[(53, &[1])]);
    other[OPTIONS - 1] = 0;
    assert_eq!(decode_request(&other), None, "BOOTP of another vendor's kind");
}

#[test]
fn boot_files_are_looked_for() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::open(place.path()).unwrap();
    let missing = BootFile::new(&folder, "boot-{arch}").unwrap_err();
    assert!(matches!(&missing, FolderError::Missing { asked } if asked == "boot-{arch}"), "{missing}");
    assert!(matches!(BootFile::new(&folder, "pxelinux.0"), Err(FolderError::Missing { .. })));
    std::fs::write(place.path().join("boot-efi64"), "").unwrap();
    std::fs::write(place.path().join("pxelinux.0"), "").unwrap();
    assert_eq!(BootFile::new(&folder, "boot-{arch}").unwrap(), BootFile::ByArchitecture("boot-{arch}".into()));
    assert_eq!(BootFile::new(&folder, "pxelinux.0").unwrap(), BootFile::Same("pxelinux.0".into()));
    std::fs::write(place.path().join("boot-{arch}"), "").unwrap();
    assert_eq!(BootFile::new(&folder, "boot-{arch}").unwrap(), BootFile::Same("boot-{arch}".into()));
}

#[test]
fn random_messages_do_no_harm() {
    let mut random = Random(0x2131);
    let good = [
        packet(&[(53, &[1]), (93, &[0, 7]), (60, b"PXEClient:Arch:00007:UNDI:003000"), (97, &GUID), (55, &UEFI_ASKS)]),
        packet(&[(53, &[3]), (93, &[0, 16]), (60, b"HTTPClient:Arch:00016"), (54, &[10, 0, 2, 2]), (94, &[1, 3, 0])]),
        packet(&[
            (77, b"iPXE"),
            (175, &[1, 1, 1]),
            (82, &[1, 1, 1]),
            (119, b"\x01a\0"),
            (121, &[0, 1, 2, 3, 4]),
            (80, &[]),
        ]),
    ];
    let configs = [by_architecture(), config(BootFile::Same("a".into())), config(BootFile::Same("b".repeat(200)))];
    let mut offers = 0_u64;
    for _ in 0..steps(1_000_000) {
        let mut data = good[random.below(3) as usize].clone();
        for _ in 0..random.below(6) {
            // Most of what is tried is behind the header.
            let from = if random.below(8) == 0 { 0 } else { OPTIONS as u64 };
            let at = (from + random.below((data.len() as u64 + 1).saturating_sub(from).max(1))) as usize;
            match random.below(4) {
                0 if at <= data.len() => data.insert(at, random.next() as u8),
                1 => data.truncate(at),
                _ if at < data.len() => data[at] = random.next() as u8,
                _ => {}
            }
        }
        let Some(request) = decode_request(&data) else { continue };
        let Some(told) = offer(&request, &configs[random.below(3) as usize]) else { continue };
        offers += 1;
        assert!(told.fname.as_ref().is_none_or(|name| name.len() <= FILE_FIELD));
        let mut reply = Message::new_with_id(1, SERVER, SERVER, SERVER, SERVER, &[0; 6]);
        reply.set_opcode(Opcode::BootReply);
        if let Some(name) = &told.fname {
            reply.set_fname(name);
        }
        for option in told.options {
            reply.opts_mut().insert(option);
        }
        assert!(reply.to_vec().unwrap().len() <= 576 + 200);
    }
    assert!(offers > 1000, "{offers}");
}
