use super::*;
use crate::testing;

const REQUEST_AT: u64 = 0x1000;

struct Bench {
    board: testing::Board,
    memory: GuestMemory,
    device: Arc<FwCfg>,
}

fn bench() -> Bench {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 64 << 10)]).unwrap();
    let mut items = Items::new(3);
    items.file("etc/second", b"two".to_vec());
    items.file("etc/first", (0..=255).collect());
    let device = FwCfg::new(items, memory.clone());
    let board = testing::Board::new();
    board.attach(device.clone());
    Bench { board, memory, device }
}

impl Bench {
    fn select(&self, key: u16) {
        self.board.ports.write(0x510, Width::Word, key.into());
    }

    fn read<const N: usize>(&self) -> [u8; N] {
        std::array::from_fn(|_| self.board.inb(0x511))
    }

    /// Carries out a request; what its control word is afterwards.
    fn dma(&self, control: u32, length: u32, target: u64) -> u32 {
        let mut request = Vec::new();
        request.extend(control.to_be_bytes());
        request.extend(length.to_be_bytes());
        request.extend(target.to_be_bytes());
        self.memory.write_slice(&request, GuestAddress(REQUEST_AT)).unwrap();
        self.board.ports.write(0x514, Width::Dword, 0);
        self.board.ports.write(0x518, Width::Dword, (REQUEST_AT as u32).swap_bytes());
        let mut answer = [0; 4];
        self.memory.read_slice(&mut answer, GuestAddress(REQUEST_AT)).unwrap();
        u32::from_be_bytes(answer)
    }

    fn at(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

#[test]
fn items_are_read_byte_by_byte() {
    let bench = bench();
    assert_eq!(&bench.read::<4>(), b"QEMU", "item 0 is selected at first");
    assert_eq!(bench.read::<2>(), [0, 0], "behind the end there are zeroes");
    bench.select(KEY_ID);
    assert_eq!(bench.read::<4>(), [3, 0, 0, 0]);
    bench.select(KEY_CPUS);
    assert_eq!(bench.read::<2>(), [3, 0]);
    bench.select(0x7777);
    assert_eq!(bench.read::<4>(), [0; 4]);
}

#[test]
fn files_are_listed_by_name() {
    let bench = bench();
    bench.select(KEY_DIRECTORY);
    assert_eq!(bench.read::<4>(), [0, 0, 0, 2]);
    let first: [u8; ENTRY] = bench.read();
    assert_eq!(first[..8], [0, 0, 1, 0, 0, 0x20, 0, 0]);
    assert_eq!(&first[8..18], b"etc/first\0");
    let second: [u8; ENTRY] = bench.read();
    assert_eq!(second[..8], [0, 0, 0, 3, 0, 0x21, 0, 0]);
    bench.select(0x21);
    assert_eq!(&bench.read::<4>(), b"two\0");
}

#[test]
fn requests_copy_and_skip() {
    let bench = bench();
    assert_eq!(bench.board.ports.read(0x514, Width::Dword), u32::from_le_bytes(*b"QEMU"));
    assert_eq!(bench.board.ports.read(0x518, Width::Dword), u32::from_le_bytes(*b" CFG"));
    assert_eq!(bench.dma(0x20 << 16 | CONTROL_SELECT | CONTROL_SKIP, 250, 0), 0);
    bench.memory.write_slice(&[0xee; 16], GuestAddress(0x2000)).unwrap();
    assert_eq!(bench.dma(CONTROL_READ, 8, 0x2000), 0);
    assert_eq!(bench.at(0x2000, 9), [250, 251, 252, 253, 254, 255, 0, 0, 0xee]);
    assert_eq!(bench.dma(CONTROL_READ, 1, 0x2000), 0, "and so on behind the end");
    assert_eq!(bench.at(0x2000, 2), [0, 251]);
}

#[test]
fn what_cannot_be_done_is_refused() {
    let bench = bench();
    let write = 0x20 << 16 | CONTROL_SELECT | CONTROL_WRITE;
    assert_eq!(bench.dma(write, 4, 0x2000), CONTROL_ERROR);
    assert_eq!(bench.dma(0x20 << 16 | CONTROL_SELECT | CONTROL_READ, 256, 0xff80), CONTROL_ERROR, "beyond memory");
    assert_eq!(bench.dma(CONTROL_READ, u32::MAX, u64::MAX - 4), CONTROL_ERROR);
    // A request where there is no memory is nobody's.
    bench.board.ports.write(0x514, Width::Dword, u32::MAX);
    bench.board.ports.write(0x518, Width::Dword, u32::MAX);
    bench.select(0x20);
    assert_eq!(bench.read::<2>(), [0, 1]);
}

#[test]
fn long_names_are_cut() {
    let mut items = Items::default();
    items.file(&"ä".repeat(40), vec![1]);
    let name = items.files.keys().next().unwrap();
    assert_eq!(name.len(), 54);
}

#[test]
fn state_is_restored() {
    let bench = bench();
    bench.select(0x20);
    bench.read::<7>();
    let saved = bench.device.save();
    bench.device.reset();
    assert_ne!(bench.device.save(), saved);
    bench.device.restore(&saved).unwrap();
    assert_eq!(bench.read::<2>(), [7, 8]);
}

#[test]
fn a_file_that_is_made_is_made_when_it_is_selected() {
    use std::sync::atomic::{AtomicU8, Ordering};
    let board = testing::Board::new();
    let value = Arc::new(AtomicU8::new(1));
    let mut items = Items::new(1);
    let seen = value.clone();
    items.made_file("it", move || vec![seen.load(Ordering::SeqCst); 2]);
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    let device = FwCfg::new(items, memory);
    board.attach(device.clone());
    let select = |key: u16| board.ports.write(SELECTOR, Width::Word, key.into());
    let byte = || board.inb(SELECTOR + DATA_OFFSET);
    select(KEY_DIRECTORY);
    let directory: Vec<u8> = (0..12).map(|_| byte()).collect();
    assert_eq!(directory[4..8], [0, 0, 0, 2], "two bytes");
    let key = u16::from_be_bytes([directory[8], directory[9]]);
    value.store(7, Ordering::SeqCst);
    select(key);
    value.store(8, Ordering::SeqCst);
    assert_eq!((byte(), byte(), byte()), (7, 7, 0), "as it was when it was selected");
    let saved = device.save();
    device.restore(&saved).unwrap();
    assert_eq!(byte(), 0);
    select(key);
    assert_eq!(byte(), 8);
}
