//! Drives every device of the machine with random accesses, as a hostile or broken guest would.
//!
//! The seed is fixed, the number of steps bounded: `LODGE_BUS_STEPS`, or 4,000,000 without it. Steps are random port and memory accesses (biased to what is mapped), PCI
//! configuration, APIC registers and MSRs, random ring contents, set-ups that get virtio devices going, time, resets, and saved
//! states loaded back, damaged or not. Nothing may panic, hang or grow without bound; at the end everything still works.

mod networks;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lodge_backend::{CharStream, Disk, Entropy, HostEntropy, RawDisk, Receiver, Tray};
use lodge_bus::{
    AddressLine20, Clock, Device, FixedMemory, IrqLine, IrqSink, MemoryMapping, MemoryPlace, MmioBus, MockClock,
    MsiTarget, PortBus, PortDevice, SystemControl, Timers, Width,
};
use lodge_chipset::{
    Board, BoardConfig, CmosConfig, Dma, Flash, FwCfg, Hpet, HpetWiring, I8042, Items, Parallel, Pit, Pm, Rtc, Uart,
    UartConfig,
};
use lodge_display::{Mode, Screen, Vga, VgaConfig, VgaWiring, VideoMemory};
use lodge_engine_api::{GuestMemory, NOWHERE};
use lodge_input::{Button, Key, Keyboard, Pointer};
use lodge_irq::{Controllers, GuestTsc, InterruptController, Waker};
use lodge_net::Cable;
use lodge_pci::{Bridge, PciHost, PciWindow, Router};
use lodge_sound::{Ac97, Ac97Wiring, Mixer, NullSink, Sb16, Sb16Wiring, Speaker, sb16};
use lodge_storage::scsi::Medium;
use lodge_storage::{Ahci, Drive, Floppy, Ide, IdeWiring, Nvme, NvmeConfig, PciWiring};
use lodge_virtio::{
    Block, BlockConfig, Console, Gpu, GpuWiring, Net, NetConfig, Rng, Scsi, ScsiConfig, Tablet, Target, VirtioDevice,
    VirtioPci, VirtioWiring,
};
use vm_memory::{Bytes, GuestAddress};

use networks::Echo;

const RAM: u64 = 1 << 20;
const VIDEO: u64 = 1 << 20;
/// Where the flash is.
const FLASH: std::ops::Range<u64> = 0xffc0_0000..0xffc2_0000;
const VCPUS: u32 = 3;
/// Virtio devices, from PCI device 2 on, and which of them the GPU is.
const VIRTIO: u64 = 7;
const GPU: u32 = 6;
/// Where the run begins; a failure names it with the step.
const SEED: u64 = 0x1234_5678_9abc_def1;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, most: u64) -> u64 {
        (self.next() >> 16) % most.max(1)
    }
    /// A value of the kinds that break things: small, a power of two, all ones, or anything.
    fn value(&mut self) -> u64 {
        match self.below(6) {
            0 => self.below(16),
            1 => 1 << self.below(64),
            2 => u64::MAX,
            3 => u64::MAX << self.below(64),
            4 => self.below(RAM),
            _ => self.next(),
        }
    }
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

#[derive(Default)]
struct Outside(AtomicU64);

impl SystemControl for Outside {
    fn power_off(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn reset(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn reset_processors(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn suspend(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn exit(&self, _status: u8) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Waker for Outside {
    fn wake(&self, vcpu: u32) {
        assert!(vcpu < VCPUS);
    }
}

struct Tsc(Arc<MockClock>);

impl GuestTsc for Tsc {
    fn now(&self, _vcpu: u32) -> u64 {
        self.0.now_ns()
    }
    fn reaches(&self, _vcpu: u32, tsc: u64) -> u64 {
        tsc
    }
}

/// Takes a part of what it is sent.
#[derive(Default)]
struct Stream(AtomicU64);

impl CharStream for Stream {
    fn connect(&self, _receiver: Weak<dyn Receiver>) {}
    fn send(&self, data: &[u8]) -> usize {
        if self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(4) { 0 } else { data.len() }
    }
    fn resume(&self) {}
    fn flush(&self, _at_most: Duration) {}
}

struct Machine {
    networks: Vec<(Arc<Cable>, Arc<Echo>)>,
    clock: Arc<MockClock>,
    timers: Timers,
    ports: PortBus,
    mmio: MmioBus,
    irq: Arc<Controllers>,
    pci: Arc<PciHost>,
    memory: GuestMemory,
    devices: Vec<Arc<dyn Device>>,
    receivers: Vec<Arc<dyn Receiver>>,
    outside: Arc<Outside>,
    keyboard: Arc<I8042>,
    screen: Option<Arc<dyn Screen>>,
    /// Where video memory is.
    video: MemoryPlace,
    tablet: Option<Arc<Tablet>>,
    directory: tempfile::TempDir,
}

impl Machine {
    fn attach(&mut self, device: Arc<dyn Device>) {
        if let Some(port) = device.clone().port() {
            self.ports.attach(&port).unwrap();
        }
        if let Some(mmio) = device.clone().mmio() {
            self.mmio.attach(&mmio).unwrap();
        }
        if let Some(function) = device.clone().pci() {
            self.pci.add(function).unwrap();
        }
        self.devices.push(device);
    }

    fn new() -> Self {
        let clock = Arc::new(MockClock::new());
        clock.set_wall_at_zero(1_700_000_000_000_000_000);
        let timers = Timers::mock(clock.clone());
        let outside = Arc::new(Outside::default());
        let irq = Controllers::new(VCPUS, &timers, Arc::new(Tsc(clock.clone())), outside.clone());
        let router = Router::new(irq.clone() as Arc<dyn IrqSink>);
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("disk.img");
        std::fs::write(&image, vec![0x5a; 64 << 10]).unwrap();
        let line = |line: u32| IrqLine::new(irq.clone() as Arc<dyn IrqSink>, line);
        let line_20 = AddressLine20::new(Arc::new(FixedMemory));
        let keyboard = I8042::new(line(1), line(12), outside.clone(), line_20.clone(), &timers);
        let mut machine = Self {
            networks: Vec::new(),
            ports: PortBus::new(),
            mmio: MmioBus::new(),
            pci: PciHost::new(outside.clone()),
            memory: GuestMemory::from_ranges(&[
                (GuestAddress(0), RAM as usize),
                (GuestAddress(FLASH.start), (FLASH.end - FLASH.start) as usize),
                (GuestAddress(NOWHERE), VIDEO as usize),
            ])
            .unwrap(),
            devices: Vec::new(),
            receivers: Vec::new(),
            irq: irq.clone(),
            outside: outside.clone(),
            keyboard: keyboard.clone(),
            screen: None,
            video: MemoryPlace::default(),
            tablet: None,
            clock,
            timers: timers.clone(),
            directory,
        };
        machine.attach(irq.clone());
        machine.attach(machine.pci.clone());
        machine.attach(Bridge::i440fx(Arc::new(lodge_bus::FixedMemory)));
        machine.attach(Bridge::piix3(router.clone()));
        let pm = Pm::new(true, &timers, line(9), outside.clone());
        let block = machine.ports.mapping(Arc::downgrade(&pm) as Weak<dyn PortDevice>, Pm::block());
        machine.attach(pm);
        machine.attach(Bridge::piix4_pm(block));
        let pit = Pit::new(&timers, line(0));
        let rtc = Rtc::new(
            CmosConfig { memory_below_4g: RAM, memory_above_4g: 0, vcpus: VCPUS, floppies: [4, 0] },
            &timers,
            line(8),
        );
        let (on_pit, on_rtc) = (pit.clone(), rtc.clone());
        let replace = Box::new(move |on| {
            on_pit.set_replaced(on);
            on_rtc.set_replaced(on);
        });
        let gsi16 = std::array::from_fn(|index| line(16 + index as u32));
        machine.attach(Hpet::new(&timers, HpetWiring { irq0: line(0), irq8: line(8), gsi16, replace }));
        machine.attach(pit.clone());
        machine.attach(rtc);
        machine.attach(keyboard);
        machine.attach(Board::new(BoardConfig { debug_exit: true, log: None }, outside.clone(), line_20));
        let uart = Uart::new(UartConfig { name: "uart0".into(), base: 0x3f8 }, line(4), Arc::new(Stream::default()));
        machine.receivers.push(uart.clone());
        machine.attach(uart);
        let parallel = Parallel::new(line(7), Arc::new(Stream::default()));
        machine.receivers.push(parallel.clone());
        machine.attach(parallel);
        let console = Console::new("console0", Arc::new(Stream::default()));
        machine.receivers.push(console.clone());
        let disk: Arc<dyn Disk> = Arc::new(RawDisk::open(&image, false).unwrap());
        let tray = Tray::new(Some(disk.clone()));
        let target = |medium, serial: &str| Target { medium, serial: serial.into() };
        let targets = vec![target(Medium::Disk(disk.clone()), "a"), target(Medium::Cd(tray.clone()), "b")];
        let scsi = Scsi::new(ScsiConfig { name: "scsi0".into(), queues: 2 }, targets);
        let config = BlockConfig { name: "disk0".into(), serial: "fuzz".into(), queues: 2 };
        let rng: Arc<dyn Entropy> = Arc::new(HostEntropy);
        let frame_buffer = MemoryMapping::new(Arc::new(FixedMemory), 2, VIDEO, vec![0..RAM, 0xfec0_0000..1 << 32]);
        let video_memory = VideoMemory::new(machine.memory.clone(), NOWHERE, VIDEO).unwrap();
        let video = Some(video_memory.aperture(frame_buffer.place()));
        let gpu = Gpu::new("gpu", GpuWiring { memory: machine.memory.clone(), before: None, video });
        let tablet = Tablet::new("tablet");
        machine.screen = Some(gpu.clone());
        machine.video = frame_buffer.place();
        machine.tablet = Some(tablet.clone());
        let (block, rng) = (Block::new(config, disk.clone()), Rng::new("rng0", rng, &timers));
        let net = Net::new(NetConfig { pairs: 1 }, machine.cable("net4"));
        let kinds: [Arc<dyn VirtioDevice>; VIRTIO as usize] = [block, console, rng, scsi, gpu, tablet, net];
        for kind in kinds {
            let wiring = VirtioWiring {
                memory: machine.memory.clone(),
                mmio: machine.mmio.clone(),
                msi: irq.clone() as Arc<dyn MsiTarget>,
                router: router.clone(),
            };
            machine.attach(VirtioPci::new(kind, wiring).unwrap());
        }
        let wiring =
            VgaWiring { clock: machine.clock.clone(), mmio: machine.mmio.clone(), memory: video_memory, frame_buffer };
        machine.attach(Vga::new(VgaConfig { rom: vec![0x55; 4096] }, wiring));
        let dma = machine.attach_storage(&disk, &tray, &router);
        machine.attach_others(dma, &pit, &router);
        machine.attach_networks(&router);
        machine.assign();
        machine
    }

    /// Controllers that are not virtio's, all with the same disk; the one that moves data for the ISA bus.
    fn attach_storage(&mut self, disk: &Arc<dyn Disk>, tray: &Arc<Tray>, router: &Arc<Router>) -> Arc<Dma> {
        let irq = self.irq.clone();
        let line = |line: u32| IrqLine::new(irq.clone() as Arc<dyn IrqSink>, line);
        let dma = Dma::new(self.memory.clone());
        let floppy = Tray::new(Some(disk.clone()));
        self.attach(Floppy::new([Some(floppy), None], dma.channel(2), line(6), &self.timers).unwrap());
        self.attach(dma.clone());
        let wiring =
            IdeWiring { ports: self.ports.clone(), memory: self.memory.clone(), interrupts: [line(14), line(15)] };
        let drives = || [Some(Drive::Disk(disk.clone())), None, Some(Drive::Cd(tray.clone())), None];
        self.attach(Ide::new(drives(), wiring).unwrap());
        let wiring = PciWiring {
            memory: self.memory.clone(),
            mmio: self.mmio.clone(),
            msi: irq.clone(),
            router: router.clone(),
        };
        let [a, b, c, d] = drives();
        self.attach(Ahci::new("sata0", [a, b, c, d, None, None], wiring.clone()).unwrap());
        let config = NvmeConfig { name: "nvme0".into(), serial: "fuzz".into(), queues: 2 };
        self.attach(Nvme::new(config, disk.clone(), wiring).unwrap());
        dma
    }

    /// Graphics, sound, and what firmware is told.
    fn attach_others(&mut self, dma: Arc<Dma>, pit: &Pit, router: &Arc<Router>) {
        let mixer = Mixer::new(Arc::new(NullSink::new(48_000)), &self.timers);
        let (ports, memory) = (self.ports.clone(), self.memory.clone());
        let wiring = Ac97Wiring { ports, memory, router: router.clone(), mixer: mixer.clone() };
        self.attach(Ac97::new(wiring, &self.timers));
        let irq = self.irq.clone();
        let line = |number: u8| Some(IrqLine::new(irq.clone() as Arc<dyn IrqSink>, number.into()));
        let interrupts = sb16::registers::INTERRUPTS.map(line);
        self.attach(Sb16::new(Sb16Wiring { dma, interrupts, mixer: mixer.clone() }, &self.timers));
        let speaker = Speaker::new(&mixer, &self.timers);
        pit.connect(speaker.clone());
        self.attach(speaker);
        self.attach(mixer);
        let image = self.directory.path().join("flash.img");
        std::fs::write(&image, vec![0xff; (FLASH.end - FLASH.start) as usize]).unwrap();
        let disk = Arc::new(RawDisk::open(&image, false).unwrap());
        self.attach(Flash::new(FLASH, self.memory.clone(), Arc::new(FixedMemory), disk));
        let mut items = Items::new(VCPUS);
        items.file("etc/fuzz", vec![7; 300]);
        self.attach(FwCfg::new(items, self.memory.clone()));
    }

    fn assign(&self) {
        let window = PciWindow { memory_base: 0xe000_0000, memory_end: 0xe100_0000, io_base: 0xc000 };
        self.pci.assign(window, 0x600, &self.ports).unwrap();
    }

    fn config_write(&self, device: u32, offset: u32, value: u32) {
        self.ports.write(0xcf8, Width::Dword, 0x8000_0000 | device << 11 | offset);
        self.ports.write(0xcfc, Width::Dword, value);
    }

    /// Sets a virtio device up the way a driver does, with rings in RAM.
    fn start_virtio(&self, random: &mut Random) {
        let device = 2 + random.below(VIRTIO) as u32;
        let base = 0xe010_0000 + u64::from(device) * 0x1_0000;
        self.config_write(device, 0x20, base as u32);
        self.config_write(device, 0x24, 0);
        self.config_write(device, 0x04, 6);
        let write = |offset: u64, bytes: usize, value: u64| {
            self.mmio.write(base + offset, &value.to_le_bytes()[..bytes]);
        };
        write(0x14, 1, 0);
        let mut status = [0];
        for _ in 0..1000 {
            self.mmio.read(base + 0x14, &mut status);
            if status[0] == 0 {
                break;
            }
            std::thread::yield_now();
        }
        write(0x14, 1, 3);
        write(0x00, 4, 0);
        write(0x08, 4, 0);
        let mut offered = [0; 4];
        self.mmio.read(base + 4, &mut offered);
        let wanted = *random.pick(&[0, 1 << 28, 1 << 29, 3 << 28, u32::MAX]) | random.next() as u32 & 0x00ff_ffff;
        write(0x0c, 4, u64::from(u32::from_le_bytes(offered) & wanted));
        write(0x08, 4, 1);
        write(0x0c, 4, 1);
        write(0x14, 1, 11);
        for queue in 0..2u64 {
            write(0x16, 2, queue);
            write(0x18, 2, 16);
            let rings = 0x1000 * (1 + random.below(8) * 3);
            self.memory.write_slice(&[0; 0x3000], GuestAddress(rings)).unwrap();
            for (register, ring) in [(0x20, rings), (0x28, rings + 0x1000), (0x30, rings + 0x2000)] {
                write(register, 8, ring);
            }
            write(0x1c, 2, 1);
            // A chain or two that may make sense.
            for index in 0..8u64 {
                let mut descriptor = random.below(RAM).to_le_bytes().to_vec();
                descriptor.extend((random.below(2048) as u32).to_le_bytes());
                descriptor.extend((random.below(if index == 7 { 3 } else { 4 }) as u16).to_le_bytes());
                descriptor.extend((random.below(8) as u16).to_le_bytes());
                self.memory.write_slice(&descriptor, GuestAddress(rings + index * 16)).unwrap();
                if device == GPU {
                    self.put_gpu_command(random, u64::from_le_bytes(descriptor[..8].try_into().unwrap()));
                }
            }
            let available = 1 + random.below(4);
            self.memory.write_obj(available as u16, GuestAddress(rings + 0x1002)).unwrap();
            for slot in 0..available {
                let head = random.below(8) as u16;
                self.memory.write_obj(head, GuestAddress(rings + 0x1004 + slot * 2)).unwrap();
            }
        }
        write(0x14, 1, 15);
        write(0x3000, 2, 0);
        write(0x3004, 2, 1);
    }

    /// Writes a command of the GPU that may make sense.
    fn put_gpu_command(&self, random: &mut Random, at: u64) {
        let kind = if random.below(5) == 0 { 0x300 + random.below(2) } else { 0x100 + random.below(11) };
        let mut words = vec![kind as u32, random.below(2) as u32, 0, 0, 0, 0];
        // Few resources, mostly small.
        let video = self.video.get().unwrap_or(0);
        let word = |random: &mut Random| match random.below(5) {
            0 => random.value() as u32,
            4 => (video + random.below(VIDEO)) as u32,
            1 => random.below(4) as u32,
            _ => *random.pick(&[0, 1, 2, 64]),
        };
        words.extend((0..16).map(|_| word(random)));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let room = (RAM.saturating_sub(at) as usize).min(bytes.len());
        self.memory.write_slice(&bytes[..room], GuestAddress(at)).unwrap();
    }

    fn port_step(&self, random: &mut Random) {
        let layout = self.ports.layout();
        let port = if random.below(10) == 0 {
            random.next() as u16
        } else {
            let (first, last) = *random.pick(&layout);
            first.wrapping_add(random.below(u64::from(last - first) + 2) as u16)
        };
        let width = *random.pick(&[Width::Byte, Width::Byte, Width::Word, Width::Dword]);
        if random.below(2) == 0 {
            self.ports.write(port, width, random.value() as u32);
        } else {
            let value = self.ports.read(port, width);
            assert_eq!(value & !width.ones(), 0, "port {port:#x}");
        }
    }

    fn mmio_step(&self, random: &mut Random) {
        let layout = self.mmio.layout();
        let address = if random.below(10) == 0 {
            random.value()
        } else {
            let (first, last) = *random.pick(&layout);
            first.wrapping_add(random.below((last - first).min(0x4000) + 8))
        };
        let most = *random.pick(&[8, 8, 8, 64]);
        let length = 1 + random.below(most) as usize;
        let mut data = [0; 64];
        if random.below(2) == 0 {
            data[..8].copy_from_slice(&random.value().to_le_bytes());
            self.mmio.write(address, &data[..length]);
        } else {
            self.mmio.read(address, &mut data[..length]);
        }
    }

    fn apic_step(&self, random: &mut Random) {
        let vcpu = random.below(u64::from(VCPUS) + 1) as u32;
        let msr = match random.below(8) {
            0 => 0x1b,
            1 => 0x6e0,
            _ => 0x800 + random.below(0x100) as u32,
        };
        let address = 0xfee0_0000 + random.below(0x1008);
        let mut data = random.value().to_le_bytes();
        let length = 1 + random.below(8) as usize;
        match random.below(7) {
            0 => drop(self.irq.msr_read(vcpu, msr)),
            1 => drop(self.irq.msr_write(vcpu, msr, random.value())),
            2 => drop(self.irq.apic_read(vcpu, address, &mut data[..length])),
            3 => drop(self.irq.apic_write(vcpu, address & !3, &data[..length])),
            4 => self.irq.set_task_priority(vcpu, random.next() as u8),
            5 => {
                self.irq.halt_begin(vcpu);
                self.irq.halt_end(vcpu);
            }
            _ => {
                let open = (random.below(2) == 0, random.below(2) == 0);
                let had = self.irq.has_event(vcpu, open.0, open.1);
                // Devices' threads may add an event between the two calls, but nobody takes one away.
                let taken = self.irq.take_event(vcpu, open.0, open.1);
                assert!(taken.is_some() || !had || vcpu >= VCPUS);
            }
        }
    }

    fn outside_step(&self, random: &mut Random) {
        match random.below(10) {
            0 => self.irq.signal(0xfee0_0000 | random.below(1 << 20), random.value() as u32),
            1 => self.irq.set_level(random.below(32) as u32, random.below(2) == 0),
            2 => {
                let bytes = random.next().to_le_bytes();
                random.pick(&self.receivers).receive(&bytes);
            }
            3 => random.pick(&self.receivers).room_to_send(),
            4 => {
                self.keyboard.key(*random.pick(Key::ALL), random.next() & 1 != 0);
            }
            5 => {
                if let Some(screen) = &self.screen {
                    let (mode, frame) = (screen.mode(), screen.frame());
                    assert!(matches!(mode, Mode::Graphics { .. }) && frame.pixels.len() == frame.width * frame.height);
                    screen.prefer([random.below(4), random.below(4)].map(|side| 640 + side as u16));
                }
            }
            6 => {
                if let Some(tablet) = &self.tablet {
                    tablet.position(random.next() as u16, random.next() as u16);
                    tablet.wheel(random.value() as i32);
                    tablet.button(Button::Right, random.next() & 1 != 0);
                }
            }
            7 | 8 => self.network_step(random),
            _ => {
                self.keyboard.motion(random.next() as i32, random.next() as i32);
                self.keyboard.wheel(random.next() as i32);
                self.keyboard.button(Button::Left, random.next() & 1 != 0);
            }
        }
    }

    /// Saves a device, perhaps damages the record, and loads it again.
    fn save_step(&self, random: &mut Random) {
        let device = random.pick(&self.devices).clone();
        let pause = device.clone().pausable();
        if let Some(pause) = &pause {
            pause.pause();
        }
        if let Some(saved) = device.saved() {
            let mut record = saved.save();
            let damaged = random.below(2) == 0;
            if damaged {
                for _ in 0..=random.below(4) {
                    let at = random.below(record.len() as u64) as usize;
                    record[at] = random.next() as u8;
                }
            }
            let result = saved.restore(&record);
            assert!(damaged || result.is_ok(), "a device must load what it saved: {result:?}");
        }
        if let Some(pause) = pause {
            pause.resume();
        }
    }

    fn step(&self, random: &mut Random) {
        match random.below(1000) {
            0..=349 => self.port_step(random),
            350..=699 => self.mmio_step(random),
            700..=869 => self.apic_step(random),
            870..=899 => {
                let (device, offset) = (random.below(32) as u32, random.below(256) as u32 & !3);
                self.config_write(device, offset, random.value() as u32);
            }
            900..=949 => {
                let address = random.below(0x1_c000 - 8);
                self.memory.write_slice(&random.value().to_le_bytes(), GuestAddress(address)).unwrap();
            }
            950..=979 => self.outside_step(random),
            980..=987 => {
                let time = random.below(50_000);
                self.timers.advance(&self.clock, time);
            }
            988..=992 => self.start_virtio(random),
            993..=995 => self.start_network(random),
            996..=998 => self.save_step(random),
            _ => {
                if let Some(device) = random.pick(&self.devices).clone().resettable() {
                    device.reset();
                }
            }
        }
    }
}

#[test]
fn random_accesses_to_every_device() {
    let machine = Machine::new();
    let steps = std::env::var("LODGE_BUS_STEPS").map_or(4_000_000, |text| text.parse().expect("a number"));
    let mut random = Random(SEED);
    let mut longest = Duration::ZERO;
    for step in 0..steps {
        let (state, begin) = (random.0, Instant::now());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| machine.step(&mut random))) {
            eprintln!("step {step} of seed {SEED:#x}; before it the generator was at {state:#x}");
            resume_unwind(panic);
        }
        longest = longest.max(begin.elapsed());
        assert!(longest < Duration::from_secs(20), "step {step} of seed {SEED:#x} took {longest:?}");
    }
    eprintln!("{steps} steps; the slowest took {longest:?}");
    assert!(machine.outside.0.load(Ordering::Relaxed) > 0, "resets and exits were reached");
    let echoed: Vec<u64> = machine.networks.iter().map(|(_, echo)| echo.sent.load(Ordering::Relaxed)).collect();
    assert!(steps < 1_000_000 || !echoed.contains(&0), "every network card sends: {echoed:?}");

    // And it still works: after a reset of everything a disk can be read.
    for device in &machine.devices {
        if let Some(device) = device.clone().resettable() {
            device.reset();
        }
    }
    machine.assign();
    let find = |id: u32| {
        let functions = machine.pci.functions();
        functions.into_iter().find(|(_, function)| function.config_read(0) == id).unwrap().1
    };
    let base = u64::from(find(0x1042_1af4).config_read(0x20) & !0xf);
    let write =
        |offset: u64, bytes: usize, value: u64| machine.mmio.write(base + offset, &value.to_le_bytes()[..bytes]);
    for (offset, bytes, value) in [
        (0x14, 1, 3),
        (0x08, 4, 1),
        (0x0c, 4, 1),
        (0x14, 1, 11),
        (0x16, 2, 0),
        (0x18, 2, 16),
        (0x20, 8, 0x1000),
        (0x28, 8, 0x2000),
        (0x30, 8, 0x3000),
        (0x1c, 2, 1),
    ] {
        write(offset, bytes, value);
    }
    machine.memory.write_slice(&[0; 0x4000], GuestAddress(0x1000)).unwrap();
    for (index, (address, length, flags)) in [(0x5000u64, 16u32, 1u16), (0x6000, 513, 2)].into_iter().enumerate() {
        let mut descriptor = address.to_le_bytes().to_vec();
        descriptor.extend(length.to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend((index as u16 + 1).to_le_bytes());
        let at = GuestAddress(0x1000 + index as u64 * 16);
        machine.memory.write_slice(&descriptor, at).unwrap();
    }
    machine.memory.write_slice(&[0; 16], GuestAddress(0x5000)).unwrap();
    machine.memory.write_slice(&[0xee; 513], GuestAddress(0x6000)).unwrap();
    machine.memory.write_obj(1u16, GuestAddress(0x2002)).unwrap();
    write(0x14, 1, 15);
    write(0x3000, 2, 0);
    let until = Instant::now() + Duration::from_secs(20);
    while machine.memory.read_obj::<u16>(GuestAddress(0x3002)).unwrap() != 1 {
        assert!(Instant::now() < until, "the disk does not answer any more");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(machine.memory.read_obj::<u8>(GuestAddress(0x6200)).unwrap(), 0, "the status");
}
