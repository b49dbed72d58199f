//! Cables.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::Thread;
use std::time::Instant;

use parking_lot::Mutex;

use crate::frame::{Accepts, Frame};
use crate::rate::{Bucket, Rate};
use crate::rules::{Gate, Judged, Rules};
use crate::{Capture, Listener, MacAddress, Network, segment};

/// What a cable is.
#[derive(Default)]
pub struct CableConfig {
    /// The card's name in the machine ("net0").
    pub name: String,
    /// The card's address.
    pub mac: Option<MacAddress>,
    /// How fast it is in either direction; without, as fast as it goes.
    pub rate: Option<Rate>,
    /// Who records what goes over it.
    pub capture: Option<Capture>,
    /// How far what the card sends goes.
    pub rules: Rules,
    /// It is pulled at first.
    pub unplugged: bool,
}

/// One direction of a cable.
#[derive(Default)]
struct Direction {
    /// What was cut of a frame, and is not through yet.
    parts: VecDeque<Frame>,
    bucket: Option<Bucket>,
    /// Somebody was told to wait until this: the clock tells them when it has come.
    wake: Option<Instant>,
}

impl Direction {
    /// Whether a frame may go now. If not, somebody will be told.
    fn may_pass(&mut self, clock: &OnceLock<Thread>) -> bool {
        let Some(until) = self.bucket.as_ref().and_then(|bucket| bucket.wait(Instant::now())) else { return true };
        self.wake = Some(until);
        if let Some(clock) = clock.get() {
            clock.unpark();
        }
        false
    }

    /// Counts what goes.
    fn charge(&mut self, bytes: usize) {
        if let Some(bucket) = &mut self.bucket {
            bucket.charge(bytes, Instant::now());
        }
    }
}

/// What a card is plugged into.
///
/// A limit of the rate has a thread, which tells card and network when to go on.
pub struct Cable {
    // configuration
    name: String,
    mac: MacAddress,
    // wiring
    network: Arc<dyn Network>,
    capture: Option<Capture>,
    clock: Arc<OnceLock<Thread>>,
    gate: Option<Gate>,
    // volatile
    card: Mutex<Option<Weak<dyn Listener>>>,
    up: AtomicBool,
    outward: Mutex<Direction>,
    inward: Mutex<Direction>,
}

impl Cable {
    /// A cable to a network, plugged in at that end.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(config: CableConfig, network: Arc<dyn Network>) -> std::io::Result<Arc<Self>> {
        let now = Instant::now();
        let direction = || Direction { bucket: config.rate.map(|rate| Bucket::new(rate, now)), ..Direction::default() };
        let cable = Arc::new(Self {
            mac: config.mac.unwrap_or_else(|| MacAddress::derived(config.name.as_bytes(), 0)),
            name: config.name,
            outward: Mutex::new(direction()),
            inward: Mutex::new(direction()),
            network,
            capture: config.capture,
            gate: Gate::new(config.rules),
            clock: Arc::default(),
            card: Mutex::default(),
            up: AtomicBool::new(!config.unplugged),
        });
        if config.rate.is_some() {
            let (weak, name) = (Arc::downgrade(&cable), format!("rate-{}", cable.name));
            let thread = std::thread::Builder::new().name(name).spawn(move || keep_time(&weak))?;
            // Nobody else sets it, and it is empty.
            let _ = cable.clock.set(thread.thread().clone());
        }
        let listener: Weak<dyn Listener> = Arc::downgrade(&cable) as Weak<dyn Listener>;
        cable.network.connect(listener);
        Ok(cable)
    }

    /// The card's name in the machine.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The card's address.
    pub fn mac(&self) -> MacAddress {
        self.mac
    }

    /// Plugs a card in, in place of one that was.
    pub fn plug(&self, card: Weak<dyn Listener>) {
        *self.card.lock() = Some(card);
    }

    /// Whether it is plugged in at both ends.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Plugs it in, or pulls it.
    pub fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::AcqRel) != up {
            self.tell(|card| card.link_changed());
            // What waits at the far end can come, or be lost.
            self.tell(|card| {
                card.frames_wait();
                card.room_to_send();
            });
        }
    }

    /// Takes a frame from the card, or gives it back because there is no room now; the card is told when there is. Never
    /// blocks. What is sent into a cable that was pulled is lost, and so is what the rules do not let go on, of which the
    /// card may hear.
    ///
    /// # Errors
    /// The frame, for which there is no room.
    pub fn send(&self, frame: Frame) -> Result<(), Frame> {
        let mut outward = self.outward.lock();
        if !self.is_up() {
            outward.parts.clear();
            return Ok(());
        }
        if !self.pass_parts(&mut outward) || !outward.may_pass(&self.clock) {
            return Err(frame);
        }
        outward.charge(frame.bytes.len());
        let judged = self.gate.as_ref().map_or(Judged::Pass, |gate| gate.judge(&frame.bytes));
        if judged != Judged::Pass {
            self.record(&frame, false);
            drop(outward);
            if judged == Judged::Refused {
                self.tell(|card| card.frames_wait());
            }
            return Ok(());
        }
        let parts = &mut outward.parts;
        segment::prepare(frame, self.network.accepts(), |part| parts.push_back(part));
        self.pass_parts(&mut outward);
        Ok(())
    }

    /// Sends what was cut before. Whether all of it is through.
    fn pass_parts(&self, outward: &mut Direction) -> bool {
        while let Some(part) = outward.parts.front() {
            if !self.network.send(part) {
                return false;
            }
            self.record(part, false);
            outward.parts.pop_front();
        }
        true
    }

    /// The next frame for a card that does this work itself.
    pub fn receive(&self, accepts: Accepts) -> Option<Frame> {
        let mut inward = self.inward.lock();
        if !self.is_up() {
            // What comes is lost; a network that waits for room would wait for ever.
            inward.parts.clear();
            if let Some(gate) = &self.gate {
                gate.forget_refusals();
            }
            while self.network.receive().is_some() {}
            return None;
        }
        loop {
            if let Some(part) = inward.parts.pop_front() {
                return Some(part);
            }
            if !inward.may_pass(&self.clock) {
                return None;
            }
            let refusal = self.gate.as_ref().and_then(Gate::refusal);
            let frame = match refusal {
                Some(refusal) => refusal,
                None => self.received()?,
            };
            inward.charge(frame.bytes.len());
            self.record(&frame, true);
            let parts = &mut inward.parts;
            segment::prepare(frame, accepts, |part| parts.push_back(part));
        }
    }

    /// The next frame from the network.
    fn received(&self) -> Option<Frame> {
        let frame = self.network.receive()?;
        if let Some(gate) = &self.gate {
            gate.note(&frame.bytes);
        }
        Some(frame)
    }

    fn record(&self, frame: &Frame, to_card: bool) {
        if let Some(capture) = &self.capture {
            capture.record(frame, to_card);
        }
    }

    fn tell(&self, what: impl Fn(&dyn Listener)) {
        let card = self.card.lock().as_ref().and_then(Weak::upgrade);
        if let Some(card) = card {
            what(&*card);
        }
    }
}

impl Listener for Cable {
    fn frames_wait(&self) {
        self.tell(|card| card.frames_wait());
    }

    fn room_to_send(&self) {
        let all_through = self.pass_parts(&mut self.outward.lock());
        if all_through {
            self.tell(|card| card.room_to_send());
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        if let Some(clock) = self.clock.get() {
            clock.unpark();
        }
    }
}

/// Tells those who wait for a cable that is slow, until there is no cable.
fn keep_time(cable: &Weak<Cable>) {
    loop {
        let Some(strong) = cable.upgrade() else { return };
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        let mut due = |direction: &Mutex<Direction>| {
            let mut direction = direction.lock();
            match direction.wake {
                Some(at) if at <= now => {
                    direction.wake = None;
                    true
                }
                Some(at) => {
                    next = Some(next.map_or(at, |next| next.min(at)));
                    false
                }
                None => false,
            }
        };
        let (outward, inward) = (due(&strong.outward), due(&strong.inward));
        if outward {
            strong.tell(|card| card.room_to_send());
        }
        if inward {
            strong.tell(|card| card.frames_wait());
        }
        drop(strong);
        match next {
            Some(at) => std::thread::park_timeout(at.saturating_duration_since(now)),
            None if outward || inward => {}
            None => std::thread::park(),
        }
    }
}
