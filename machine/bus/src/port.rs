//! The I/O port bus.
//!
//! [`PortBus`] finds the [`PortDevice`] behind a port without taking a lock and splits accesses that are wider than the
//! device takes, or that straddle two devices, into pieces (little-endian, ascending ports). A [`PortMapping`] is a
//! range that can move; dropping it unmaps.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use lodge_engine_api::Width;
use parking_lot::Mutex;

use crate::device::{PortDevice, PortRange};
use crate::table::{Flat, MapError, Ranges};

#[derive(Clone)]
struct Target {
    device: Arc<dyn PortDevice>,
    region: u8,
    widest: Width,
}

struct Shared {
    ranges: Mutex<Ranges<Target>>,
    flat: ArcSwap<Flat<Target>>,
}

impl Shared {
    fn publish(&self, ranges: &Ranges<Target>) {
        self.flat.store(Arc::new(ranges.flatten()));
    }
}

/// The 65,536 I/O ports. A clone is another handle on the same bus.
#[derive(Clone)]
pub struct PortBus {
    shared: Arc<Shared>,
}

impl Default for PortBus {
    fn default() -> Self {
        Self::new()
    }
}

impl PortBus {
    /// A bus with nobody on it.
    pub fn new() -> Self {
        let ranges = Mutex::new(Ranges::new(0xffff));
        Self { shared: Arc::new(Shared { ranges, flat: ArcSwap::from_pointee(Flat::empty()) }) }
    }

    /// Maps all ranges that a device owns from power-on, for as long as the bus lives.
    ///
    /// # Errors
    /// A range overlaps another device's, or does not fit.
    pub fn attach(&self, device: &Arc<dyn PortDevice>) -> Result<(), MapError> {
        let mut ranges = self.shared.ranges.lock();
        for range in device.port_ranges() {
            let target = Target { device: device.clone(), region: range.region, widest: range.widths };
            ranges.add(true, range.base.into(), range.length.into(), target)?;
        }
        self.shared.publish(&ranges);
        Ok(())
    }

    /// A movable range, not mapped yet; `range.base` is ignored.
    pub fn mapping(&self, device: Weak<dyn PortDevice>, range: PortRange) -> PortMapping {
        PortMapping { bus: Arc::downgrade(&self.shared), device, range, mapped: Mutex::new(None) }
    }

    /// Reads `width` at `port`; all ones where nobody answers.
    pub fn read(&self, port: u16, width: Width) -> u32 {
        let flat = self.shared.flat.load();
        if let Some(piece) = flat.find(port.into())
            && width <= piece.value.widest
            && u64::from(port) + width.bytes() as u64 - 1 <= piece.last
        {
            let offset = (u64::from(port) - piece.base) as u16;
            return match piece.value.device.port_read(piece.value.region, offset, width) {
                Ok(value) => value & width.ones(),
                Err(_) => width.ones(),
            };
        }
        drop(flat);
        match halve(width) {
            None => width.ones(),
            Some(half) => {
                let low = self.read(port, half);
                // Beyond the last port there is nobody.
                let high = match port.checked_add(half.bytes() as u16) {
                    Some(next) => self.read(next, half),
                    None => half.ones(),
                };
                low | high << (half.bytes() * 8)
            }
        }
    }

    /// Writes `width` at `port`; nothing happens where nobody answers.
    pub fn write(&self, port: u16, width: Width, value: u32) {
        let flat = self.shared.flat.load();
        if let Some(piece) = flat.find(port.into())
            && width <= piece.value.widest
            && u64::from(port) + width.bytes() as u64 - 1 <= piece.last
        {
            let offset = (u64::from(port) - piece.base) as u16;
            // Nobody takes it: that is the guest's affair.
            let _ = piece.value.device.port_write(piece.value.region, offset, width, value & width.ones());
            return;
        }
        drop(flat);
        if let Some(half) = halve(width) {
            self.write(port, half, value & half.ones());
            if let Some(next) = port.checked_add(half.bytes() as u16) {
                self.write(next, half, value >> (half.bytes() * 8));
            }
        }
    }

    /// Every mapped piece as (first, last) port, in order.
    pub fn layout(&self) -> Vec<(u16, u16)> {
        self.shared.flat.load().pieces().iter().map(|piece| (piece.first as u16, piece.last as u16)).collect()
    }
}

fn halve(width: Width) -> Option<Width> {
    match width {
        Width::Byte => None,
        Width::Word => Some(Width::Byte),
        Width::Dword => Some(Width::Word),
    }
}

/// A range of ports that can move, such as a PCI I/O BAR.
pub struct PortMapping {
    /// Weak, as the bus holds the device, and the device holds this.
    bus: Weak<Shared>,
    device: Weak<dyn PortDevice>,
    range: PortRange,
    mapped: Mutex<Option<(u16, u64)>>,
}

impl PortMapping {
    /// Maps the range at `base`, or nowhere. A place where it does not fit is nowhere.
    pub fn set(&self, base: Option<u16>) {
        let mut mapped = self.mapped.lock();
        if mapped.map(|(base, _)| base) == base {
            return;
        }
        let Some(bus) = self.bus.upgrade() else { return };
        let mut ranges = bus.ranges.lock();
        if let Some((_, id)) = mapped.take() {
            ranges.remove(id);
        }
        if let (Some(base), Some(device)) = (base, self.device.upgrade()) {
            let target = Target { device, region: self.range.region, widest: self.range.widths };
            *mapped = ranges.add(false, base.into(), self.range.length.into(), target).ok().map(|id| (base, id));
        }
        bus.publish(&ranges);
    }
}

impl Drop for PortMapping {
    fn drop(&mut self) {
        self.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::AccessError;

    /// Answers with region, offset and width, and records writes.
    struct Probe {
        ranges: Vec<PortRange>,
        writes: Mutex<Vec<(u8, u16, Width, u32)>>,
    }

    impl PortDevice for Probe {
        fn port_ranges(&self) -> Vec<PortRange> {
            self.ranges.clone()
        }
        fn port_read(&self, region: u8, offset: u16, width: Width) -> Result<u32, AccessError> {
            if offset == 7 {
                return Err(AccessError::Nobody);
            }
            Ok(u32::from(region) << 28 | (width.bytes() as u32) << 8 | u32::from(offset) | 0x40)
        }
        fn port_write(&self, region: u8, offset: u16, width: Width, value: u32) -> Result<(), AccessError> {
            self.writes.lock().push((region, offset, width, value));
            Ok(())
        }
    }

    fn probe(ranges: &[PortRange]) -> Arc<Probe> {
        Arc::new(Probe { ranges: ranges.to_vec(), writes: Mutex::default() })
    }

    #[test]
    fn wide_accesses_are_split_for_narrow_devices() {
        let device = probe(&[PortRange { base: 0x100, length: 8, region: 1, widths: Width::Byte }]);
        let bus = PortBus::new();
        bus.attach(&(device.clone() as Arc<dyn PortDevice>)).unwrap();
        assert_eq!(bus.read(0x101, Width::Dword), 0x44_43_42_41);
        assert_eq!(bus.read(0x106, Width::Word), 0xff_46, "the upper byte is answered by nobody");
        assert_eq!(bus.read(0x107, Width::Dword), 0xffff_ffff);
        bus.write(0x106, Width::Dword, 0x4433_2211);
        assert_eq!(*device.writes.lock(), [(1, 6, Width::Byte, 0x11), (1, 7, Width::Byte, 0x22)]);
    }

    #[test]
    fn an_access_at_the_end_of_the_space_does_not_wrap() {
        let device = probe(&[
            PortRange { base: 0xffff, length: 1, region: 0, widths: Width::Byte },
            PortRange { base: 0, length: 4, region: 1, widths: Width::Dword },
        ]);
        let bus = PortBus::new();
        bus.attach(&(device.clone() as Arc<dyn PortDevice>)).unwrap();
        assert_eq!(bus.read(0xffff, Width::Dword), 0xffff_ff40);
        bus.write(0xffff, Width::Dword, 0x0403_0201);
        assert_eq!(*device.writes.lock(), [(0, 0, Width::Byte, 1)]);
        assert_eq!(bus.read(0, Width::Dword), 0x1000_0440);
    }

    #[test]
    fn mappings_move_and_vanish() {
        let device = probe(&[]);
        let weak = Arc::downgrade(&device) as Weak<dyn PortDevice>;
        let bus = PortBus::new();
        let mapping = bus.mapping(weak, PortRange { base: 0, length: 8, region: 2, widths: Width::Dword });
        assert_eq!(bus.layout(), []);
        mapping.set(Some(0xc000));
        mapping.set(Some(0xd000));
        assert_eq!(bus.layout(), [(0xd000, 0xd007)]);
        assert_eq!(bus.read(0xd004, Width::Dword), 0x2000_0444);
        mapping.set(Some(0xfffc));
        assert_eq!(bus.layout(), [], "it does not fit there");
        mapping.set(Some(0x1000));
        drop(mapping);
        assert_eq!(bus.layout(), []);
    }
}
