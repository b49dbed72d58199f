//! The devices of the machine, in one table.
//!
//! To add a device, write its maker and add its line to [`DEVICES`].

use std::ops::RangeInclusive;
use std::sync::Arc;

use lodge_backend::{Disk, HostEntropy, Tray};
use lodge_boot::acpi;
use lodge_bus::{Device, IrqLine, IrqSink, MemoryMapping, PciAddress, PortDevice};
use lodge_chipset::{
    Board as Ports, BoardConfig, CmosConfig, Dma, Flash, FwCfg, Hpet, HpetWiring, I8042, Parallel, Pit, Pm, Rtc, Uart,
    UartConfig, parallel,
};
use lodge_display::{Screen, Vga, VgaConfig, VgaWiring, VideoMemory};
use lodge_engine_api::NOWHERE;
use lodge_input::{Keyboard, Pointer};
use lodge_nic::{CardConfig, E1000, IsaConfig, Ne2000, Rtl8139};
use lodge_pci::{Bridge, Router};
use lodge_sound::{Ac97, Ac97Wiring, Mixer, NullSink, Sb16, Sb16Wiring, Sink, Speaker, sb16};
use lodge_storage::scsi::Medium;
use lodge_storage::{Ahci, Drive, Floppy, Geometry, Ide, IdeWiring, Nvme, NvmeConfig, PciWiring, floppy};
use lodge_virtio::{
    Block, BlockConfig, Console, Gpu, GpuWiring, Net, NetConfig, Rng, Scsi, ScsiConfig, Tablet, Target, VirtioDevice,
    VirtioPci, VirtioWiring,
};

use crate::assembly::{Board, Bus, CdBus, NetworkCard};
use crate::boot_order::{self, BootDevice, Bootable};
use crate::firmware;
use crate::{GraphicsCard, SoundCard, VmError, slots};

/// Makes a device, or several that belong together, and attaches them.
pub(crate) type Maker = fn(&mut Board<'_>) -> Result<(), VmError>;

/// Every device of the machine, in the order in which they are attached.
pub(crate) const DEVICES: &[Maker] = &[
    interrupt_controllers,
    pci_host,
    bridges,
    display,
    power_management,
    timers,
    small_ports,
    dma_and_floppies,
    // After what it is made with.
    sound,
    flash,
    keyboard,
    tablet,
    serial_ports,
    parallel_port,
    networks,
    ide,
    sata,
    nvme,
    disks,
    scsi,
    console,
    entropy,
    // Comes last: it says what can be booted.
    firmware_configuration,
];

/// Base port and ISA interrupt of the four serial ports.
pub(crate) const SERIAL_PORTS: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

impl Board<'_> {
    /// The wire to a global system interrupt.
    fn irq(&self, line: u32) -> IrqLine {
        IrqLine::new(self.interrupts.clone() as Arc<dyn IrqSink>, line)
    }
}

fn interrupt_controllers(board: &mut Board<'_>) -> Result<(), VmError> {
    board.attach(board.interrupts.clone())
}

fn pci_host(board: &mut Board<'_>) -> Result<(), VmError> {
    board.attach(board.pci.clone())
}

fn bridges(board: &mut Board<'_>) -> Result<(), VmError> {
    let router: Arc<Router> = board.router.clone();
    board.attach(Bridge::i440fx(board.map.clone()))?;
    board.attach(Bridge::piix3(router))
}

fn display(board: &mut Board<'_>) -> Result<(), VmError> {
    // Memory was made with it, or without.
    let Some((region, taken)) = crate::ram::video(&board.memory) else { return Ok(()) };
    let length = board.config.video_memory;
    let memory = VideoMemory::new(board.memory.clone(), NOWHERE, length)
        .map_err(|error| VmError::Device { device: "vga".into(), cause: error.to_string() })?;
    let wiring = VgaWiring {
        clock: board.clock.clone(),
        mmio: board.mmio.clone(),
        memory,
        frame_buffer: MemoryMapping::new(board.map.clone(), region, length, taken),
    };
    let config = VgaConfig { rom: board.config.vga_bios.clone() };
    let (screen, function): (Arc<dyn Screen>, Arc<dyn Device>) = match board.config.graphics {
        GraphicsCard::Standard => {
            let card = Vga::new(config, wiring);
            (card.clone(), card)
        }
        GraphicsCard::Virtio => {
            let (card, parts) = Vga::half(config, wiring);
            let (before, video): (Option<Arc<dyn Screen>>, _) = (Some(card.clone()), Some(parts.aperture.clone()));
            let gpu = Gpu::new("gpu", GpuWiring { memory: board.memory.clone(), before, video });
            board.attach(card.clone())?;
            let function = VirtioPci::with_vga(gpu.clone(), board.virtio_wiring(), (card, parts));
            (gpu, function.map_err(no_thread)?)
        }
    };
    board.backends.monitor().connect(Arc::downgrade(&screen));
    board.attach_among(function, slots::DISPLAY).map(drop)
}

fn tablet(board: &mut Board<'_>) -> Result<(), VmError> {
    if !board.config.tablet {
        return Ok(());
    }
    let tablet = Tablet::new("tablet");
    let pointer: Arc<dyn Pointer> = tablet.clone();
    board.backends.desk().connect_tablet(Arc::downgrade(&pointer));
    board.attach_virtio(tablet, slots::TABLET).map(drop)
}

fn timers(board: &mut Board<'_>) -> Result<(), VmError> {
    let pit = Pit::new(&board.timers, board.irq(0));
    let (below, above) = crate::ram::sizes(board.config.memory);
    let floppies = [0, 1].map(|drive| board.backends.floppies().get(drive).map_or(0, |tray| drive_kind(tray)));
    let cmos = CmosConfig { memory_below_4g: below, memory_above_4g: above, vcpus: board.config.vcpus, floppies };
    let rtc = Rtc::new(cmos, &board.timers, board.irq(8));
    if let Some(pm) = board.pm.clone() {
        rtc.on_alarm(Box::new(move || pm.clock_alarm()));
    }
    board.rtc = Some(rtc.clone());
    if board.items.is_some() {
        board.control.connect(rtc.clone(), board.interrupts.clone(), board.line_20.clone());
    }
    let replace = {
        let (pit, rtc) = (pit.clone(), rtc.clone());
        Box::new(move |replaced| {
            pit.set_replaced(replaced);
            rtc.set_replaced(replaced);
        })
    };
    let gsi16 = std::array::from_fn(|index| board.irq(16 + index as u32));
    let hpet = Hpet::new(&board.timers, HpetWiring { irq0: board.irq(0), irq8: board.irq(8), gsi16, replace });
    board.pit = Some(pit.clone());
    board.attach(pit)?;
    board.attach(rtc)?;
    board.attach(hpet)
}

fn power_management(board: &mut Board<'_>) -> Result<(), VmError> {
    // Without firmware ACPI is on from the first.
    let pm = Pm::new(board.items.is_none(), &board.timers, board.irq(9), board.control.clone());
    let face = pm.clone() as Arc<dyn PortDevice>;
    let block = board.ports.mapping(Arc::downgrade(&face), Pm::block());
    board.pm = Some(pm.clone());
    board.attach(pm)?;
    let function = Bridge::piix4_pm(block);
    board.pm_function = Some(function.clone());
    board.attach(function)
}

fn small_ports(board: &mut Board<'_>) -> Result<(), VmError> {
    let config = BoardConfig { debug_exit: board.config.debug_exit, log: board.backends.firmware_log().cloned() };
    board.attach(Ports::new(config, board.control.clone(), board.line_20.clone()))
}

/// The kind of drive, as CMOS memory has it, that reads what is in the tray; of an empty one, the commonest.
fn drive_kind(tray: &Tray) -> u8 {
    const COMMONEST: u8 = 4;
    let geometry = tray.medium().and_then(|disk| Geometry::of(disk.size()));
    geometry.map_or(COMMONEST, |geometry| geometry.drive())
}

fn dma_and_floppies(board: &mut Board<'_>) -> Result<(), VmError> {
    let dma = Dma::new(board.memory.clone());
    let trays = [0, 1].map(|drive| board.backends.floppies().get(drive).cloned());
    if board.backends.floppies().len() > trays.len() {
        return Err(VmError::TooManyFloppies);
    }
    // Without drives the controller would only be looked for in vain.
    if trays.iter().any(Option::is_some) {
        let (channel, irq) = (dma.channel(floppy::registers::CHANNEL), board.irq(floppy::registers::INTERRUPT));
        let controller = Floppy::new(trays, channel, irq, &board.timers).map_err(no_thread)?;
        board.attach(controller)?;
        for drive in 0..board.backends.floppies().len() {
            let path = format!("/pci@i0cf8/isa@1/fdc@03f0/floppy@{drive}");
            board.bootable.push(Bootable { kind: BootDevice::Floppy, number: drive, path });
        }
    }
    board.dma = Some(dma.clone());
    board.attach(dma)
}

fn sound(board: &mut Board<'_>) -> Result<(), VmError> {
    let sink = board.backends.sound().cloned();
    let Some(rate) = sink.as_ref().map(|sink| sink.rate()).or(board.config.sound.map(SoundCard::rate)) else {
        return Ok(());
    };
    let heard = sink.is_some();
    let sink: Arc<dyn Sink> = sink.unwrap_or_else(|| Arc::new(NullSink::new(rate)));
    let mixer = Mixer::new(sink, &board.timers);
    if let Some(pit) = board.pit.as_ref().filter(|_| heard) {
        let speaker = Speaker::new(&mixer, &board.timers);
        pit.connect(speaker.clone());
        board.attach(speaker)?;
    }
    match board.config.sound {
        Some(SoundCard::Ac97) => {
            let (ports, memory) = (board.ports.clone(), board.memory.clone());
            let wiring = Ac97Wiring { ports, memory, router: board.router.clone(), mixer: mixer.clone() };
            let card = Ac97::new(wiring, &board.timers);
            board.attach_among(card, slots::MULTIMEDIA)?;
        }
        Some(SoundCard::Sb16) => {
            // The others are the board's, and 7 is the parallel port's where there is one.
            let printer = board.backends.parallel().is_some();
            let free = |number: u8| number == 5 || number == 7 && !printer;
            let interrupts = sb16::registers::INTERRUPTS.map(|number| free(number).then(|| board.irq(number.into())));
            let Some(dma) = board.dma.clone() else { return Ok(()) };
            let card = Sb16::new(Sb16Wiring { dma, interrupts, mixer: mixer.clone() }, &board.timers);
            board.attach(card)?;
        }
        None => {}
    }
    // Devices are paused in this order: it gives away what the others have played.
    board.attach(mixer)
}

fn no_thread(source: std::io::Error) -> VmError {
    VmError::Host { what: "thread for a device", source }
}

fn flash(board: &mut Board<'_>) -> Result<(), VmError> {
    match board.variables.clone().zip(board.backends.variables().cloned()) {
        Some((range, disk)) => board.attach(Flash::new(range, board.memory.clone(), board.map.clone(), disk)),
        None => Ok(()),
    }
}

fn firmware_configuration(board: &mut Board<'_>) -> Result<(), VmError> {
    let Some((mut items, firmware)) = board.items.take().zip(board.config.boot.firmware()) else { return Ok(()) };
    // Firmware moves the power-management block, and the tables have to say where to.
    let (function, description) = (board.pm_function.clone(), firmware::description(board.config, board.backends));
    items.made_file(acpi::TABLES_FILE, move || {
        let moved = function.as_ref().and_then(|function| function.pm_base());
        let description = acpi::Description { pm_base: moved.unwrap_or(description.pm_base), ..description.clone() };
        acpi::link(&description).tables
    });
    items.file(boot_order::FILE, boot_order::list(&firmware.order, &board.bootable));
    board.attach(FwCfg::new(items, board.memory.clone()))
}

fn keyboard(board: &mut Board<'_>) -> Result<(), VmError> {
    let (control, line_20) = (board.control.clone(), board.line_20.clone());
    let device = I8042::new(board.irq(1), board.irq(12), control, line_20, &board.timers);
    let (keyboard, mouse): (Arc<dyn Keyboard>, Arc<dyn Pointer>) = (device.clone(), device.clone());
    board.backends.desk().connect_keyboard(Arc::downgrade(&keyboard));
    board.backends.desk().connect_mouse(Arc::downgrade(&mouse));
    board.attach(device)
}

fn serial_ports(board: &mut Board<'_>) -> Result<(), VmError> {
    for (index, (stream, (base, irq))) in board.backends.serials().iter().zip(SERIAL_PORTS).enumerate() {
        let config = UartConfig { name: format!("uart{index}"), base };
        board.attach(Uart::new(config, board.irq(irq.into()), stream.clone()))?;
    }
    Ok(())
}

fn parallel_port(board: &mut Board<'_>) -> Result<(), VmError> {
    match board.backends.parallel().cloned() {
        Some(stream) => board.attach(Parallel::new(board.irq(parallel::registers::INTERRUPT.into()), stream)),
        None => Ok(()),
    }
}

impl Board<'_> {
    /// Puts a virtio device behind PCI.
    fn attach_virtio(
        &mut self,
        device: Arc<dyn VirtioDevice>,
        slots: RangeInclusive<u8>,
    ) -> Result<Option<PciAddress>, VmError> {
        let function = VirtioPci::new(device, self.virtio_wiring()).map_err(no_thread)?;
        self.attach_among(function, slots)
    }

    /// What a virtio function is wired to.
    fn virtio_wiring(&self) -> VirtioWiring {
        VirtioWiring {
            memory: self.memory.clone(),
            mmio: self.mmio.clone(),
            msi: self.interrupts.clone(),
            router: self.router.clone(),
        }
    }

    /// What a storage function behind PCI is wired to.
    fn pci_wiring(&self) -> PciWiring {
        PciWiring {
            memory: self.memory.clone(),
            mmio: self.mmio.clone(),
            msi: self.interrupts.clone(),
            router: self.router.clone(),
        }
    }

    /// What a network card is wired to.
    fn card_wiring(&self) -> lodge_nic::PciWiring {
        lodge_nic::PciWiring {
            memory: self.memory.clone(),
            mmio: self.mmio.clone(),
            ports: self.ports.clone(),
            router: self.router.clone(),
            timers: self.timers.clone(),
        }
    }

    /// The disks on a bus, with their numbers among all and their names.
    fn named_disks(&self, bus: Bus) -> Vec<(usize, String, Arc<dyn Disk>)> {
        self.backends.disks(bus).map(|(index, disk)| (index, format!("disk{index}"), disk.clone())).collect()
    }

    /// Queues of a device that has one for each processor, within reason.
    fn queues(&self) -> u16 {
        self.config.vcpus.clamp(1, 16) as u16
    }
}

fn sata(board: &mut Board<'_>) -> Result<(), VmError> {
    const PORTS: usize = lodge_storage::ahci::registers::PORTS;
    let disks = board.backends.disks(Bus::Sata).map(|(number, disk)| (number, Drive::Disk(disk.clone())));
    let cds = board.backends.cds(CdBus::Sata).map(|(number, tray)| (number, Drive::Cd(tray.clone())));
    let (disks, cds): (Vec<_>, Vec<_>) = (disks.collect(), cds.collect());
    for (number, places) in ports(disks, cds, PORTS).chunks(PORTS).enumerate() {
        let drives = std::array::from_fn(|port| places.get(port).cloned().flatten().map(|(_, drive)| drive));
        let controller = Ahci::new(&format!("sata{number}"), drives, board.pci_wiring()).map_err(no_thread)?;
        if let Some(at) = board.attach_among(controller, slots::STORAGE)? {
            let there = places.iter().enumerate().filter_map(|(port, place)| Some((port, place.as_ref()?)));
            board.bootable.extend(there.map(|(port, (index, drive))| {
                let kind = if matches!(drive, Drive::Cd(_)) { BootDevice::Cdrom } else { BootDevice::Disk };
                Bootable::behind(kind, *index, at, "pci8086,2922", &format!("/drive@{port:x}/disk@0"))
            }));
        }
    }
    Ok(())
}

/// Places on controllers with so many ports each: disks from the first port on, CD drives from the last port of the first
/// controller that has room, so that neither moves when some of the other kind are added.
fn ports<T: Clone>(disks: Vec<T>, cds: Vec<T>, each: usize) -> Vec<Option<T>> {
    let count = (disks.len() + cds.len()).div_ceil(each) * each;
    let mut places: Vec<_> = disks.into_iter().map(Some).collect();
    places.resize(count, None);
    for cd in cds {
        let free = places.chunks_mut(each).find_map(|controller| controller.iter_mut().rfind(|port| port.is_none()));
        if let Some(port) = free {
            *port = Some(cd);
        }
    }
    places
}

fn nvme(board: &mut Board<'_>) -> Result<(), VmError> {
    for (number, (index, serial, disk)) in board.named_disks(Bus::Nvme).into_iter().enumerate() {
        let config = NvmeConfig { name: format!("nvme{number}"), serial, queues: board.queues() };
        let controller = Nvme::new(config, disk, board.pci_wiring()).map_err(no_thread)?;
        // SeaBIOS takes the function's path as a beginning, OVMF wants the name space and the identifier it reports.
        let place = board.attach_among(controller, slots::NVME)?;
        let of = |at| Bootable::behind(BootDevice::Disk, index, at, "pci8086,5845", "/namespace@1,0");
        board.bootable.extend(place.map(of));
    }
    Ok(())
}

fn scsi(board: &mut Board<'_>) -> Result<(), VmError> {
    let disks = board.named_disks(Bus::Scsi).into_iter();
    let disks = disks.map(|(index, serial, disk)| (BootDevice::Disk, index, serial, Medium::Disk(disk)));
    let cds = board.backends.cds(CdBus::Scsi);
    let cds = cds.map(|(index, tray)| (BootDevice::Cdrom, index, format!("cd{index}"), Medium::Cd(tray.clone())));
    let units: Vec<_> = disks.chain(cds).collect();
    for (number, several) in units.chunks(lodge_virtio::scsi::registers::MOST_TARGETS).enumerate() {
        let config = ScsiConfig { name: format!("scsi{number}"), queues: board.queues() };
        let target = |(_, _, serial, medium): &(_, usize, String, Medium)| Target {
            medium: medium.clone(),
            serial: serial.clone(),
        };
        let host = Scsi::new(config, several.iter().map(target).collect());
        if let Some(at) = board.attach_virtio(host, slots::STORAGE)? {
            let of = |(number, (kind, index, ..)): (usize, &(BootDevice, usize, _, _))| {
                Bootable::behind(*kind, *index, at, "scsi", &format!("/channel@0/disk@{number:x},0"))
            };
            board.bootable.extend(several.iter().enumerate().map(of));
        }
    }
    Ok(())
}

fn disks(board: &mut Board<'_>) -> Result<(), VmError> {
    for (index, disk) in board.backends.disks(Bus::Virtio) {
        let name = format!("disk{index}");
        let config = BlockConfig { serial: name.clone(), name, queues: 1 };
        let place = board.attach_virtio(Block::new(config, disk.clone()), slots::DISKS)?;
        board.bootable.extend(place.map(|at| Bootable::behind(BootDevice::Disk, index, at, "scsi", "/disk@0,0")));
    }
    Ok(())
}

fn networks(board: &mut Board<'_>) -> Result<(), VmError> {
    for (index, attached) in board.backends.networks().iter().enumerate() {
        let cable = attached.cable.clone();
        let config = CardConfig { name: cable.name().to_owned(), rom: attached.rom.clone() };
        let card: Arc<dyn Device> = match attached.card {
            NetworkCard::Virtio { pairs } => {
                let net = Net::new(NetConfig { pairs }, cable);
                VirtioPci::with_rom(net, board.virtio_wiring(), config.rom).map_err(no_thread)?
            }
            NetworkCard::E1000 => E1000::new(config, cable, board.card_wiring()).map_err(no_thread)?,
            NetworkCard::Rtl8139 => Rtl8139::new(config, cable, board.card_wiring()).map_err(no_thread)?,
            NetworkCard::Ne2000 => Ne2000::pci(config, cable, board.card_wiring()).map_err(no_thread)?,
            NetworkCard::Ne2000Isa => {
                let config = IsaConfig { name: config.name, base: IsaConfig::BASE };
                Ne2000::isa(config, cable, board.irq(IsaConfig::INTERRUPT)).map_err(no_thread)?
            }
        };
        let place = board.attach_among(card, slots::NETWORK)?;
        let boots = |at| Bootable::behind(BootDevice::Network, index, at, "ethernet", "/ethernet-phy@0");
        board.bootable.extend(place.map(boots));
    }
    Ok(())
}

fn ide(board: &mut Board<'_>) -> Result<(), VmError> {
    // The first CD drive is where most have it: the first of the second channel.
    const DISKS: [usize; 4] = [0, 1, 3, 2];
    const CDS: [usize; 4] = [2, 3, 1, 0];
    let mut drives = [const { None }; 4];
    let disks = board
        .backends
        .disks(Bus::Ide)
        .map(|(number, disk)| (DISKS, BootDevice::Disk, number, Drive::Disk(disk.clone())));
    let cds = board.backends.cds(CdBus::Ide);
    let cds = cds.map(|(number, tray)| (CDS, BootDevice::Cdrom, number, Drive::Cd(tray.clone())));
    let mut bootable = Vec::new();
    for (places, kind, number, drive) in disks.chain(cds) {
        let Some(place) = places.into_iter().find(|place| drives[*place].is_none()) else {
            return Err(VmError::TooManyDrives);
        };
        drives[place] = Some(drive);
        bootable.push((kind, number, format!("/drive@{:x}/disk@{:x}", place / 2, place % 2)));
    }
    let wiring = IdeWiring {
        ports: board.ports.clone(),
        memory: board.memory.clone(),
        interrupts: [board.irq(14), board.irq(15)],
    };
    let function = Ide::new(drives, wiring).map_err(no_thread)?;
    if let Some(at) = board.attach_among(function, slots::STORAGE)? {
        let of = |(kind, number, rest): (_, _, String)| Bootable::behind(kind, number, at, "ide", &rest);
        board.bootable.extend(bootable.into_iter().map(of));
    }
    Ok(())
}

fn console(board: &mut Board<'_>) -> Result<(), VmError> {
    match board.backends.console().cloned() {
        Some(stream) => board.attach_virtio(Console::new("console0", stream), slots::VIRTIO).map(drop),
        None => Ok(()),
    }
}

fn entropy(board: &mut Board<'_>) -> Result<(), VmError> {
    let device = Rng::new("rng", Arc::new(HostEntropy), &board.timers);
    board.attach_virtio(device, slots::VIRTIO).map(drop)
}

#[cfg(test)]
mod tests {
    use super::ports;

    #[test]
    fn disks_come_from_below_and_cd_drives_from_above() {
        assert!(ports::<u8>(vec![], vec![], 6).is_empty());
        assert_eq!(ports(vec![], vec![9], 3), [None, None, Some(9)]);
        assert_eq!(ports(vec![1], vec![9, 8], 3), [Some(1), Some(8), Some(9)]);
        assert_eq!(ports(vec![1, 2, 3], vec![9], 3), [Some(1), Some(2), Some(3), None, None, Some(9)]);
        assert_eq!(ports(vec![1, 2], vec![9, 8], 3), [Some(1), Some(2), Some(9), None, None, Some(8)]);
    }
}
