use std::io::Write;
use std::time::{Duration, Instant};

use lodge_backend::{Disk, RawDisk, Tray};
use lodge_bus::IrqSink;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::testing::{trim_list, wait_for};
use lodge_backend::VastDisk;

#[derive(Default)]
struct Lines(Mutex<[bool; 16]>);

impl IrqSink for Lines {
    fn set_level(&self, line: u32, high: bool) {
        self.0.lock()[line as usize] = high;
    }
}

struct Bench {
    ports: PortBus,
    memory: GuestMemory,
    lines: Arc<Lines>,
    ide: Arc<Ide>,
    tray: Arc<Tray>,
    disk: Arc<dyn Disk>,
    _files: [tempfile::NamedTempFile; 2],
}

fn file(bytes: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..bytes).map(|n| (n / 512) as u8 ^ n as u8).collect();
    file.write_all(&content).unwrap();
    file
}

/// A disk of 300 sectors as the first drive, a CD of 20 sectors as the third.
fn bench() -> Bench {
    let files = [file(300 * 512), file(20 * 2048)];
    let disk: Arc<dyn Disk> = Arc::new(RawDisk::open(files[0].path(), false).unwrap());
    let tray = Tray::new(Some(Arc::new(RawDisk::open(files[1].path(), true).unwrap())));
    let drives = [Some(Drive::Disk(disk.clone())), None, Some(Drive::Cd(tray.clone())), None];
    bench_with(drives, disk, tray, files)
}

fn bench_with(
    drives: [Option<Drive>; 4],
    disk: Arc<dyn Disk>,
    tray: Arc<Tray>,
    files: [tempfile::NamedTempFile; 2],
) -> Bench {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let (ports, lines) = (PortBus::new(), Arc::new(Lines::default()));
    let wiring = IdeWiring {
        ports: ports.clone(),
        memory: memory.clone(),
        interrupts: INTERRUPTS.map(|line| IrqLine::new(lines.clone(), line)),
    };
    let ide = Ide::new(drives, wiring).unwrap();
    let face: Arc<dyn PortDevice> = ide.clone();
    ports.attach(&face).unwrap();
    // Bus masters at 0xc000.
    ide.config_write(0x20, u32::MAX, 0xc000);
    ide.config_write(0x04, 0xffff, 5);
    Bench { ports, memory, lines, ide, tray, disk, _files: files }
}

impl Bench {
    fn outb(&self, port: u16, value: u8) {
        self.ports.write(port, Width::Byte, value.into());
    }

    fn inb(&self, port: u16) -> u8 {
        self.ports.read(port, Width::Byte) as u8
    }

    /// Waits for the channel's interrupt; the status, whose reading takes it back.
    fn wait(&self, channel: usize) -> u8 {
        let until = Instant::now() + Duration::from_secs(10);
        while !self.lines.0.lock()[14 + channel] {
            assert!(Instant::now() < until, "no interrupt; status {:#x}", self.inb(CONTROLS[channel]));
            std::thread::yield_now();
        }
        let status = self.inb(COMMAND_BLOCKS[channel] + STATUS);
        assert!(!self.lines.0.lock()[14 + channel]);
        status
    }

    /// Waits until the selected drive of a channel is not busy.
    fn until_free(&self, channel: usize) {
        let until = Instant::now() + Duration::from_secs(10);
        while self.inb(CONTROLS[channel]) & BSY != 0 {
            assert!(Instant::now() < until, "it stays busy");
            std::thread::yield_now();
        }
    }

    /// Writes registers from the features on, and the command.
    fn command(&self, channel: usize, registers: [u8; 6], command: u8) {
        for (n, value) in (ERROR..).zip(registers) {
            self.outb(COMMAND_BLOCKS[channel] + n, value);
        }
        self.outb(COMMAND_BLOCKS[channel] + STATUS, command);
    }

    fn read_words(&self, channel: usize, bytes: usize) -> Vec<u8> {
        (0..bytes / 2)
            .flat_map(|_| (self.ports.read(COMMAND_BLOCKS[channel], Width::Word) as u16).to_le_bytes())
            .collect()
    }

    fn write_words(&self, channel: usize, data: &[u8]) {
        for pair in data.chunks(2) {
            self.ports.write(COMMAND_BLOCKS[channel], Width::Word, u32::from(pair[0]) | u32::from(pair[1]) << 8);
        }
    }

    fn sectors(&self, first: u64, count: u64) -> Vec<u8> {
        let mut data = vec![0; count as usize * 512];
        self.disk.read_at(first * 512, &mut [std::io::IoSliceMut::new(&mut data)]).unwrap();
        data
    }

    /// Sends a packet to the CD drive; the data that it gives, or its status and error.
    fn packet(&self, packet: &[u8]) -> Result<Vec<u8>, u8> {
        self.command(1, [0, 0, 0, 0xfe, 0xff, 0], command::PACKET);
        assert_eq!(self.inb(0x376) & (BSY | DRQ), DRQ);
        assert_eq!(self.inb(0x170 + COUNT), REASON_COMMAND);
        let mut bytes = packet.to_vec();
        bytes.resize(12, 0);
        self.write_words(1, &bytes);
        let mut data = Vec::new();
        loop {
            let status = self.wait(1);
            if status & ERR != 0 {
                return Err(self.inb(0x170 + ERROR) >> 4);
            }
            if status & DRQ == 0 {
                assert_eq!(self.inb(0x170 + COUNT), 3);
                return Ok(data);
            }
            assert_eq!(self.inb(0x170 + COUNT), REASON_TO_HOST);
            let count = usize::from(self.inb(0x170 + LBA_MID)) | usize::from(self.inb(0x170 + LBA_HIGH)) << 8;
            data.extend(self.read_words(1, count.next_multiple_of(2)));
            data.truncate(data.len() - count % 2);
        }
    }
}

#[test]
fn a_disk_tells_what_it_is() {
    let bench = bench();
    assert_eq!(bench.inb(0x1f7), DRDY | DSC);
    assert_eq!([bench.inb(0x1f4), bench.inb(0x1f5)], [0, 0]);
    bench.command(0, [0; 6], command::IDENTIFY);
    assert_eq!(bench.wait(0), DRDY | DSC | DRQ);
    let words = bench.read_words(0, 512);
    assert_eq!(u32::from_le_bytes(words[120..124].try_into().unwrap()), 300);
    assert_eq!(bench.wait(0), DRDY | DSC);
    // There is no second drive.
    bench.outb(0x1f6, DEVICE_SECOND);
    assert_eq!(bench.inb(0x1f7), 0);
}

#[test]
fn sectors_are_read_one_by_one_and_several_at_a_time() {
    let bench = bench();
    bench.command(0, [0, 3, 7, 0, 0, DEVICE_LBA], command::READ_SECTORS);
    for sector in 7..10 {
        assert_eq!(bench.wait(0), DRDY | DSC | DRQ);
        assert_eq!(bench.read_words(0, 512), bench.sectors(sector, 1));
    }
    assert_eq!(bench.wait(0), DRDY | DSC);
    bench.command(0, [0, 2, 0, 0, 0, DEVICE_LBA], command::READ_MULTIPLE);
    assert_eq!(bench.wait(0), DRDY | DSC | ERR, "it has not been set");
    bench.command(0, [0, 4, 0, 0, 0, 0], command::SET_MULTIPLE);
    bench.wait(0);
    bench.command(0, [0, 6, 0, 0, 0, DEVICE_LBA], command::READ_MULTIPLE);
    bench.wait(0);
    assert_eq!(bench.read_words(0, 4 * 512), bench.sectors(0, 4));
    bench.wait(0);
    assert_eq!(bench.read_words(0, 2 * 512), bench.sectors(4, 2));
    assert_eq!(bench.wait(0), DRDY | DSC);
    // Cylinder 0, head 1, sector 2 is number 64; 32-bit accesses do, too.
    bench.command(0, [0, 1, 2, 0, 0, 1], command::READ_SECTORS);
    bench.wait(0);
    let words: Vec<u8> = (0..128).flat_map(|_| bench.ports.read(0x1f0, Width::Dword).to_le_bytes()).collect();
    assert_eq!(words, bench.sectors(64, 1));
}

#[test]
fn sectors_are_written() {
    let bench = bench();
    bench.command(0, [0, 2, 0x2a, 1, 0, DEVICE_LBA], command::WRITE_SECTORS);
    // The last two of 300: 0x12a.
    assert_eq!(bench.inb(0x3f6), DRDY | DSC | DRQ, "the first block is asked for without an interrupt");
    bench.write_words(0, &[0xaa; 512]);
    assert_eq!(bench.wait(0), DRDY | DSC | DRQ);
    bench.write_words(0, &[0x55; 512]);
    assert_eq!(bench.wait(0), DRDY | DSC);
    assert_eq!(bench.sectors(298, 2), [[0xaa; 512], [0x55; 512]].concat());
    bench.command(0, [0; 6], command::FLUSH);
    assert_eq!(bench.wait(0), DRDY | DSC);
    // Beyond the end.
    bench.command(0, [0, 2, 0x2b, 1, 0, DEVICE_LBA], command::WRITE_SECTORS);
    assert_eq!(bench.wait(0), DRDY | DSC | ERR);
    assert_eq!(bench.inb(0x1f1), IDNF);
}

#[test]
fn long_numbers_have_two_bytes_in_a_register() {
    let bench = bench();
    // 0x0000_0000_0102 sectors from 5 on, by 48 bits: 258 sectors.
    for (port, value) in [(2, 1), (2, 2), (3, 0), (3, 5), (4, 0), (4, 0), (5, 0), (5, 0), (6, DEVICE_LBA)] {
        bench.outb(0x1f0 + port, value);
    }
    bench.outb(0x3f6, CONTROL_HOB);
    assert_eq!((bench.inb(0x1f2), bench.inb(0x1f3)), (1, 0));
    bench.outb(0x3f6, 0);
    bench.outb(0x1f7, command::READ_SECTORS_EXT);
    for sector in 5..263 {
        bench.wait(0);
        assert_eq!(bench.read_words(0, 512), bench.sectors(sector, 1), "{sector}");
    }
    assert_eq!(bench.wait(0), DRDY | DSC);
}

#[test]
fn the_bus_master_moves_data_both_ways() {
    let bench = bench();
    let table: [u8; 16] = [0, 0x10, 0, 0, 0, 2, 0, 0, 0, 0x30, 0, 0, 0, 2, 0, 0x80];
    bench.memory.write_slice(&table, GuestAddress(0x800)).unwrap();
    bench.ports.write(0xc004, Width::Dword, 0x800);
    bench.command(0, [0, 2, 9, 0, 0, DEVICE_LBA], command::READ_DMA);
    assert_eq!(bench.inb(0x3f6) & BSY, 0, "it waits for the bus master");
    bench.outb(0xc000, MASTER_TO_MEMORY | MASTER_START);
    assert_eq!(bench.wait(0), DRDY | DSC);
    assert_eq!(bench.inb(0xc002) & 7, MASTER_INTERRUPT);
    let mut data = vec![0; 512];
    bench.memory.read_slice(&mut data, GuestAddress(0x3000)).unwrap();
    assert_eq!(data, bench.sectors(10, 1));
    bench.outb(0xc000, 0);
    bench.outb(0xc002, MASTER_INTERRUPT);
    bench.memory.write_slice(&[0x77; 512], GuestAddress(0x1000)).unwrap();
    bench.outb(0xc000, MASTER_START);
    bench.command(0, [0, 2, 9, 0, 0, DEVICE_LBA], command::WRITE_DMA);
    assert_eq!(bench.wait(0), DRDY | DSC);
    assert_eq!(bench.sectors(9, 1), [0x77; 512]);
    // Regions that are not memory.
    bench.outb(0xc000, 0);
    bench.ports.write(0xc004, Width::Dword, 0xfff0_0000);
    bench.command(0, [0, 2, 9, 0, 0, DEVICE_LBA], command::READ_DMA);
    bench.outb(0xc000, MASTER_TO_MEMORY | MASTER_START);
    assert_eq!(bench.wait(0) & ERR, ERR);
    assert_eq!(bench.inb(0xc002) & 7, MASTER_INTERRUPT | MASTER_ERROR);
}

#[test]
fn neither_pause_nor_reset_waits_for_a_vast_trim() {
    let vast = Arc::new(VastDisk { delay: Duration::from_millis(5), ..VastDisk::default() });
    let tray = Tray::new(None);
    let drives = [Some(Drive::Disk(vast.clone())), None, None, None];
    let bench = bench_with(drives, vast.clone(), tray, [file(512), file(512)]);
    bench.memory.write_slice(&trim_list(3), GuestAddress(0x1000)).unwrap();
    bench.memory.write_slice(&[0, 0x10, 0, 0, 0, 0x10, 0, 0x80], GuestAddress(0x800)).unwrap();
    let begin = || {
        bench.outb(0xc000, 0);
        bench.ports.write(0xc004, Width::Dword, 0x800);
        bench.outb(0x1f2, 0);
        bench.command(0, [1, 8, 0, 0, 0, DEVICE_LBA], command::DATA_SET_MANAGEMENT);
        bench.outb(0xc000, MASTER_START);
    };
    let calls = || vast.discarded.lock().len();
    begin();
    wait_for("the trim", || calls() > 3);
    bench.ide.pause();
    let (before, saved) = (calls(), bench.ide.save());
    assert!(before < 500 && bench.inb(0x3f6) & (BSY | ERR) == BSY, "it has neither ended nor failed");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(calls(), before, "nothing goes on");
    bench.ide.reset();
    assert_ne!(bench.ide.save(), saved);
    bench.ide.restore(&saved).unwrap();
    assert_eq!(bench.ide.save(), saved);
    bench.ide.resume();
    assert_eq!(bench.wait(0), DRDY | DSC);
    assert_eq!(
        vast.discarded.lock()[before..],
        (0..512).map(|n| (3 * 512 + n * 65_535 * 512, 65_535 * 512)).collect::<Vec<_>>()
    );
    // A channel cannot be busy for anything else.
    let mut broken: IdeState = lodge_savestate::from_record(&saved).unwrap();
    broken.channels[0].held = false;
    assert!(bench.ide.restore(&lodge_savestate::to_record(&broken)).is_err());
    broken.channels[0].held = true;
    broken.channels[0].work = Some(crate::ata::Work::Packet);
    assert!(bench.ide.restore(&lodge_savestate::to_record(&broken)).is_err());
    // A reset while it is held: it is forgotten.
    bench.ide.pause();
    bench.ide.restore(&saved).unwrap();
    bench.ide.reset();
    let before = calls();
    bench.ide.resume();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((calls(), bench.inb(0x3f6)), (before, DRDY | DSC));
    // The guest's reset.
    bench.ide.config_write(0x20, u32::MAX, 0xc000);
    bench.ide.config_write(0x04, 0xffff, 5);
    begin();
    wait_for("the trim again", || calls() > before + 3);
    bench.outb(0x3f6, CONTROL_SRST);
    bench.outb(0x3f6, 0);
    bench.until_free(0);
    // The end of the machine.
    let before = calls();
    begin();
    wait_for("the trim once more", || calls() > before + 3);
    drop(bench);
    let after = vast.discarded.lock().len();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(vast.discarded.lock().len(), after);
    assert!(after < before + 500);
}

#[test]
fn a_reset_ends_what_goes_on() {
    let bench = bench();
    bench.command(0, [0, 0, 0, 0, 0, DEVICE_LBA], command::READ_SECTORS);
    bench.outb(0x3f6, CONTROL_SRST);
    assert_eq!(bench.inb(0x3f6) & BSY, BSY);
    bench.outb(0x3f6, 0);
    bench.until_free(0);
    assert_eq!(bench.inb(0x1f7), DRDY | DSC);
    assert_eq!((bench.inb(0x1f1), bench.inb(0x1f2), bench.inb(0x1f3)), (1, 1, 1));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(bench.inb(0x1f7), DRDY | DSC, "what was read then is forgotten");
    // No interrupts where they are not wanted.
    bench.outb(0x3f6, CONTROL_NIEN);
    bench.command(0, [0; 6], command::IDENTIFY);
    assert!(!bench.lines.0.lock()[14]);
    assert_eq!(bench.inb(0x1f7) & DRQ, DRQ);
}

#[test]
fn a_cd_drive_is_told_by_its_signature() {
    let bench = bench();
    assert_eq!((bench.inb(0x174), bench.inb(0x175)), (0x14, 0xeb));
    bench.command(1, [0; 6], command::IDENTIFY);
    assert_eq!(bench.wait(1) & ERR, ERR);
    assert_eq!((bench.inb(0x174), bench.inb(0x175)), (0x14, 0xeb));
    bench.command(1, [0; 6], command::IDENTIFY_PACKET);
    bench.wait(1);
    assert_eq!(bench.read_words(1, 512)[..2], [0xc0, 0x85]);
    assert_eq!(bench.wait(1) & DRQ, 0);
}

#[test]
fn a_cd_is_read() {
    let bench = bench();
    let inquiry = bench.packet(&[0x12, 0, 0, 0, 36]).unwrap();
    assert_eq!((inquiry.len(), inquiry[0], &inquiry[8..13]), (36, 5, &b"lodge"[..]));
    assert_eq!(bench.packet(&[0x25]).unwrap(), [0, 0, 0, 19, 0, 0, 8, 0]);
    let data = bench.packet(&[0x28, 0, 0, 0, 0, 1, 0, 0, 18]).unwrap();
    let mut expected = vec![0; 18 * 2048];
    let medium = bench.tray.medium().unwrap();
    medium.read_at(2048, &mut [std::io::IoSliceMut::new(&mut expected)]).unwrap();
    assert_eq!(data, expected);
    assert_eq!(bench.packet(&[0x28, 0, 0, 0, 0, 19, 0, 0, 2]), Err(5), "beyond the end");
    let sense = bench.packet(&[3, 0, 0, 0, 18]).unwrap();
    assert_eq!((sense[2], sense[12]), (5, 0x21));
    let toc = bench.packet(&[0x43, 2, 0, 0, 0, 0, 0, 0, 100]).unwrap();
    // The track begins at 0:2:0, its end is 20 frames further on.
    assert_eq!(toc, [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 2, 0, 0, 0x14, 0xaa, 0, 0, 0, 2, 20]);
    assert_eq!(bench.packet(&[0xff]), Err(5));
}

#[test]
fn a_cd_is_read_by_the_bus_master() {
    let bench = bench();
    let table: [u8; 8] = [0, 0x40, 0, 0, 0, 0x10, 0, 0x80];
    bench.memory.write_slice(&table, GuestAddress(0x800)).unwrap();
    bench.ports.write(0xc00c, Width::Dword, 0x800);
    bench.outb(0xc008, MASTER_TO_MEMORY | MASTER_START);
    bench.command(1, [1, 0, 0, 0, 0, 0], command::PACKET);
    bench.write_words(1, &[0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0, 0]);
    assert_eq!(bench.wait(1), DRDY | DSC);
    let mut data = vec![0; 4096];
    bench.memory.read_slice(&mut data, GuestAddress(0x4000)).unwrap();
    let mut expected = vec![0; 4096];
    let medium = bench.tray.medium().unwrap();
    medium.read_at(3 * 2048, &mut [std::io::IoSliceMut::new(&mut expected)]).unwrap();
    assert_eq!(data, expected);
}

#[test]
fn media_change_and_are_held() {
    let bench = bench();
    assert_eq!(bench.packet(&[0]), Ok(vec![]));
    bench.packet(&[0x1e, 0, 0, 0, 1]).unwrap();
    assert_eq!(bench.packet(&[0x1b, 0, 0, 0, 2]), Err(5), "the guest itself holds it");
    assert!(bench.tray.eject().is_err());
    let event = bench.packet(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8]).unwrap();
    assert_eq!((event[4], event[5]), (1, 2), "eject, please");
    bench.packet(&[0x1e]).unwrap();
    bench.packet(&[0x1b, 0, 0, 0, 2]).unwrap();
    assert_eq!(bench.packet(&[0]), Err(6), "that it has changed is told first");
    assert_eq!(bench.packet(&[0]), Err(2));
    let other = file(4 * 2048);
    bench.tray.insert(Arc::new(RawDisk::open(other.path(), true).unwrap())).unwrap();
    assert_eq!(bench.packet(&[0x25]), Err(6));
    assert_eq!(bench.packet(&[0x25]).unwrap()[3], 3);
    let event = bench.packet(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8]).unwrap();
    assert_eq!((event[4], event[5]), (2, 2));
}

#[test]
fn each_drive_has_registers_of_its_own() {
    let files = [file(40 * 512), file(20 * 2048)];
    let disk: Arc<dyn Disk> = Arc::new(RawDisk::open(files[0].path(), false).unwrap());
    let tray = Tray::new(Some(Arc::new(RawDisk::open(files[1].path(), true).unwrap())));
    let bench =
        bench_with([Some(Drive::Disk(disk.clone())), Some(Drive::Cd(tray.clone())), None, None], disk, tray, files);
    bench.outb(0x3f6, CONTROL_SRST);
    bench.outb(0x3f6, 0);
    // As drivers tell what is there after a reset.
    bench.outb(0x1f6, 0);
    assert_eq!([0x1f2, 0x1f3, 0x1f4, 0x1f5, 0x1f7].map(|port| bench.inb(port)), [1, 1, 0, 0, DRDY | DSC]);
    bench.outb(0x1f6, DEVICE_SECOND);
    assert_eq!([0x1f2, 0x1f3, 0x1f4, 0x1f5, 0x1f7].map(|port| bench.inb(port)), [1, 1, 0x14, 0xeb, 0]);
    // What is written, both take.
    bench.outb(0x1f3, 0x55);
    bench.outb(0x1f6, 0);
    assert_eq!(bench.inb(0x1f3), 0x55);
    bench.command(0, [0, 0, 0, 0, 0, DEVICE_SECOND], command::DIAGNOSE);
    assert_eq!(bench.wait(0), DRDY | DSC, "the first answers");
    assert_eq!((bench.inb(0x1f1), bench.inb(0x1f5)), (1, 0));
}

#[test]
fn a_transfer_without_enough_room_fails() {
    let bench = bench();
    let table: [u8; 8] = [0, 0x10, 0, 0, 0, 2, 0, 0x80];
    bench.memory.write_slice(&table, GuestAddress(0x800)).unwrap();
    bench.ports.write(0xc004, Width::Dword, 0x800);
    bench.outb(0xc000, MASTER_TO_MEMORY | MASTER_START);
    bench.command(0, [0, 2, 9, 0, 0, DEVICE_LBA], command::READ_DMA);
    assert_eq!(bench.wait(0) & ERR, ERR);
    assert_eq!(bench.inb(0xc002) & 7, MASTER_INTERRUPT | MASTER_ERROR);
    // TRIM takes its list by the bus master.
    let mut list = [0; 512];
    list[..8].copy_from_slice(&(8u64 | 16 << 48).to_le_bytes());
    bench.memory.write_slice(&list, GuestAddress(0x1000)).unwrap();
    bench.outb(0xc000, 0);
    bench.outb(0xc002, 6);
    bench.outb(0xc000, MASTER_START);
    assert_ne!(bench.sectors(8, 1), [0; 512]);
    bench.outb(0x1f2, 0);
    bench.command(0, [1, 1, 0, 0, 0, DEVICE_LBA], command::DATA_SET_MANAGEMENT);
    assert_eq!(bench.wait(0), DRDY | DSC);
    assert_eq!(bench.sectors(8, 16), [0; 16 * 512]);
}

/// Commands with sensible registers at random, data moved or not, resets, saved states.
#[test]
fn commands_at_random_do_no_harm() {
    let bench = bench();
    let mut seed = 0x1357_9bdf_0246_8aceu64;
    let mut random = |most: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 16) % most
    };
    let commands = [
        0x06, 0x08, 0x20, 0x24, 0x25, 0x27, 0x29, 0x30, 0x34, 0x35, 0x39, 0x40, 0x90, 0x91, 0xa0, 0xa1, 0xc4, 0xc5,
        0xc6, 0xc8, 0xca, 0xe7, 0xec, 0xef,
    ];
    let packets = [0, 3, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0xa8, 0xbe, 0xb9];
    for _ in 0..crate::testing::steps(40_000) {
        let channel = random(2) as usize;
        let base = COMMAND_BLOCKS[channel];
        for _ in 0..random(5) {
            let small = [random(4), random(256)][random(2) as usize] as u8;
            bench.outb(base + 1 + random(5) as u16, small);
        }
        bench.outb(base + 6, [DEVICE_LBA, DEVICE_LBA, 0, DEVICE_SECOND][random(4) as usize]);
        bench.outb(base + 7, commands[random(commands.len() as u64) as usize]);
        if random(2) == 0 {
            let entry: [u8; 8] =
                [random(256) as u8, random(16) as u8, random(20) as u8, 0, 0, random(9) as u8, 0, 0x80];
            bench.memory.write_slice(&entry, GuestAddress(0x800)).unwrap();
            bench.ports.write(
                0xc004 + 8 * channel as u16,
                Width::Dword,
                [0x800, 0xf_fffc, u32::MAX][random(3) as usize],
            );
            bench.outb(0xc000 + 8 * channel as u16, random(16) as u8);
        }
        if bench.inb(base + 7) & DRQ != 0 && random(2) == 0 {
            let mut packet = [0; 12];
            packet[0] = packets[random(packets.len() as u64) as usize];
            packet.iter_mut().skip(1).for_each(|byte| *byte = random(4) as u8);
            bench.write_words(channel, &packet);
        }
        if random(4) != 0 {
            bench.until_free(channel);
        }
        for _ in 0..random(600) {
            if random(2) == 0 { drop(bench.read_words(channel, 2)) } else { bench.write_words(channel, &[1, 2]) }
        }
        match random(40) {
            0 => {
                bench.outb(CONTROLS[channel], CONTROL_SRST);
                bench.outb(CONTROLS[channel], 0);
            }
            1 => {
                bench.ide.pause();
                let saved = bench.ide.save();
                bench.ide.restore(&saved).unwrap();
                assert_eq!(bench.ide.save(), saved);
                bench.ide.resume();
            }
            2 => bench.ide.reset(),
            _ => {}
        }
        bench.until_free(channel);
    }
    bench.ide.reset();
    bench.command(0, [0; 6], command::IDENTIFY);
    assert_eq!(bench.wait(0), DRDY | DSC | DRQ);
}

#[test]
fn what_a_guest_does_at_random_does_no_harm() {
    let bench = bench();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..crate::testing::steps(1_000_000) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let places = [0x1f0, 0x170, 0x3f6 - 7, 0x376 - 7, 0xc000, 0xc008];
        let port = places[(seed >> 8) as usize % 6] + ((seed >> 16) % 8) as u16;
        let width = [Width::Byte, Width::Word, Width::Dword][(seed >> 24) as usize % 3];
        if seed & 1 == 0 {
            bench.ports.read(port, width);
        } else {
            bench.ports.write(port, width, (seed >> 32) as u32);
        }
    }
    bench.ide.reset();
    bench.command(0, [0; 6], command::IDENTIFY);
    assert_eq!(bench.wait(0), DRDY | DSC | DRQ);
}

#[test]
fn state_is_restored() {
    let bench = bench();
    bench.outb(0xc002, 0x60);
    let saved = bench.ide.save();
    bench.ide.reset();
    assert_ne!(bench.ide.save(), saved);
    bench.ide.restore(&saved).unwrap();
    assert_eq!(bench.ide.save(), saved);
    assert_eq!(bench.inb(0xc002), 0x60);
    // In the middle of what the guest reads; of what it writes; of a packet.
    bench.command(0, [0, 3, 7, 0, 0, DEVICE_LBA], command::READ_SECTORS);
    bench.wait(0);
    let first = bench.read_words(0, 100);
    bench.command(1, [0, 0, 0, 0xfe, 0xff, 0], command::PACKET);
    bench.write_words(1, &[0x28, 0, 0, 0, 0, 1]);
    bench.ide.pause();
    let saved = bench.ide.save();
    bench.ide.reset();
    bench.ide.restore(&saved).unwrap();
    assert_eq!(bench.ide.save(), saved);
    assert_eq!([first, bench.read_words(0, 412)].concat(), bench.sectors(7, 1));
    bench.wait(0);
    assert_eq!(bench.read_words(0, 512), bench.sectors(8, 1));
    bench.wait(0);
    assert_eq!(bench.read_words(0, 512), bench.sectors(9, 1));
    assert_eq!(bench.wait(0), DRDY | DSC);
    bench.write_words(1, &[0, 0, 1, 0, 0, 0]);
    assert_eq!(bench.wait(1) & (DRQ | ERR), DRQ);
    assert_eq!(bench.read_words(1, 2048).len(), 2048);
    bench.wait(1);
    bench.command(0, [0, 2, 9, 0, 0, DEVICE_LBA], command::WRITE_SECTORS);
    bench.write_words(0, &[0x33; 200]);
    let saved = bench.ide.save();
    bench.ide.reset();
    bench.ide.restore(&saved).unwrap();
    bench.write_words(0, &[0x44; 312]);
    assert_eq!(bench.wait(0), DRDY | DSC | DRQ);
    assert_eq!(bench.sectors(9, 1), [vec![0x33; 200], vec![0x44; 312]].concat());
    // What no drive can be at.
    let mut broken: IdeState = lodge_savestate::from_record(&saved).unwrap();
    broken.channels[0].at = 1000;
    assert!(bench.ide.restore(&lodge_savestate::to_record(&broken)).is_err());
}
