//! Boot files: what DHCP says of them, and both ways to get them.

use lodge_netboot::{BootFile, Folder};

use super::*;

/// A guest whose router serves a folder with `pxe.0`.
fn served(content: &[u8]) -> (tempfile::TempDir, Guest) {
    serving(content, UserConfig::default())
}

/// The same on a network that is otherwise as it is said to be.
pub(super) fn serving(content: &[u8], config: UserConfig) -> (tempfile::TempDir, Guest) {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("pxe.0"), content).unwrap();
    let folder = Folder::open(place.path()).unwrap();
    let bootfile = BootFile::new(&folder, "pxe.0").unwrap();
    let netboot = Some(Netboot { folder, bootfile });
    (place, Guest::new(&UserConfig { netboot, ..config }))
}

#[test]
fn dhcp_says_where_the_boot_file_is() {
    let (_place, mut guest) = served(b"x");
    let pxe = [
        DhcpOption::ClassIdentifier(b"PXEClient:Arch:00000:UNDI:002001".to_vec()),
        DhcpOption::ParameterRequestList(vec![OptionCode::BootfileName, OptionCode::TFTPServerName]),
    ];
    for kind in [MessageType::Discover, MessageType::Request] {
        let reply = dhcp(&mut guest, CARD, kind, &pxe);
        assert_eq!((reply.yiaddr(), reply.siaddr()), (ADDRESS, GATEWAY));
        assert_eq!(reply.fname(), Some(&b"pxe.0\0"[..]));
        assert_eq!(reply.opts().get(OptionCode::BootfileName), Some(&DhcpOption::BootfileName(b"pxe.0\0".to_vec())));
    }
    // Who serves nothing says nothing.
    let reply = dhcp(&mut plain(), CARD, MessageType::Discover, &pxe);
    assert_eq!(reply.fname(), None);
    assert_eq!(reply.opts().get(OptionCode::BootfileName), None);
}

#[test]
fn a_file_comes_by_tftp() {
    let data = pattern(2000);
    let (_place, mut guest) = served(&data);
    for (own, router) in [(IpAddr::from(ADDRESS), IpAddr::from(GATEWAY)), (ADDRESS_6.into(), GATEWAY_6.into())] {
        guest.wire.udp(at(own, 3000), at(router, 69), b"\0\x01pxe.0\0octet\0blksize\x001024\0");
        let (from, options) = guest.wire.expect_udp(3000);
        assert!(from.ip() == router && from.port() != 69, "{from}");
        assert_eq!(options, b"\0\x06blksize\x001024\0");
        let mut got = Vec::new();
        for block in 0..2u8 {
            guest.wire.udp(at(own, 3000), from, &[0, 4, 0, block]);
            let (again, piece) = guest.wire.expect_udp(3000);
            assert_eq!((again, &piece[..4]), (from, &[0, 3, 0, block + 1][..]));
            got.extend_from_slice(&piece[4..]);
        }
        guest.wire.udp(at(own, 3000), from, &[0, 4, 0, 2]);
        assert_eq!(got, data);
    }
    // What is not acknowledged is sent again.
    guest.wire.udp(at(ADDRESS, 3001), at(GATEWAY, 69), b"\0\x01pxe.0\0octet\0timeout\x001\0");
    for _ in 0..2 {
        assert_eq!(guest.wire.expect_udp(3001).1, b"\0\x06timeout\x001\0");
    }
    guest.wire.udp(at(ADDRESS, 3002), at(GATEWAY, 69), b"\0\x01none\0octet\0");
    let (_, refusal) = guest.wire.expect_udp(3002);
    assert!(refusal.starts_with(&[0, 5, 0, 1]) && String::from_utf8_lossy(&refusal).contains("none"), "{refusal:?}");
}

#[test]
fn a_file_comes_by_http() {
    let data = pattern(1 << 20);
    let (_place, mut guest) = served(&data);
    for router in [IpAddr::from(GATEWAY), GATEWAY_6.into()] {
        // One connection for two requests, which the guest ends or has ended.
        for last in ["", "Connection: close\r\n"] {
            let socket = guest.connect(at(router, 80));
            let (mut asked, mut got) = (0, Vec::new());
            let requests = ["", last].map(|more| format!("GET /pxe.0 HTTP/1.1\r\nHost: router\r\n{more}\r\n")).concat();
            guest.until("the answers", |guest| {
                let socket = guest.with(socket);
                if socket.can_send() && asked < requests.len() {
                    asked += socket.send_slice(&requests.as_bytes()[asked..]).unwrap();
                    if asked == requests.len() && last.is_empty() {
                        socket.close();
                    }
                }
                while socket.can_recv() {
                    socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
                }
                !got.is_empty() && !socket.may_recv()
            });
            assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"));
            assert_eq!(got.windows(4).filter(|piece| *piece == b"\r\n\r\n").count(), 2);
            assert!(got.ends_with(&data), "{router} {} bytes", got.len());
            guest.with(socket).close();
            guest.until("the end", |guest| guest.wire.net.load().0 == 0);
        }
    }
}
