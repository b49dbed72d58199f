use std::os::unix::fs::symlink;

use lodge_trial::{Random, steps};

use super::*;

fn folder() -> (tempfile::TempDir, Folder) {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("served");
    std::fs::create_dir_all(root.join("boot/x64")).unwrap();
    std::fs::write(place.path().join("secret"), "secret").unwrap();
    std::fs::write(root.join("kernel"), "the kernel").unwrap();
    std::fs::write(root.join("boot/x64/BootMgr.exe"), "boot manager").unwrap();
    let folder = Folder::open(&root).unwrap();
    (place, folder)
}

fn content(folder: &Folder, path: &[u8]) -> String {
    let file = folder.file(path).unwrap();
    let mut bytes = vec![0; file.size() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn separators_and_roots_do_not_matter() {
    let (_place, folder) = folder();
    for path in ["kernel", "/kernel", "\\kernel", "//./kernel"] {
        assert_eq!(content(&folder, path.as_bytes()), "the kernel", "{path}");
    }
    assert_eq!(content(&folder, b"\\boot\\x64\\BootMgr.exe"), "boot manager");
}

#[test]
fn case_does_not_matter_where_the_exact_name_is_missing() {
    let (place, folder) = folder();
    assert_eq!(content(&folder, b"\\Boot\\X64\\bootmgr.EXE"), "boot manager");
    std::fs::write(place.path().join("served/KERNEL"), "another").unwrap();
    assert_eq!(content(&folder, b"kernel"), "the kernel");
    assert_eq!(content(&folder, b"KERNEL"), "another");
    assert_eq!(content(&folder, b"kErNeL"), "another", "the first by its bytes");
}

#[test]
fn what_is_missing_is_named() {
    let (_place, folder) = folder();
    let error = folder.file(b"/pxelinux.cfg/default").unwrap_err();
    assert!(matches!(&error, FolderError::Missing { asked } if asked == "/pxelinux.cfg/default"), "{error}");
    assert!(error.to_string().contains("/pxelinux.cfg/default"));
    assert!(matches!(folder.file(b"kernel/more"), Err(FolderError::Missing { .. })));
    // What is shown can't write to a terminal.
    assert!(!folder.file(b"a\x1b[2Jb\nc").unwrap_err().to_string().contains(['\x1b', '\n']));
}

#[test]
fn nothing_outside_is_reached() {
    let (place, folder) = folder();
    let root = place.path().join("served");
    symlink("../secret", root.join("up")).unwrap();
    symlink(place.path().join("secret"), root.join("absolute")).unwrap();
    symlink("/proc/self/root", root.join("root")).unwrap();
    symlink("..", root.join("parent")).unwrap();
    symlink("round", root.join("round")).unwrap();
    symlink("boot/x64/BootMgr.exe", root.join("inside")).unwrap();
    symlink("../kernel", root.join("boot/back")).unwrap();
    for path in [
        "../secret", "..\\secret", "boot/../../secret", "/../secret", "up", "UP", "absolute", "root/etc/passwd",
        "parent/secret", "round", "boot/..",
    ] {
        let result = folder.file(path.as_bytes());
        assert!(matches!(result, Err(FolderError::Outside { .. })), "{path}: {result:?}");
    }
    assert!(matches!(folder.file(b"Parent/Secret"), Err(FolderError::Missing { .. })));
    assert_eq!(content(&folder, b"inside"), "boot manager");
    assert_eq!(content(&folder, b"boot/back"), "the kernel");
    assert!(matches!(folder.file(b"/etc/passwd"), Err(FolderError::Missing { .. })));
}

#[test]
fn only_regular_files_are_served() {
    let (place, folder) = folder();
    let root = place.path().join("served");
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    for path in ["pipe", "socket", "boot", "boot/x64/"] {
        let result = folder.file(path.as_bytes());
        assert!(matches!(result, Err(FolderError::NotFile { .. })), "{path}: {result:?}");
    }
}

#[test]
fn malformed_paths_are_refused() {
    let (_place, folder) = folder();
    let deep = b"a/".repeat(DEEPEST + 1);
    for path in [b"".as_slice(), b"/", b"./.", b"kernel\0", &[b'a'; LONGEST_PATH + 1], &deep] {
        assert!(matches!(folder.file(path), Err(FolderError::Malformed { .. })));
    }
    assert!(matches!(folder.file(&[b'a'; LONGEST_PATH]), Err(FolderError::Missing { .. })));
}

#[test]
fn a_file_that_becomes_shorter_is_noticed() {
    let (place, folder) = folder();
    let file = folder.file(b"kernel").unwrap();
    std::fs::write(place.path().join("served/kernel"), "the").unwrap();
    let mut bytes = [0; 10];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn what_is_no_folder_is_not_served() {
    let (place, _folder) = folder();
    assert!(matches!(Folder::open(&place.path().join("secret")), Err(FolderError::Folder { .. })));
    assert!(matches!(Folder::open(&place.path().join("nowhere")), Err(FolderError::Folder { .. })));
}

#[test]
fn guests_do_not_flood_the_log() {
    let (_place, folder) = folder();
    let told = (0..10 * MOST_REPORTS).filter(|_| folder.may_report()).count();
    assert_eq!(told, MOST_REPORTS as usize);
}

#[test]
fn random_paths_stay_inside() {
    let (place, folder) = folder();
    symlink("../secret", place.path().join("served/up")).unwrap();
    let mut random = Random(0x5eed);
    let parts: [&[u8]; 12] =
        [b"..", b"/", b"\\", b".", b"kernel", b"boot", b"x64", b"up", b"secret", b"served", b"\0", b"KERNEL"];
    for _ in 0..steps(200_000) {
        let path: Vec<u8> = (0..random.below(8)).flat_map(|_| random.pick(&parts).to_vec()).collect();
        if let Ok(file) = folder.file(&path) {
            let mut bytes = vec![0; file.size() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            assert_ne!(bytes, b"secret");
        }
    }
}
