use std::sync::atomic::AtomicU16;

use lodge_backend::Disk;

use super::registers::{admin, io};
use super::*;
use crate::testing::{BAR as AT, Board, RAM, Random, content, disk, steps, wait_for};
use lodge_backend::VastDisk;

const QUEUES: u64 = 0x1_0000;
const DATA: u64 = 0x40_0000;
const LISTS: u64 = 0x20_0000;

struct Bench {
    board: Board,
    nvme: Arc<Nvme>,
    disk: Arc<dyn Disk>,
    /// Ends of the queues, as the driver has them: tail, head and phase.
    ends: Mutex<Vec<(u32, u32, bool)>>,
    id: AtomicU16,
}

/// Entries of every queue.
const ENTRIES: u32 = 8;

fn bench_with(disk: Arc<dyn Disk>) -> Bench {
    bench_of(disk, 4)
}

fn bench_of(disk: Arc<dyn Disk>, queues: u16) -> Bench {
    let board = Board::new();
    let config = NvmeConfig { name: "nvme0".into(), serial: "serial-3".into(), queues };
    let nvme = Nvme::new(config, disk.clone(), board.wiring()).unwrap();
    board.place(&*nvme, 0x10);
    Bench { board, nvme, disk, ends: Mutex::new(vec![(0, 0, true); 5]), id: AtomicU16::new(0) }
}

fn bench() -> Bench {
    let bench = bench_with(disk(4 << 20, false));
    bench.start();
    bench
}

/// A command by its words.
fn command(opcode: u8, namespace: u32, prp1: u64, words: &[(usize, u32)]) -> [u32; 16] {
    let mut command = [0; 16];
    (command[0], command[1]) = (opcode.into(), namespace);
    (command[6], command[7]) = (prp1 as u32, (prp1 >> 32) as u32);
    words.iter().for_each(|(at, word)| command[*at] = *word);
    command
}

impl Bench {
    fn submission(queue: usize) -> u64 {
        QUEUES + queue as u64 * 0x2000
    }

    fn completion(queue: usize) -> u64 {
        Self::submission(queue) + 0x1000
    }

    /// Enables the controller as drivers do.
    fn start(&self) {
        self.board.write(CC, 0);
        wait_for("the end", || self.board.read(CSTS) & CSTS_RDY == 0);
        for queue in 0..5 {
            self.board.put(Self::completion(queue), &[0; 0x1000]);
        }
        self.board.write(AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
        self.board.write(ASQ, Self::submission(0) as u32);
        self.board.write(ASQ + 4, 0);
        self.board.write(ACQ, Self::completion(0) as u32);
        self.board.write(ACQ + 4, 0);
        self.board.write(CC, 0x0046_0001);
        wait_for("the start", || self.board.read(CSTS) & CSTS_RDY != 0);
        *self.ends.lock() = vec![(0, 0, true); 5];
    }

    /// Makes a pair of queues for I/O.
    fn make(&self, queue: usize) {
        let size = (ENTRIES - 1) << 16 | queue as u32;
        let completion =
            command(admin::CREATE_CQ, 0, Self::completion(queue), &[(10, size), (11, (queue as u32) << 16 | 3)]);
        assert_eq!(self.run(0, completion), (0, 0));
        let submission =
            command(admin::CREATE_SQ, 0, Self::submission(queue), &[(10, size), (11, (queue as u32) << 16 | 1)]);
        assert_eq!(self.run(0, submission), (0, 0));
    }

    /// Puts a command into a queue; what tells it from others.
    fn submit(&self, queue: usize, mut words: [u32; 16]) -> u16 {
        let id = self.id.fetch_add(1, Ordering::Relaxed);
        words[0] |= u32::from(id) << 16;
        let mut ends = self.ends.lock();
        let (tail, ..) = &mut ends[queue];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.board.put(Self::submission(queue) + u64::from(*tail) * 64, &bytes);
        *tail = (*tail + 1) % ENTRIES;
        self.board.write(DOORBELLS + queue as u64 * 8, *tail);
        id
    }

    /// The next completion, if it is there: result, status, what it is of.
    fn poll(&self, queue: usize) -> Option<(u32, u16, u16)> {
        let mut ends = self.ends.lock();
        let (_, head, phase) = &mut ends[queue];
        let entry = self.board.get(Self::completion(queue) + u64::from(*head) * 16, 16);
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
        if (word(12) >> 16 & 1 != 0) != *phase {
            return None;
        }
        *head = (*head + 1) % ENTRIES;
        *phase ^= *head == 0;
        self.board.write(DOORBELLS + queue as u64 * 8 + 4, *head);
        Some((word(0), (word(12) >> 17) as u16, word(12) as u16))
    }

    fn wait(&self, queue: usize) -> (u32, u16, u16) {
        let mut found = None;
        let found_at = Mutex::new(&mut found);
        wait_for("the completion", || {
            let mut found = found_at.lock();
            **found = self.poll(queue);
            found.is_some()
        });
        found.unwrap()
    }

    /// Runs a command: result and status.
    fn run(&self, queue: usize, words: [u32; 16]) -> (u32, u16) {
        let id = self.submit(queue, words);
        let (result, status, of) = self.wait(queue);
        assert_eq!(of, id);
        (result, status)
    }

    fn read(&self, queue: usize, block: u64, blocks: u32, prp1: u64, prp2: u64) -> u16 {
        let words = [
            (8, prp2 as u32),
            (9, (prp2 >> 32) as u32),
            (10, block as u32),
            (11, (block >> 32) as u32),
            (12, blocks - 1),
        ];
        self.run(queue, command(io::READ, 1, prp1, &words)).1
    }
}

#[test]
fn the_controller_tells_what_it_is() {
    let bench = bench();
    assert_eq!((bench.nvme.config_read(0), bench.nvme.config_read(8) >> 8), (0x0010_1b36, 0x01_0802));
    let mut capabilities = [0; 8];
    bench.board.mmio.read(AT, &mut capabilities);
    let capabilities = u64::from_le_bytes(capabilities);
    assert_eq!((capabilities & 0xffff, capabilities >> 37 & 1, bench.board.read(VS)), (2047, 1, 0x1_0400));
    assert_eq!(bench.run(0, command(admin::IDENTIFY, 0, DATA, &[(10, 1)])), (0, 0));
    let controller = bench.board.get(DATA, 4096);
    assert_eq!((&controller[4..12], controller[77], controller[516]), (&b"serial-3"[..], 8, 1));
    assert_eq!(bench.run(0, command(admin::IDENTIFY, 1, DATA, &[(10, 0)])), (0, 0));
    let namespace = bench.board.get(DATA, 4096);
    assert_eq!((u64::from_le_bytes(namespace[..8].try_into().unwrap()), namespace[130]), (8192, 9));
    bench.run(0, command(admin::IDENTIFY, 0, DATA, &[(10, 2)]));
    assert_eq!(bench.board.get(DATA, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
    bench.run(0, command(admin::IDENTIFY, 1, DATA, &[(10, 2)]));
    assert_eq!(bench.board.get(DATA, 4), [0; 4]);
    bench.run(0, command(admin::IDENTIFY, 1, DATA, &[(10, 3)]));
    let names = bench.board.get(DATA, 36);
    assert_eq!(
        (&names[..4], &names[4..12], &names[12..16]),
        (&[1, 8, 0, 0][..], &namespace[120..128], &[2, 16, 0, 0][..])
    );
    assert_eq!(bench.run(0, command(admin::IDENTIFY, 2, DATA, &[(10, 0)])).1, status::NAMESPACE);
    assert_eq!(bench.run(0, command(admin::IDENTIFY, 1, DATA, &[(10, 0x99)])).1, status::FIELD);
    assert_eq!(bench.run(0, command(0x7f, 0, 0, &[])).1, status::OPCODE);
    // The structure may begin anywhere in a page, and go on in another.
    bench.run(0, command(admin::IDENTIFY, 0, DATA + 0xf00, &[(8, DATA as u32 + 0x4000), (10, 1)]));
    assert_eq!([bench.board.get(DATA + 0xf00, 256), bench.board.get(DATA + 0x4000, 3840)].concat(), controller);
}

#[test]
fn blocks_move_by_pages() {
    let bench = bench();
    bench.make(1);
    assert_eq!(bench.read(1, 3, 1, DATA, 0), 0);
    assert_eq!(bench.board.get(DATA, 512), content(&*bench.disk, 3 * 512, 512));
    // From within a page into a second one.
    assert_eq!(bench.read(1, 8, 8, DATA + 0xe00, DATA + 0x8000), 0);
    let got = [bench.board.get(DATA + 0xe00, 512), bench.board.get(DATA + 0x8000, 3584)].concat();
    assert_eq!(got, content(&*bench.disk, 8 * 512, 4096));
    // A list, which goes on in another, of 1 MiB.
    let entries: Vec<u8> = (0..256u64).flat_map(|n| (DATA + n * 0x2000).to_le_bytes()).collect();
    bench.board.put(LISTS + 0xff0, &entries[8..16]);
    bench.board.put(LISTS + 0xff8, &(LISTS + 0x1000).to_le_bytes());
    bench.board.put(LISTS + 0x1000, &entries[16..]);
    assert_eq!(bench.read(1, 0, 2048, DATA, LISTS + 0xff0), 0);
    let got: Vec<u8> = (0..256).flat_map(|n| bench.board.get(DATA + n * 0x2000, 4096)).collect();
    assert!(got == content(&*bench.disk, 0, 1 << 20));
    // Too much, too far, lists that cannot be.
    assert_eq!(bench.read(1, 0, 2049, DATA, LISTS), status::FIELD);
    assert_eq!(bench.read(1, 8192, 1, DATA, 0), status::RANGE);
    assert_eq!(bench.read(1, u64::MAX, 1, DATA, 0), status::RANGE);
    assert_eq!(bench.read(1, 0, 1, DATA + 1, 0), status::PRP_OFFSET);
    assert_eq!(bench.read(1, 0, 16, DATA, DATA + 0x10), status::PRP_OFFSET);
    assert_eq!(bench.read(1, 0, 1, 0x8000_0000, 0), status::TRANSFER);
    assert_eq!(bench.read(1, 0, 64, DATA, 0x8000_0000), status::TRANSFER);
    assert_eq!(bench.run(1, command(io::READ, 7, DATA, &[])).1, status::NAMESPACE);
    // The log has the last of them.
    assert_eq!(bench.run(0, command(admin::GET_LOG, 0, DATA, &[(10, 63 << 16 | 1)])), (0, 0));
    let log = bench.board.get(DATA, 64);
    assert_eq!((log[0], log[8], u16::from_le_bytes([log[12], log[13]]) >> 1), (8, 1, status::NAMESPACE));
}

#[test]
fn blocks_are_written_zeroed_compared_and_given_back() {
    let bench = bench();
    bench.make(2);
    bench.board.put(DATA, &[0x6b; 1024]);
    let blocks = |first: u32, count: u32| [(10, first), (12, count - 1)];
    assert_eq!(bench.run(2, command(io::WRITE, 1, DATA, &blocks(10, 2))), (0, 0));
    assert_eq!(content(&*bench.disk, 10 * 512, 1024), [0x6b; 1024]);
    assert_eq!(bench.run(2, command(io::COMPARE, 1, DATA, &blocks(10, 2))), (0, 0));
    assert_eq!(bench.run(2, command(io::COMPARE, 1, DATA, &blocks(11, 2))).1, status::COMPARE);
    assert_eq!(bench.run(2, command(io::FLUSH, 1, 0, &[])), (0, 0));
    assert_eq!(bench.run(2, command(io::FLUSH, u32::MAX, 0, &[])), (0, 0));
    assert_eq!(bench.run(2, command(io::WRITE_ZEROES, 1, 0, &blocks(11, 1))), (0, 0));
    assert_eq!(content(&*bench.disk, 10 * 512, 1024), [[0x6b; 512], [0; 512]].concat());
    let range = [[0; 4], 8u32.to_le_bytes(), 80u32.to_le_bytes(), [0; 4]].concat();
    bench.board.put(DATA, &range);
    assert_eq!(bench.run(2, command(io::DATASET, 1, DATA, &[(10, 0), (11, 4)])), (0, 0));
    assert_eq!(content(&*bench.disk, 80 * 512, 8 * 512), [0; 4096]);
    bench.board.put(DATA + 8, &8190u32.to_le_bytes());
    assert_eq!(bench.run(2, command(io::DATASET, 1, DATA, &[(10, 0), (11, 4)])).1, status::RANGE);
    let health = command(admin::GET_LOG, 0, DATA, &[(10, 127 << 16 | 2)]);
    assert_eq!(bench.run(0, health), (0, 0));
    assert_eq!((bench.board.get(DATA + 64, 1), bench.board.get(DATA + 80, 1)), (vec![2], vec![1]));
    // A disk that cannot be written.
    let bench = bench_with(disk(1 << 20, true));
    bench.start();
    bench.make(1);
    assert_eq!(bench.run(1, command(io::WRITE, 1, DATA, &blocks(10, 2))).1, status::READ_ONLY);
    assert_eq!(bench.run(1, command(io::WRITE_ZEROES, 1, DATA, &blocks(10, 2))).1, status::READ_ONLY);
}

#[test]
fn queues_come_and_go() {
    let bench = bench();
    let size = (ENTRIES - 1) << 16;
    let make = |opcode, prp, word10, word11| bench.run(0, command(opcode, 0, prp, &[(10, word10), (11, word11)])).1;
    assert_eq!(make(admin::CREATE_SQ, DATA, size | 1, 1 << 16 | 1), status::COMPLETION_QUEUE);
    assert_eq!(make(admin::CREATE_CQ, DATA, size | 5, 1), status::QUEUE);
    assert_eq!(make(admin::CREATE_CQ, DATA, size, 1), status::QUEUE);
    assert_eq!(make(admin::CREATE_CQ, DATA, 1, 1), status::QUEUE_SIZE);
    assert_eq!(make(admin::CREATE_CQ, DATA, 0xffff << 16 | 1, 1), status::QUEUE_SIZE);
    assert_eq!(make(admin::CREATE_CQ, DATA, size | 1, 9 << 16 | 3), status::VECTOR);
    assert_eq!(make(admin::CREATE_CQ, DATA + 8, size | 1, 1), status::PRP_OFFSET);
    assert_eq!(make(admin::CREATE_CQ, DATA, size | 1, 0), status::FIELD);
    bench.make(1);
    assert_eq!(make(admin::CREATE_CQ, DATA, size | 1, 1), status::QUEUE);
    assert_eq!(make(admin::DELETE_CQ, 0, 1, 0), status::DELETION);
    assert_eq!(make(admin::DELETE_SQ, 0, 1, 0), 0);
    assert_eq!(make(admin::DELETE_SQ, 0, 1, 0), status::QUEUE);
    assert_eq!(make(admin::DELETE_CQ, 0, 1, 0), 0);
    assert_eq!(make(admin::DELETE_CQ, 0, 1, 0), status::QUEUE);
}

#[test]
fn there_are_two_queues_though_one_was_asked_for() {
    let bench = bench_of(disk(4 << 20, false), 1);
    bench.start();
    bench.make(1);
    bench.make(2);
    let of_three = command(admin::CREATE_CQ, 0, Bench::completion(3), &[(10, (ENTRIES - 1) << 16 | 3), (11, 1)]);
    assert_eq!(bench.run(0, of_three).1, status::QUEUE);
}

#[test]
fn a_full_completion_queue_is_waited_for() {
    let bench = bench();
    bench.make(1);
    for round in 0..4 {
        // Seven commands fill the queue of eight; then the guest takes them all.
        for n in 0..7u32 {
            let words = [(10, n), (12, 0)];
            bench.submit(1, command(io::READ, 1, DATA + u64::from(n) * 512, &words));
        }
        for n in 0..7 {
            assert_eq!(bench.wait(1).1, 0, "{round} {n}");
        }
    }
    // Two submission queues with one completion queue, which is not emptied.
    let size = (ENTRIES - 1) << 16;
    assert_eq!(
        bench.run(0, command(admin::CREATE_SQ, 0, Bench::submission(3), &[(10, size | 3), (11, 1 << 16 | 1)])),
        (0, 0)
    );
    for queue in [1, 3] {
        (0..5).for_each(|n| {
            bench.submit(queue, command(io::READ, 1, DATA, &[(10, n), (12, 0)]));
        });
    }
    std::thread::sleep(std::time::Duration::from_millis(30));
    let (_, head, phase) = bench.ends.lock()[1];
    let entry = bench.board.get(Bench::completion(1) + u64::from((head + 7) % ENTRIES) * 16 + 14, 1);
    let wrapped = head + 7 >= ENTRIES;
    assert_ne!(entry[0] & 1 != 0, phase ^ wrapped, "the eighth place stays free");
    (0..10).for_each(|_| assert_eq!(bench.wait(1).1, 0));
    assert_eq!(bench.poll(1), None);
}

#[test]
fn features_are_set_and_told() {
    let bench = bench();
    let set = |feature: u8, value: u32| {
        bench.run(0, command(admin::SET_FEATURES, 0, 0, &[(10, feature.into()), (11, value)]))
    };
    let get = |feature: u8| bench.run(0, command(admin::GET_FEATURES, 0, 0, &[(10, feature.into())]));
    assert_eq!(set(feature::QUEUES, 0x1f_001f), (0x3_0003, 0));
    assert_eq!(get(feature::QUEUES), (0x3_0003, 0));
    assert_eq!(get(feature::WRITE_CACHE), (1, 0));
    assert_eq!((set(feature::WRITE_CACHE, 0), get(feature::WRITE_CACHE)), ((0, 0), (0, 0)));
    assert_eq!((set(feature::COALESCING, 0x1234), get(feature::COALESCING)), ((0, 0), (0x1234, 0)));
    assert_eq!((set(feature::TEMPERATURE, 300), get(feature::TEMPERATURE)), ((0, 0), (300, 0)));
    assert_eq!(bench.run(0, command(admin::GET_FEATURES, 0, 0, &[(10, 0x104)])), (343, 0), "as it was");
    assert_eq!(get(0x77).1, status::FIELD);
    assert_eq!(bench.run(0, command(admin::SET_FEATURES, 0, 0, &[(10, 1 << 31 | 6), (11, 0)])).1, status::NOT_SAVEABLE);
    assert_eq!(bench.run(0, command(admin::ABORT, 0, 0, &[(10, 1)])), (1, 0));
}

#[test]
fn events_are_told_to_those_who_ask() {
    let bench = bench();
    let ids: Vec<_> = (0..4).map(|_| bench.submit(0, command(admin::EVENT, 0, 0, &[]))).collect();
    assert_eq!(bench.run(0, command(admin::EVENT, 0, 0, &[])).1, status::EVENT_LIMIT);
    bench.board.write(DOORBELLS + 3 * 8, 1);
    let (result, status, id) = bench.wait(0);
    assert_eq!((result, status, id), (1 << 16, 0, ids[0]), "there is no such queue");
    bench.board.write(DOORBELLS, 100);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(bench.poll(0), None, "its log has not been read");
    assert_eq!(bench.run(0, command(admin::GET_LOG, 0, DATA, &[(10, 15 << 16 | 1)])), (0, 0));
    assert_eq!(bench.wait(0), (1 << 16 | 1 << 8, 0, ids[1]), "no such value");
}

#[test]
fn interrupts_are_messages_or_the_wire() {
    let bench = bench();
    assert!(!*bench.board.wire.0.lock());
    bench.submit(0, command(admin::ABORT, 0, 0, &[]));
    wait_for("the wire", || *bench.board.wire.0.lock());
    bench.board.write(INTMS, 1);
    assert!(!*bench.board.wire.0.lock());
    bench.board.write(INTMC, 1);
    assert!(*bench.board.wire.0.lock());
    bench.wait(0);
    assert!(!*bench.board.wire.0.lock(), "all has been seen");
    bench.nvme.config_write(0x40, 0xffff_0000, 0x8000_0000);
    bench.board.write(TABLE + 2 * 16, 0xfee0_0000);
    bench.board.write(TABLE + 2 * 16 + 8, 0x42);
    bench.board.write(TABLE + 2 * 16 + 12, 0);
    bench.make(2);
    bench.read(2, 0, 1, DATA, 0);
    wait_for("the message", || !bench.board.messages.0.lock().is_empty());
    assert_eq!(*bench.board.messages.0.lock(), [(0xfee0_0000, 0x42)]);
    assert!(!*bench.board.wire.0.lock());
}

#[test]
fn it_is_shut_down_reset_and_refuses_what_cannot_be() {
    let bench = bench();
    bench.make(1);
    bench.board.write(CC, 0x0046_4001);
    wait_for("the shutdown", || bench.board.read(CSTS) == CSTS_RDY | CSTS_SHUT);
    bench.start();
    assert_eq!(bench.board.read(CSTS), CSTS_RDY);
    assert_eq!(bench.run(0, command(admin::DELETE_SQ, 0, 0, &[(10, 1)])).1, status::QUEUE, "there are none any more");
    // Pages that are too large.
    bench.board.write(CC, 0);
    bench.board.write(CC, 0x0046_0281);
    assert_eq!(bench.board.read(CSTS) & (CSTS_RDY | CSTS_CFS), CSTS_CFS);
    bench.start();
    // Queues that are not in memory.
    bench.board.write(CC, 0);
    wait_for("the end", || bench.board.read(CSTS) == 0);
    bench.board.write(ASQ, 0x8000_0000);
    bench.board.write(CC, 0x0046_0001);
    bench.board.write(DOORBELLS, 1);
    wait_for("the fatal status", || bench.board.read(CSTS) & CSTS_CFS != 0);
    bench.start();
    assert_eq!(bench.run(0, command(admin::ABORT, 0, 0, &[])), (1, 0));
}

#[test]
fn a_paused_controller_begins_nothing_and_its_state_is_restored() {
    let bench = bench();
    bench.make(1);
    bench.make(4);
    bench.submit(0, command(admin::EVENT, 0, 0, &[]));
    bench.run(0, command(admin::SET_FEATURES, 0, 0, &[(10, 6), (11, 0)]));
    (0..5).for_each(|_| assert_eq!(bench.read(1, 0, 1, DATA, 0), 0));
    bench.nvme.pause();
    let id = bench.submit(1, command(io::READ, 1, DATA + 0x1000, &[(10, 77), (12, 0)]));
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(bench.poll(1), None);
    let saved = bench.nvme.save();
    bench.nvme.reset();
    assert_ne!(bench.nvme.save(), saved);
    bench.nvme.restore(&saved).unwrap();
    assert_eq!(bench.nvme.save(), saved);
    bench.nvme.resume();
    assert_eq!(bench.wait(1), (0, 0, id));
    assert_eq!(bench.board.get(DATA + 0x1000, 512), content(&*bench.disk, 77 * 512, 512));
    assert_eq!(bench.run(0, command(admin::GET_FEATURES, 0, 0, &[(10, 6)])), (0, 0));
    let mut broken: NvmeState = lodge_savestate::from_record(&saved).unwrap();
    broken.pairs[1].submission.as_mut().unwrap().completion = 3;
    assert!(bench.nvme.restore(&lodge_savestate::to_record(&broken)).is_err());
}

#[test]
fn what_a_guest_does_at_random_does_no_harm() {
    let bench = bench();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..steps(1_000_000) {
        let offset =
            [random.below(0x40), DOORBELLS + random.below(64), TABLE + random.below(96), random.below(BAR_SIZE)]
                [random.below(4) as usize];
        let mut data = [random.pick(&[0, 1, u64::MAX, random.0, random.0 & 0xff])].map(u64::to_le_bytes).concat();
        let length = random.pick(&[1, 2, 4, 4, 8]);
        if random.below(2) == 0 {
            bench.board.mmio.read(AT + offset, &mut data[..length]);
        } else {
            bench.board.mmio.write(AT + offset, &data[..length]);
        }
    }
    bench.nvme.reset();
    bench.board.place(&*bench.nvme, 0x10);
    bench.start();
    assert_eq!(bench.run(0, command(admin::ABORT, 0, 0, &[])), (1, 0));
}

/// Commands with random words in queues that there are, resets, saved states.
#[test]
fn commands_at_random_do_no_harm() {
    let bench = bench();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let places = [0, DATA, DATA + 4, DATA + 0xe00, LISTS, RAM as u64 - 512, 0x8000_0000, u64::MAX];
    for step in 0..steps(60_000) {
        let queue = random.below(5) as usize;
        let opcode = if queue == 0 { random.below(14) } else { random.below(11) } as u8;
        let mut words = [0; 16];
        words.iter_mut().for_each(|word| {
            *word = [random.below(6), random.below(0x1_0000), random.next()][random.below(3) as usize] as u32
        });
        words[0] = u32::from(opcode) | if random.below(30) == 0 { 0x4000 } else { 0 };
        words[1] = random.pick(&[1, 1, 1, 0, 2, u32::MAX]);
        for at in [6, 8] {
            let place = random.pick(&places);
            (words[at], words[at + 1]) = (place as u32, (place >> 32) as u32);
        }
        if random.below(4) != 0 {
            words[11] &= 0x7_0003;
            words[10] &= 0x7_0007;
        }
        bench.submit(queue, words);
        for queue in 0..5 {
            while bench.poll(queue).is_some() {}
        }
        match random.below(300) {
            0 => bench.start(),
            1 => bench.board.write(CC, 0),
            2 => bench.board.write(CC, random.next() as u32),
            3 => bench.board.write(DOORBELLS + random.below(12) * 4, random.below(20) as u32),
            4 => {
                bench.nvme.pause();
                let saved = bench.nvme.save();
                bench.nvme.restore(&saved).unwrap();
                assert_eq!(bench.nvme.save(), saved, "{step}");
                bench.nvme.resume();
            }
            _ => {}
        }
    }
    bench.nvme.reset();
    bench.board.place(&*bench.nvme, 0x10);
    bench.start();
    assert_eq!(bench.run(0, command(admin::ABORT, 0, 0, &[])), (1, 0));
}

#[test]
fn neither_pause_nor_reset_waits_for_a_vast_discard() {
    let disk = Arc::new(VastDisk { delay: std::time::Duration::from_millis(5), ..VastDisk::default() });
    let bench = bench_with(disk.clone());
    bench.start();
    bench.make(1);
    // Two terabytes: minutes.
    let range = [&[0; 4][..], &u32::MAX.to_le_bytes(), &3u64.to_le_bytes()].concat();
    bench.board.put(DATA, &range);
    bench.submit(1, command(io::DATASET, 1, DATA, &[(10, 0), (11, 4)]));
    let calls = || disk.discarded.lock().len();
    wait_for("the discard", || calls() > 3);
    bench.nvme.pause();
    let (before, saved) = (calls(), bench.nvme.save());
    assert!(before < 10_000 && bench.poll(1).is_none(), "it has not ended, nor failed");
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(calls(), before, "nothing goes on");
    bench.nvme.restore(&saved).unwrap();
    bench.nvme.resume();
    wait_for("the discard again", || calls() > before + 3);
    assert_eq!(disk.discarded.lock()[before].0, 3 * 512, "from its beginning");
    assert!(bench.poll(1).is_none());
    // The guest's reset.
    bench.start();
    let before = calls();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(calls(), before);
}
