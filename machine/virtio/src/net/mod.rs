//! virtio-net: a network card (virtio 1.2 section 5.1).
//!
//! ```text
//!   transmit queues ──frame──► Cable        full: the request stays in its queue, room_to_send() rings
//!   receive queues  ◄─inbox── pump ◄── Cable   frames are taken as long as each queue's inbox has room
//! ```
//!
//! [`Net`] moves frames between its queues and a [`Cable`], with the checksums and large segments that both sides leave to each
//! other: mostly a frame passes as it is. Queues 2n and 2n + 1 are a pair and share a thread; one pair is used unless the
//! driver asks for more. Frames of one flow come in one queue.
//!
//! Not offered: VLAN filters (all VLANs are received), UDP in large pieces, announcements.

mod filter;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use filter::Addresses;
pub use filter::Filter;
use lodge_bus::StateError;
use lodge_net::segment::{Layout, TCP, UDP, ethertype};
use lodge_net::vnet::{self, HEADER};
use lodge_net::{Accepts, Cable, Checksum, Frame, LARGEST, Listener};
use parking_lot::Mutex;
use registers::*;
pub use state::NetState;

use crate::device::VirtioDevice;
use crate::queue::{Broken, Chain, VirtQueue};
use crate::worker::Bell;

/// Frames that wait for the driver's buffers, for each queue.
const INBOX: usize = 64;
/// Frames that are moved before others have their turn on the thread.
const BURST: usize = 256;
/// Most frames that are taken for stale when a driver comes.
const STALE: usize = 1024;

/// What a network device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Pairs of queues; 1 to 16.
    pub pairs: u16,
}

#[derive(Default)]
struct Volatile {
    state: NetState,
    inboxes: Vec<VecDeque<Frame>>,
}

/// A virtio network card.
pub struct Net {
    // configuration
    pairs: u16,
    // wiring
    cable: Arc<Cable>,
    // volatile
    features: AtomicU64,
    /// Rung by whoever has frames or room, who may have been asked for them under the lock below.
    bell: Mutex<Option<Bell>>,
    volatile: Mutex<Volatile>,
}

impl Net {
    /// A card that is plugged into `cable`, and known by its name and address.
    pub fn new(config: NetConfig, cable: Arc<Cable>) -> Arc<Self> {
        let pairs = config.pairs.clamp(1, MOST_PAIRS);
        let inboxes = (0..pairs).map(|_| VecDeque::new()).collect();
        let volatile = Mutex::new(Volatile { inboxes, ..Volatile::default() });
        let card = Arc::new(Self { pairs, cable, features: AtomicU64::new(0), bell: Mutex::default(), volatile });
        let listener: Arc<dyn Listener> = card.clone();
        card.cable.plug(Arc::downgrade(&listener));
        card
    }

    fn has(&self, feature: u64) -> bool {
        self.features.load(Ordering::Relaxed) & feature != 0
    }

    /// The control queue's number, which depends on what was agreed on (5.1.2).
    fn control_queue(&self) -> u16 {
        if self.has(feature::MQ) { self.pairs * 2 } else { 2 }
    }

    /// Rings for each pair's first queue, or second.
    fn ring(&self, which: u16) {
        let bell = self.bell.lock().clone();
        if let Some(bell) = bell {
            (0..self.pairs).for_each(|pair| bell.ring(pair * 2 + which));
        }
    }

    // --- sending ---

    fn transmit(&self, queue: &mut VirtQueue) -> Result<(), Broken> {
        loop {
            queue.hush()?;
            let mut count = 0;
            while let Some(chain) = queue.pop()? {
                if let Some(frame) = read_frame(queue, &chain)?
                    && self.cable.send(frame).is_err()
                {
                    // Who has room rings, and may have done so already: the bell's flag keeps that.
                    queue.put_back();
                    return queue.signal();
                }
                queue.push(&chain, 0)?;
                count += 1;
                if count == BURST {
                    break;
                }
            }
            queue.signal()?;
            if count == BURST {
                self.ring(1);
                return Ok(());
            }
            if !queue.listen()? {
                return Ok(());
            }
        }
    }

    // --- receiving ---

    /// Takes frames from the cable as long as those for each queue have somewhere to wait.
    fn pump(&self, volatile: &mut Volatile) {
        let accepts = volatile.state.accepts(self.features.load(Ordering::Relaxed));
        let pairs = usize::from(volatile.state.pairs);
        while volatile.inboxes[..pairs].iter().all(|inbox| inbox.len() < INBOX) {
            let Some(mut frame) = self.cable.receive(accepts) else { return };
            if !accepts.checksum {
                // The driver looks itself, and is not told that it need not (5.1.6.4.1).
                frame.offload.checksum = Checksum::There;
            }
            let Some(destination) = frame.bytes.first_chunk() else { continue };
            if !volatile.state.filter.passes(*destination, self.cable.mac()) {
                continue;
            }
            let queue = if pairs == 1 { 0 } else { flow(&frame.bytes) % pairs };
            volatile.inboxes[queue].push_back(frame);
            if let Some(bell) = self.bell.lock().as_ref().filter(|_| pairs > 1) {
                bell.ring(queue as u16 * 2);
            }
        }
    }

    fn next(&self, pair: usize) -> Option<Frame> {
        let mut volatile = self.volatile.lock();
        if volatile.inboxes[pair].is_empty() {
            self.pump(&mut volatile);
        }
        volatile.inboxes[pair].pop_front()
    }

    fn receive(&self, pair: usize, queue: &mut VirtQueue) -> Result<(), Broken> {
        let several = self.has(feature::MRG_RXBUF);
        loop {
            queue.hush()?;
            let mut count = 0;
            let all_given = loop {
                let Some(frame) = self.next(pair) else { break true };
                if !give_frame(queue, &frame, several)? {
                    self.volatile.lock().inboxes[pair].push_front(frame);
                    break false;
                }
                count += 1;
                if count % 8 == 0 {
                    queue.signal()?;
                }
                if count == BURST {
                    self.ring(0);
                    return queue.signal();
                }
            };
            queue.signal()?;
            // With nothing to give, buffers that come need no look.
            if all_given || !queue.listen_beyond()? {
                return Ok(());
            }
        }
    }

    // --- the control queue ---

    fn control(&self, queue: &mut VirtQueue) -> Result<(), Broken> {
        queue.drain(|queue, chain| {
            if chain.readable.length() < 2 || chain.writable.length() == 0 {
                return Err(Broken::Request);
            }
            // Two tables of addresses are the most that a command has.
            let length = (chain.readable.length() - 2).min(16 << 10) as usize;
            let mut bytes = vec![0; 2 + length];
            queue.read(chain, 0, &mut bytes)?;
            let done = self.carry_out((bytes[0], bytes[1]), &bytes[2..]);
            queue.write(chain, 0, &[if done { OK } else { ERR }])?;
            queue.push(chain, 1)
        })
    }

    /// Carries a command out. Whether it makes sense.
    fn carry_out(&self, command: (u8, u8), data: &[u8]) -> bool {
        let mut volatile = self.volatile.lock();
        let filter = &mut volatile.state.filter;
        let switch = match command {
            command::PROMISCUOUS => Some(&mut filter.promiscuous),
            command::ALL_MULTICAST => Some(&mut filter.all_groups),
            command::ALL_UNICAST => Some(&mut filter.all_single),
            command::NO_MULTICAST => Some(&mut filter.no_groups),
            command::NO_UNICAST => Some(&mut filter.no_single),
            command::NO_BROADCAST => Some(&mut filter.no_broadcast),
            _ => None,
        };
        if let Some(switch) = switch {
            let Some(on) = data.first() else { return false };
            *switch = *on != 0;
            return true;
        }
        match command {
            command::MAC_TABLE => {
                let Some((single, rest)) = addresses(data) else { return false };
                let Some((groups, _)) = addresses(rest) else { return false };
                (filter.single, filter.groups) = (Addresses::listed(single), Addresses::listed(groups));
            }
            command::MAC_ADDRESS => {
                let Some(address) = data.first_chunk::<6>() else { return false };
                filter.own = Some(*address);
            }
            command::QUEUE_PAIRS if self.has(feature::MQ) => {
                let Some(pairs) = data.first_chunk().map(|bytes| u16::from_le_bytes(*bytes)) else { return false };
                if !(1..=self.pairs).contains(&pairs) {
                    return false;
                }
                volatile.state.pairs = pairs;
                // What waits in queues that are not looked at any more is lost.
                volatile.inboxes[usize::from(pairs)..].iter_mut().for_each(VecDeque::clear);
            }
            command::GUEST_OFFLOADS if self.has(feature::CTRL_GUEST_OFFLOADS) => {
                let Some(offloads) = data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { return false };
                let known = feature::GUEST_CSUM | feature::GUEST_TSO4 | feature::GUEST_TSO6 | feature::GUEST_ECN;
                if offloads & !(known & self.features.load(Ordering::Relaxed)) != 0 {
                    return false;
                }
                volatile.state.offloads = Some(offloads);
            }
            _ => return false,
        }
        true
    }
}

/// The addresses of a table, and what follows it.
fn addresses(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, rest) = data.split_first_chunk()?;
    let bytes = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(6)?;
    rest.split_at_checked(bytes)
}

/// Reads a frame that the driver sends. `None` for one that makes no sense, which is lost.
fn read_frame(queue: &VirtQueue, chain: &Chain) -> Result<Option<Frame>, Broken> {
    let mut header = [0; HEADER];
    let length = chain.readable.length().checked_sub(HEADER as u64).ok_or(Broken::Request)?;
    queue.read(chain, 0, &mut header)?;
    if length > LARGEST as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; length as usize];
    queue.read(chain, HEADER as u64, &mut bytes)?;
    let Some(mut offload) = vnet::decode(&header) else { return Ok(None) };
    if offload.checksum == Checksum::Good {
        // It is not the driver's to say so (5.1.6.2).
        offload.checksum = Checksum::There;
    }
    Ok(Some(Frame { bytes, offload }))
}

/// Gives the driver a frame, in one or several buffers. False if there are not enough of them now. A frame for which the one
/// buffer is too small is lost.
fn give_frame(queue: &mut VirtQueue, frame: &Frame, several: bool) -> Result<bool, Broken> {
    let total = (HEADER + frame.bytes.len()) as u64;
    let mut chains = Vec::new();
    let mut room = 0;
    while room < total {
        let Some(chain) = queue.pop()? else {
            chains.iter().for_each(|_| queue.put_back());
            return Ok(false);
        };
        room += chain.writable.length();
        // The header is in one piece.
        if chain.writable.length() < HEADER as u64 {
            return Err(Broken::Request);
        }
        chains.push(chain);
        if !several {
            break;
        }
    }
    if room < total {
        queue.put_back();
        return Ok(true);
    }
    let mut header = vnet::encode(frame);
    header[10..12].copy_from_slice(&(chains.len() as u16).to_le_bytes());
    let mut done = 0;
    let mut used = Vec::with_capacity(chains.len());
    for (index, chain) in chains.iter().enumerate() {
        let mut at = 0;
        if index == 0 {
            queue.write(chain, 0, &header)?;
            at = HEADER as u64;
        }
        let piece = (chain.writable.length() - at).min((frame.bytes.len() - done) as u64) as usize;
        queue.write(chain, at, &frame.bytes[done..done + piece])?;
        done += piece;
        used.push((chain, at + piece as u64));
    }
    // A driver that saw the first of them alone would take the frame for damaged.
    queue.push_together(&used)?;
    Ok(true)
}

/// A number that is the same for all frames of a flow, in one direction.
fn flow(bytes: &[u8]) -> usize {
    let Some(layout) = Layout::of(bytes) else { return 0 };
    let addresses = match layout.ethertype {
        ethertype::IPV4 => layout.network + 12..layout.network + 20,
        ethertype::IPV6 => layout.network + 8..layout.network + 40,
        _ => return 0,
    };
    let ports = match layout.transport {
        Some((TCP | UDP, at)) => bytes.get(at..at + 4).unwrap_or_default(),
        _ => &[],
    };
    let parts = bytes.get(addresses).unwrap_or_default().iter().chain(ports);
    parts.fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)) as usize >> 8
}

impl Listener for Net {
    fn frames_wait(&self) {
        self.ring(0);
    }

    fn room_to_send(&self) {
        self.ring(1);
    }

    fn link_changed(&self) {
        let bell = self.bell.lock().clone();
        if let Some(bell) = bell {
            bell.config_changed();
        }
    }
}

impl VirtioDevice for Net {
    fn name(&self) -> &str {
        self.cable.name()
    }

    fn device_id(&self) -> u16 {
        DEVICE_ID
    }

    fn class(&self) -> [u8; 3] {
        [0x02, 0x00, 0x00]
    }

    fn features(&self) -> u64 {
        let ours = feature::CSUM | feature::HOST_TSO4 | feature::HOST_TSO6 | feature::HOST_ECN;
        let theirs = feature::GUEST_CSUM | feature::GUEST_TSO4 | feature::GUEST_TSO6 | feature::GUEST_ECN;
        let control = feature::CTRL_VQ
            | feature::CTRL_RX
            | feature::CTRL_RX_EXTRA
            | feature::CTRL_MAC_ADDR
            | feature::CTRL_GUEST_OFFLOADS;
        let several = if self.pairs > 1 { feature::MQ } else { 0 };
        ours | theirs | control | several | feature::MTU | feature::MAC | feature::MRG_RXBUF | feature::STATUS
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let mut sizes = vec![QUEUE_SIZE; usize::from(self.pairs) * 2];
        sizes.push(CONTROL_SIZE);
        sizes
    }

    fn threads(&self) -> usize {
        self.pairs.into()
    }

    fn thread(&self, queue: u16) -> usize {
        usize::from(queue / 2 % self.pairs)
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_net_config (5.1.4), to the MTU.
        let mut image = [0; 12];
        image[..6].copy_from_slice(&self.cable.mac().0);
        image[6..8].copy_from_slice(&if self.cable.is_up() { LINK_UP } else { 0 }.to_le_bytes());
        image[8..10].copy_from_slice(&self.pairs.to_le_bytes());
        image[10..12].copy_from_slice(&MTU.to_le_bytes());
        for (index, byte) in data.iter_mut().enumerate() {
            let at = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(index));
            *byte = at.and_then(|at| image.get(at)).copied().unwrap_or(0);
        }
    }

    fn activate(&self, features: u64, bell: Bell) {
        self.features.store(features, Ordering::Relaxed);
        *self.bell.lock() = Some(bell);
        // What came while nobody was there is not for this driver.
        (0..STALE).all(|_| self.cable.receive(Accepts::ALL).is_some());
    }

    fn deactivate(&self) {
        self.features.store(0, Ordering::Relaxed);
        *self.bell.lock() = None;
        let mut volatile = self.volatile.lock();
        volatile.state = NetState::default();
        volatile.inboxes.iter_mut().for_each(VecDeque::clear);
    }

    fn process(&self, index: u16, queue: &mut VirtQueue) -> Result<(), Broken> {
        if index == self.control_queue() {
            self.control(queue)
        } else if index % 2 == 1 {
            self.transmit(queue)
        } else {
            self.receive(usize::from(index / 2), queue)
        }
    }

    fn save(&self) -> Vec<u8> {
        lodge_savestate::to_record(&self.volatile.lock().state)
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let state: NetState = StateError::read(self.name(), record)?;
        if !state.is_sound(self.pairs) {
            let cause = "its queues or filters are not those of this card".into();
            return Err(StateError { device: self.name().to_owned(), cause });
        }
        self.volatile.lock().state = state;
        Ok(())
    }
}
