//! A machine that is killed at any moment while its guest writes: what the guest was told is on the disk is there.
//!
//! `LODGE_POWER_CUTS` says how often, for each format (2 without it); the moments come from the number of the round.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lodge_tests::{TestVm, linux, lodge_with};

const SECTOR: usize = 512;
const SECTORS: usize = 16_384;
/// Steps between records, so that each needs other clusters; it shares no factor with the number of sectors.
const STRIDE: usize = 1237;

/// Where a record is.
fn place(record: usize) -> usize {
    record * STRIDE % SECTORS
}

/// Writes numbered records for ever, and says of each when it is durable.
fn script() -> String {
    format!(
        "i=0; while i=$((i+1)); do printf %0{SECTOR}d $i | dd of=/dev/vda bs={SECTOR} conv=notrunc,fsync \
         seek=$((i*{STRIDE}%{SECTORS})) 2>/dev/null && echo durable $i.; done"
    )
}

/// What the guest said is durable.
fn durable(output: &str) -> Vec<usize> {
    let told = output.split("durable ").skip(1).filter_map(|rest| rest.split_once('.'));
    told.filter_map(|(number, _)| number.parse().ok()).collect()
}

fn qemu_img(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("qemu-img").args(arguments).output().expect("qemu-img is there");
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// One round: how many records were durable, and whether clusters had leaked.
fn cut(format: &str, round: u64, folder: &Path) -> (usize, bool) {
    let (image, raw) = (folder.join(format!("disk.{format}")), folder.join("raw"));
    let (path, raw_path) = (image.to_str().unwrap(), raw.to_str().unwrap());
    let _ = std::fs::remove_file(&image);
    let size = (SECTORS * SECTOR).to_string();
    assert_eq!(qemu_img(&["create", "-q", "-f", format, path, &size]).0, Some(0));
    let mut command = linux("amd64", &format!("quiet lodge.run=\"{}\"", script()));
    command.args(["--disk", &format!("{path},format={format}"), "--timeout", "250"]);
    let mut vm = TestVm::start(&mut command);
    vm.expect("durable 1.");
    // xorshift: any moment of the first second and a half.
    let mut random = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..3).for_each(|_| random ^= (random << 13) ^ (random >> 7));
    std::thread::sleep(Duration::from_micros(random % 1_500_000));
    let output = vm.kill();
    let told = durable(&output);
    assert!(!told.is_empty(), "{output}");
    let mut leaked = false;
    if format == "qcow2" {
        let (status, text) = qemu_img(&["check", "-f", format, path]);
        // 3: clusters leaked, and nothing else.
        assert!(matches!(status, Some(0 | 3)), "round {round}: {text}");
        leaked = status == Some(3);
        let (status, text) = lodge_with(["disk", "check", "--repair", path]);
        assert_eq!(status, 0, "round {round}: {text}");
        assert_eq!(qemu_img(&["check", "-f", format, path]).0, Some(0), "round {round}: the repair left something");
    }
    let (status, text) = qemu_img(&["convert", "-f", format, "-O", "raw", path, raw_path]);
    assert_eq!(status, Some(0), "{text}");
    let bytes = std::fs::read(&raw).unwrap();
    for record in &told {
        let found = &bytes[place(*record) * SECTOR..][..SECTOR];
        let wanted = format!("{record:0SECTOR$}");
        let shown = String::from_utf8_lossy(&found[SECTOR - 16..]);
        assert!(found == wanted.as_bytes(), "{format} round {round}: record {record} of {} is {shown:?}", told.len());
    }
    (told.len(), leaked)
}

#[test]
#[ignore = "boots VMs: run by `cargo xtask test`"]
fn what_a_guest_made_durable_survives_a_power_cut() {
    let rounds = std::env::var("LODGE_POWER_CUTS").map_or(2, |text| text.parse::<u64>().expect("a number"));
    let folder = tempfile::tempdir().unwrap();
    for format in ["raw", "qcow2"] {
        let (mut records, mut leaks) = (0, 0);
        for round in 1..=rounds {
            let (told, leaked) = cut(format, round, folder.path());
            records += told;
            leaks += u64::from(leaked);
        }
        println!("{format}: {rounds} power cuts, {records} durable records, none lost; {leaks} images had leaks");
    }
}
