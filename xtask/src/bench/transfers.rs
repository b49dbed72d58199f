//! Transfers between the host and a machine: iperf3's server is in the machine, its client on the host, at a port that leads
//! there. On the bare host both are on its loopback interface.
//!
//! Nobody is pinned: the client needs a processor, too, and a machine works on its network and its processor at once.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::contender::{Boots, Contender, PORT, Start, in_tree};
use super::results::Row;
use super::session::Session;
use super::{BOOT, Bench};
use crate::shell;

/// Run in the machine before the first transfer.
pub const SET_UP: &str = "ip link set eth0 up\nip addr add 10.0.2.15/24 dev eth0\nip route add default via 10.0.2.2\n\
                          ping -c 1 10.0.2.2 >/dev/null\niperf3 -s -D";
/// Bytes of a transfer.
const AMOUNT: u64 = 1 << 30;
/// Until a server answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that waits, and ends with this.
enum Server {
    /// On the bare host.
    Native(Child),
    /// In a machine.
    Machine { _session: Session },
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Native(child) = self {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Bench {
    /// Times transfers, in turn.
    pub fn transfers(&self, back: bool, row: &mut Row) {
        let mut servers = Vec::new();
        for (&contender, measured) in &mut row.by {
            match self.server(contender, row.work.key) {
                Ok((server, port)) => servers.push((contender, server, port)),
                Err(error) => measured.failure = Some(format!("{error:#}")),
            }
        }
        for run in 0..=self.runs {
            for (contender, _, port) in &servers {
                let measured = row.by.entry(*contender).or_default();
                if measured.failure.is_some() {
                    continue;
                }
                match self.transfer(*port, back, run == 0) {
                    Ok(seconds) if run == 0 => measured.cold = Some(seconds),
                    Ok(seconds) => measured.warm.push(seconds),
                    Err(error) => measured.failure = Some(format!("{error:#}")),
                }
            }
        }
    }

    /// Starts a server; the host's port that leads to it.
    fn server(&self, contender: Contender, key: &str) -> Result<(Server, u16)> {
        if contender == Contender::Native {
            let mut command = in_tree(&self.files, "iperf3");
            command.args(["-s", "-B", "127.0.0.1", "-p", &PORT.to_string()]);
            let child =
                command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("iperf3 on the bare host")?;
            return Ok((Server::Native(child), PORT));
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let start = Start { cpus: 1, pin: None, boots: Boots::Serve, append: "", report: None, forward: Some(port) };
        let mut session = Session::start(start.command(contender, &self.files), &self.log(contender))?;
        session.ready(BOOT)?;
        session.order("setup", key, self.limit)?;
        Ok((Server::Machine { _session: session }, port))
    }

    /// Times one transfer; the first waits for the server.
    fn transfer(&self, port: u16, back: bool, first: bool) -> Result<f64> {
        let until = Instant::now() + if first { PATIENCE } else { Duration::ZERO };
        loop {
            let mut client = in_tree(&self.files, "iperf3");
            client.args(["-c", "127.0.0.1", "-p", &port.to_string(), "-n", &AMOUNT.to_string(), "--json"]);
            if back {
                client.arg("-R");
            }
            match seconds(&mut client) {
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_secs(1)),
                result => return result,
            }
        }
    }
}

/// Runs a client: how long it took until all was there.
fn seconds(client: &mut Command) -> Result<f64> {
    // It says what is wrong in its report, too, which `output` would lose.
    let text = shell::output(client)?;
    read_report(&text)
}

/// Seconds of a transfer of all that there was to transfer.
fn read_report(text: &str) -> Result<f64> {
    let report: Value = serde_json::from_str(text).context("iperf3 said something else than JSON")?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let received = &report["end"]["sum_received"];
    let (bytes, seconds) =
        received["bytes"].as_f64().zip(received["seconds"].as_f64()).context("a report without end")?;
    // What is on the way when the time is taken is not counted: some buffers' worth.
    if bytes < AMOUNT as f64 * 0.9 {
        bail!("only {bytes} bytes came");
    }
    Ok(seconds * AMOUNT as f64 / bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        let report = |bytes: u64| format!(r#"{{"end":{{"sum_received":{{"seconds":2.0,"bytes":{bytes}}}}}}}"#);
        assert_eq!(read_report(&report(AMOUNT)).unwrap(), 2.0);
        assert!(read_report(&report(5)).is_err());
        let error = read_report(r#"{"error":"no route"}"#).unwrap_err();
        assert_eq!(error.to_string(), "iperf3: no route");
        assert!(read_report("iperf3").is_err());
    }
}
