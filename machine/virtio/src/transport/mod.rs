//! Virtio over PCI, modern interface only (virtio 1.2 section 4.1).
//!
//! [`VirtioPci`] puts a [`VirtioDevice`] on the bus: capabilities, common configuration, doorbells, MSI-X. Registers are
//! behind one lock; doorbells and the interrupt path take none of it, and I/O happens on the device's threads
//! ([`crate::worker`]).
//!
//! ```text
//!   reset --> ACKNOWLEDGE, DRIVER --> FEATURES_OK --> DRIVER_OK (queues live) --> status 0: stop threads' work --> reset
//!                                                      \-- broken ring --> NEEDS_RESET
//! ```
//!
//! A reset while I/O is under way ends when the I/O does: the status reads non-zero until then, and no vCPU waits.

mod interrupts;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

pub use interrupts::Interrupts;
use lodge_bus::{
    AccessError, Device, MmioBus, MmioDevice, MmioRange, MmioWidths, MsiTarget, PauseDevice, PciAddress, PciFunction,
    ResetDevice, SaveDevice, StateError,
};
use lodge_display::{Vga, VgaParts};
use lodge_engine_api::GuestMemory;
use lodge_pci::config::registers::{CAP_MSIX, CAP_VENDOR, COMMAND, COMMAND_NO_INTX};
use lodge_pci::{BarTarget, ConfigSpace, ConfigSpec, Msix, Router, read_rom, rom_length};
use parking_lot::Mutex;
use registers::*;
pub use state::{QueueState, TransportState};
use virtio_queue::{Queue, QueueT};

use crate::device::{VirtioDevice, feature};
use crate::queue::{Broken, VirtQueue};
use crate::worker::{Shared, Workers};

const REGION_MSIX: u8 = 1;
const REGION_MAIN: u8 = 4;
const REGION_ROM: u8 = 6;

/// What a virtio function is wired to.
#[derive(Clone)]
pub struct VirtioWiring {
    /// Guest RAM.
    pub memory: GuestMemory,
    /// The bus that BARs are mapped on.
    pub mmio: MmioBus,
    /// Where messages go.
    pub msi: Arc<dyn MsiTarget>,
    /// Where INTx goes.
    pub router: Arc<Router>,
}

struct Volatile {
    state: TransportState,
    config: ConfigSpace,
    /// The driver wrote status 0, and threads still work.
    resetting: bool,
    paused: bool,
}

/// A virtio device as a PCI function.
pub struct VirtioPci {
    // configuration
    features: u64,
    sizes: Vec<u16>,
    layout: Layout,
    pci_cfg: u8,
    msix_cap: u8,
    rom: Vec<u8>,
    // wiring
    /// The other half of the function.
    vga: Option<Arc<Vga>>,
    device: Arc<dyn VirtioDevice>,
    memory: GuestMemory,
    router: Arc<Router>,
    interrupts: Arc<Interrupts>,
    shared: Arc<Shared>,
    _workers: Workers,
    // volatile
    volatile: Mutex<Volatile>,
}

impl VirtioPci {
    /// Puts `device` behind PCI and starts its threads.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new(device: Arc<dyn VirtioDevice>, wiring: VirtioWiring) -> std::io::Result<Arc<Self>> {
        Self::build(device, wiring, None, Vec::new())
    }

    /// The same with an expansion ROM for firmware; with an empty one there is none.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn with_rom(device: Arc<dyn VirtioDevice>, wiring: VirtioWiring, rom: Vec<u8>) -> std::io::Result<Arc<Self>> {
        Self::build(device, wiring, None, rom)
    }

    /// The same with a VGA as the function's other half, which is there for firmware and for systems that have no driver
    /// for the device. Ports and the window of the VGA are attached by whoever has it.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn with_vga(
        device: Arc<dyn VirtioDevice>,
        wiring: VirtioWiring,
        vga: (Arc<Vga>, VgaParts),
    ) -> std::io::Result<Arc<Self>> {
        Self::build(device, wiring, Some(vga), Vec::new())
    }

    fn build(
        device: Arc<dyn VirtioDevice>,
        wiring: VirtioWiring,
        vga: Option<(Arc<Vga>, VgaParts)>,
        rom: Vec<u8>,
    ) -> std::io::Result<Arc<Self>> {
        let layout = if vga.is_some() { Layout::VGA } else { Layout::PLAIN };
        let (vga, parts) = vga.unzip();
        let sizes = device.queue_sizes();
        let vectors = u16::try_from(sizes.len() + 1).unwrap_or(2).min(128);
        let interrupts = Arc::new(Interrupts::new(Msix::new(vectors, wiring.msi), sizes.len()));
        let shared = Shared::new(device.clone(), interrupts.clone());
        let workers = Workers::start(shared.clone())?;
        Ok(Arc::new_cyclic(|this: &Weak<Self>| {
            let (config, msix_cap, pci_cfg) =
                config_space(&*device, vectors, layout, (parts, &rom), &wiring.mmio, this);
            let queues = sizes.iter().map(|size| QueueState { size: *size, ..QueueState::default() }).collect();
            let state = TransportState { queues, ..TransportState::default() };
            Self {
                features: device.features() | feature::COMMON,
                sizes,
                layout,
                pci_cfg,
                msix_cap,
                rom,
                vga,
                device,
                memory: wiring.memory,
                router: wiring.router,
                interrupts,
                shared,
                _workers: workers,
                volatile: Mutex::new(Volatile { state, config, resetting: false, paused: false }),
            }
        }))
    }

    /// The device behind it.
    pub fn device(&self) -> &Arc<dyn VirtioDevice> {
        &self.device
    }

    // --- common configuration ---

    fn status(&self, volatile: &mut Volatile) -> u8 {
        if volatile.resetting {
            self.finish_reset(volatile);
        }
        let broken = self.shared.broken.load(Ordering::Acquire);
        volatile.state.status | if broken { status::NEEDS_RESET } else { 0 }
    }

    /// The common configuration as bytes.
    fn common(&self, volatile: &mut Volatile) -> [u8; COMMON_SIZE as usize] {
        let mut image = [0; COMMON_SIZE as usize];
        let status = self.status(volatile);
        let state = &volatile.state;
        let mut put = |offset: u64, bytes: &[u8]| image[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        put(common::DEVICE_FEATURE_SELECT, &state.device_feature_select.to_le_bytes());
        put(common::DEVICE_FEATURE, &half(self.features, state.device_feature_select).to_le_bytes());
        put(common::DRIVER_FEATURE_SELECT, &state.driver_feature_select.to_le_bytes());
        put(common::DRIVER_FEATURE, &half(state.driver_features, state.driver_feature_select).to_le_bytes());
        put(common::CONFIG_VECTOR, &state.config_vector.to_le_bytes());
        put(common::NUM_QUEUES, &(state.queues.len() as u16).to_le_bytes());
        put(common::STATUS, &[status]);
        put(common::GENERATION, &[self.interrupts.state.lock().generation]);
        put(common::QUEUE_SELECT, &state.queue_select.to_le_bytes());
        if let Some(queue) = state.queues.get(usize::from(state.queue_select)) {
            put(common::QUEUE_SIZE, &queue.size.to_le_bytes());
            put(common::QUEUE_VECTOR, &queue.vector.to_le_bytes());
            put(common::QUEUE_ENABLE, &u16::from(queue.enabled).to_le_bytes());
            put(common::QUEUE_NOTIFY_OFF, &state.queue_select.to_le_bytes());
            put(common::QUEUE_DESC, &queue.descriptors.to_le_bytes());
            put(common::QUEUE_DRIVER, &queue.available.to_le_bytes());
            put(common::QUEUE_DEVICE, &queue.used.to_le_bytes());
        }
        image
    }

    /// A vector as the driver may have it: one that the table has, or none (4.1.5.1.2).
    fn vector(&self, value: u64) -> u16 {
        let vector = value as u16;
        if vector < self.interrupts.state.lock().msix.vectors() { vector } else { NO_VECTOR }
    }

    fn write_common(&self, volatile: &mut Volatile, offset: u64, bytes: usize, value: u64) {
        let state = &mut volatile.state;
        match (offset, bytes) {
            (common::DEVICE_FEATURE_SELECT, 4) => state.device_feature_select = value as u32,
            (common::DRIVER_FEATURE_SELECT, 4) => state.driver_feature_select = value as u32,
            (common::DRIVER_FEATURE, 4) => {
                if state.status & status::FEATURES_OK == 0 {
                    let features = &mut state.driver_features;
                    match state.driver_feature_select {
                        0 => *features = *features & !0xffff_ffff | value,
                        1 => *features = *features & 0xffff_ffff | value << 32,
                        _ => {}
                    }
                }
            }
            (common::CONFIG_VECTOR, 2) => {
                state.config_vector = self.vector(value);
                self.interrupts.state.lock().config_vector = state.config_vector;
            }
            (common::STATUS, 1) => self.write_status(volatile, value as u8),
            (common::QUEUE_SELECT, 2) => state.queue_select = value as u16,
            (common::QUEUE_VECTOR, 2) => {
                let vector = self.vector(value);
                let index = usize::from(state.queue_select);
                if let Some(queue) = state.queues.get_mut(index) {
                    queue.vector = vector;
                    self.interrupts.state.lock().queue_vectors[index] = vector;
                }
            }
            _ => self.write_queue(state, offset, bytes, value),
        }
    }

    fn write_queue(&self, state: &mut TransportState, offset: u64, bytes: usize, value: u64) {
        let index = usize::from(state.queue_select);
        let Some(queue) = state.queues.get_mut(index) else { return };
        // A queue that is enabled does not change (4.1.4.3.2).
        if queue.enabled {
            return;
        }
        let part = |old: u64, upper: bool| match (bytes, upper) {
            (8, false) => value,
            (4, false) => old & !0xffff_ffff | value & 0xffff_ffff,
            (4, true) => old & 0xffff_ffff | value << 32,
            _ => old,
        };
        match offset {
            common::QUEUE_SIZE if bytes == 2 => {
                let size = value as u16;
                if size.is_power_of_two() && size <= self.sizes[index] {
                    queue.size = size;
                }
            }
            common::QUEUE_ENABLE if bytes == 2 && value == 1 => queue.enabled = true,
            common::QUEUE_DESC => queue.descriptors = part(queue.descriptors, false),
            0x24 => queue.descriptors = part(queue.descriptors, true),
            common::QUEUE_DRIVER => queue.available = part(queue.available, false),
            0x2c => queue.available = part(queue.available, true),
            common::QUEUE_DEVICE => queue.used = part(queue.used, false),
            0x34 => queue.used = part(queue.used, true),
            _ => {}
        }
    }

    fn write_status(&self, volatile: &mut Volatile, value: u8) {
        if value == 0 {
            if volatile.state.status != 0 || volatile.resetting || self.shared.broken.load(Ordering::Acquire) {
                self.shared.stop.store(true, Ordering::Release);
                volatile.resetting = true;
                self.finish_reset(volatile);
            }
            return;
        }
        if volatile.resetting {
            return;
        }
        let state = &mut volatile.state;
        let set = value & !state.status;
        // Bits stay set until a reset (2.1.1).
        let mut value = (value | state.status) & !status::NEEDS_RESET;
        if set & status::FEATURES_OK != 0 {
            let features = state.driver_features;
            if features & !self.features != 0 || features & feature::VERSION_1 == 0 {
                value &= !status::FEATURES_OK;
            }
        }
        state.status = value;
        if set & status::DRIVER_OK != 0 && value & status::FEATURES_OK != 0 {
            self.activate(volatile);
        }
    }

    fn activate(&self, volatile: &mut Volatile) {
        self.shared.stop.store(volatile.paused, Ordering::Release);
        self.device.activate(volatile.state.driver_features, self.shared.bell());
        for (index, queue) in volatile.state.queues.iter().enumerate().filter(|(_, queue)| queue.enabled) {
            match self.ring(index as u16, queue, volatile.state.driver_features) {
                Ok(ring) => *self.shared.slots[index].queue.lock() = Some(ring),
                Err(error) => {
                    tracing::warn!(device = self.device.name(), queue = index, %error, "the driver broke the device");
                    self.shared.broken.store(true, Ordering::Release);
                    self.interrupts.config();
                }
            }
        }
        // The driver may have rung before.
        self.shared.ring_all();
    }

    fn ring(&self, index: u16, state: &QueueState, features: u64) -> Result<VirtQueue, Broken> {
        let most = self.sizes.get(usize::from(index)).copied().ok_or(Broken::Ring)?;
        let mut queue = Queue::new(most)?;
        queue.try_set_size(state.size)?;
        queue.try_set_desc_table_address(vm_memory::GuestAddress(state.descriptors))?;
        queue.try_set_avail_ring_address(vm_memory::GuestAddress(state.available))?;
        queue.try_set_used_ring_address(vm_memory::GuestAddress(state.used))?;
        queue.set_event_idx(features & feature::EVENT_IDX != 0);
        queue.set_next_avail(state.next_available);
        queue.set_next_used(state.next_used);
        queue.set_ready(true);
        VirtQueue::new(index, queue, self.memory.clone(), self.interrupts.clone(), self.shared.stop.clone())
    }

    /// Ends a reset if no thread works any more; otherwise a later look at the status will.
    fn finish_reset(&self, volatile: &mut Volatile) {
        for slot in &self.shared.slots {
            let Some(mut queue) = slot.queue.try_lock() else { return };
            *queue = None;
        }
        self.device.deactivate();
        volatile.resetting = false;
        self.shared.broken.store(false, Ordering::Release);
        let queues = self.sizes.iter().map(|size| QueueState { size: *size, ..QueueState::default() }).collect();
        let config = volatile.state.config.clone();
        volatile.state = TransportState { queues, config, ..TransportState::default() };
        let mut interrupts = self.interrupts.state.lock();
        interrupts.isr = 0;
        interrupts.config_vector = NO_VECTOR;
        interrupts.queue_vectors.fill(NO_VECTOR);
        self.interrupts.update(&interrupts);
        drop(interrupts);
        self.shared.stop.store(volatile.paused, Ordering::Release);
    }

    // --- the main BAR ---

    fn read_main(&self, volatile: &mut Volatile, offset: u64, bytes: usize) -> u64 {
        let mut data = [0; 8];
        match self.layout.part(offset) {
            Part::Common(offset) => {
                let image = self.common(volatile);
                let from = (offset as usize).min(image.len());
                let count = bytes.min(image.len() - from);
                data[..count].copy_from_slice(&image[from..from + count]);
            }
            Part::Isr(0) => data[0] = self.interrupts.read_isr(),
            Part::Device(offset) => self.device.read_config(offset, &mut data[..bytes]),
            Part::Vga(offset) => return self.vga.as_ref().map_or(0, |vga| vga.read_registers(offset, bytes)),
            Part::Isr(_) | Part::Notify(_) => {}
        }
        u64::from_le_bytes(data)
    }

    fn write_main(&self, volatile: &mut Volatile, offset: u64, bytes: usize, value: u64) {
        match self.layout.part(offset) {
            Part::Common(offset) => self.write_common(volatile, offset, bytes, value),
            Part::Device(offset) => self.device.write_config(offset, &value.to_le_bytes()[..bytes]),
            Part::Notify(offset) => self.notify(offset),
            Part::Vga(offset) => {
                if let Some(vga) = &self.vga {
                    vga.write_registers(offset, bytes, value);
                }
            }
            Part::Isr(_) => {}
        }
    }

    fn notify(&self, offset: u64) {
        let index = offset / u64::from(NOTIFY_MULTIPLIER);
        self.shared.ring(u16::try_from(index).unwrap_or(u16::MAX));
    }

    // --- access through configuration space (4.1.4.9) ---

    /// The BAR offset and length that the access capability names.
    fn cfg_access(&self, volatile: &Volatile) -> Option<(u64, usize)> {
        let config = &volatile.config;
        let bar = (config.read(self.pci_cfg + 4) & 0xff) as u8;
        let offset = u64::from(config.read(self.pci_cfg + 8));
        let length = config.read(self.pci_cfg + 12);
        let fits = bar == self.layout.main_bar && matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length.into());
        (fits && offset + u64::from(length) <= BAR_MAIN_SIZE).then_some((offset, length as usize))
    }

    /// Configuration space changed: interrupts follow.
    fn config_changed(&self, volatile: &Volatile) {
        let mut interrupts = self.interrupts.state.lock();
        interrupts.no_intx = volatile.config.command() & COMMAND_NO_INTX != 0;
        let control = (volatile.config.read(self.msix_cap) >> 16) as u16;
        interrupts.msix.set_control(control);
        self.interrupts.update(&interrupts);
    }
}

/// Builds the configuration space; returns it with the offsets of its MSI-X and access capabilities.
fn config_space(
    device: &dyn VirtioDevice,
    vectors: u16,
    layout: Layout,
    (vga, rom): (Option<VgaParts>, &[u8]),
    mmio: &MmioBus,
    this: &Weak<VirtioPci>,
) -> (ConfigSpace, u8, u8) {
    let mut config = ConfigSpace::new(&ConfigSpec {
        vendor: VENDOR,
        device: DEVICE_BASE + device.device_id(),
        revision: 1,
        // A display controller that is a VGA says so.
        class: if vga.is_some() { [3, 0, 0] } else { device.class() },
        subsystem: [VENDOR, 0x1100],
        multifunction: false,
        pin: 1,
    });
    let map = |length, region, widths| {
        let device: Weak<dyn MmioDevice> = this.clone();
        mmio.mapping(device, MmioRange { base: 0, length, region, widths })
    };
    let msix_bar = map(BAR_MSIX_SIZE, REGION_MSIX, MmioWidths::DWORD_OR_QWORD);
    config.add_bar(layout.msix_bar, BAR_MSIX_SIZE, BarTarget::Memory32(msix_bar));
    let main_bar = map(BAR_MAIN_SIZE, REGION_MAIN, MmioWidths::ANY);
    config.add_bar(layout.main_bar, BAR_MAIN_SIZE, BarTarget::Memory64(main_bar));
    if let Some(VgaParts { video_memory, frame_buffer, rom, .. }) = vga {
        config.add_bar(0, video_memory, BarTarget::Prefetchable(frame_buffer));
        if let Some((length, mapping)) = rom {
            config.add_rom(length, mapping);
        }
    }
    if !rom.is_empty() {
        let length = rom_length(rom);
        config.add_rom(length, map(length, REGION_ROM, MmioWidths::ANY));
    }

    let mut msix = Vec::new();
    msix.extend((vectors - 1).to_le_bytes());
    msix.extend(u32::from(layout.msix_bar).to_le_bytes());
    msix.extend((PENDING_OFFSET as u32 | u32::from(layout.msix_bar)).to_le_bytes());
    // There is room for all of these: 0x40 to 0xa4.
    let msix_cap = config.add_capability(CAP_MSIX, &msix, &[0, 0xc0]).unwrap_or(0);
    let vendor = |kind: u8, offset: u64, length: u64, extra: &[u8]| {
        let mut body = vec![16 + extra.len() as u8, kind, layout.main_bar, 0, 0, 0];
        body.extend((offset as u32).to_le_bytes());
        body.extend((length as u32).to_le_bytes());
        body.extend(extra);
        body
    };
    config.add_capability(CAP_VENDOR, &vendor(cfg_type::COMMON, layout.common, COMMON_SIZE, &[]), &[]);
    config.add_capability(CAP_VENDOR, &vendor(cfg_type::ISR, layout.isr, 1, &[]), &[]);
    config.add_capability(CAP_VENDOR, &vendor(cfg_type::DEVICE, DEVICE_OFFSET, PAGE, &[]), &[]);
    let multiplier = NOTIFY_MULTIPLIER.to_le_bytes();
    config.add_capability(CAP_VENDOR, &vendor(cfg_type::NOTIFY, NOTIFY_OFFSET, PAGE, &multiplier), &[]);
    let access = vendor(cfg_type::PCI, 0, 0, &[0; 4]);
    let mask = [0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let pci_cfg = config.add_capability(CAP_VENDOR, &access, &mask).unwrap_or(0);
    (config, msix_cap, pci_cfg)
}

impl Device for VirtioPci {
    fn name(&self) -> &str {
        self.device.name()
    }
    fn pci(self: Arc<Self>) -> Option<Arc<dyn PciFunction>> {
        Some(self)
    }
    fn resettable(self: Arc<Self>) -> Option<Arc<dyn ResetDevice>> {
        Some(self)
    }
    fn pausable(self: Arc<Self>) -> Option<Arc<dyn PauseDevice>> {
        Some(self)
    }
    fn saved(self: Arc<Self>) -> Option<Arc<dyn SaveDevice>> {
        Some(self)
    }
}

impl PciFunction for VirtioPci {
    fn config_read(&self, offset: u8) -> u32 {
        let mut volatile = self.volatile.lock();
        if offset & 0xfc == self.pci_cfg + 16
            && let Some((at, length)) = self.cfg_access(&volatile)
        {
            return self.read_main(&mut volatile, at, length) as u32;
        }
        let mut value = volatile.config.read(offset);
        if offset == COMMAND && self.interrupts.state.lock().isr != 0 {
            value |= 1 << 19;
        }
        value
    }

    fn config_write(&self, offset: u8, mask: u32, value: u32) {
        let mut volatile = self.volatile.lock();
        if offset & 0xfc == self.pci_cfg + 16
            && let Some((at, length)) = self.cfg_access(&volatile)
        {
            let ones = u64::MAX >> (64 - 8 * length);
            self.write_main(&mut volatile, at, length, u64::from(value & mask) & ones);
            return;
        }
        volatile.config.write(offset, mask, value);
        if offset == COMMAND || offset == self.msix_cap {
            self.config_changed(&volatile);
        }
    }

    fn placed(&self, address: PciAddress) {
        // A function is placed once.
        let _ = self.interrupts.line.set(self.router.line(address.device, 0));
    }

    fn bars(&self) -> Vec<(u8, u64, bool)> {
        self.volatile.lock().config.bars()
    }
}

impl MmioDevice for VirtioPci {
    fn mmio_read(&self, region: u8, offset: u64, bytes: usize) -> Result<u64, AccessError> {
        if region == REGION_MAIN {
            return match (self.layout.part(offset), &self.vga) {
                // Interrupt handlers read it: not behind the registers' lock.
                (Part::Isr(0), _) => Ok(self.interrupts.read_isr().into()),
                (Part::Vga(offset), Some(vga)) => Ok(vga.read_registers(offset, bytes)),
                _ => Ok(self.read_main(&mut self.volatile.lock(), offset, bytes)),
            };
        }
        if region == REGION_ROM {
            return Ok(read_rom(&self.rom, offset, bytes));
        }
        let interrupts = self.interrupts.state.lock();
        Ok(match offset.checked_sub(PENDING_OFFSET) {
            Some(offset) => interrupts.msix.read_pending(offset, bytes),
            None => interrupts.msix.read_table(offset, bytes),
        })
    }

    fn mmio_write(&self, region: u8, offset: u64, bytes: usize, value: u64) -> Result<(), AccessError> {
        if region == REGION_MAIN {
            match (self.layout.part(offset), &self.vga) {
                (Part::Notify(offset), _) => self.notify(offset),
                (Part::Vga(offset), Some(vga)) => vga.write_registers(offset, bytes, value),
                _ => self.write_main(&mut self.volatile.lock(), offset, bytes, value),
            }
        } else if region == REGION_MSIX && offset < PENDING_OFFSET {
            self.interrupts.state.lock().msix.write_table(offset, bytes, value);
        }
        Ok(())
    }
}

impl ResetDevice for VirtioPci {
    fn reset(&self) {
        let mut volatile = self.volatile.lock();
        self.shared.stop.store(true, Ordering::Release);
        self.shared.quiesce();
        volatile.resetting = true;
        // A thread that looked at its bell meanwhile finds `stop` and lets go at once.
        while volatile.resetting {
            self.finish_reset(&mut volatile);
        }
        volatile.config.reset();
        self.interrupts.state.lock().msix.reset();
        self.config_changed(&volatile);
    }
}

impl PauseDevice for VirtioPci {
    fn pause(&self) {
        let mut volatile = self.volatile.lock();
        volatile.paused = true;
        self.shared.stop.store(true, Ordering::Release);
        self.shared.quiesce();
    }

    fn resume(&self) {
        let mut volatile = self.volatile.lock();
        volatile.paused = false;
        if !volatile.resetting {
            self.shared.stop.store(false, Ordering::Release);
        }
        drop(volatile);
        self.shared.ring_all();
    }
}

impl SaveDevice for VirtioPci {
    fn save(&self) -> Vec<u8> {
        let volatile = self.volatile.lock();
        let mut state = volatile.state.clone();
        for (queue, slot) in state.queues.iter_mut().zip(&self.shared.slots) {
            if let Some(ring) = slot.queue.lock().as_ref() {
                (queue.next_available, queue.next_used) = ring.position();
            }
        }
        let interrupts = self.interrupts.state.lock();
        (state.isr, state.generation) = (interrupts.isr, interrupts.generation);
        state.msix = interrupts.msix.state();
        state.config = volatile.config.state();
        drop(interrupts);
        state.device = self.device.save();
        if self.shared.broken.load(Ordering::Acquire) {
            state.status |= status::NEEDS_RESET;
        }
        lodge_savestate::to_record(&state)
    }

    fn restore(&self, record: &[u8]) -> Result<(), StateError> {
        let fault = |cause: &str| StateError { device: self.device.name().into(), cause: cause.into() };
        let mut state: TransportState = StateError::read(self.device.name(), record)?;
        if state.queues.len() != self.sizes.len() {
            return Err(fault("it has another number of queues"));
        }
        let mut volatile = self.volatile.lock();
        self.shared.stop.store(true, Ordering::Release);
        self.shared.quiesce();
        for slot in &self.shared.slots {
            *slot.queue.lock() = None;
        }
        self.device.deactivate();
        let device = std::mem::take(&mut state.device);
        if !device.is_empty() {
            self.device.restore(&device)?;
        }
        let mut interrupts = self.interrupts.state.lock();
        if !interrupts.msix.set_state(std::mem::take(&mut state.msix)) {
            return Err(fault("it has another number of interrupt vectors"));
        }
        (interrupts.isr, interrupts.generation) = (state.isr, state.generation);
        interrupts.config_vector = state.config_vector;
        interrupts.queue_vectors = state.queues.iter().map(|queue| queue.vector).collect();
        drop(interrupts);
        volatile.config.set_state(&state.config);
        self.config_changed(&volatile);
        let broken = state.status & status::NEEDS_RESET != 0;
        self.shared.broken.store(broken, Ordering::Release);
        state.status &= !status::NEEDS_RESET;
        volatile.resetting = false;
        volatile.state = state;
        if volatile.state.status & status::DRIVER_OK != 0 && !broken {
            self.activate(&mut volatile);
        }
        Ok(())
    }
}
