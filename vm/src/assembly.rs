//! Building a machine: memory, time, buses, devices from one table, the kernel, and the engine's partition.

use std::ops::{Range, RangeInclusive};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use lodge_backend::{CharStream, Disk, Receiver, Tray};
use lodge_boot::layout::DEVICE_HOLE;
use lodge_bus::{AddressLine20, Device, HostClock, MemoryControl, MmioBus, PauseDevice, PciAddress, PortBus, Timers};
use lodge_chipset::rtc::registers::{SHUTDOWN, SHUTDOWN_RESUME};
use lodge_chipset::{Dma, Items, Pit, Pm, Rtc};
use lodge_display::Monitor;
use lodge_engine_api::{Engine, GuestMemory, Partition, PartitionSpec, Statistics};
use lodge_input::Desk;
use lodge_irq::Controllers;
use lodge_net::Cable;
use lodge_pci::{Bridge, PciHost, PciWindow, Router};
use lodge_sound::Sink;
use lodge_x86::CpuState;
use lodge_x86::cpuid::{Missing, Profile, SIGNATURE, Shape};

use crate::boot_order::Bootable;
use crate::clock::TimeSource;
use crate::devices::DEVICES;
use crate::driver::{Control, Message};
use crate::firmware::{self, Image};
use crate::inputs::{Bells, World};
use crate::memory::MemoryMap;
use crate::processors::Processors;
use crate::tsc::Measurement;
use crate::{Boot, Config, VmError, ram, slots};

/// What the local APIC's timer divides, in Hz.
const APIC_HZ: u64 = 1_000_000_000;

/// Where PCI functions have their memory, between RAM and the I/O APIC, and their ports, above the power-management
/// block.
pub(crate) const PCI_WINDOW: PciWindow =
    PciWindow { memory_base: DEVICE_HOLE.start, memory_end: 0xfec0_0000, io_base: 0xc000 };

/// Most processors that APIC IDs of 8 bits can name.
const VCPUS_MAX: u32 = 255;

/// Which device a disk is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// A virtio disk.
    Virtio,
    /// PIIX3's IDE channels.
    Ide,
    /// AHCI controllers with six ports each.
    Sata,
    /// An NVMe controller of its own.
    Nvme,
    /// A virtio SCSI host.
    Scsi,
}

/// A disk and the device that it is behind.
#[derive(Clone)]
pub struct Attached {
    /// Its bus.
    pub bus: Bus,
    /// The disk.
    pub disk: Arc<dyn Disk>,
}

/// Which device a CD drive is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CdBus {
    /// PIIX3's IDE channels.
    #[default]
    Ide,
    /// AHCI controllers.
    Sata,
    /// A virtio SCSI host.
    Scsi,
}

/// A CD drive and the device that it is behind.
#[derive(Clone)]
pub struct AttachedCd {
    /// Its bus.
    pub bus: CdBus,
    /// Its tray.
    pub tray: Arc<Tray>,
}

/// Which network card a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkCard {
    /// A virtio card with so many pairs of queues.
    Virtio {
        /// Pairs of queues; 1 to 16.
        pairs: u16,
    },
    /// Intel's 82540EM.
    E1000,
    /// Realtek's RTL8139C+.
    Rtl8139,
    /// Realtek's RTL8029AS, an NE2000 behind PCI.
    Ne2000,
    /// An NE2000 for ISA, at port 300h with interrupt 9. There is room for one.
    Ne2000Isa,
}

/// A network card and what it is plugged into.
#[derive(Clone)]
pub struct AttachedNetwork {
    /// The card.
    pub card: NetworkCard,
    /// The cable, which has its name and address.
    pub cable: Arc<Cable>,
    /// The card's expansion ROM, with which firmware boots off the network; empty for none. A card for ISA has none.
    pub rom: Vec<u8>,
}

/// What stands behind the devices on the host. It stays when the machine is reset.
#[derive(Clone, Default)]
pub struct Backends {
    serials: Vec<Arc<dyn CharStream>>,
    disks: Vec<Attached>,
    cds: Vec<AttachedCd>,
    floppies: Vec<Arc<Tray>>,
    networks: Vec<AttachedNetwork>,
    parallel: Option<Arc<dyn CharStream>>,
    console: Option<Arc<dyn CharStream>>,
    firmware_log: Option<Arc<dyn CharStream>>,
    variables: Option<Arc<dyn Disk>>,
    sound: Option<Arc<dyn Sink>>,
    monitor: Arc<Monitor>,
    desk: Arc<Desk>,
    first_output: Arc<OnceLock<Instant>>,
}

impl Backends {
    /// Serial ports and disks, in order.
    pub fn new(serials: Vec<Arc<dyn CharStream>>, disks: Vec<Attached>) -> Self {
        let mut backends = Self { disks, ..Self::default() };
        backends.serials = serials.into_iter().map(|stream| backends.watched(stream)).collect();
        backends
    }

    /// With a virtio console in front of a stream.
    #[must_use]
    pub fn with_console(mut self, stream: Arc<dyn CharStream>) -> Self {
        self.console = Some(self.watched(stream));
        self
    }

    /// With a parallel port, and a printer on it that prints to a stream.
    #[must_use]
    pub fn with_parallel(mut self, stream: Arc<dyn CharStream>) -> Self {
        self.parallel = Some(stream);
        self
    }

    /// What the printer on the parallel port prints to, if there is one.
    pub(crate) fn parallel(&self) -> Option<&Arc<dyn CharStream>> {
        self.parallel.as_ref()
    }

    /// With a stream that gets what firmware logs.
    #[must_use]
    pub fn with_firmware_log(mut self, stream: Arc<dyn CharStream>) -> Self {
        self.firmware_log = Some(stream);
        self
    }

    /// With a disk that firmware keeps its variables on, of whole pages.
    #[must_use]
    pub fn with_variables(mut self, disk: Arc<dyn Disk>) -> Self {
        self.variables = Some(disk);
        self
    }

    /// Where firmware keeps its variables, if it has a place for them.
    pub(crate) fn variables(&self) -> Option<&Arc<dyn Disk>> {
        self.variables.as_ref()
    }

    /// Where what firmware logs goes, if anywhere.
    pub(crate) fn firmware_log(&self) -> Option<&Arc<dyn CharStream>> {
        self.firmware_log.as_ref()
    }

    /// With CD drives.
    #[must_use]
    pub fn with_cds(mut self, cds: Vec<AttachedCd>) -> Self {
        self.cds = cds;
        self
    }

    /// With a monitor that shows what the graphics card does, where there is one.
    #[must_use]
    pub fn with_monitor(mut self, monitor: Arc<Monitor>) -> Self {
        self.monitor = monitor;
        self
    }

    /// What the graphics card is plugged into, and viewers look at.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }

    /// What keyboard and mouse are plugged into, and viewers use.
    pub fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// With somewhere for sound to go; the PC speaker is heard there, too.
    #[must_use]
    pub fn with_sound(mut self, sink: Arc<dyn Sink>) -> Self {
        self.sound = Some(sink);
        self
    }

    /// Where sound goes, if anywhere.
    pub(crate) fn sound(&self) -> Option<&Arc<dyn Sink>> {
        self.sound.as_ref()
    }

    /// With network cards.
    #[must_use]
    pub fn with_networks(mut self, networks: Vec<AttachedNetwork>) -> Self {
        self.networks = networks;
        self
    }

    /// The network cards.
    pub(crate) fn networks(&self) -> &[AttachedNetwork] {
        &self.networks
    }

    /// With floppy drives, at most two.
    #[must_use]
    pub fn with_floppies(mut self, floppies: Vec<Arc<Tray>>) -> Self {
        self.floppies = floppies;
        self
    }

    /// The floppy drives.
    pub(crate) fn floppies(&self) -> &[Arc<Tray>] {
        &self.floppies
    }

    /// The CD drives on a bus, each with its number among all.
    pub(crate) fn cds(&self, bus: CdBus) -> impl Iterator<Item = (usize, &Arc<Tray>)> {
        self.cds.iter().enumerate().filter(move |(_, at)| at.bus == bus).map(|(number, at)| (number, &at.tray))
    }

    fn watched(&self, stream: Arc<dyn CharStream>) -> Arc<dyn CharStream> {
        Arc::new(Watched { stream, first_output: self.first_output.clone() })
    }

    /// What stands behind the virtio console, if there is one.
    pub(crate) fn console(&self) -> Option<&Arc<dyn CharStream>> {
        self.console.as_ref()
    }

    /// The disks on a bus, each with its number among all.
    pub(crate) fn disks(&self, bus: Bus) -> impl Iterator<Item = (usize, &Arc<dyn Disk>)> {
        self.disks.iter().enumerate().filter(move |(_, at)| at.bus == bus).map(|(number, at)| (number, &at.disk))
    }

    /// What stands behind the serial ports.
    pub(crate) fn serials(&self) -> &[Arc<dyn CharStream>] {
        &self.serials
    }

    /// When the guest first wrote to a serial port or console, since `start`.
    pub(crate) fn first_output(&self, start: Instant) -> Option<Duration> {
        self.first_output.get().map(|instant| instant.saturating_duration_since(start))
    }

    /// Lets what the guest wrote reach the host, for at most so long.
    pub(crate) fn flush(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        for stream in self.serials.iter().chain(&self.parallel).chain(&self.console).chain(&self.firmware_log) {
            stream.flush(until.saturating_duration_since(Instant::now()));
        }
        if let Some(sink) = &self.sound {
            sink.flush(until.saturating_duration_since(Instant::now()));
        }
    }
}

/// Notes when the first byte passes.
struct Watched {
    stream: Arc<dyn CharStream>,
    first_output: Arc<OnceLock<Instant>>,
}

impl CharStream for Watched {
    fn connect(&self, receiver: Weak<dyn Receiver>) {
        self.stream.connect(receiver);
    }

    fn send(&self, data: &[u8]) -> usize {
        if !data.is_empty() && self.first_output.get().is_none() {
            self.first_output.get_or_init(Instant::now);
        }
        self.stream.send(data)
    }

    fn resume(&self) {
        self.stream.resume();
    }

    fn flush(&self, at_most: Duration) {
        self.stream.flush(at_most);
    }
}

/// What devices are made of, and onto what they are put.
pub(crate) struct Board<'a> {
    pub(crate) config: &'a Config,
    pub(crate) backends: &'a Backends,
    pub(crate) memory: GuestMemory,
    pub(crate) map: Arc<dyn MemoryControl>,
    pub(crate) line_20: Arc<AddressLine20>,
    /// What firmware is told, where there is any.
    pub(crate) items: Option<Items>,
    /// Where it has its variables.
    pub(crate) variables: Option<Range<u64>>,
    pub(crate) ports: PortBus,
    pub(crate) mmio: MmioBus,
    pub(crate) timers: Timers,
    pub(crate) clock: Arc<HostClock>,
    pub(crate) interrupts: Arc<Controllers>,
    pub(crate) pci: Arc<PciHost>,
    pub(crate) router: Arc<Router>,
    pub(crate) control: Arc<Control>,
    pub(crate) devices: Vec<Arc<dyn Device>>,
    /// What acts on the machine as a whole, once it is there.
    pub(crate) pm: Option<Arc<Pm>>,
    pub(crate) pm_function: Option<Arc<Bridge>>,
    pub(crate) rtc: Option<Arc<Rtc>>,
    /// What sound is made with.
    pub(crate) pit: Option<Arc<Pit>>,
    pub(crate) dma: Option<Arc<Dma>>,
    /// What firmware can boot from.
    pub(crate) bootable: Vec<Bootable>,
}

impl Board<'_> {
    /// Puts a device on the buses, behind PCI where it wants to be.
    pub(crate) fn attach(&mut self, device: Arc<dyn Device>) -> Result<(), VmError> {
        self.attach_among(device, slots::OTHERS).map(drop)
    }

    /// Puts a device on the buses, behind PCI at one of these device numbers if it does not mind. Its place there.
    pub(crate) fn attach_among(
        &mut self,
        device: Arc<dyn Device>,
        slots: RangeInclusive<u8>,
    ) -> Result<Option<PciAddress>, VmError> {
        let refused =
            |error: lodge_bus::MapError| VmError::Device { device: device.name().to_owned(), cause: error.to_string() };
        if let Some(port) = device.clone().port() {
            self.ports.attach(&port).map_err(refused)?;
        }
        if let Some(mmio) = device.clone().mmio() {
            self.mmio.attach(&mmio).map_err(refused)?;
        }
        let placed = device.clone().pci().map(|pci| self.pci.add_among(pci, slots));
        let place = placed.transpose().map_err(|error| fault(device.name(), error))?;
        self.devices.push(device);
        Ok(place)
    }

    /// Gives PCI functions their addresses, as firmware would.
    fn assign_addresses(&self) -> Result<(), VmError> {
        self.pci.assign(PCI_WINDOW, lodge_chipset::Pm::block().base, &self.ports).map_err(|error| fault("pci", error))
    }
}

fn fault(device: &str, cause: impl std::fmt::Display) -> VmError {
    VmError::Device { device: device.to_owned(), cause: cause.to_string() }
}

/// A machine between two resets.
pub(crate) struct Machine {
    // Processors come first: they are ended before what they use goes away.
    processors: Option<Processors>,
    partition: Arc<dyn Partition>,
    clock: Arc<HostClock>,
    time: Arc<TimeSource>,
    timers: Timers,
    control: Arc<Control>,
    interrupts: Arc<Controllers>,
    pm: Option<Arc<Pm>>,
    rtc: Option<Arc<Rtc>>,
    /// The buses hold the devices' facets only.
    devices: Vec<Arc<dyn Device>>,
}

impl Machine {
    /// Builds a machine that does not run yet: guest time stands still, the processors wait.
    pub(crate) fn build(
        config: &Config,
        engine: &dyn Engine,
        backends: &Backends,
        messages: &Sender<Message>,
        incarnation: u64,
    ) -> Result<Self, VmError> {
        let measurement = Measurement::begin();
        let capabilities = engine.capabilities();
        let most = capabilities.max_vcpus.min(VCPUS_MAX);
        if !(1..=most).contains(&config.vcpus) {
            return Err(VmError::ProcessorCount { asked: config.vcpus, most });
        }
        let profile = host_profile()?;
        let map = Arc::new(MemoryMap::default());
        let start = Start::prepare(config, backends, &profile, &map)?;
        let memory = start.memory.clone();
        let tsc_hz = measurement.finish();

        let clock = Arc::new(HostClock::new());
        clock.pause();
        let timers =
            Timers::new(clock.clone()).map_err(|source| VmError::Host { what: "timer for devices", source })?;
        let time = TimeSource::new(clock.clone(), tsc_hz);
        let bells = Bells::new(config.vcpus);
        let control = Control::new(messages.clone(), incarnation);
        let interrupts = Controllers::new(config.vcpus, &timers, time.clone(), bells.clone());
        let mut board = Board {
            config,
            backends,
            memory: memory.clone(),
            map: map.clone(),
            line_20: AddressLine20::new(map.clone()),
            items: start.items,
            variables: start.variables,
            ports: PortBus::new(),
            mmio: MmioBus::new(),
            pci: PciHost::new(control.clone()),
            router: Router::new(interrupts.clone()),
            interrupts,
            timers,
            clock: clock.clone(),
            control: control.clone(),
            devices: Vec::new(),
            pm: None,
            pm_function: None,
            rtc: None,
            pit: None,
            dma: None,
            bootable: Vec::new(),
        };
        for make in DEVICES {
            make(&mut board)?;
        }
        if config.boot.firmware().is_none() {
            board.assign_addresses()?;
        }

        let shape = Shape {
            vcpus: config.vcpus,
            tsc_hz,
            apic_hz: APIC_HZ,
            physical_address_bits: capabilities.physical_address_bits,
        };
        let partition = engine.create(PartitionSpec {
            memory,
            vcpus: config.vcpus,
            cpuid: profile.table(&shape),
            tsc_hz,
            code_cache: config.code_cache,
            mirroring: config.mirroring,
            kept_code: config.kept_code.clone(),
        })?;
        map.connect(&partition);
        let world = World {
            ports: board.ports.clone(),
            mmio: board.mmio.clone(),
            interrupts: board.interrupts.clone(),
            clock: clock.clone(),
            time: time.clone(),
        };
        let processors = Processors::start(&partition, &world, &bells, &start.state, &control)?;
        tracing::info!(protocol = start.protocol, tsc_hz, vcpus = config.vcpus, "machine built");
        Ok(Self {
            processors: Some(processors),
            partition,
            clock,
            time,
            timers: board.timers,
            control,
            interrupts: board.interrupts,
            pm: board.pm,
            rtc: board.rtc,
            devices: board.devices,
        })
    }

    /// Lets guest time and the processors go on.
    pub(crate) fn resume(&self) {
        self.start_world();
        if let Some(processors) = &self.processors {
            processors.resume();
        }
    }

    /// Holds the processors, then guest time.
    pub(crate) fn pause(&self) {
        if let Some(processors) = &self.processors {
            processors.pause();
        }
        self.stop_world();
    }

    /// Holds the processors, as they are without power. Guest time goes on.
    pub(crate) fn suspend(&self) {
        if let Some(processors) = &self.processors {
            processors.pause();
        }
        // It may have asked many times by now; what wakes it has to come through.
        self.control.served();
    }

    /// Starts devices and processors over, with memory as it is, and has firmware bring the system back.
    pub(crate) fn wake(&self) {
        self.control.served();
        self.devices.iter().filter_map(|device| device.clone().resettable()).for_each(|device| device.reset());
        if let Some(rtc) = &self.rtc {
            rtc.set_byte(SHUTDOWN, SHUTDOWN_RESUME);
        }
        self.interrupts.reset_processors();
        if let Some(processors) = &self.processors {
            processors.resume();
        }
    }

    /// Presses the power button. Whether the guest listens to it.
    pub(crate) fn press_power_button(&self) -> bool {
        self.pm.as_ref().is_some_and(|pm| {
            pm.press_power_button();
            pm.power_button_heard()
        })
    }

    /// Ends the processors for good. The engine's counters can still be read.
    pub(crate) fn halt(&mut self) {
        self.processors = None;
        self.stop_world();
        self.partition.retire();
    }

    /// Lets guest time go on, and the devices with it.
    pub(crate) fn start_world(&self) {
        self.clock.resume();
        self.time.resume();
        self.timers.clock_changed();
        self.busy_devices().for_each(|device| device.resume());
    }

    /// What happens without the processors: devices that work on their own, and guest time.
    fn stop_world(&self) {
        self.busy_devices().for_each(|device| device.pause());
        self.clock.pause();
        self.time.pause();
        self.timers.clock_changed();
    }

    /// Devices that act on threads of their own.
    fn busy_devices(&self) -> impl Iterator<Item = Arc<dyn PauseDevice>> {
        self.devices.iter().filter_map(|device| device.clone().pausable())
    }

    /// The engine's counters.
    pub(crate) fn statistics(&self) -> Statistics {
        self.partition.statistics()
    }
}

/// The processor that guests on this host are shown.
///
/// # Errors
///
/// The host's processor lacks what lodge needs.
pub fn host_profile() -> Result<Profile, Missing> {
    Profile::for_host(|leaf, subleaf| {
        let answer = std::arch::x86_64::__cpuid_count(leaf, subleaf);
        [answer.eax, answer.ebx, answer.ecx, answer.edx]
    })
}

/// Memory with what shall be booted in it, and how the first processor begins.
struct Start {
    memory: GuestMemory,
    state: CpuState,
    protocol: &'static str,
    /// What firmware is told.
    items: Option<Items>,
    /// Where it has its variables.
    variables: Option<Range<u64>>,
}

impl Start {
    fn prepare(config: &Config, backends: &Backends, profile: &Profile, map: &MemoryMap) -> Result<Self, VmError> {
        match &config.boot {
            Boot::Kernel(kernel) => {
                let memory = ram::create(config.memory, 0, config.card_memory())?;
                let rsdp = firmware::write_tables(&memory, &firmware::description(config, backends), profile)?;
                let loaded = lodge_boot::load(&lodge_boot::Request {
                    memory: &memory,
                    kernel: &kernel.path,
                    initrd: kernel.initrd.as_deref(),
                    command_line: &kernel.command_line,
                    rsdp: Some(rsdp),
                })?;
                Ok(Self { memory, state: loaded.state, protocol: loaded.protocol.name(), items: None, variables: None })
            }
            Boot::Firmware(named) => {
                let image = Image::read(&named.image)?;
                let variables = backends.variables().map(|disk| image.variables(&**disk)).transpose()?;
                let rom = image.size() + variables.as_ref().map_or(0, firmware::length);
                let memory = ram::create(config.memory, rom, config.card_memory())?;
                image.place(&memory, map)?;
                if let Some((range, disk)) = variables.iter().zip(backends.variables()).next() {
                    firmware::place_variables(&memory, range, &**disk)?;
                }
                let description = firmware::description(config, backends);
                let items = firmware::items(config, &description, profile, named)?;
                let state = CpuState::reset(SIGNATURE);
                Ok(Self { memory, state, protocol: "firmware", items: Some(items), variables })
            }
        }
    }
}
