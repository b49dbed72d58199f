//! PCI interrupt routing as PIIX3 does it: four wires, each steered to an ISA interrupt.
//!
//! [`Router`] is an `IrqSink` whose lines are `device * 4 + pin` (pin 0 is INTA). A device's pin leads to wire
//! `(device + pin - 1) % 4`; the PIIX3's route control registers lead wires to interrupts, which are high as long as any
//! device on any of their wires asserts.

use std::sync::Arc;

use lodge_bus::{IrqLine, IrqSink};
use parking_lot::Mutex;

/// Route control: the wire leads nowhere (82371SB 2.2.7).
pub const ROUTE_OFF: u8 = 0x80;
/// Interrupts that a wire can be routed to: 3 to 7, 9 to 12, 14, 15.
const ROUTABLE: u16 = 0xdef8;
/// The interrupts that wires lead to on a machine without firmware, and in the ACPI tables' fixed routing.
pub const DEFAULT_ROUTES: [u8; 4] = [10, 10, 11, 11];

/// Which wire a device's pin (0 is INTA) is on.
pub const fn wire_of(device: u8, pin: u8) -> usize {
    (device as usize + pin as usize + 3) % 4
}

struct Volatile {
    /// Which of the 128 device pins are asserted.
    asserted: u128,
    routes: [u8; 4],
    /// The interrupts that are high.
    high: u16,
}

/// The interrupt router.
pub struct Router {
    sink: Arc<dyn IrqSink>,
    volatile: Mutex<Volatile>,
}

impl Router {
    /// A router into the ISA interrupts of `sink`, with all wires off.
    pub fn new(sink: Arc<dyn IrqSink>) -> Arc<Self> {
        let volatile = Volatile { asserted: 0, routes: [ROUTE_OFF; 4], high: 0 };
        Arc::new(Self { sink, volatile: Mutex::new(volatile) })
    }

    /// The line of a device's pin (0 is INTA).
    pub fn line(self: &Arc<Self>, device: u8, pin: u8) -> IrqLine {
        IrqLine::new(self.clone(), u32::from(device & 31) * 4 + u32::from(pin & 3))
    }

    /// Sets a wire's route control register.
    pub fn set_route(&self, wire: usize, route: u8) {
        let mut volatile = self.volatile.lock();
        if let Some(slot) = volatile.routes.get_mut(wire) {
            *slot = route;
            self.update(&mut volatile);
        }
    }

    fn update(&self, volatile: &mut Volatile) {
        let mut high = 0u16;
        let mut left = volatile.asserted;
        while left != 0 {
            let line = left.trailing_zeros() as u8;
            left &= left - 1;
            let route = volatile.routes[wire_of(line / 4, line % 4)];
            if route & ROUTE_OFF == 0 {
                high |= 1 << (route & 0xf) & ROUTABLE;
            }
        }
        let changed = high ^ volatile.high;
        volatile.high = high;
        for line in (0..16).filter(|line| changed & 1 << line != 0) {
            self.sink.set_level(line, high & 1 << line != 0);
        }
    }
}

impl IrqSink for Router {
    fn set_level(&self, line: u32, level: bool) {
        let mut volatile = self.volatile.lock();
        let bit = 1u128.checked_shl(line).unwrap_or(0);
        volatile.asserted = if level { volatile.asserted | bit } else { volatile.asserted & !bit };
        self.update(&mut volatile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<(u32, bool)>>);

    impl IrqSink for Log {
        fn set_level(&self, line: u32, high: bool) {
            self.0.lock().push((line, high));
        }
    }

    #[test]
    fn shared_wires_are_high_while_any_device_asserts() {
        let log = Arc::new(Log::default());
        let router = Router::new(log.clone());
        let (a, b) = (router.line(2, 0), router.line(6, 0));
        a.set(true);
        assert_eq!(*log.0.lock(), [], "the wire is off");
        router.set_route(1, 10);
        b.set(true);
        a.set(false);
        assert_eq!(*log.0.lock(), [(10, true)]);
        router.set_route(1, 11);
        b.set(false);
        assert_eq!(log.0.lock()[1..], [(10, false), (11, true), (11, false)]);
    }

    #[test]
    fn interrupts_of_the_board_can_not_be_taken() {
        let log = Arc::new(Log::default());
        let router = Router::new(log.clone());
        router.line(1, 0).set(true);
        for route in [0, 1, 2, 8, 13, 0x8a, 0x70] {
            router.set_route(0, route);
        }
        router.set_route(99, 10);
        router.set_level(u32::MAX, true);
        assert_eq!(*log.0.lock(), []);
    }
}
