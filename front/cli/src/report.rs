//! What a machine's end looks like: the JSON report, and the text of a crash.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use lodge_engine_api::CrashReport;
use lodge_vm::Report;
use serde_json::{Map, Value, json};

/// Writes the report. Times are in seconds since the start of the VM, memory in bytes.
///
/// # Errors
///
/// The file cannot be written.
pub fn write(mut file: File, report: &Report, status: u8) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut file, &value(report, status))?;
    file.write_all(b"\n")
}

fn value(report: &Report, status: u8) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let counters: Map<String, Value> =
        report.statistics.counters.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
    let helped: Map<String, Value> =
        report.statistics.helped.iter().map(|(name, count)| (name.clone(), json!(count))).collect();
    json!({
        "lodge": env!("CARGO_PKG_VERSION"),
        "engine": report.engine,
        "outcome": report.outcome.name(),
        "exit_status": status,
        "seconds": {
            "kernel": seconds(report.times.kernel),
            "first_output": seconds(report.times.first_output),
            "exit": seconds(Some(report.times.exit)),
        },
        "resets": report.resets,
        "counters": counters,
        "helped_instructions": helped,
        "code_bytes": report.statistics.code_bytes,
        "peak_memory_bytes": report.peak_memory,
    })
}

/// What is printed of a crash: the cause, the processor, the last instructions.
pub fn crash(crash: &CrashReport) -> String {
    let mut text = format!("lodge: the guest crashed (triple fault): {}\n{}", crash.cause, crash.state);
    for (address, instruction) in &crash.instructions {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{address:016x}  {instruction}");
    }
    text
}

#[cfg(test)]
mod tests {
    use lodge_vm::{Outcome, Times};

    use super::*;

    #[test]
    fn the_report_has_what_it_promises() {
        let report = Report {
            outcome: Outcome::TimedOut,
            engine: "translator",
            times: Times { kernel: Some(Duration::from_millis(5)), first_output: None, exit: Duration::from_secs(2) },
            resets: 1,
            statistics: lodge_engine_api::Statistics {
                counters: vec![("translations", 7)],
                helped: vec![("Wrmsr".into(), 3)],
                code_bytes: 9,
            },
            peak_memory: 4096,
        };
        let value = value(&report, 4);
        assert_eq!(value["outcome"], "timeout");
        assert_eq!(value["exit_status"], 4);
        assert_eq!(value["seconds"]["kernel"], 0.005);
        assert_eq!(value["seconds"]["first_output"], Value::Null);
        assert_eq!(value["counters"]["translations"], 7);
        assert_eq!(value["helped_instructions"]["Wrmsr"], 3);
        assert_eq!(value["peak_memory_bytes"], 4096);
    }
}
