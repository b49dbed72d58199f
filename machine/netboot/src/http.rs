//! A server of files by HTTP/1.1 (RFC 9110, RFC 9112), for one connection: GET and HEAD, ranges, and connections that are
//! kept, as iPXE and UEFI's HTTP boot ask (UEFI specification 2.10, section 24.7).
//!
//! ```text
//!   input ──► header, until its empty line ──► answer's head ──► body, read from the file as it is asked for ──► output
//!     ▲                                                                                          │
//!     └──────────────────────────── next request, if the connection is kept ◄────────────────────┘
//! ```
//!
//! A body is never held: what [`Http::output`] gives is read then. While an answer is on its way, no input is taken.

use std::io::Write as _;
use std::ops::Range;
use std::time::SystemTime;

use percent_encoding::percent_decode;

use crate::folder::{Folder, FolderError, LONGEST_PATH, ServedFile};

#[cfg(test)]
mod tests;

/// The longest header of a request.
const LONGEST_HEADER: usize = 16 * 1024;
/// Fields that a request can have.
const MOST_FIELDS: usize = 64;

/// How much of a target is shown.
const LONGEST_SHOWN: usize = 200;

/// How a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// More requests may come.
    Open,
    /// It is closed when all output has been sent.
    Closes,
    /// It is reset: what was promised can't be sent.
    Broken,
}

/// A server's side of one connection.
pub struct Http {
    // Configuration.
    folder: Folder,

    // Volatile.
    /// What has come of a request's header.
    header: Vec<u8>,
    /// The head of an answer, with the body of one that says what is wrong.
    head: Vec<u8>,
    /// How much of that has been given.
    given: usize,
    body: Option<Body>,
    connection: Connection,
}

/// What of a file is still to be sent.
struct Body {
    file: ServedFile,
    left: Range<u64>,
    /// How much there was.
    length: u64,
}

/// What is answered when there is no file to send.
struct Failure {
    status: u16,
    reason: &'static str,
    text: String,
    /// A further field of the head, with its line's end.
    field: String,
    /// Whether the next request can be found behind this one.
    keep: bool,
}

impl Failure {
    fn new(status: u16, reason: &'static str, text: impl Into<String>) -> Self {
        Self { status, reason, text: text.into(), field: String::new(), keep: false }
    }
}

/// What is asked for.
struct Request {
    is_head: bool,
    path: Vec<u8>,
    range: Option<Asked>,
    keep: bool,
    is_old: bool,
}

/// A range of bytes (RFC 9110, section 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// From the first to the last, or to the end.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

impl Http {
    /// A connection that has just been made.
    pub fn new(folder: Folder) -> Self {
        Self { folder, header: Vec::new(), head: Vec::new(), given: 0, body: None, connection: Connection::Open }
    }

    /// Whether there is output.
    pub fn has_output(&self) -> bool {
        self.connection != Connection::Broken && (self.given < self.head.len() || self.body.is_some())
    }

    /// How the connection goes on when there is no more output.
    pub fn connection(&self) -> Connection {
        self.connection
    }

    /// Takes what the client sends, and says how much of it was taken; the rest is to be given again when there is no more
    /// output.
    pub fn input(&mut self, data: &[u8]) -> usize {
        if self.connection != Connection::Open {
            // Nobody looks at what comes now, but the client is to be able to send it.
            return data.len();
        }
        if self.has_output() {
            return 0;
        }
        let mut taken = 0;
        if self.header.is_empty() {
            // Empty lines before a request are none of it (RFC 9112, section 2.2).
            taken = data.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        }
        let more = &data[taken..data.len().min(taken + LONGEST_HEADER - self.header.len())];
        // An empty line may have begun with what came before.
        let looked_at = self.header.len().saturating_sub(3);
        let before = self.header.len();
        self.header.extend_from_slice(more);
        match end_of_header(&self.header[looked_at..]) {
            Some(end) => {
                let end = looked_at + end;
                taken += end - before;
                self.header.truncate(end);
                let header = std::mem::take(&mut self.header);
                self.answer(&header);
            }
            None if self.header.len() == LONGEST_HEADER => {
                taken += more.len();
                self.header = Vec::new();
                let text = format!("a request's header has at most {LONGEST_HEADER} bytes\n");
                self.fail(&Failure::new(431, "Request Header Fields Too Large", text), false);
            }
            None => taken += more.len(),
        }
        taken
    }

    /// Puts output into a buffer, and says how much; 0 if there is none now.
    pub fn output(&mut self, buffer: &mut [u8]) -> usize {
        let head = &self.head[self.given..];
        let mut filled = head.len().min(buffer.len());
        buffer[..filled].copy_from_slice(&head[..filled]);
        self.given += filled;
        if self.given == self.head.len() {
            self.head = Vec::new();
            self.given = 0;
        }
        let Some(body) = &mut self.body else { return filled };
        let room = (buffer.len() - filled) as u64;
        let length = room.min(body.left.end - body.left.start);
        let piece = &mut buffer[filled..filled + length as usize];
        if let Err(reason) = body.file.read_at(piece, body.left.start) {
            self.folder.report_broken("HTTP", &body.file, &reason);
            self.body = None;
            self.connection = Connection::Broken;
            return filled;
        }
        filled += length as usize;
        body.left.start += length;
        if body.left.is_empty() {
            self.folder.report_served("HTTP", &body.file, body.length);
            self.body = None;
        }
        filled
    }

    /// Answers a request, of which there is the whole header.
    fn answer(&mut self, header: &[u8]) {
        let request = match read(header) {
            Ok(request) => request,
            Err(failure) => return self.fail(&failure, false),
        };
        let file = match self.folder.file(&request.path) {
            Ok(file) => file,
            Err(error) => {
                self.folder.report_refused("HTTP", &error);
                let (status, reason) = match error {
                    FolderError::Missing { .. } | FolderError::NotFile { .. } => (404, "Not Found"),
                    FolderError::Malformed { .. } => (400, "Bad Request"),
                    FolderError::Outside { .. } => (403, "Forbidden"),
                    _ => (500, "Internal Server Error"),
                };
                let mut failure = Failure::new(status, reason, format!("{error}\n"));
                failure.keep = request.keep;
                failure.field = kept(&request).into();
                return self.fail(&failure, request.is_head);
            }
        };
        let size = file.size();
        let (status, range, about) = match request.range.map(|asked| satisfy(asked, size)) {
            None => ("200 OK", 0..size, String::new()),
            Some(Some(range)) => {
                let about = format!("Content-Range: bytes {}-{}/{size}\r\n", range.start, range.end - 1);
                ("206 Partial Content", range, about)
            }
            Some(None) => {
                let text = format!("{:?} has {size} bytes, and none of those that were asked for\n", file.asked());
                let mut failure = Failure::new(416, "Range Not Satisfiable", text);
                failure.field = format!("Content-Range: bytes */{size}\r\n{}", kept(&request));
                failure.keep = request.keep;
                return self.fail(&failure, request.is_head);
            }
        };
        let length = range.end - range.start;
        let kind = kind(&request.path);
        self.begin(status, length, kind, &format!("Accept-Ranges: bytes\r\n{about}{}", kept(&request)), request.keep);
        if request.is_head {
            return;
        }
        if length == 0 {
            self.folder.report_served("HTTP", &file, 0);
        } else {
            self.body = Some(Body { file, left: range, length });
        }
    }

    /// Answers that there is nothing to send.
    fn fail(&mut self, failure: &Failure, is_head: bool) {
        let status = format!("{} {}", failure.status, failure.reason);
        self.begin(&status, failure.text.len() as u64, "text/plain; charset=utf-8", &failure.field, failure.keep);
        if !is_head {
            self.head.extend_from_slice(failure.text.as_bytes());
        }
    }

    /// Begins an answer.
    fn begin(&mut self, status: &str, length: u64, kind: &str, fields: &str, keep: bool) {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let end = if keep { "" } else { "Connection: close\r\n" };
        if !keep {
            self.connection = Connection::Closes;
        }
        // A vector takes all that is written.
        let _ = write!(
            self.head,
            "HTTP/1.1 {status}\r\nDate: {date}\r\nServer: lodge\r\nContent-Length: {length}\r\nContent-Type: {kind}\r\n\
             {fields}{end}\r\n",
        );
    }
}

/// Where the empty line behind a header ends.
fn end_of_header(bytes: &[u8]) -> Option<usize> {
    let line = |at: &usize| bytes[*at] == b'\n';
    (0..bytes.len()).filter(line).find_map(|at| match bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// What a client of HTTP/1.0 is told whose connection is kept: others take it for granted.
fn kept(request: &Request) -> &'static str {
    if request.keep && request.is_old { "Connection: keep-alive\r\n" } else { "" }
}

/// Reads a request's header.
fn read(header: &[u8]) -> Result<Request, Failure> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(header) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            let text = format!("a request has at most {MOST_FIELDS} header fields\n");
            return Err(Failure::new(431, "Request Header Fields Too Large", text));
        }
        Ok(httparse::Status::Partial) | Err(_) => return Err(bad("the request can't be understood")),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(bad("the request can't be understood"));
    };
    let is_old = version == 0;
    let values = |name: &'static str| {
        let fields = request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        fields.map(|field| field.value.trim_ascii())
    };
    let mut hosts = values("Host");
    if (hosts.next().is_none() && !is_old) || hosts.next().is_some() {
        return Err(bad("a request names one host"));
    }
    let is_head = match method {
        "GET" => false,
        "HEAD" => true,
        _ => {
            let target = &target[..target.floor_char_boundary(LONGEST_SHOWN)];
            let text = format!("{target:?} can only be read: GET and HEAD are served\n");
            let mut failure = Failure::new(405, "Method Not Allowed", text);
            failure.field = "Allow: GET, HEAD\r\n".into();
            return Err(failure);
        }
    };
    let path = path(target);
    // Nobody reads what comes with such a request, so that the next one can't be found behind it.
    let has_body =
        values("Transfer-Encoding").next().is_some() || values("Content-Length").any(|length| length != b"0");
    let says = |what: &str| {
        let words = values("Connection").flat_map(|value| value.split(|byte| *byte == b','));
        words.into_iter().any(|word| word.trim_ascii().eq_ignore_ascii_case(what.as_bytes()))
    };
    let keep = !has_body && !says("close") && (!is_old || says("keep-alive"));
    // A range of what may have become another file is not asked for: nothing here tells files apart (RFC 9110, section
    // 13.1.5), so that all is sent. Ranges are defined for GET alone (section 14.2).
    let mut ranges = values("Range");
    let range = match (ranges.next(), ranges.next()) {
        (Some(range), None) if !is_head && values("If-Range").next().is_none() => asked(range),
        _ => None,
    };
    Ok(Request { is_head, path, range, keep, is_old })
}

fn bad(text: &str) -> Failure {
    Failure::new(400, "Bad Request", format!("{text}\n"))
}

/// The path in a request's target, which may be a whole URL (RFC 9112, section 3.2).
fn path(target: &str) -> Vec<u8> {
    let target = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?', '#']) => rest.find('/').map_or("", |at| &rest[at..]),
        _ => target,
    };
    let end = target.find(['?', '#']).unwrap_or(target.len());
    // One more than a path may have, so that a longer one is refused.
    percent_decode(&target.as_bytes()[..end]).take(LONGEST_PATH + 1).collect()
}

/// A file's media type. UEFI's clients tell by it what they were given (UEFI specification 2.10, section 24.7).
fn kind(path: &[u8]) -> &'static str {
    let ends = |with: &[u8]| path.len() > with.len() && path[path.len() - with.len()..].eq_ignore_ascii_case(with);
    if ends(b".efi") { "application/efi" } else { "application/octet-stream" }
}

/// Reads a single range. Several, and what can't be understood, are as if none were asked for (RFC 9110, section 14.2).
fn asked(value: &[u8]) -> Option<Asked> {
    let value = str::from_utf8(value).ok()?;
    let (unit, range) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |text: &str| {
        let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number that doesn't fit is beyond every file's end.
        all_digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = range.trim().split_once('-')?;
    match (first, last) {
        ("", last) => Some(Asked::Last(number(last)?)),
        (first, "") => Some(Asked::From(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Asked::From(first, Some(last)))
        }
    }
}

/// What a range is of a file with this size; nothing if it has none of it.
fn satisfy(asked: Asked, size: u64) -> Option<Range<u64>> {
    let range = match asked {
        Asked::From(first, last) => first..last.map_or(size, |last| last.saturating_add(1).min(size)),
        Asked::Last(length) => size - length.min(size)..size,
    };
    (!range.is_empty()).then_some(range)
}
