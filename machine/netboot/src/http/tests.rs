use lodge_trial::{Random, steps};

use super::*;

fn folder() -> (tempfile::TempDir, Folder) {
    let place = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..10_000_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(place.path().join("kernel"), &content).unwrap();
    std::fs::write(place.path().join("boot x64.EFI"), "MZ").unwrap();
    std::fs::write(place.path().join("empty"), "").unwrap();
    let folder = Folder::open(place.path()).unwrap();
    (place, folder)
}

/// Sends all of it in pieces, and takes what comes back in pieces.
fn exchange(http: &mut Http, mut input: &[u8], piece: usize, room: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; room];
    loop {
        while http.has_output() {
            let length = http.output(&mut buffer);
            all.extend_from_slice(&buffer[..length]);
        }
        if input.is_empty() {
            return all;
        }
        let taken = http.input(&input[..piece.min(input.len())]);
        assert!(taken > 0);
        input = &input[taken..];
    }
}

/// The head and the body of one answer.
fn ask(folder: &Folder, request: &str) -> (String, Vec<u8>, Connection) {
    let mut http = Http::new(folder.clone());
    let answer = exchange(&mut http, request.as_bytes(), 7, 100);
    let end = end_of_header(&answer).expect("an answer");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head, answer[end..].to_vec(), http.connection())
}

fn get(folder: &Folder, target: &str, fields: &str) -> (String, Vec<u8>, Connection) {
    ask(folder, &format!("GET {target} HTTP/1.1\r\nHost: 10.0.2.2\r\n{fields}\r\n"))
}

#[track_caller]
fn assert_head(head: &str, status: &str, fields: &[&str]) {
    assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    for field in fields {
        assert!(head.contains(&format!("\r\n{field}\r\n")), "{field} is not in {head}");
    }
}

#[test]
fn files_are_served() {
    let (place, folder) = folder();
    let content = std::fs::read(place.path().join("kernel")).unwrap();
    let (head, body, connection) = get(&folder, "/kernel", "");
    let fields = ["Content-Length: 10000", "Content-Type: application/octet-stream", "Accept-Ranges: bytes"];
    assert_head(&head, "200 OK", &fields);
    assert!(body == content);
    assert_eq!(connection, Connection::Open);
    for target in ["/boot%20x64.efi", "http://10.0.2.2/boot%20x64.EFI?a=b#c", "/%2fboot%20x64.efi"] {
        let (head, body, _) = get(&folder, target, "");
        assert_head(&head, "200 OK", &["Content-Length: 2", "Content-Type: application/efi"]);
        assert_eq!(body, b"MZ");
    }
    let (head, body, _) = get(&folder, "/empty", "");
    assert_head(&head, "200 OK", &["Content-Length: 0"]);
    assert!(body.is_empty());
    let (head, body, _) = ask(&folder, "HEAD /kernel HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n");
    assert_head(&head, "200 OK", &["Content-Length: 10000"]);
    assert!(body.is_empty());
}

#[test]
fn ranges_are_served() {
    let (place, folder) = folder();
    let content = std::fs::read(place.path().join("kernel")).unwrap();
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=100-199", 100..200),
        ("bytes=9990-", 9990..10_000),
        ("bytes=9990-99999999999999999999999", 9990..10_000),
        ("bytes=-10", 9990..10_000),
        ("BYTES=-20000", 0..10_000),
    ] {
        let (head, body, _) = get(&folder, "/kernel", &format!("Range: {range}\r\n"));
        let about = format!("Content-Range: bytes {}-{}/10000", expected.start, expected.end - 1);
        assert_head(&head, "206 Partial", &[&about, &format!("Content-Length: {}", expected.len())]);
        assert!(body == content[expected], "{range}");
    }
    for range in ["bytes=10000-", "bytes=10000-10001", "bytes=-0", "bytes=99999999999999999999-"] {
        let (head, body, _) = get(&folder, "/kernel", &format!("Range: {range}\r\n"));
        assert_head(&head, "416 ", &["Content-Range: bytes */10000"]);
        assert!(String::from_utf8(body).unwrap().contains("kernel"));
    }
    for field in [
        "Range: bytes=0-1,5-6",
        "Range: bytes=5-1",
        "Range: lines=1-2",
        "Range: bytes=+1-2",
        "Range: bytes=-",
        "Range: bytes=0-1\r\nRange: bytes=0-1",
        "Range: bytes=0-1\r\nIf-Range: \"a\"",
    ] {
        let (head, body, _) = get(&folder, "/kernel", &format!("{field}\r\n"));
        assert_head(&head, "200 OK", &[]);
        assert!(body == content, "{field}");
    }
}

#[test]
fn what_is_not_served_is_named() {
    let (_place, folder) = folder();
    for (target, status, named) in [
        ("/boot/missing.efi", "404", "/boot/missing.efi"),
        ("/..%2f..%2fetc/passwd", "403", "/../../etc/passwd"),
        ("/%00", "400", "NUL"),
        ("/", "400", "names nothing"),
        ("*", "404", "*"),
    ] {
        let (head, body, connection) = get(&folder, target, "");
        assert_head(&head, status, &[&format!("Content-Length: {}", body.len())]);
        assert!(String::from_utf8(body).unwrap().contains(named), "{target}");
        assert_eq!(connection, Connection::Open);
    }
    let (head, _, connection) = ask(&folder, "PUT /kernel HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_head(&head, "405", &["Allow: GET, HEAD", "Connection: close"]);
    assert_eq!(connection, Connection::Closes);
    for malformed in [
        "GET /kernel HTTP/1.1\r\n\r\n",
        "GET /kernel HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /kernel\r\n\r\n",
        "GET /kernel HTTP/2.0\r\nHost: a\r\n\r\n",
        "\x16\x03\x01 TLS\r\n\r\n",
    ] {
        let (head, _, connection) = ask(&folder, malformed);
        assert_head(&head, "400", &["Connection: close"]);
        assert_eq!(connection, Connection::Closes);
    }
    let long = format!("X: {}\r\n", "x".repeat(LONGEST_HEADER));
    let many = "X: y\r\n".repeat(MOST_FIELDS + 1);
    for fields in [&long, &many] {
        let (head, _, connection) = get(&folder, "/kernel", fields);
        assert_head(&head, "431", &["Connection: close"]);
        assert_eq!(connection, Connection::Closes);
    }
    let (head, _, _) = get(&folder, &format!("/{}", "a".repeat(2000)), "");
    assert_head(&head, "400", &[]);
}

#[test]
fn connections_are_kept_as_long_as_the_client_wants() {
    let (_place, folder) = folder();
    let one = "GET /kernel HTTP/1.1\r\nHost: a\r\nRange: bytes=0-2\r\n\r\n";
    let mut http = Http::new(folder.clone());
    // Three at once, with lines that are none of theirs between them.
    let answer = exchange(&mut http, format!("{one}\r\n{one}{one}").as_bytes(), 1000, 3);
    assert_eq!(String::from_utf8_lossy(&answer).matches("206 Partial").count(), 3);
    assert_eq!(http.connection(), Connection::Open);
    // Nothing is taken while there is output.
    assert_eq!(http.input(one.as_bytes()), one.len());
    assert_eq!(http.input(one.as_bytes()), 0);
    for (request, keeps) in [
        ("GET /empty HTTP/1.0\r\n\r\n", false),
        ("GET /empty HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ("GET /empty HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n", false),
        ("GET /empty HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", true),
        ("GET /empty HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", false),
        ("GET /empty HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        ("GET /nothing HTTP/1.0\n\n", false),
    ] {
        let (head, _, connection) = ask(&folder, request);
        assert_eq!(connection, if keeps { Connection::Open } else { Connection::Closes }, "{request}");
        assert_eq!(head.contains("Connection: close"), !keeps);
        assert_eq!(head.contains("Connection: keep-alive"), keeps && request.contains("HTTP/1.0"));
    }
}

#[test]
fn a_large_file_needs_no_memory() {
    let (place, folder) = folder();
    let size = (4_u64 << 30) + 5;
    std::fs::File::create(place.path().join("large")).unwrap().set_len(size).unwrap();
    let mut http = Http::new(folder);
    let request = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(http.input(request), request.len());
    let mut buffer = vec![0; 16 << 20];
    let first = http.output(&mut buffer);
    let end = end_of_header(&buffer).unwrap();
    assert!(String::from_utf8_lossy(&buffer[..end]).contains(&format!("Content-Length: {size}\r\n")));
    let mut total = (first - end) as u64;
    while http.has_output() {
        total += http.output(&mut buffer) as u64;
        assert!(http.header.capacity() + http.head.capacity() < 64 << 10);
    }
    assert_eq!(total, size);
}

#[test]
fn a_file_that_becomes_shorter_breaks_the_connection() {
    let (place, folder) = folder();
    let mut http = Http::new(folder);
    let request = b"GET /kernel HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(http.input(request), request.len());
    let mut buffer = [0; 500];
    assert_eq!(http.output(&mut buffer), 500);
    std::fs::write(place.path().join("kernel"), "short").unwrap();
    assert_eq!(http.output(&mut buffer), 0);
    assert_eq!(http.connection(), Connection::Broken);
    assert!(!http.has_output());
}

#[test]
fn random_requests_do_no_harm() {
    let (_place, folder) = folder();
    let mut random = Random(0x9110);
    let good = [
        "GET /kernel HTTP/1.1\r\nHost: a\r\nRange: bytes=5-9\r\n\r\n",
        "GET /boot%20x64.efi HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "HEAD http://a/../x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
        "POST /kernel HTTP/1.1\r\nHost: a\r\n\r\nbody",
    ];
    let mut http = Http::new(folder.clone());
    let (mut buffer, mut answers) = ([0; 4096], 0_u64);
    for _ in 0..steps(1_000_000) {
        let mut data = random.pick(&good).as_bytes().to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(data.len() as u64 + 1) as usize;
            match random.below(3) {
                0 => data.insert(at, random.next() as u8),
                1 => data.truncate(at),
                _ if at < data.len() => data[at] = random.next() as u8,
                _ => {}
            }
        }
        let mut rest = data.as_slice();
        while !rest.is_empty() {
            let taken = http.input(rest);
            rest = &rest[taken..];
            assert!(taken > 0 || http.has_output());
            assert!(http.header.len() < LONGEST_HEADER && http.head.len() < 4096);
            if http.has_output() {
                answers += 1;
            }
            while http.has_output() {
                assert!(http.output(&mut buffer) > 0);
            }
        }
        if http.connection() != Connection::Open {
            http = Http::new(folder.clone());
        }
    }
    assert!(answers > 1000, "{answers}");
}
