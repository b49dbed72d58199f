use super::*;

/// A target in a folder of its own, and a machine that is a shell script: `$disk` and `$log` are where those are.
fn installation(folder: &Path, script: &str) -> Installation {
    let target = Target::new(&folder.join("d.img"), Some(Format::Raw));
    target.create(1 << 20).unwrap();
    let mut command = Command::new("sh");
    let report = folder.join("report");
    command.arg("-c").arg(script).arg("sh").env("disk", target.incomplete()).env("log", target.log());
    command.env("report", &report);
    Installation { target, command, firmware: Firmware::Bios, report, unattended: true, tells: true }
}

/// Switches itself off, and leaves a boot sector.
const BOOTS: &str = r#"echo '{"outcome":"powered-off"}' > $report
printf 'x' | dd of=$disk conv=notrunc 2>/dev/null
printf '\125\252' | dd of=$disk conv=notrunc bs=1 seek=510 2>/dev/null
"#;

fn run(installation: Installation) -> (Result<(), InstallError>, Vec<String>) {
    let mut stages = Vec::new();
    let result = installation.run(&AtomicBool::new(false), |stage| stages.push(stage.what.clone()));
    (result, stages)
}

#[test]
fn what_ends_well_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "{BOOTS}echo \"x main-menu[1]: INFO: Menu item 'partman-base' selected\" >> $log
        echo 'x root: lodge: the system is installed' >> $log"
    );
    let installation = installation(folder.path(), &script);
    let target = installation.target.clone();
    let (result, stages) = run(installation);
    result.unwrap();
    assert_eq!(stages, ["starts the installer", "makes partitions"]);
    assert!(target.disk().is_file() && !target.incomplete().exists() && target.log().is_file());
    assert!(matches!(target.create(1 << 20), Err(InstallError::Exists(_))), "it is not overwritten");
}

#[test]
fn what_does_not_end_well_never_has_it() {
    let failing = "echo \"x main-menu[1]: WARNING **: Menu item 'choose-mirror' failed.\" >> $log; exec sleep 60";
    let done = "echo 'x root: lodge: the system is installed' >> $log";
    let off = r#"echo '{"outcome":"powered-off"}' > $report"#;
    let quit = r#"echo '{"outcome":"quit"}' > $report"#;
    let cases = [
        (failing.to_owned(), "failed at 'choose-mirror'"),
        ("truncate -s 257M $log; exec sleep 60".to_owned(), "says more and more"),
        (BOOTS.to_owned(), "before the installer was done"),
        (format!("{off}; {done}"), "nothing that starts"),
        (format!("{BOOTS}{done}; {quit}"), "stopped"),
        (format!("{BOOTS}{done}; rm $report"), "without saying how"),
        (format!("{BOOTS}{done}; exit 3"), "a crash of the guest's"),
        (format!("{BOOTS}{done}; echo 'lodge: no room' >&2; exit 2"), "it said: no room"),
        (format!("{BOOTS}{done}; kill -9 $$"), "by signal 9"),
    ];
    for (script, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let installation = installation(folder.path(), &script);
        let target = installation.target.clone();
        let (result, _) = run(installation);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{script}: {error}");
        assert!(!target.disk().exists() && target.incomplete().exists(), "{script}");
        assert!(target.log().exists(), "{script}");
    }
}

#[test]
fn who_installs_can_stop_it() {
    let folder = tempfile::tempdir().unwrap();
    let installation = installation(folder.path(), "exec sleep 60");
    let result = installation.run(&AtomicBool::new(true), |_| {});
    assert!(matches!(result, Err(InstallError::Stopped(_))), "{result:?}");
}
