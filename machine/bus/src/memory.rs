//! How chipset and cards change what guest physical memory is.
//!
//! [`MemoryControl`] passes changes on to the engine. A [`MemoryMapping`] is a region of memory that can move, such as a
//! card's frame buffer behind a BAR.

use std::ops::Range;
use std::sync::Arc;

use lodge_engine_api::MemoryChange;
use parking_lot::Mutex;

/// What a device may ask of guest memory. Calls come from vCPU threads with a device lock held: an implementation takes
/// note and returns; what was asked holds before the vCPU's next instruction.
pub trait MemoryControl: Send + Sync {
    /// Changes what some addresses are.
    fn change(&self, change: MemoryChange);
}

/// Memory that never changes, for boards without an engine.
pub struct FixedMemory;

impl MemoryControl for FixedMemory {
    fn change(&self, _change: MemoryChange) {}
}

/// Bit 20 of the addresses that processors put out, which two devices hold low or let pass: whoever says so last.
pub struct AddressLine20 {
    memory: Arc<dyn MemoryControl>,
    open: Mutex<bool>,
}

impl AddressLine20 {
    /// The line, open.
    pub fn new(memory: Arc<dyn MemoryControl>) -> Arc<Self> {
        Arc::new(Self { memory, open: Mutex::new(true) })
    }

    /// Whether the bit passes.
    pub fn is_open(&self) -> bool {
        *self.open.lock()
    }

    /// Lets the bit pass, or holds it low.
    pub fn set(&self, open: bool) {
        // Locked until the engine knows, so that it hears the last word last.
        let mut now = self.open.lock();
        if *now != open {
            *now = open;
            self.memory.change(MemoryChange::AddressLine20 { open });
        }
    }
}

/// Grain of places and lengths.
const PAGE: u64 = 4096;

/// A region of guest memory that can move. It begins nowhere ([`lodge_engine_api::NOWHERE`]).
pub struct MemoryMapping {
    control: Arc<dyn MemoryControl>,
    region: usize,
    length: u64,
    /// Where it must not lie.
    taken: Vec<Range<u64>>,
    mapped: MemoryPlace,
}

/// Where a region that can move is, for whoever does not move it.
#[derive(Clone, Debug, Default)]
pub struct MemoryPlace(Arc<Mutex<Option<u64>>>);

impl MemoryPlace {
    /// The address at which it is mapped; `None`: nowhere.
    pub fn get(&self) -> Option<u64> {
        *self.0.lock()
    }
}

impl MemoryMapping {
    /// The region with this number in guest memory, of `length` bytes. `taken` are the addresses where it is never mapped,
    /// whatever a guest asks for: those of other memory, and of what a processor must not lose, such as its APIC.
    pub fn new(control: Arc<dyn MemoryControl>, region: usize, length: u64, taken: Vec<Range<u64>>) -> Self {
        Self { control, region, length, taken, mapped: MemoryPlace::default() }
    }

    /// Maps the region at `base`, or nowhere. A place where it does not fit is nowhere.
    pub fn set(&self, base: Option<u64>) {
        let to = base.filter(|base| self.fits(*base));
        let mut mapped = self.mapped.0.lock();
        if *mapped != to {
            *mapped = to;
            self.control.change(MemoryChange::Move { region: self.region, to });
        }
    }

    /// Where it is mapped, now and later.
    pub fn place(&self) -> MemoryPlace {
        self.mapped.clone()
    }

    fn fits(&self, base: u64) -> bool {
        let Some(end) = base.checked_add(self.length) else { return false };
        base.is_multiple_of(PAGE) && !self.taken.iter().any(|taken| base < taken.end && taken.start < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Moves(Mutex<Vec<Option<u64>>>);

    impl MemoryControl for Moves {
        fn change(&self, change: MemoryChange) {
            let MemoryChange::Move { region: 3, to } = change else { panic!("{change:?}") };
            self.0.lock().push(to);
        }
    }

    #[test]
    fn a_region_moves_and_never_covers_what_is_taken() {
        let moves = Arc::new(Moves::default());
        let mapping = MemoryMapping::new(moves.clone(), 3, 0x10_0000, vec![0..0x400_0000, 0xfec0_0000..1 << 32]);
        let place = mapping.place();
        mapping.set(None);
        assert_eq!(*moves.0.lock(), []);
        mapping.set(Some(0xe000_0000));
        mapping.set(Some(0xe000_0000));
        mapping.set(Some(0x3f0_0000));
        mapping.set(Some(0xfeb0_0001));
        mapping.set(Some(0xfeb0_0000));
        assert_eq!(place.get(), Some(0xfeb0_0000));
        mapping.set(Some(0xfec0_0000));
        mapping.set(Some(0x400_0000));
        mapping.set(Some(!0xfff));
        assert_eq!(place.get(), None);
        let places = [Some(0xe000_0000), None, Some(0xfeb0_0000), None, Some(0x400_0000), None];
        assert_eq!(*moves.0.lock(), places);
    }
}
