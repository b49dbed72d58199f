//! The devices of the machine, in one table.
//!
//! To add a device, write its maker and add its line to [`DEVICES`].

use std::sync::Arc;

use lodge_backend::{Disk, HostEntropy, Tray};
use lodge_bus::{IrqLine, IrqSink, PortDevice};
use lodge_chipset::{Board as Ports, CmosConfig, Dma, FwCfg, Hpet, HpetWiring, I8042, Pit, Pm, Rtc, Uart, UartConfig};
use lodge_pci::{Bridge, Router};
use lodge_storage::scsi::Medium;
use lodge_storage::{Ahci, Drive, Floppy, Geometry, Ide, IdeWiring, Nvme, NvmeConfig, PciWiring, floppy};
use lodge_virtio::{Block, BlockConfig, Console, Rng, Scsi, ScsiConfig, Target, VirtioDevice, VirtioPci, VirtioWiring};

use crate::VmError;
use crate::assembly::{Board, Bus};

/// Makes a device, or several that belong together, and attaches them.
pub(crate) type Maker = fn(&mut Board<'_>) -> Result<(), VmError>;

/// Every device of the machine, in the order in which they are attached.
pub(crate) const DEVICES: &[Maker] = &[
    interrupt_controllers,
    pci_host,
    bridges,
    timers,
    power_management,
    small_ports,
    dma_and_floppies,
    firmware_configuration,
    keyboard,
    serial_ports,
    ide,
    sata,
    nvme,
    disks,
    scsi,
    console,
    entropy,
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

fn timers(board: &mut Board<'_>) -> Result<(), VmError> {
    let pit = Pit::new(&board.timers, board.irq(0));
    let (below, above) = crate::ram::sizes(board.config.memory);
    let floppies = [0, 1].map(|drive| board.backends.floppies().get(drive).map_or(0, |tray| drive_kind(tray)));
    let cmos = CmosConfig { memory_below_4g: below, memory_above_4g: above, vcpus: board.config.vcpus, floppies };
    let rtc = Rtc::new(cmos, &board.timers, board.irq(8));
    let replace = {
        let (pit, rtc) = (pit.clone(), rtc.clone());
        Box::new(move |replaced| {
            pit.set_replaced(replaced);
            rtc.set_replaced(replaced);
        })
    };
    let gsi16 = std::array::from_fn(|index| board.irq(16 + index as u32));
    let hpet = Hpet::new(&board.timers, HpetWiring { irq0: board.irq(0), irq8: board.irq(8), gsi16, replace });
    board.attach(pit)?;
    board.attach(rtc)?;
    board.attach(hpet)
}

fn power_management(board: &mut Board<'_>) -> Result<(), VmError> {
    // Without firmware ACPI is on from the first.
    let pm = Pm::new(board.items.is_none(), &board.timers, board.irq(9), board.control.clone());
    let face = pm.clone() as Arc<dyn PortDevice>;
    let block = board.ports.mapping(Arc::downgrade(&face), Pm::block());
    board.attach(pm)?;
    board.attach(Bridge::piix4_pm(block))
}

fn small_ports(board: &mut Board<'_>) -> Result<(), VmError> {
    board.attach(Ports::new(board.config.debug_exit, board.control.clone()))
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
    }
    board.attach(dma)
}

fn no_thread(source: std::io::Error) -> VmError {
    VmError::Host { what: "thread for a device", source }
}

fn firmware_configuration(board: &mut Board<'_>) -> Result<(), VmError> {
    match board.items.take() {
        Some(items) => board.attach(FwCfg::new(items, board.memory.clone())),
        None => Ok(()),
    }
}

fn keyboard(board: &mut Board<'_>) -> Result<(), VmError> {
    board.attach(I8042::new(board.irq(1), board.irq(12), board.control.clone()))
}

fn serial_ports(board: &mut Board<'_>) -> Result<(), VmError> {
    for (index, (stream, (base, irq))) in board.backends.serials().iter().zip(SERIAL_PORTS).enumerate() {
        let config = UartConfig { name: format!("uart{index}"), base };
        board.attach(Uart::new(config, board.irq(irq.into()), stream.clone()))?;
    }
    Ok(())
}

impl Board<'_> {
    /// Puts a virtio device behind PCI.
    fn attach_virtio(&mut self, device: Arc<dyn VirtioDevice>) -> Result<(), VmError> {
        let wiring = VirtioWiring {
            memory: self.memory.clone(),
            mmio: self.mmio.clone(),
            msi: self.interrupts.clone(),
            router: self.router.clone(),
        };
        let function = VirtioPci::new(device, wiring).map_err(no_thread)?;
        self.attach(function)
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

    /// The disks on a bus, with their names.
    fn named_disks(&self, bus: Bus) -> Vec<(String, Arc<dyn Disk>)> {
        self.backends.disks(bus).map(|(index, disk)| (format!("disk{index}"), disk.clone())).collect()
    }

    /// Queues of a device that has one for each processor, within reason.
    fn queues(&self) -> u16 {
        self.config.vcpus.clamp(1, 16) as u16
    }
}

fn sata(board: &mut Board<'_>) -> Result<(), VmError> {
    let disks = board.named_disks(Bus::Sata);
    for (number, several) in disks.chunks(lodge_storage::ahci::registers::PORTS).enumerate() {
        let drives = std::array::from_fn(|port| several.get(port).map(|(_, disk)| Drive::Disk(disk.clone())));
        let controller = Ahci::new(&format!("sata{number}"), drives, board.pci_wiring()).map_err(no_thread)?;
        board.attach(controller)?;
    }
    Ok(())
}

fn nvme(board: &mut Board<'_>) -> Result<(), VmError> {
    for (number, (serial, disk)) in board.named_disks(Bus::Nvme).into_iter().enumerate() {
        let config = NvmeConfig { name: format!("nvme{number}"), serial, queues: board.queues() };
        let controller = Nvme::new(config, disk, board.pci_wiring()).map_err(no_thread)?;
        board.attach(controller)?;
    }
    Ok(())
}

fn scsi(board: &mut Board<'_>) -> Result<(), VmError> {
    let target = |(serial, disk)| Target { medium: Medium::Disk(disk), serial };
    let targets: Vec<_> = board.named_disks(Bus::Scsi).into_iter().map(target).collect();
    for (number, several) in targets.chunks(lodge_virtio::scsi::registers::MOST_TARGETS).enumerate() {
        let config = ScsiConfig { name: format!("scsi{number}"), queues: board.queues() };
        board.attach_virtio(Scsi::new(config, several.to_vec()))?;
    }
    Ok(())
}

fn disks(board: &mut Board<'_>) -> Result<(), VmError> {
    for (index, disk) in board.backends.disks(Bus::Virtio) {
        let name = format!("disk{index}");
        let config = BlockConfig { serial: name.clone(), name, queues: 1 };
        board.attach_virtio(Block::new(config, disk.clone()))?;
    }
    Ok(())
}

fn ide(board: &mut Board<'_>) -> Result<(), VmError> {
    // The first CD drive is where most have it: the first of the second channel.
    const DISKS: [usize; 4] = [0, 1, 3, 2];
    const CDS: [usize; 4] = [2, 3, 1, 0];
    let mut drives = [const { None }; 4];
    let disks = board.backends.disks(Bus::Ide).map(|(_, disk)| (DISKS, Drive::Disk(disk.clone())));
    let cds = board.backends.cds().iter().map(|tray| (CDS, Drive::Cd(tray.clone())));
    for (places, drive) in disks.chain(cds) {
        let Some(place) = places.into_iter().find(|place| drives[*place].is_none()) else {
            return Err(VmError::TooManyDrives);
        };
        drives[place] = Some(drive);
    }
    let wiring = IdeWiring {
        ports: board.ports.clone(),
        memory: board.memory.clone(),
        interrupts: [board.irq(14), board.irq(15)],
    };
    let function = Ide::new(drives, wiring).map_err(no_thread)?;
    board.attach(function)
}

fn console(board: &mut Board<'_>) -> Result<(), VmError> {
    match board.backends.console().cloned() {
        Some(stream) => board.attach_virtio(Console::new("console0", stream)),
        None => Ok(()),
    }
}

fn entropy(board: &mut Board<'_>) -> Result<(), VmError> {
    let device = Rng::new("rng", Arc::new(HostEntropy), &board.timers);
    board.attach_virtio(device)
}
