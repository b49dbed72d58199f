use super::*;
use crate::testing;

struct Bench {
    board: testing::Board,
    memory: GuestMemory,
    dma: Arc<Dma>,
}

fn bench() -> Bench {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let dma = Dma::new(memory.clone());
    let board = testing::Board::new();
    board.attach(dma.clone());
    Bench { board, memory, dma }
}

impl Bench {
    /// Programs channel 2 as a floppy driver does.
    fn program(&self, mode: u8, page: u8, address: u16, count: u16) {
        self.board.outb(0x0a, 0x06);
        self.board.outb(0x0c, 0);
        self.board.outb(0x0b, mode | 2);
        for byte in address.to_le_bytes() {
            self.board.outb(0x04, byte);
        }
        for byte in count.to_le_bytes() {
            self.board.outb(0x05, byte);
        }
        self.board.outb(0x81, page);
        self.board.outb(0x0a, 0x02);
    }

    fn at(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

#[test]
fn a_channel_moves_as_much_as_is_programmed() {
    let bench = bench();
    let channel = bench.dma.channel(2);
    assert_eq!(channel.write(&[1]), Moved::default(), "masked after power-on");
    bench.program(0x44, 2, 0x1000, 3);
    assert_eq!(channel.write(&[1, 2, 3]), Moved { bytes: 3, ended: false });
    assert_eq!(bench.board.inb(0x08), 0);
    assert_eq!(channel.write(&[4, 5]), Moved { bytes: 1, ended: true });
    assert_eq!(bench.at(0x2_1000, 5), [1, 2, 3, 4, 0]);
    assert_eq!(channel.write(&[6]), Moved::default(), "masked at the end");
    assert_eq!((bench.board.inb(0x08), bench.board.inb(0x08)), (4, 0), "said once");
    assert_eq!(bench.board.inb(0x0f), 0xff);
}

#[test]
fn reads_give_what_memory_has() {
    let bench = bench();
    bench.memory.write_slice(&[9, 8, 7], GuestAddress(0xffff)).unwrap();
    bench.memory.write_slice(&[6], GuestAddress(0)).unwrap();
    // The page does not follow where the address wraps; downwards too.
    bench.program(0x48, 0, 0xffff, 1);
    let mut data = [0; 4];
    assert_eq!(bench.dma.channel(2).read(&mut data), Moved { bytes: 2, ended: true });
    assert_eq!(data, [9, 6, 0, 0]);
    bench.program(0x68, 1, 0x0001, 1);
    assert_eq!(bench.dma.channel(2).read(&mut data).bytes, 2);
    assert_eq!(data[..2], [7, 8]);
    assert_eq!(bench.dma.channel(2).write(&[1]), Moved::default(), "the other way is not programmed");
    bench.program(0x48, 0xff, 0, 0);
    assert_eq!(bench.dma.channel(2).read(&mut data).bytes, 1);
    assert_eq!(data[0], 0xff, "where there is no memory");
}

#[test]
fn channels_that_begin_anew_do_so() {
    let bench = bench();
    bench.program(0x54, 0, 0x100, 1);
    let channel = bench.dma.channel(2);
    assert_eq!(channel.write(&[1, 2, 3]), Moved { bytes: 2, ended: true });
    assert_eq!(channel.write(&[3]), Moved { bytes: 1, ended: false });
    assert_eq!(bench.at(0x100, 2), [3, 2]);
    // The count can be read: it is flip-flopped like writes.
    bench.board.outb(0x0c, 0);
    assert_eq!([bench.board.inb(0x05), bench.board.inb(0x05)], [0, 0]);
    assert_eq!([bench.board.inb(0x04), bench.board.inb(0x04)], [1, 1]);
}

#[test]
fn words_have_addresses_of_words() {
    let bench = bench();
    // Channel 5: address 0x1234 words in page 0x03, of which the lowest bit does not count.
    for (port, value) in
        [(0xd8, 0), (0xd6, 0x45), (0xc4, 0x34), (0xc4, 0x12), (0xc6, 1), (0xc6, 0), (0x8b, 3), (0xd4, 1)]
    {
        bench.board.outb(port, value);
    }
    assert_eq!(bench.dma.channel(5).write(&[1, 2, 3, 4, 5]), Moved { bytes: 4, ended: true });
    assert_eq!(bench.at(0x2_0000 + 0x2468, 5), [1, 2, 3, 4, 0]);
}

#[test]
fn a_controller_that_is_off_moves_nothing() {
    let bench = bench();
    bench.program(0x44, 0, 0, 8);
    bench.board.outb(0x08, COMMAND_DISABLE);
    assert_eq!(bench.dma.channel(2).write(&[1]), Moved::default());
    bench.board.outb(0x0d, 0);
    assert_eq!(bench.board.inb(0x0f), 0xff, "all are masked after a master clear");
    bench.board.outb(0x0e, 0);
    assert_eq!(bench.dma.channel(2).write(&[1]).bytes, 1);
}

#[test]
fn state_is_restored() {
    let bench = bench();
    bench.program(0x44, 5, 0x4321, 7);
    let saved = bench.dma.save();
    bench.dma.reset();
    assert_ne!(bench.dma.save(), saved);
    bench.dma.restore(&saved).unwrap();
    assert_eq!(bench.dma.channel(2).write(&[1; 20]), Moved { bytes: 8, ended: true });
    assert_eq!(bench.at(0x5_4321, 1), [1]);
}
