//! `lodge disk`, as its users call it: what it prints, its exit status, and one line for each error.

use std::path::Path;
use std::process::{Command, Output};

fn lodge(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lodge")).current_dir(folder).arg("disk").args(arguments).output().unwrap()
}

/// Standard output of a command that succeeds.
fn said(folder: &Path, arguments: &[&str]) -> String {
    let output = lodge(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The one line of a command that fails with status 2.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = lodge(folder, arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert!(text.starts_with("lodge: ") && text.trim_end().lines().count() == 1, "{arguments:?}: {text}");
    text
}

#[test]
fn an_image_lives_its_life() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert_eq!(said(folder, &["create", "base.img", "--size", "8M"]), "");
    assert_eq!(std::fs::metadata(folder.join("base.img")).unwrap().len(), 8 << 20);
    said(folder, &["create", "top.qcow2", "--backing", "base.img,format=raw"]);
    let text = said(folder, &["info", "top.qcow2"]);
    for line in
        ["format:              qcow2", "size:                8.0 MiB (8388608 bytes)", "backing file:        base.img"]
    {
        assert!(text.contains(line), "{text}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&said(folder, &["info", "top.qcow2", "--json", "--chain"])).unwrap();
    assert_eq!(json[0]["backing_format"], "raw");
    assert_eq!((json[1]["format"].as_str(), json[1]["size"].as_u64()), (Some("raw"), Some(8 << 20)));
    let one: serde_json::Value = serde_json::from_str(&said(folder, &["info", "top.qcow2", "--json"])).unwrap();
    assert_eq!(one["cluster_size"], 65536);
    assert!(said(folder, &["check", "top.qcow2"]).contains("nothing is wrong"));
    said(folder, &["resize", "top.qcow2", "16M"]);
    said(folder, &["convert", "top.qcow2", "copy.img"]);
    assert_eq!(std::fs::read(folder.join("copy.img")).unwrap(), vec![0; 16 << 20]);
    said(folder, &["convert", "copy.img", "copy.qcow2", "--compress"]);
    assert!(said(folder, &["compact", "copy.qcow2"]).contains("before"));
    said(folder, &["create", "full.qcow2", "--size", "1M", "--preallocate"]);
    assert!(std::fs::metadata(folder.join("full.qcow2")).unwrap().len() > 1 << 20);
}

#[test]
fn a_check_says_by_its_status_what_it_found() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    said(folder, &["create", "a.qcow2", "--size", "1M"]);
    let sound = std::fs::read(folder.join("a.qcow2")).unwrap();
    // The refcount block is the third cluster, and there are four: the fifth is free.
    let mut leaky = sound.clone();
    leaky[(2 << 16) + 8..(2 << 16) + 10].copy_from_slice(&[0, 1]);
    std::fs::write(folder.join("a.qcow2"), &leaky).unwrap();
    let output = lodge(folder, &["check", "a.qcow2"]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text,
        "cluster 4 has a refcount of 1 and is not used\na.qcow2: 1 leaks, which only cost space; --repair ends them\n"
    );
    let mut wrong = sound;
    wrong[(2 << 16) + 6..(2 << 16) + 8].copy_from_slice(&[0, 0]);
    std::fs::write(folder.join("a.qcow2"), &wrong).unwrap();
    assert_eq!(lodge(folder, &["check", "a.qcow2"]).status.code(), Some(2));
    assert_eq!(std::fs::read(folder.join("a.qcow2")).unwrap(), wrong, "a check changed the image");
    assert!(said(folder, &["check", "a.qcow2", "--repair"]).contains("1 errors and 0 leaks were mended"));
    assert_eq!(lodge(folder, &["check", "a.qcow2"]).status.code(), Some(0));
}

#[test]
fn errors_are_one_line_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("there"), "precious").unwrap();
    for (arguments, expected) in [
        (
            &["create", "there", "--size", "1M"][..],
            "there exists already; name another file, or overwrite it with --force",
        ),
        (&["create", "x"], "the following required arguments were not provided: --size <SIZE>"),
        (&["create", "x", "--size", "1X"], "'X' is not a unit"),
        (&["create", "x.vdi", "--size", "1M"], "lodge only reads vdi; use qcow2 or raw"),
        (&["create", "x", "--size", "1M", "--backing", "there"], "only a qcow2 image has a backing file"),
        (&["create", "no/x", "--size", "1M"], "make its folder first"),
        (&["info", "gone"], "the disk gone can't be opened"),
        (&["check", "there"], "the disk there has 8 bytes, which is no multiple of 512"),
        (&["convert", "there", "y", "--format", "qed"], "'qed' is not one of the formats raw, qcow2"),
        (&["resize", "gone", "1M"], "the disk gone can't be opened"),
        (&["frob"], "unrecognized subcommand 'frob'"),
    ] {
        let text = refused(folder, arguments);
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
    assert_eq!(std::fs::read(folder.join("there")).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "something was left behind");
}

#[test]
fn run_says_what_is_wrong_with_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    said(folder, &["create", "a.qcow2", "--size", "1M"]);
    std::fs::rename(folder.join("a.qcow2"), folder.join("a.img")).unwrap();
    let run = |disk: &str| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_lodge")).current_dir(folder).args(["run", "--disk", disk]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run("a.img").contains("begins like a qcow2 image but isn't named like one; say `format=qcow2`"));
    assert!(run("a.img,format=vdi,readonly").contains("the disk a.img is no sound vdi image"));
    assert!(run("gone.img").contains("the disk gone.img can't be opened"));
}
