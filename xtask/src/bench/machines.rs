//! What machines do without a script: booting, the way through the firmware, and idling.

use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::contender::{Boots, Start};
use super::results::{Measured, Row};
use super::session::Session;
use super::{BOOT, Bench};

/// Printed by the RAM disk's init once devices are there.
const INIT: &str = "lodge: init";
/// Time after boot until a guest is quiet.
const SETTLE: Duration = Duration::from_secs(3);

impl Bench {
    /// Times boots of the kernel and its RAM disk, from the start of the process.
    pub fn boots(&self, to_end: bool, row: &mut Row) {
        for _ in 0..self.runs {
            for (&contender, measured) in &mut row.by {
                let boot = || -> Result<f64> {
                    let boots = Boots::Script("true");
                    let start = Start { cpus: 1, pin: self.pin, boots, append: "", report: None, forward: None };
                    let begin = Instant::now();
                    let mut session = Session::start(start.command(contender, &self.files), &self.log(contender))?;
                    let (mut end, _) = session.expect(INIT, begin + BOOT)?;
                    if to_end {
                        end = session.wait(begin + BOOT)?;
                    }
                    Ok((end - begin).as_secs_f64())
                };
                note(boot(), measured);
            }
        }
    }

    /// Times the way through the firmware to a sector that ends the machine at once.
    pub fn firmware(&self, row: &mut Row) {
        const STATUS: i32 = 1;
        for _ in 0..self.runs {
            for (&contender, measured) in &mut row.by {
                let boot = || -> Result<f64> {
                    let start =
                        Start { cpus: 1, pin: self.pin, boots: Boots::Sector, append: "", report: None, forward: None };
                    let mut command = start.command(contender, &self.files);
                    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(self.log(contender))?);
                    let begin = Instant::now();
                    let status = command.status()?;
                    let seconds = begin.elapsed().as_secs_f64();
                    if status.code() != Some(STATUS) {
                        bail!("it ended with {status}");
                    }
                    Ok(seconds)
                };
                note(boot(), measured);
            }
        }
    }

    /// Measures what idle machines cost, all at the same time.
    pub fn idles(&self, append: &str, row: &mut Row) {
        let mut sessions = Vec::new();
        for (&contender, measured) in &mut row.by {
            let boot = || -> Result<Session> {
                let boots = Boots::Script("sleep 1000000");
                let start = Start { cpus: 1, pin: self.pin, boots, append, report: None, forward: None };
                let mut session = Session::start(start.command(contender, &self.files), &self.log(contender))?;
                session.expect(INIT, Instant::now() + BOOT)?;
                Ok(session)
            };
            match boot() {
                Ok(session) => sessions.push((contender, session)),
                Err(error) => measured.failure = Some(format!("{error:#}")),
            }
        }
        std::thread::sleep(SETTLE);
        for _ in 0..self.runs {
            let before: Vec<_> = sessions.iter().map(|(_, session)| session.processor_time()).collect();
            let begin = Instant::now();
            std::thread::sleep(Duration::from_secs(self.idle));
            let minutes = begin.elapsed().as_secs_f64() / 60.0;
            for ((contender, session), before) in sessions.iter().zip(before) {
                let used = before.and_then(|before| Ok((session.processor_time()? - before) / minutes));
                note(used, row.by.entry(*contender).or_default());
            }
        }
    }
}

fn note(result: Result<f64>, measured: &mut Measured) {
    match result {
        Ok(seconds) => measured.warm.push(seconds),
        Err(error) => measured.failure = Some(format!("{error:#}")),
    }
}
