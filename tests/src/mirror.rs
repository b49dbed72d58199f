//! A mirror of Debian's packages on the host's loopback interface: a folder of ours in front of the mirror that the host's own
//! packages come from.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The folder of the mirror.
const FOLDER: &str = "/debian";
/// How long either side may say nothing.
const SILENCE: Duration = Duration::from_secs(120);

/// The mirror behind, as HTTP names it.
struct Behind {
    /// Where it is: host and port.
    host: String,
    /// The folder there.
    folder: String,
}

/// Serves `folder`, and what is not in it from the mirror at `behind`, until the process ends; the port.
pub fn mirror(folder: PathBuf, behind: &str) -> u16 {
    let (host, place) = behind
        .strip_prefix("http://")
        .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        .unwrap_or_else(|| panic!("{behind} is not a mirror by HTTP, which apt's sources have to name for this test"));
    let behind = Behind { host: host.to_owned(), folder: format!("/{}", place.trim_end_matches('/')) };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let shared = Arc::new((folder, behind));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let shared = shared.clone();
            // One that goes away is none of the mirror's concern: it asks again.
            std::thread::spawn(move || _ = answer(&client, &shared.0, &shared.1));
        }
    });
    port
}

/// Answers one request.
fn answer(mut client: &TcpStream, folder: &Path, behind: &Behind) -> Result<()> {
    client.set_read_timeout(Some(SILENCE))?;
    let mut lines = BufReader::new(client).take(64 << 10).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ');
    let (Some(method @ ("GET" | "HEAD")), Some(path)) = (words.next(), words.next()) else {
        return client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let mut conditions = String::new();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        if ["range", "if-range", "if-modified-since"].contains(&name.as_str()) {
            conditions += &format!("{line}\r\n");
        }
    }
    let Some(path) = path.strip_prefix(FOLDER).filter(|path| path.starts_with('/')) else {
        return client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let own = Path::new(path.trim_start_matches('/'));
    let inside = own.components().all(|part| matches!(part, Component::Normal(_)));
    if let Some(bytes) = inside.then(|| std::fs::read(folder.join(own)).ok()).flatten() {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
        client.write_all(head.as_bytes())?;
        return if method == "GET" { client.write_all(&bytes) } else { Ok(()) };
    }
    let Behind { host, folder } = behind;
    let with_port = if host.contains(':') { host.clone() } else { format!("{host}:80") };
    let mut server = TcpStream::connect(with_port)?;
    server.set_read_timeout(Some(SILENCE))?;
    let request = format!("{method} {folder}{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{conditions}\r\n");
    server.write_all(request.as_bytes())?;
    std::io::copy(&mut server, &mut client).map(drop)
}
