//! Many connections at a time, for a while.

use std::time::Instant;

use smoltcp::iface::SocketHandle;

use super::*;

/// Connections at a time.
const MANY: usize = 200;
/// Messages on one before it is closed and another takes its place.
const MESSAGES: u64 = 100;
/// The longest message.
const LONGEST: u64 = 8 << 10;
/// How long one may wait for its echo. The machines that tests run on are slow and busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends what comes back, on a thread for each connection.
fn echo_server() -> u16 {
    let (listener, port) = listener("127.0.0.1:0");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut buffer) = (stream.unwrap(), vec![0; 16 << 10]);
            std::thread::spawn(move || {
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    stream.write_all(&buffer[..count]).unwrap();
                }
            });
        }
    });
    port
}

/// One of the guest's connections.
struct Talker {
    socket: SocketHandle,
    random: Random,
    /// What was sent last, and how much of it is on its way and came back.
    message: Vec<u8>,
    sent: usize,
    back: usize,
    messages: u64,
    /// When something came last.
    heard: Instant,
}

impl Talker {
    fn new(guest: &mut Guest, to: SocketAddr, seed: u64) -> Self {
        let socket = guest.connect(to);
        let (message, heard) = (Vec::new(), Instant::now());
        Self { socket, random: Random(seed), message, sent: 0, back: 0, messages: 0, heard }
    }

    /// Sends and receives what it can. Whether it has said all and heard it.
    fn go_on(&mut self, guest: &mut Guest) -> bool {
        let socket = guest.with(self.socket);
        while socket.can_recv() {
            let rest = &self.message[self.back..self.sent];
            let count = socket.recv(|bytes| {
                assert!(rest.starts_with(bytes), "what came back is something else");
                (bytes.len(), bytes.len())
            });
            self.back += count.unwrap();
            self.heard = Instant::now();
        }
        assert!(self.heard.elapsed() < PATIENCE, "a connection stalls in {:?}", socket.state());
        if self.back == self.message.len() {
            if self.messages == MESSAGES {
                return true;
            }
            self.messages += 1;
            let length = 1 + self.random.below(LONGEST);
            self.message = (0..length).map(|_| self.random.next() as u8).collect();
            (self.sent, self.back) = (0, 0);
        }
        if socket.can_send() && self.sent < self.message.len() {
            self.sent += socket.send_slice(&self.message[self.sent..]).unwrap();
        }
        false
    }
}

#[test]
fn many_connections_go_on_for_a_while() {
    let to = at(GATEWAY, echo_server());
    let mut guest = local();
    // A minute of it where all steps are wanted.
    let until = Instant::now() + Duration::from_millis(steps(60_000));
    let mut seed = 0;
    let mut talker = |guest: &mut Guest| {
        seed += 1;
        Talker::new(guest, to, seed)
    };
    let mut talkers: Vec<_> = (0..MANY).map(|_| talker(&mut guest)).collect();
    let (mut closing, mut ended) = (Vec::<SocketHandle>::new(), 0);
    let mut most = 0;
    while Instant::now() < until {
        guest.poll();
        for place in &mut talkers {
            if place.go_on(&mut guest) {
                guest.with(place.socket).close();
                let old = std::mem::replace(place, talker(&mut guest));
                closing.push(old.socket);
            }
        }
        closing.retain(|socket| {
            let goes_on = !matches!(guest.state(*socket), State::Closed | State::TimeWait);
            if !goes_on {
                guest.forget(*socket);
                ended += 1;
            }
            goes_on
        });
        most = most.max(guest.wire.net.load().0);
    }
    assert!((MANY..2 * MANY).contains(&most), "{most}");
    let messages: u64 = talkers.iter().map(|talker| talker.messages).sum::<u64>() + ended * MESSAGES;
    assert!(talkers.iter().all(|talker| talker.messages > 0 || talker.heard.elapsed() < PATIENCE));
    assert!(messages > MANY as u64, "{messages}");
    for talker in &talkers {
        guest.with(talker.socket).close();
    }
    guest.until("all to be forgotten", |guest| guest.wire.net.load() == (0, 0));
}
