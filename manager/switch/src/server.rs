//! The switch's process: one thread, which waits for all sockets.

use std::collections::HashMap;
use std::io::{Error, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lodge_net::segment::prepare;
use lodge_net::switch::protocol::{self, Hello, Refusal};
use lodge_net::switch::{Place, enlarge};
use lodge_net::{LARGEST, Listener, Network, vnet};
use lodge_usernet::{GATEWAY, GATEWAY_6, LINK_LOCAL, MAC, NAME_SERVER, NAME_SERVER_6, UserConfig, UserNet};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, recv,
    send, socket_with, sockopt,
};
use rustix::process::geteuid;

use crate::core::{Core, MOST_PORTS, PortId, Verdict};

/// Connections that wait to be taken.
const BACKLOG: i32 = 64;
/// Connections at a time, those that have not said hello among them.
const MOST_CONNECTIONS: usize = MOST_PORTS + 16;
/// How long a connection may take to say hello.
const SHYNESS: Duration = Duration::from_secs(5);
/// How long a machine without room holds up whoever sends to it.
const HOLD: Duration = Duration::from_millis(500);
/// Frames of one machine before others have their turn.
const BURST: usize = 64;
/// Events that are looked at in one go.
const EVENTS: usize = 64;
/// How often times are looked at, while there are any.
const TICK: Duration = Duration::from_millis(100);

/// What events are of: the listening socket, the way out, and connections from here on.
const DOOR: u64 = 0;
const OUT: u64 = 1;
const FIRST: u64 = 2;

/// Why there is no switch.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its socket can't be made.
    #[error("the switch's socket '{path}' can't be made: {source}")]
    Socket {
        /// The socket.
        path: String,
        /// Why not.
        source: Error,
    },
    /// The host does not give what it takes.
    #[error("the switch can't go on: {0}")]
    Host(#[from] Error),
}

impl From<Errno> for ServeError {
    fn from(error: Errno) -> Self {
        Self::Host(error.into())
    }
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All machines have gone.
    Deserted,
    /// Another process is the switch.
    Elsewhere,
}

/// A frame that waits for room.
struct Held {
    packet: Vec<u8>,
    to: PortId,
    since: Instant,
}

/// A machine.
struct Connection {
    socket: OwnedFd,
    /// `None` before its hello.
    port: Option<PortId>,
    since: Instant,
    /// What it sent and there was no room for: nothing more is read from it.
    held: Option<Held>,
    /// Somebody waits, or has waited, until it has room.
    is_full: bool,
    /// It had no room for so long that nobody waits.
    is_stuck: bool,
}

/// The way out, and what came in and there was no room for.
struct WayOut {
    network: Arc<UserNet>,
    port: PortId,
    held: Option<Held>,
    /// Kept, as the network holds it weakly.
    _bell: Arc<dyn Listener>,
}

/// Tells the loop that something has come in.
struct Bell(OwnedFd);

impl Listener for Bell {
    fn frames_wait(&self) {
        // An eventfd that is full tells already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn room_to_send(&self) {}
}

struct Switch {
    name: String,
    core: Core,
    epoll: OwnedFd,
    door: OwnedFd,
    connections: HashMap<u64, Connection>,
    /// The connection of each port.
    ports: HashMap<PortId, u64>,
    way_out: Option<WayOut>,
    bell: OwnedFd,
    next: u64,
    packet: Box<[u8]>,
}

/// Is the switch at `place`, until no machine has been there for `linger`.
///
/// # Errors
/// The socket can't be made, or the host fails.
pub fn serve(place: &Place, linger: Duration) -> Result<Ended, ServeError> {
    let path = place.socket();
    let failed = |source: Error| ServeError::Socket { path: path.display().to_string(), source };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // Held as long as this process is: who has it is the switch.
    let lock = rustix::fs::open(place.lock(), flags, Mode::RUSR | Mode::WUSR).map_err(|error| failed(error.into()))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(Ended::Elsewhere),
        Err(error) => return Err(failed(error.into())),
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let door = || {
        let door = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&door, &SocketAddrUnix::new(&path)?)?;
        listen(&door, BACKLOG)?;
        Ok(door)
    };
    let door = door().map_err(|error: Errno| failed(error.into()))?;
    let mut switch = Switch::new(place.name(), door)?;
    let result = switch.run(linger);
    // Before the lock is let go: the next one's stays. Who has connected since is closed without an answer, and tries again.
    let _ = std::fs::remove_file(&path);
    result.map(|()| Ended::Deserted)
}

impl Switch {
    fn new(name: &str, door: OwnedFd) -> Result<Self, ServeError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &door, EventData::new_u64(DOOR), EventFlags::IN)?;
        epoll::add(&epoll, &bell, EventData::new_u64(OUT), EventFlags::IN)?;
        Ok(Self {
            name: name.to_owned(),
            core: Core::default(),
            epoll,
            door,
            connections: HashMap::new(),
            ports: HashMap::new(),
            way_out: None,
            bell,
            next: FIRST,
            packet: vec![0; vnet::HEADER + LARGEST + 1].into(),
        })
    }

    fn run(&mut self, linger: Duration) -> Result<(), ServeError> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut alone_since = Instant::now();
        loop {
            let waits = |connection: &Connection| connection.held.is_some() || connection.port.is_none();
            let is_alone = self.connections.is_empty();
            let held_in = self.way_out.as_ref().is_some_and(|way| way.held.is_some());
            let hurry = is_alone || held_in || self.connections.values().any(waits);
            let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), hurry.then_some(&tick)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    DOOR => self.open_door()?,
                    OUT => {
                        let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
                        self.let_in();
                    }
                    number => self.event(number, event.flags),
                }
            }
            self.time_passed();
            if !self.connections.is_empty() {
                alone_since = Instant::now();
            } else if alone_since.elapsed() >= linger {
                return Ok(());
            }
        }
    }

    // --- who comes and goes ---

    fn open_door(&mut self) -> Result<(), ServeError> {
        let socket = match accept_with(&self.door, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => socket,
            // It has gone again, or there are no files left for it: it is still there when there are.
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                std::thread::sleep(TICK);
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        let is_users = sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == geteuid());
        if !is_users || self.connections.len() >= MOST_CONNECTIONS {
            return Ok(());
        }
        if let Err(error) = enlarge(&socket) {
            tracing::error!(switch = self.name, "a machine is not let in: {error}");
            return Ok(());
        }
        let number = self.next;
        self.next += 1;
        epoll::add(&self.epoll, &socket, EventData::new_u64(number), EventFlags::IN)?;
        let since = Instant::now();
        let connection = Connection { socket, port: None, since, held: None, is_full: false, is_stuck: false };
        self.connections.insert(number, connection);
        Ok(())
    }

    /// Takes a hello.
    fn greet(&mut self, number: u64, packet: &[u8]) {
        let answer = Hello::decode(packet).and_then(|hello| {
            if hello.nat && self.way_out.is_none() && self.core.machines() == 0 {
                self.lead_out()?;
            }
            self.core.join(hello)
        });
        let Some(connection) = self.connections.get_mut(&number) else { return };
        // A socket that has taken nothing yet has room.
        let _ = send(&connection.socket, &protocol::encode(answer.map(drop)), SendFlags::NOSIGNAL);
        match answer {
            Ok(port) => {
                connection.port = Some(port);
                self.ports.insert(port, number);
            }
            Err(_) => self.close(number),
        }
    }

    /// Makes the way out.
    fn lead_out(&mut self) -> Result<(), Refusal> {
        let network = UserNet::new(&UserConfig { name: self.name.clone(), ..UserConfig::default() });
        let bell = self.bell.try_clone();
        let (Ok(network), Ok(bell)) = (network, bell) else { return Err(Refusal::NoNat) };
        let bell: Arc<dyn Listener> = Arc::new(Bell(bell));
        let listener: Weak<dyn Listener> = Arc::downgrade(&bell);
        network.connect(listener);
        let addresses = [GATEWAY.into(), NAME_SERVER.into(), GATEWAY_6.into(), NAME_SERVER_6.into(), LINK_LOCAL.into()];
        let port = self.core.lead_out(MAC, &addresses);
        self.way_out = Some(WayOut { network, port, held: None, _bell: bell });
        Ok(())
    }

    fn close(&mut self, number: u64) {
        let Some(connection) = self.connections.remove(&number) else { return };
        if let Some(port) = connection.port {
            self.ports.remove(&port);
            self.core.leave(port);
            self.release(port, false);
        }
        if self.core.machines() == 0
            && let Some(way_out) = self.way_out.take()
        {
            self.core.leave(way_out.port);
        }
    }

    // --- frames ---

    fn event(&mut self, number: u64, flags: EventFlags) {
        if flags.contains(EventFlags::OUT)
            && let Some(connection) = self.connections.get_mut(&number)
        {
            (connection.is_full, connection.is_stuck) = (false, false);
            if let Some(port) = connection.port {
                self.release(port, true);
            }
            self.watch(number);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(number, flags.intersects(EventFlags::HUP | EventFlags::ERR));
        }
    }

    /// Takes what a machine sends. One that has gone may have left something.
    fn read(&mut self, number: u64, has_gone: bool) {
        for _ in 0..BURST {
            let Some(connection) = self.connections.get(&number) else { return };
            if connection.held.is_some() {
                if has_gone {
                    self.close(number);
                }
                return;
            }
            let mut packet = std::mem::take(&mut self.packet);
            let result = recv(&connection.socket, &mut packet[..], RecvFlags::empty()).map(|(_, length)| length);
            match result {
                Ok(0) => self.close(number),
                Ok(length) => match connection.port {
                    None => self.greet(number, &packet[..length.min(packet.len())]),
                    Some(port) => {
                        let held = self.pass(port, &packet[..length.min(packet.len())]);
                        if let Some(connection) = self.connections.get_mut(&number)
                            && held.is_some()
                        {
                            connection.held = held;
                            self.watch(number);
                        }
                    }
                },
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.close(number),
            }
            self.packet = packet;
            if matches!(result, Err(Errno::AGAIN)) {
                return;
            }
        }
    }

    /// Takes what comes in by the way out.
    fn let_in(&mut self) {
        for _ in 0..BURST {
            let Some(way_out) = self.way_out.as_ref().filter(|way| way.held.is_none()) else { return };
            let port = way_out.port;
            let Some(frame) = way_out.network.receive() else { return };
            let held = self.pass(port, &vnet::pack(&frame));
            if let Some(way_out) = &mut self.way_out {
                way_out.held = held;
            }
        }
        // There is more, perhaps.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Passes a packet on, as far as it may go. It is given back if it has to wait.
    fn pass(&mut self, from: PortId, packet: &[u8]) -> Option<Held> {
        let now = Instant::now();
        let frame = vnet::unpack(packet)?;
        match self.core.frame(from, &frame, now) {
            Verdict::To(to) => {
                let waits = !self.deliver(to, packet) && !self.is_stuck(to);
                waits.then(|| Held { packet: packet.to_vec(), to, since: now })
            }
            Verdict::All(ports) => {
                for port in ports {
                    self.deliver(port, packet);
                }
                None
            }
            Verdict::Nowhere => None,
            Verdict::Drop { fault, first } => {
                if first && let Some(mac) = self.core.mac(from) {
                    tracing::warn!(switch = self.name, "frames of the machine {mac} are dropped: {fault}");
                }
                None
            }
        }
    }

    fn is_stuck(&self, port: PortId) -> bool {
        let connection = self.ports.get(&port).and_then(|number| self.connections.get(number));
        connection.is_some_and(|connection| connection.is_stuck)
    }

    /// Gives a port a packet. False if there is no room, and then there will be an event when there is.
    fn deliver(&mut self, port: PortId, packet: &[u8]) -> bool {
        if let Some(way_out) = self.way_out.as_ref().filter(|way| way.port == port) {
            if let Some(frame) = vnet::unpack(packet) {
                // It has room always.
                let network = &way_out.network;
                prepare(frame, network.accepts(), |part| {
                    let _ = network.send(&part);
                });
            }
            return true;
        }
        let Some(number) = self.ports.get(&port).copied() else { return true };
        let Some(connection) = self.connections.get_mut(&number) else { return true };
        match send(&connection.socket, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::AGAIN) => {
                if !connection.is_full {
                    connection.is_full = true;
                    self.watch(number);
                }
                false
            }
            // One that has gone is noticed when it is read.
            _ => true,
        }
    }

    /// Has those go on who wait for a port, which has room or has gone.
    fn release(&mut self, port: PortId, deliver: bool) {
        let waiting = |held: &Option<Held>| held.as_ref().is_some_and(|held| held.to == port);
        let mut senders: Vec<_> = self
            .connections
            .iter()
            .filter_map(|(number, one)| Some((one.held.as_ref().filter(|held| held.to == port)?.since, *number)))
            .collect();
        senders.sort_unstable();
        for (_, number) in senders {
            let Some(held) = self.connections.get_mut(&number).and_then(|one| one.held.take()) else { continue };
            if deliver && !self.deliver(port, &held.packet) {
                // The others wait on, too.
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.held = Some(held);
                }
                return;
            }
            self.watch(number);
        }
        if self.way_out.as_ref().is_some_and(|way| waiting(&way.held)) {
            let held = self.way_out.as_mut().and_then(|way| way.held.take());
            if let Some(held) = held
                && deliver
                && !self.deliver(port, &held.packet)
            {
                if let Some(way_out) = &mut self.way_out {
                    way_out.held = Some(held);
                }
                return;
            }
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Waits for what a connection is to be waited for.
    fn watch(&mut self, number: u64) {
        let Some(connection) = self.connections.get(&number) else { return };
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, connection.held.is_none());
        flags.set(EventFlags::OUT, connection.is_full);
        if epoll::modify(&self.epoll, &connection.socket, EventData::new_u64(number), flags).is_err() {
            self.close(number);
        }
    }

    /// Ends what has taken too long.
    fn time_passed(&mut self) {
        let now = Instant::now();
        let late = |since: Instant, most: Duration| now.saturating_duration_since(since) >= most;
        let shy = |one: &&Connection| one.port.is_none() && late(one.since, SHYNESS);
        let shy: Vec<_> = self.connections.iter().filter(|(_, one)| shy(one)).map(|(number, _)| *number).collect();
        shy.into_iter().for_each(|number| self.close(number));
        let held = self.connections.values().filter_map(|one| one.held.as_ref());
        let held = held.chain(self.way_out.iter().filter_map(|way| way.held.as_ref()));
        let stuck: Vec<_> = held.filter(|held| late(held.since, HOLD)).map(|held| held.to).collect();
        for port in stuck {
            let number = self.ports.get(&port);
            if let Some(connection) = number.and_then(|number| self.connections.get_mut(number)) {
                connection.is_stuck = true;
            }
            self.release(port, false);
        }
    }
}
