//! The memory-mapped register bus.
//!
//! [`MmioBus`] finds the [`MmioDevice`] behind a physical address without taking a lock, and cuts accesses of 1 to 64
//! bytes into naturally aligned pieces of widths that the device takes. A [`MmioMapping`] is a range that can move;
//! dropping it unmaps.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::device::{MmioDevice, MmioRange, MmioWidths};
use crate::table::{Flat, MapError, Piece, Ranges};

#[derive(Clone)]
struct Target {
    device: Arc<dyn MmioDevice>,
    region: u8,
    widths: MmioWidths,
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

/// Physical memory that is not RAM. A clone is another handle on the same bus.
#[derive(Clone)]
pub struct MmioBus {
    shared: Arc<Shared>,
}

impl Default for MmioBus {
    fn default() -> Self {
        Self::new()
    }
}

impl MmioBus {
    /// A bus with nobody on it.
    pub fn new() -> Self {
        let ranges = Mutex::new(Ranges::new(u64::MAX));
        Self { shared: Arc::new(Shared { ranges, flat: ArcSwap::from_pointee(Flat::empty()) }) }
    }

    /// Maps all ranges that a device owns from power-on, for as long as the bus lives.
    ///
    /// # Errors
    /// A range overlaps another device's, or does not fit.
    pub fn attach(&self, device: &Arc<dyn MmioDevice>) -> Result<(), MapError> {
        let mut ranges = self.shared.ranges.lock();
        for range in device.mmio_ranges() {
            let target = Target { device: device.clone(), region: range.region, widths: range.widths };
            ranges.add(true, range.base, range.length, target)?;
        }
        self.shared.publish(&ranges);
        Ok(())
    }

    /// A movable range, not mapped yet; `range.base` is ignored.
    pub fn mapping(&self, device: Weak<dyn MmioDevice>, range: MmioRange) -> MmioMapping {
        MmioMapping { bus: Arc::downgrade(&self.shared), device, range, mapped: Mutex::new(None) }
    }

    /// Fills `data` from `address` on; all ones where nobody answers.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        let flat = self.shared.flat.load();
        let mut done = 0;
        while done < data.len() {
            let at = address.wrapping_add(done as u64);
            let Some(piece) = flat.find(at) else {
                data[done] = 0xff;
                done += 1;
                continue;
            };
            let bytes = piece_width(at, data.len() - done, piece);
            let value = read_piece(piece, at, bytes);
            data[done..done + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            done += bytes;
        }
    }

    /// Writes `data` from `address` on; nothing happens where nobody answers.
    pub fn write(&self, address: u64, data: &[u8]) {
        let flat = self.shared.flat.load();
        let mut done = 0;
        while done < data.len() {
            let at = address.wrapping_add(done as u64);
            let Some(piece) = flat.find(at) else {
                done += 1;
                continue;
            };
            let bytes = piece_width(at, data.len() - done, piece);
            let mut value = [0; 8];
            value[..bytes].copy_from_slice(&data[done..done + bytes]);
            if bytes >= usize::from(piece.value.widths.narrowest) {
                let offset = at - piece.base;
                // Nobody takes it: that is the guest's affair.
                let _ = piece.value.device.mmio_write(piece.value.region, offset, bytes, u64::from_le_bytes(value));
            }
            done += bytes;
        }
    }

    /// Every mapped piece as (first, last) address, in order.
    pub fn layout(&self) -> Vec<(u64, u64)> {
        self.shared.flat.load().pieces().iter().map(|piece| (piece.first, piece.last)).collect()
    }
}

/// The widest naturally aligned access at `at` of at most `left` bytes that `piece` takes and holds.
fn piece_width(at: u64, left: usize, piece: &Piece<Target>) -> usize {
    let mut bytes = usize::from(piece.value.widths.widest.clamp(1, 8));
    while bytes > 1 && (bytes > left || !at.is_multiple_of(bytes as u64) || piece.last - at < bytes as u64 - 1) {
        bytes /= 2;
    }
    bytes
}

fn read_piece(piece: &Piece<Target>, at: u64, bytes: usize) -> u64 {
    let target = &piece.value;
    let narrowest = usize::from(target.widths.narrowest.clamp(1, 8));
    let offset = at - piece.base;
    if bytes >= narrowest {
        return target.device.mmio_read(target.region, offset, bytes).unwrap_or(u64::MAX);
    }
    // Cut it out of the register around it.
    let within = offset % narrowest as u64;
    match target.device.mmio_read(target.region, offset - within, narrowest) {
        Ok(value) => value >> (within * 8),
        Err(_) => u64::MAX,
    }
}

/// A range of physical memory that can move, such as a PCI memory BAR.
pub struct MmioMapping {
    /// Weak, as the bus holds the device, and the device holds this.
    bus: Weak<Shared>,
    device: Weak<dyn MmioDevice>,
    range: MmioRange,
    mapped: Mutex<Option<(u64, u64)>>,
}

impl MmioMapping {
    /// Maps the range at `base`, or nowhere. A place where it does not fit is nowhere.
    pub fn set(&self, base: Option<u64>) {
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
            let target = Target { device, region: self.range.region, widths: self.range.widths };
            *mapped = ranges.add(false, base, self.range.length, target).ok().map(|id| (base, id));
        }
        bus.publish(&ranges);
    }
}

impl Drop for MmioMapping {
    fn drop(&mut self) {
        self.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::AccessError;

    struct Probe {
        widths: MmioWidths,
        accesses: Mutex<Vec<(u64, usize, Option<u64>)>>,
    }

    impl MmioDevice for Probe {
        fn mmio_ranges(&self) -> Vec<MmioRange> {
            vec![MmioRange { base: 0x1000, length: 0x20, region: 0, widths: self.widths }]
        }
        fn mmio_read(&self, _region: u8, offset: u64, bytes: usize) -> Result<u64, AccessError> {
            self.accesses.lock().push((offset, bytes, None));
            let mut value = [0; 8];
            for (i, byte) in value.iter_mut().enumerate().take(bytes) {
                *byte = offset as u8 + i as u8;
            }
            Ok(u64::from_le_bytes(value))
        }
        fn mmio_write(&self, _region: u8, offset: u64, bytes: usize, value: u64) -> Result<(), AccessError> {
            self.accesses.lock().push((offset, bytes, Some(value)));
            Ok(())
        }
    }

    fn bus(widths: MmioWidths) -> (MmioBus, Arc<Probe>) {
        let device = Arc::new(Probe { widths, accesses: Mutex::default() });
        let bus = MmioBus::new();
        bus.attach(&(device.clone() as Arc<dyn MmioDevice>)).unwrap();
        (bus, device)
    }

    #[test]
    fn an_odd_access_becomes_aligned_pieces() {
        let (bus, device) = bus(MmioWidths::ANY);
        let mut data = [0; 13];
        bus.read(0x1003, &mut data);
        assert_eq!(data, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(*device.accesses.lock(), [(3, 1, None), (4, 4, None), (8, 8, None)]);
    }

    #[test]
    fn narrow_reads_are_cut_out_and_narrow_writes_dropped() {
        let (bus, device) = bus(MmioWidths::DWORD);
        let mut data = [0; 2];
        bus.read(0x1006, &mut data);
        assert_eq!(data, [6, 7]);
        bus.write(0x1006, &[1, 2]);
        bus.write(0x1008, &[1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(*device.accesses.lock(), [(4, 4, None), (8, 4, Some(1)), (12, 4, Some(2))]);
    }

    #[test]
    fn an_access_may_begin_and_end_outside() {
        let (bus, _device) = bus(MmioWidths::ANY);
        let mut data = [0; 64];
        bus.read(0xff0, &mut data);
        assert_eq!(data[..17], [[0xff; 16].as_slice(), &[0]].concat());
        assert_eq!(data[16 + 0x1f], 0x1f);
        assert_eq!(data[16 + 0x20..], [0xff; 16]);
        bus.read(u64::MAX, &mut data);
    }

    #[test]
    fn a_mapping_that_its_device_holds_does_not_keep_the_bus_alive() {
        struct Holder(Mutex<Option<MmioMapping>>);
        impl MmioDevice for Holder {
            fn mmio_read(&self, _: u8, _: u64, _: usize) -> Result<u64, AccessError> {
                Ok(0)
            }
            fn mmio_write(&self, _: u8, _: u64, _: usize, _: u64) -> Result<(), AccessError> {
                Ok(())
            }
        }
        let bus = MmioBus::new();
        let device = Arc::new(Holder(Mutex::new(None)));
        let range = MmioRange { base: 0, length: 0x1000, region: 0, widths: MmioWidths::ANY };
        let mapping = bus.mapping(Arc::downgrade(&device) as Weak<dyn MmioDevice>, range);
        mapping.set(Some(0x1000));
        *device.0.lock() = Some(mapping);
        let weak = Arc::downgrade(&device);
        drop(device);
        assert!(weak.upgrade().is_some(), "the bus holds it");
        drop(bus);
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn mappings_move() {
        let (bus, device) = bus(MmioWidths::ANY);
        let weak = Arc::downgrade(&device) as Weak<dyn MmioDevice>;
        let range = MmioRange { base: 0, length: 0x1000, region: 1, widths: MmioWidths::ANY };
        let mapping = bus.mapping(weak, range);
        mapping.set(Some(0xe000_0000));
        mapping.set(Some(0xf000_0000));
        assert_eq!(bus.layout(), [(0x1000, 0x101f), (0xf000_0000, 0xf000_0fff)]);
        mapping.set(Some(u64::MAX - 5));
        assert_eq!(bus.layout(), [(0x1000, 0x101f)]);
    }
}
