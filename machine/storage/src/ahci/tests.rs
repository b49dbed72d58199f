use lodge_backend::{Disk, Tray};
use lodge_bus::PciFunction;

use super::*;
use crate::ata::registers::{ABRT, BSY, CONTROL_SRST, DRDY, DRQ, DSC, ERR, IDNF, command};
use crate::testing::{Board, Random, content, disk, steps, tray, trim_list, wait_for};
use lodge_backend::VastDisk;

const LIST: u64 = 0x1_0000;
const FRAMES: u64 = 0x1_1000;
const TABLES: u64 = 0x2_0000;
const DATA: u64 = 0x10_0000;

struct Bench {
    board: Board,
    ahci: Arc<Ahci>,
    disk: Arc<dyn Disk>,
    tray: Arc<Tray>,
}

/// A disk of 2 MiB on port 0, a CD of 400 sectors on port 2.
fn bench() -> Bench {
    let board = Board::new();
    let (disk, tray) = (disk(2 << 20, false), tray(400 * 2048));
    let drives = [Some(Drive::Disk(disk.clone())), None, Some(Drive::Cd(tray.clone())), None, None, None];
    let ahci = Ahci::new("sata0", drives, board.wiring()).unwrap();
    board.place(&*ahci, 0x24);
    Bench { board, ahci, disk, tray }
}

/// What a command consists of.
#[derive(Clone, Copy, Default)]
struct Issue<'a> {
    port: usize,
    slot: u32,
    code: u8,
    lba: u64,
    count: u16,
    features: u16,
    device: u8,
    flags: u32,
    packet: &'a [u8],
    regions: &'a [(u64, u32)],
}

impl Bench {
    fn port_read(&self, port: usize, register: u64) -> u32 {
        self.board.read(FIRST_PORT + port as u64 * PORT_SIZE + register)
    }

    fn port_write(&self, port: usize, register: u64, value: u32) {
        self.board.write(FIRST_PORT + port as u64 * PORT_SIZE + register, value);
    }

    fn frames(port: usize) -> u64 {
        FRAMES + port as u64 * 0x100
    }

    /// Brings a port up as drivers do.
    fn start(&self, port: usize) {
        self.port_write(port, at::CMD, 0);
        self.port_write(port, at::CLB, LIST as u32 + port as u32 * 0x400);
        self.port_write(port, at::CLBU, 0);
        self.port_write(port, at::FB, Self::frames(port) as u32);
        self.port_write(port, at::FBU, 0);
        self.port_write(port, at::SERR, u32::MAX);
        self.port_write(port, at::IS, u32::MAX);
        self.port_write(port, at::CMD, CMD_FRE);
        self.port_write(port, at::IE, IS_ALL);
        self.port_write(port, at::CMD, CMD_FRE | CMD_ST);
        self.board.write(GHC, GHC_AHCI | GHC_INTERRUPTS);
        assert_eq!(self.port_read(port, at::CMD) & (CMD_CR | CMD_FR), CMD_CR | CMD_FR);
    }

    fn prepare(&self, issue: &Issue<'_>) {
        let table = TABLES + (issue.port as u64 * 32 + u64::from(issue.slot)) * 0x200;
        let header = LIST + issue.port as u64 * 0x400 + u64::from(issue.slot) * HEADER;
        let packet = if issue.packet.is_empty() { 0 } else { HEADER_PACKET };
        let flags = 5 | packet | issue.flags | (issue.regions.len() as u32) << 16;
        self.board.put(header, &[flags.to_le_bytes(), [0; 4], (table as u32).to_le_bytes(), [0; 4]].concat());
        let [l0, l1, l2, l3, l4, l5, ..] = issue.lba.to_le_bytes();
        let ([f0, f1], [c0, c1]) = (issue.features.to_le_bytes(), issue.count.to_le_bytes());
        let frame = [0x27, 0x80, issue.code, f0, l0, l1, l2, issue.device | 0x40, l3, l4, l5, f1, c0, c1, 0, 0];
        self.board.put(table, &frame);
        let mut packet = issue.packet.to_vec();
        packet.resize(16, 0);
        self.board.put(table + TABLE_PACKET, &packet);
        for (n, (address, length)) in issue.regions.iter().enumerate() {
            let entry = [address.to_le_bytes(), ((u64::from(*length) - 1) << 32).to_le_bytes()].concat();
            self.board.put(table + TABLE_REGIONS + n as u64 * REGION, &entry);
        }
    }

    /// Issues a command and waits for it; status and error.
    fn run(&self, issue: &Issue<'_>) -> (u8, u8) {
        self.prepare(issue);
        self.port_write(issue.port, at::CI, 1 << issue.slot);
        wait_for("the interrupt", || *self.board.wire.0.lock());
        assert_eq!(self.board.read(IS), 1 << issue.port);
        let raised = self.port_read(issue.port, at::IS);
        self.port_write(issue.port, at::IS, raised);
        self.board.write(IS, 1 << issue.port);
        assert!(!*self.board.wire.0.lock());
        let failed = raised & IS_ERROR != 0;
        assert_eq!(self.port_read(issue.port, at::CI) >> issue.slot & 1 != 0, failed);
        let file = self.port_read(issue.port, at::TFD);
        assert_eq!(file & 1 != 0, failed);
        (file as u8, (file >> 8) as u8)
    }

    /// Starts the list anew after an error.
    fn recover(&self, port: usize) {
        self.port_write(port, at::CMD, CMD_FRE);
        wait_for("the list's stop", || self.port_read(port, at::CMD) & CMD_CR == 0);
        assert_eq!((self.port_read(port, at::CI), self.port_read(port, at::SACT)), (0, 0));
        self.port_write(port, at::SERR, u32::MAX);
        self.port_write(port, at::IS, u32::MAX);
        self.board.write(IS, u32::MAX);
        self.port_write(port, at::CMD, CMD_FRE | CMD_ST);
    }
}

#[test]
fn the_controller_tells_what_there_is() {
    let bench = bench();
    assert_eq!((bench.ahci.config_read(0), bench.ahci.config_read(8)), (0x2922_8086, 0x0106_0102));
    assert_eq!((bench.board.read(CAP) & 0x1f, bench.board.read(CAP) >> 8 & 0x1f), (5, 31));
    assert_eq!((bench.board.read(PI), bench.board.read(VS)), (0x3f, 0x0001_0301));
    assert_eq!([0, 1, 2].map(|port| bench.port_read(port, at::SSTS)), [0x133, 0, 0x133]);
    assert_eq!([0, 1, 2].map(|port| bench.port_read(port, at::SIG)), [0x101, u32::MAX, 0xeb14_0101]);
    assert_eq!([0, 1, 2].map(|port| bench.port_read(port, at::TFD)), [0x150, 0x7f, 0x100]);
    bench.start(0);
    assert_eq!(bench.board.get(Bench::frames(0) + 0x40, 8), [0x34, 0, 0x50, 1, 1, 0, 0, 0], "the drive's first frame");
}

#[test]
fn a_drive_identifies_itself_by_pio() {
    let bench = bench();
    bench.start(0);
    let issue = Issue { code: command::IDENTIFY, regions: &[(DATA, 512)], ..Issue::default() };
    assert_eq!(bench.run(&issue), (DRDY | DSC, 0));
    let words = bench.board.get(DATA, 512);
    assert_eq!(u32::from_le_bytes(words[120..124].try_into().unwrap()), 4096);
    assert_eq!(words[2 * 76 + 1] & 1, 1, "queues");
    let frame = bench.board.get(Bench::frames(0) + 0x20, 18);
    assert_eq!((frame[0], frame[1], frame[2], frame[15]), (0x5f, 0x60, DRDY | DSC | DRQ, DRDY | DSC));
    assert_eq!(bench.board.get(LIST + 4, 4), 512u32.to_le_bytes());
    // The same from a CD drive: refused, with its signature, then by the other command.
    bench.start(2);
    assert_eq!(bench.run(&Issue { port: 2, ..issue }), (DRDY | ERR, ABRT));
    assert_eq!(bench.board.get(Bench::frames(2) + 0x44, 3), [1, 0x14, 0xeb]);
    bench.recover(2);
    let issue = Issue { port: 2, slot: 3, code: command::IDENTIFY_PACKET, ..issue };
    assert_eq!(bench.run(&issue), (DRDY | DSC, 0));
    assert_eq!(bench.board.get(DATA, 2), [0xc0, 0x85]);
}

#[test]
fn sectors_move_by_regions() {
    let bench = bench();
    bench.start(0);
    let regions = [(DATA, 512), (DATA + 0x1000, 1024), (DATA + 0x2002, 512)];
    let read =
        Issue { slot: 7, code: command::READ_DMA_EXT, lba: 100, count: 4, regions: &regions, ..Issue::default() };
    assert_eq!(bench.run(&read), (DRDY | DSC, 0));
    let got = [bench.board.get(DATA, 512), bench.board.get(DATA + 0x1000, 1024), bench.board.get(DATA + 0x2002, 512)];
    assert_eq!(got.concat(), content(&*bench.disk, 100 * 512, 2048));
    assert_eq!(bench.board.get(LIST + 7 * 32 + 4, 4), 2048u32.to_le_bytes());
    assert_eq!(bench.board.get(Bench::frames(0) + 0x40, 3), [0x34, 0x40, DRDY | DSC]);
    bench.board.put(DATA, &[0xa5; 512]);
    let write =
        Issue { slot: 8, code: command::WRITE_DMA, lba: 9, count: 1, regions: &regions[..1], ..Issue::default() };
    assert_eq!(bench.run(&write), (DRDY | DSC, 0));
    assert_eq!(content(&*bench.disk, 9 * 512, 512), [0xa5; 512]);
    let pio = Issue { code: command::WRITE_SECTORS, lba: 10, ..write };
    assert_eq!(bench.run(&pio), (DRDY | DSC, 0));
    assert_eq!(content(&*bench.disk, 10 * 512, 512), [0xa5; 512]);
    assert_eq!(bench.run(&Issue { code: command::FLUSH_EXT, ..Issue::default() }), (DRDY | DSC, 0));
}

#[test]
fn an_error_halts_the_list_until_it_is_started_anew() {
    let bench = bench();
    bench.start(0);
    let far = Issue {
        slot: 1,
        code: command::READ_DMA_EXT,
        lba: 4096,
        count: 1,
        regions: &[(DATA, 512)],
        ..Issue::default()
    };
    assert_eq!(bench.run(&far), (DRDY | DSC | ERR, IDNF));
    bench.port_write(0, at::CI, 2);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(bench.port_read(0, at::CI), 2, "nothing is begun");
    bench.recover(0);
    assert_eq!(bench.run(&Issue { lba: 0, ..far }), (DRDY | DSC, 0));
    // Fewer regions than data.
    let short = Issue { lba: 0, count: 2, ..far };
    assert_eq!(bench.run(&short), (DRDY | DSC | ERR, ABRT));
    bench.recover(0);
    // Memory that is not there: of the data, of the table, of the list.
    bench.prepare(&Issue { lba: 0, regions: &[(0xf000_0000, 512)], ..far });
    bench.port_write(0, at::CI, 2);
    wait_for("the bus error", || bench.port_read(0, at::IS) & IS_BUS != 0);
    assert_eq!(bench.port_read(0, at::TFD) as u8 & BSY, BSY, "the drive still waits: its link is to be reset");
    bench.port_write(0, at::CMD, CMD_FRE);
    bench.port_write(0, at::SCTL, 1);
    bench.port_write(0, at::SCTL, 0);
    bench.port_write(0, at::IS, u32::MAX);
    bench.port_write(0, at::CLBU, 0xff);
    bench.port_write(0, at::CMD, CMD_FRE | CMD_ST);
    bench.port_write(0, at::CI, 1);
    wait_for("the bus error", || bench.port_read(0, at::IS) & IS_BUS != 0);
}

#[test]
fn queued_commands_end_by_their_bits() {
    let bench = bench();
    bench.start(0);
    let mut all = 0;
    let regions: Vec<_> = (0..32).map(|slot| [(DATA + slot * 0x1000, 4096)]).collect();
    for slot in 0..32u32 {
        let (code, count) = (command::READ_QUEUED, (slot << 3) as u16);
        let regions = &regions[slot as usize];
        bench.prepare(&Issue { slot, code, lba: u64::from(slot) * 8, features: 8, count, regions, ..Issue::default() });
        all |= 1 << slot;
    }
    bench.port_write(0, at::SACT, all);
    bench.port_write(0, at::CI, all);
    wait_for("the end of all", || bench.port_read(0, at::SACT) == 0);
    assert_eq!(bench.port_read(0, at::CI), 0);
    assert_eq!(bench.board.get(DATA, 32 * 4096), content(&*bench.disk, 0, 32 * 4096));
    assert_eq!(bench.port_read(0, at::IS) & (IS_BITS | IS_ERROR), IS_BITS);
    let frame = bench.board.get(Bench::frames(0) + 0x58, 8);
    assert_eq!((frame[0], frame[1], frame[2] & 0x11), (0xa1, 0x40, 0x10));
    bench.port_write(0, at::IS, u32::MAX);
    bench.board.write(IS, u32::MAX);
    // One that fails leaves its bit, and the log tells which.
    let write = Issue {
        slot: 5,
        code: command::WRITE_QUEUED,
        lba: 4095,
        features: 2,
        count: 5 << 3,
        regions: &[(DATA, 1024)],
        ..Issue::default()
    };
    bench.prepare(&write);
    bench.port_write(0, at::SACT, 1 << 5);
    bench.port_write(0, at::CI, 1 << 5);
    wait_for("the error", || bench.port_read(0, at::IS) & IS_ERROR != 0);
    assert_eq!((bench.port_read(0, at::SACT), bench.port_read(0, at::CI)), (1 << 5, 0));
    bench.recover(0);
    let log = Issue { code: command::READ_LOG_EXT, lba: 0x10, count: 1, regions: &[(DATA, 512)], ..Issue::default() };
    assert_eq!(bench.run(&log), (DRDY | DSC, 0));
    assert_eq!(bench.board.get(DATA, 4), [5, 0, DRDY | DSC | ERR, IDNF]);
    // A write, to the medium.
    bench.board.put(DATA, &[0x3c; 512]);
    let write = Issue { lba: 77, features: 1, device: 0x80, ..write };
    bench.prepare(&write);
    bench.port_write(0, at::SACT, 1 << 5);
    bench.port_write(0, at::CI, 1 << 5);
    wait_for("the end", || bench.port_read(0, at::SACT) == 0);
    assert_eq!(content(&*bench.disk, 77 * 512, 512), [0x3c; 512]);
}

#[test]
fn packets_reach_a_cd_drive() {
    let bench = bench();
    bench.start(2);
    let packet = [0x28, 0, 0, 0, 0, 5, 0, 0, 4, 0, 0, 0];
    let regions = [(DATA, 4 * 2048)];
    let read =
        Issue { port: 2, code: command::PACKET, features: 1, packet: &packet, regions: &regions, ..Issue::default() };
    assert_eq!(bench.run(&read), (DRDY | DSC, 0));
    assert_eq!(bench.board.get(DATA, 8192), content(&*bench.tray.medium().unwrap(), 5 * 2048, 8192));
    // By PIO, too.
    bench.board.put(DATA, &[0; 8192]);
    assert_eq!(bench.run(&Issue { features: 0, lba: 0xfffe00, ..read }), (DRDY | DSC, 0));
    assert_eq!(bench.board.get(DATA, 8192), content(&*bench.tray.medium().unwrap(), 5 * 2048, 8192));
    bench.tray.eject().unwrap();
    let ready = Issue { packet: &[0; 12], ..read };
    assert_eq!(bench.run(&ready), (DRDY | ERR, 6 << 4), "it has changed");
    bench.recover(2);
    let sense = Issue { packet: &[3, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0], ..read };
    assert_eq!(bench.run(&sense), (DRDY | DSC, 0));
    assert_eq!((bench.board.get(DATA, 18)[2], bench.board.get(DATA, 18)[12]), (6, 0x28));
    assert_eq!(bench.run(&ready), (DRDY | ERR, 2 << 4));
}

#[test]
fn drives_are_reset_by_link_and_by_software() {
    let bench = bench();
    bench.start(0);
    bench.port_write(0, at::CMD, CMD_FRE);
    bench.port_write(0, at::SCTL, 0x301);
    assert_eq!((bench.port_read(0, at::SSTS), bench.port_read(0, at::TFD)), (0, 0x7f));
    bench.port_write(0, at::SCTL, 0x300);
    assert_eq!((bench.port_read(0, at::SSTS), bench.port_read(0, at::SIG)), (0x133, 0x101));
    assert_eq!(bench.port_read(0, at::TFD) as u8, DRDY | DSC);
    assert_eq!(bench.port_read(0, at::IS) & IS_SHOWN, IS_SHOWN);
    bench.port_write(0, at::SERR, u32::MAX);
    assert_eq!(bench.port_read(0, at::IS), 0);
    bench.port_write(0, at::SCTL, 4);
    assert_eq!(bench.port_read(0, at::SSTS), 4);
    bench.port_write(0, at::SCTL, 0);
    // By software: two frames for the device control register.
    for (port, signature) in [(0, 0x101), (2, 0xeb14_0101)] {
        bench.start(port);
        for (slot, control) in [(0, CONTROL_SRST), (1, 0)] {
            bench.prepare(&Issue { port, slot, flags: HEADER_CLEAR, ..Issue::default() });
            let table = TABLES + (port as u64 * 32 + u64::from(slot)) * 0x200;
            bench.board.put(table + 1, &[0]);
            bench.board.put(table + 15, &[control]);
            bench.port_write(port, at::CI, 1 << slot);
            wait_for("the frame", || bench.port_read(port, at::CI) == 0);
        }
        wait_for("the signature", || bench.port_read(port, at::TFD) as u8 & BSY == 0);
        assert_eq!(bench.port_read(port, at::SIG), signature);
    }
    bench.board.write(GHC, GHC_AHCI | GHC_RESET);
    wait_for("the reset", || bench.board.read(GHC) & GHC_RESET == 0);
    assert_eq!(bench.board.read(GHC), GHC_AHCI);
    assert_eq!(bench.port_read(0, at::CMD) & (CMD_ST | CMD_FRE | CMD_CR), 0);
    assert_eq!(bench.port_read(0, at::CLB), LIST as u32);
}

#[test]
fn messages_take_the_place_of_the_wire() {
    let bench = bench();
    bench.ahci.config_write(0x44, u32::MAX, 0xfee0_0000);
    bench.ahci.config_write(0x4c, u32::MAX, 0x55);
    bench.ahci.config_write(0x40, 0xffff_0000, 0x1_0000);
    bench.start(0);
    let before = bench.board.messages.0.lock().len();
    bench.prepare(&Issue { code: command::FLUSH, ..Issue::default() });
    bench.port_write(0, at::CI, 1);
    wait_for("the message", || bench.board.messages.0.lock().len() > before);
    assert_eq!(*bench.board.messages.0.lock().last().unwrap(), (0xfee0_0000, 0x55));
    assert!(!*bench.board.wire.0.lock());
    // What is pending still is told again.
    let before = bench.board.messages.0.lock().len();
    bench.board.write(IS, 1);
    assert_eq!((bench.board.read(IS), bench.board.messages.0.lock().len()), (1, before + 1));
    bench.port_write(0, at::IS, u32::MAX);
    bench.board.write(IS, 1);
    assert_eq!(bench.board.read(IS), 0);
    assert_eq!(bench.board.messages.0.lock().len(), before + 1);
}

#[test]
fn a_paused_controller_begins_nothing_and_its_state_is_restored() {
    let bench = bench();
    bench.start(0);
    bench.ahci.pause();
    let issue =
        Issue { slot: 4, code: command::READ_DMA_EXT, lba: 3, count: 1, regions: &[(DATA, 512)], ..Issue::default() };
    bench.prepare(&issue);
    bench.port_write(0, at::CI, 1 << 4);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(bench.port_read(0, at::CI), 1 << 4);
    let saved = bench.ahci.save();
    bench.ahci.reset();
    assert_ne!(bench.ahci.save(), saved);
    assert_eq!(bench.port_read(0, at::CI), u32::MAX, "there is nobody at the address");
    bench.ahci.restore(&saved).unwrap();
    assert_eq!(bench.ahci.save(), saved);
    bench.ahci.resume();
    wait_for("the command", || bench.port_read(0, at::CI) == 0);
    assert_eq!(bench.board.get(DATA, 512), content(&*bench.disk, 3 * 512, 512));
    assert!(*bench.board.wire.0.lock());
    let mut broken: AhciState = lodge_savestate::from_record(&saved).unwrap();
    broken.ports[0].slot = 99;
    assert!(bench.ahci.restore(&lodge_savestate::to_record(&broken)).is_err());
}

#[test]
fn neither_pause_nor_reset_waits_for_a_vast_trim() {
    let disk = Arc::new(VastDisk { delay: std::time::Duration::from_millis(5), ..VastDisk::default() });
    let board = Board::new();
    let drives = [Some(Drive::Disk(disk.clone())), None, None, None, None, None];
    let ahci = Ahci::new("sata0", drives, board.wiring()).unwrap();
    board.place(&*ahci, 0x24);
    let bench = Bench { board, ahci, disk: disk.clone(), tray: tray(2048) };
    bench.start(0);
    bench.board.put(DATA, &trim_list(3));
    let regions = [(DATA, 4096)];
    let trim = Issue {
        slot: 4,
        code: command::DATA_SET_MANAGEMENT,
        count: 8,
        features: 1,
        regions: &regions,
        ..Issue::default()
    };
    // Another one is behind it, and stays there.
    let read =
        Issue { slot: 5, code: command::READ_DMA_EXT, count: 1, regions: &[(DATA + 0x2000, 512)], ..Issue::default() };
    bench.prepare(&trim);
    bench.prepare(&read);
    bench.port_write(0, at::CI, 3 << 4);
    let calls = || disk.discarded.lock().len();
    wait_for("the trim", || calls() > 3);
    bench.ahci.pause();
    let (before, saved) = (calls(), bench.ahci.save());
    assert!(before < 500 && bench.port_read(0, at::CI) == 3 << 4, "it has neither ended nor failed");
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(calls(), before, "nothing goes on");
    bench.ahci.restore(&saved).unwrap();
    assert_eq!(bench.ahci.save(), saved);
    bench.ahci.resume();
    wait_for("the trim's end", || bench.port_read(0, at::CI) & 1 << 4 == 0);
    assert_eq!(bench.port_read(0, at::TFD), u32::from(DRDY | 0x10));
    assert_eq!(
        disk.discarded.lock()[before..],
        (0..512).map(|n| (3 * 512 + n * 65_535 * 512, 65_535 * 512)).collect::<Vec<_>>()
    );
    wait_for("the other one's end", || bench.port_read(0, at::CI) == 0);
    // The guest stops the list.
    bench.port_write(0, at::CI, 1 << 4);
    let before = calls();
    wait_for("the trim again", || calls() > before + 3);
    bench.port_write(0, at::CMD, CMD_FRE);
    wait_for("the list's stop", || bench.port_read(0, at::CMD) & CMD_CR == 0);
    let stopped = calls();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(calls() == stopped && stopped < before + 500);
    bench.port_write(0, at::CMD, CMD_FRE | CMD_CLO);
    bench.port_write(0, at::CMD, CMD_FRE | CMD_ST);
    // A reset of the machine during it.
    bench.port_write(0, at::CI, 1 << 4);
    wait_for("the trim once more", || calls() > stopped + 3);
    bench.ahci.reset();
    assert!(calls() < stopped + 500);
}

#[test]
fn what_a_guest_does_at_random_does_no_harm() {
    let bench = bench();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..steps(1_000_000) {
        let offset = [random.below(0x2c), FIRST_PORT + random.below(PORT_SIZE * 6)][random.below(2) as usize] & !3;
        match random.below(4) {
            0 => drop(bench.board.read(offset)),
            1 => bench.board.write(offset, random.next() as u32),
            2 => bench.board.write(offset, random.below(32) as u32),
            _ => bench.board.write(offset, 1 << random.below(32)),
        }
    }
    bench.ahci.reset();
    bench.board.place(&*bench.ahci, 0x24);
    bench.start(0);
    let issue = Issue { code: command::IDENTIFY, regions: &[(DATA, 512)], ..Issue::default() };
    assert_eq!(bench.run(&issue), (DRDY | DSC, 0));
}

/// Tables and frames with random contents on ports that run, stops, resets and saved states.
#[test]
fn commands_at_random_do_no_harm() {
    let bench = bench();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let codes = [
        0x06, 0x08, 0x20, 0x24, 0x25, 0x2f, 0x30, 0x34, 0x35, 0x60, 0x60, 0x61, 0x61, 0xa0, 0xa0, 0xa1, 0xc8, 0xca,
        0xea, 0xec, 0xef, 0xff,
    ];
    let packets = [0, 3, 0x12, 0x1a, 0x1b, 0x25, 0x28, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0xa8, 0xbe];
    for step in 0..steps(60_000) {
        let port = random.pick(&[0, 0, 2, 1]);
        if bench.port_read(port, at::CMD) & CMD_ST == 0
            || bench.port_read(port, at::IS) & (IS_ERROR | IS_BUS | IS_INTERFACE) != 0
        {
            bench.port_write(port, at::CMD, 0);
            bench.port_write(port, at::SCTL, 1);
            bench.port_write(port, at::SCTL, 0);
            bench.start_blindly(port);
        }
        let mut packet = [0; 12];
        packet.iter_mut().for_each(|byte| *byte = random.below(3) as u8);
        packet[0] = random.pick(&packets);
        let addresses = [DATA, DATA + 2, 0x7f_fe00, 0xffff_fff0, u64::MAX - 1];
        let regions: Vec<_> = (0..random.below(4))
            .map(|_| (random.pick(&addresses), [512, 2, 8192, 1 << 22][random.below(4) as usize]))
            .collect();
        let slot = random.below(32) as u32;
        let code = random.pick(&codes);
        let count = if random.below(2) == 0 { (slot << 3) as u16 } else { random.below(20) as u16 };
        bench.prepare(&Issue {
            port,
            slot,
            code,
            lba: random.pick(&[0, 8, 4090, 4095, u64::MAX]),
            count,
            features: random.below(9) as u16,
            device: random.pick(&[0, 0x80, 0xff]),
            flags: random.pick(&[0, 0, 0, HEADER_CLEAR, 0xffe0]),
            packet: &packet,
            regions: &regions,
        });
        if random.below(20) == 0 {
            let at = TABLES + (port as u64 * 32 + u64::from(slot)) * 0x200 + random.below(0x60);
            bench.board.put(at, &random.next().to_le_bytes());
        }
        if code == 0x60 || code == 0x61 {
            bench.port_write(port, at::SACT, 1 << slot);
        }
        bench.port_write(port, at::CI, 1 << slot);
        match random.below(200) {
            0 => bench.port_write(port, at::CMD, CMD_FRE),
            1 => bench.port_write(port, at::SCTL, 1),
            2 => bench.port_write(port, at::SCTL, 0),
            3 => bench.board.write(GHC, GHC_AHCI | GHC_RESET),
            4 => {
                bench.ahci.pause();
                let saved = bench.ahci.save();
                bench.ahci.restore(&saved).unwrap();
                assert_eq!(bench.ahci.save(), saved, "{step}");
                bench.ahci.resume();
            }
            5 => bench.tray.eject().unwrap_or_default(),
            6 => drop(bench.tray.insert(disk(40 * 2048, true))),
            _ => {}
        }
    }
    bench.ahci.reset();
    bench.board.place(&*bench.ahci, 0x24);
    bench.start(0);
    let issue = Issue { code: command::IDENTIFY, regions: &[(DATA, 512)], ..Issue::default() };
    assert_eq!(bench.run(&issue), (DRDY | DSC, 0));
}

impl Bench {
    /// As drivers bring a port up that may still be at something.
    fn start_blindly(&self, port: usize) {
        self.port_write(port, at::CLB, LIST as u32 + port as u32 * 0x400);
        self.port_write(port, at::FB, Self::frames(port) as u32);
        self.port_write(port, at::SERR, u32::MAX);
        self.port_write(port, at::IS, u32::MAX);
        self.port_write(port, at::CMD, CMD_FRE | CMD_ST);
        self.board.write(GHC, GHC_AHCI | GHC_INTERRUPTS);
    }
}
