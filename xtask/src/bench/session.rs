//! A contender that has been started and waits for orders on its console.
//!
//! ```text
//!   start ──"bench: ready"──► waiting ──setup, run──► working ──"bench: done"──► waiting ──quit──► ended
//!                                └───────── its end, or no answer in time ─────────┘──► killed
//! ```
//!
//! A thread reads the console and notes when each line came, on the host's clock: a guest's own may lie.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How the lines begin that mean something.
const MARK: &str = "bench: ";
/// Lines of the console that are told of after a failure.
const REMEMBERED: usize = 8;
/// Time for an orderly end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running contender.
pub struct Session {
    child: Child,
    input: ChildStdin,
    lines: Receiver<(Instant, String)>,
    last: VecDeque<String>,
    errors: Errors,
}

/// Where its errors go, and how much others have written there before.
struct Errors {
    path: PathBuf,
    before: u64,
}

impl Errors {
    /// What it wrote.
    fn text(&self) -> String {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let before = usize::try_from(self.before).unwrap_or(usize::MAX);
        String::from_utf8_lossy(bytes.get(before..).unwrap_or_default()).into_owned()
    }
}

/// How a work went.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Seconds.
    pub seconds: f64,
    /// The checksum of what it printed.
    pub answer: String,
}

impl Session {
    /// Starts a command, whose console is copied into `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let path = log.with_extension("errors");
        let to = File::options().create(true).append(true).open(&path)?;
        let errors = Errors { before: to.metadata()?.len(), path };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(to);
        let mut child = command.spawn().with_context(|| format!("cannot run {:?}", command.get_program()))?;
        let input = child.stdin.take().context("no input")?;
        let output = child.stdout.take().context("no output")?;
        let mut copy = File::options().create(true).append(true).open(log)?;
        let (sender, lines) = channel();
        // It ends when the console does; nobody waits for it.
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let now = Instant::now();
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                // The copy is for people to look at: a full disk is no reason to stop.
                let _ = writeln!(copy, "{line}");
                if sender.send((now, line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, input, lines, last: VecDeque::new(), errors })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it takes orders.
    pub fn ready(&mut self, limit: Duration) -> Result<()> {
        self.expect("bench: ready", Instant::now() + limit).map(|_| ()).context("it did not boot")
    }

    /// Has it do a work's `setup` or `run`.
    pub fn order(&mut self, verb: &str, key: &str, limit: Duration) -> Result<Reply> {
        let deadline = Instant::now() + limit;
        // If it has ended, what is expected next says so, and how.
        let _ = writeln!(self.input, "{verb} {key}");
        let (begin, _) = self.expect("bench: begin", deadline)?;
        let (end, status) = self.expect("bench: end ", deadline)?;
        let mut said = Vec::new();
        let mut answer = String::new();
        loop {
            let (_, line) = self.expect(MARK, deadline)?;
            if line == "done" {
                break;
            } else if let Some(text) = line.strip_prefix("said ") {
                said.push(text.to_owned());
            } else if let Some(text) = line.strip_prefix("answer ") {
                text.clone_into(&mut answer);
            }
        }
        if status != "0" {
            bail!("{verb} of {key} failed with status {status}: {}", said.join(" | "));
        }
        Ok(Reply { seconds: (end - begin).as_secs_f64(), answer })
    }

    /// Waits for a line that holds `mark`: when it came, and what follows the mark.
    pub fn expect(&mut self, mark: &str, deadline: Instant) -> Result<(Instant, String)> {
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((now, line)) => {
                    // The kernel echoes its command line, which may hold the mark.
                    if let Some((_, rest)) = line.split_once(mark).filter(|_| !line.contains("lodge.run=")) {
                        return Ok((now, rest.to_owned()));
                    }
                    if self.last.len() == REMEMBERED {
                        self.last.pop_front();
                    }
                    self.last.push_back(line);
                }
                Err(RecvTimeoutError::Timeout) => bail!("no answer in time{}", self.last_words()),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                    bail!("it ended ({status}){}", self.last_words());
                }
            }
        }
    }

    /// What it said last, on its console and as errors.
    fn last_words(&self) -> String {
        let errors = self.errors.text();
        let lines: Vec<_> = self.last.iter().map(String::as_str).chain(errors.lines().take(REMEMBERED)).collect();
        if lines.is_empty() { String::new() } else { format!("; last words: {}", lines.join(" | ")) }
    }

    /// Waits for its own end; when that was.
    pub fn wait(&mut self, deadline: Instant) -> Result<Instant> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("it ended with {status}{}", self.last_words());
                }
                return Ok(Instant::now());
            }
            if Instant::now() > deadline {
                bail!("it did not end in time{}", self.last_words());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Has it end in order.
    pub fn quit(mut self) -> Result<()> {
        writeln!(self.input, "quit")?;
        self.wait(Instant::now() + PATIENCE).map(|_| ())
    }

    /// Seconds of processor time that its threads have used.
    pub fn processor_time(&self) -> Result<f64> {
        let mut nanoseconds = 0u64;
        for task in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split_whitespace().next().context("an empty schedstat")?;
            nanoseconds += first.parse::<u64>()?;
        }
        Ok(nanoseconds as f64 / 1e9)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn session(script: &str) -> (Session, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let command = crate::shell::command("sh", ["-c", script]);
        (Session::start(command, &folder.path().join("log")).unwrap(), folder)
    }

    #[test]
    fn works_are_timed_and_their_answers_told() {
        let (mut session, folder) = session(
            "echo 'lodge.run=bench: ready'; echo bench: ready; read line; echo bench: begin; sleep 0.05; \
             echo kernel; echo bench: end 0; echo \"bench: answer $line\"; echo bench: done; read quit",
        );
        session.ready(LIMIT).unwrap();
        let reply = session.order("run", "x", LIMIT).unwrap();
        assert!((0.05..20.0).contains(&reply.seconds), "{reply:?}");
        assert_eq!(reply.answer, "run x");
        session.quit().unwrap();
        assert!(fs::read_to_string(folder.path().join("log")).unwrap().contains("kernel"));
    }

    #[test]
    fn a_failed_work_says_what_it_said() {
        let (mut session, _folder) = session(
            "read line; echo bench: begin; echo bench: end 3; echo bench: said no; echo bench: answer 0; echo bench: done",
        );
        let error = session.order("run", "x", LIMIT).unwrap_err().to_string();
        assert_eq!(error, "run of x failed with status 3: no");
    }

    #[test]
    fn an_early_end_and_silence_are_errors_with_the_last_words() {
        let (mut early, _folder) = session("echo one; echo two >&2; exit 4");
        let error = early.expect("bench: ready", Instant::now() + LIMIT).unwrap_err().to_string();
        assert_eq!(error, "it ended (exit status: 4); last words: one | two");
        let (mut silent, _folder) = session("echo one; exec sleep 60");
        let error = silent.expect("bench: ready", Instant::now() + Duration::from_millis(300)).unwrap_err().to_string();
        assert_eq!(error, "no answer in time; last words: one");
    }
}
