//! The name server: names of the network are known here, others are asked of the host's name servers (RFC 1035).
//!
//! Who those are is read from the host's file anew whenever that has changed, so that a guest follows a host that moves from
//! network to network. A question goes to them as it is, each in a socket of its own, one server after the other until one
//! answers.

use std::fs::Metadata;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use simple_dns::rdata::{A, AAAA, PTR, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};

use crate::config::{DOMAIN, GATEWAY, GATEWAY_6, HOST_NAME};
use crate::dhcp::Dhcp;

/// The port of name servers.
pub(crate) const PORT: u16 = 53;
/// Name servers of the host's that are asked (resolv.conf(5): MAXNS).
const MOST_SERVERS: usize = 3;
/// The longest file that says who they are.
const LONGEST_FILE: u64 = 64 << 10;
/// How long an answer of ours holds, in seconds.
const TTL: u32 = 60;

/// What makes a file another than it was.
type Stamp = (u64, u64, u64, i64, i64);

/// The host's name servers.
pub(crate) struct Resolver {
    path: PathBuf,
    port: u16,
    stamp: Option<Stamp>,
    servers: Vec<SocketAddr>,
}

impl Resolver {
    pub(crate) fn new(path: &Path, port: u16) -> Self {
        Self { path: path.to_owned(), port, stamp: None, servers: Vec::new() }
    }

    /// Who they are now.
    pub(crate) fn servers(&mut self) -> &[SocketAddr] {
        let stamp = std::fs::metadata(&self.path).ok().map(|metadata| stamp(&metadata));
        if self.servers.is_empty() || stamp != self.stamp {
            self.stamp = stamp;
            self.servers = read(&self.path, self.port);
            tracing::debug!(servers = ?self.servers, "name servers");
        }
        &self.servers
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}

/// The name servers that a file says (resolv.conf(5)).
fn read(path: &Path, port: u16) -> Vec<SocketAddr> {
    let text = std::fs::File::open(path).and_then(|file| {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, LONGEST_FILE), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    });
    let mut servers = parse(&text.unwrap_or_default(), port);
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, port).into());
    }
    servers
}

fn parse(text: &str, port: u16) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // Where it is an address of one link the interface is named, by number or name.
        let (address, scope) = address.split_once('%').unwrap_or((address, ""));
        let address: IpAddr = address.parse().ok()?;
        Some(match (address, interface(scope)) {
            (IpAddr::V6(address), Some(scope)) => std::net::SocketAddrV6::new(address, port, 0, scope).into(),
            _ => SocketAddr::new(address, port),
        })
    };
    text.lines().filter_map(server).take(MOST_SERVERS).collect()
}

/// The number of an interface.
fn interface(scope: &str) -> Option<u32> {
    if scope.is_empty() || scope.contains('/') {
        return None;
    }
    scope
        .parse()
        .ok()
        .or_else(|| std::fs::read_to_string(format!("/sys/class/net/{scope}/ifindex")).ok()?.trim().parse().ok())
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This is the answer.
    Answer(Vec<u8>),
    /// The host's name servers know.
    Ask,
    /// It makes no sense.
    Drop,
}

/// Answers a question about the network itself.
pub(crate) fn answer(query: &[u8], dhcp: &Dhcp) -> Verdict {
    let Ok(packet) = Packet::parse(query) else { return Verdict::Drop };
    if packet.has_flags(PacketFlag::RESPONSE) {
        return Verdict::Drop;
    }
    let [question] = &packet.questions[..] else { return Verdict::Ask };
    let name = question.qname.to_string().to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    let Some(known) = known(name, dhcp) else { return Verdict::Ask };
    let mut reply = Packet::new_reply(packet.id());
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE);
    if packet.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    match &known {
        Known::Nobody => *reply.rcode_mut() = RCODE::NameError,
        Known::Host => reply.answers = records(question, Some(GATEWAY), true),
        Known::Guest(address) => reply.answers = records(question, Some(*address), false),
        Known::Named(pointer) => {
            if wants(question, TYPE::PTR)
                && let Ok(pointer) = Name::new(pointer)
            {
                let record = RData::PTR(PTR(pointer));
                reply.answers = vec![ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, record)];
            }
        }
    }
    reply.questions = vec![question.clone()];
    reply.build_bytes_vec().map_or(Verdict::Drop, Verdict::Answer)
}

/// What is known of a name.
enum Known {
    Host,
    Guest(Ipv4Addr),
    /// An address has this name.
    Named(String),
    Nobody,
}

fn known(name: &str, dhcp: &Dhcp) -> Option<Known> {
    if name == HOST_NAME {
        return Some(Known::Host);
    }
    if let Some(address) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<u8> = address.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        let [d, c, b, a] = octets[..] else { return None };
        let address = Ipv4Addr::new(a, b, c, d);
        if !crate::config::is_inside(address.into()) {
            return None;
        }
        if address == GATEWAY {
            return Some(Known::Named(HOST_NAME.into()));
        }
        return Some(match dhcp.name_of(address) {
            Some(name) => Known::Named(format!("{name}.{DOMAIN}")),
            None => Known::Nobody,
        });
    }
    match name.strip_suffix(DOMAIN).and_then(|name| name.strip_suffix('.')) {
        Some(label) => Some(dhcp.address_of(label).map_or(Known::Nobody, Known::Guest)),
        // A guest's name alone is known, too; others' names are the world's.
        None if !name.contains('.') => dhcp.address_of(name).map(Known::Guest),
        None => None,
    }
}

fn wants(question: &Question<'_>, kind: TYPE) -> bool {
    let class = matches!(question.qclass, QCLASS::ANY | QCLASS::CLASS(CLASS::IN));
    class && matches!(question.qtype, QTYPE::ANY) | (question.qtype == QTYPE::TYPE(kind))
}

fn records<'a>(question: &Question<'a>, address: Option<Ipv4Addr>, host: bool) -> Vec<ResourceRecord<'a>> {
    let mut records = Vec::new();
    let record = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data);
    if let Some(address) = address.filter(|_| wants(question, TYPE::A)) {
        records.push(record(RData::A(A { address: address.into() })));
    }
    if host && wants(question, TYPE::AAAA) {
        records.push(record(RData::AAAA(AAAA { address: GATEWAY_6.into() })));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_name_servers() {
        let text = "# comment\nnameserver 192.0.2.1\nsearch example.org\nnameserver\t2001:db8::1\nnameserver nonsense\n\
                    nameserver fe80::1%7\noptions edns0\nnameserver 192.0.2.4\n";
        let servers: Vec<_> = parse(text, 53).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%7]:53"], "three are asked at most");
        assert_eq!(read(Path::new("/no/such/file"), 53), ["127.0.0.1:53".parse().unwrap()]);
    }
}
