use super::*;
use lodge_backend::DiskError;
use std::io::IoSliceMut;

const BASE: u64 = 0x10_0000;
const SIZE: u64 = 0x1_0000;

#[derive(Default)]
struct Map(Mutex<Vec<Reach>>);

impl MemoryControl for Map {
    fn change(&self, change: MemoryChange) {
        let MemoryChange::Reach { range, reach } = change else { panic!() };
        assert_eq!(range, BASE..BASE + SIZE);
        self.0.lock().push(reach);
    }
}

struct Rig {
    flash: Arc<Flash>,
    memory: GuestMemory,
    map: Arc<Map>,
    disk: Arc<dyn Disk>,
}

impl Rig {
    fn new() -> Result<Self, DiskError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE).unwrap();
        let disk = Arc::new(lodge_backend::RawDisk::open(file.path(), false)?);
        let memory = GuestMemory::from_ranges(&[(GuestAddress(BASE), SIZE as usize)]).unwrap();
        let map = Arc::new(Map::default());
        let flash = Flash::new(BASE..BASE + SIZE, memory.clone(), map.clone(), disk.clone());
        Ok(Self { flash, memory, map, disk })
    }

    fn write(&self, offset: u64, values: &[u8]) {
        values.iter().for_each(|value| self.flash.mmio_write(0, offset, 1, (*value).into()).unwrap());
    }

    fn read(&self, offset: u64) -> u8 {
        self.flash.mmio_read(0, offset, 1).unwrap() as u8
    }

    /// A byte of the array and the same one on the disk.
    fn byte(&self, offset: u64) -> (u8, u8) {
        let mut on_disk = [0];
        self.disk.read_at(offset, &mut [IoSliceMut::new(&mut on_disk)]).unwrap();
        (self.memory.read_obj(GuestAddress(BASE + offset)).unwrap(), on_disk[0])
    }
}

#[test]
fn firmware_knows_it_for_a_flash() {
    // What QemuFlashFvbServicesRuntimeDxe does at a byte that is not 0x50.
    let rig = Rig::new().unwrap();
    rig.write(0, &[CLEAR_STATUS]);
    assert_eq!(rig.read(0), 0, "the array is read, so this is no RAM");
    rig.write(0, &[READ_STATUS]);
    assert_eq!(rig.read(0), 0, "the status is cleared");
    rig.write(0, &[READ_ARRAY]);
    assert_eq!(*rig.map.0.lock(), [Reach::ReadOnly, Reach::Devices, Reach::ReadOnly]);
}

#[test]
fn bytes_are_programmed_and_blocks_erased() {
    let rig = Rig::new().unwrap();
    rig.write(0x1234, &[0x10, 0xa5]);
    assert_eq!((rig.read(0), rig.byte(0x1234)), (STATUS_READY, (0xa5, 0xa5)));
    rig.write(0x1fff, &[ERASE, CONFIRM]);
    assert_eq!((rig.byte(0xfff), rig.byte(0x1000), rig.byte(0x1234)), ((0, 0), (0xff, 0xff), (0xff, 0xff)));
    assert_eq!((rig.byte(0x1fff), rig.byte(0x2000)), ((0xff, 0xff), (0, 0)));
}

#[test]
fn the_buffer_is_programmed_when_confirmed() {
    let rig = Rig::new().unwrap();
    rig.write(0x40, &[WRITE_BUFFER]);
    assert_eq!(rig.read(0x40), STATUS_READY);
    rig.write(0x40, &[2]);
    for (offset, value) in [(0x40, 7), (0x41, 8), (0x42, 9)] {
        rig.write(offset, &[value]);
    }
    assert_eq!(rig.byte(0x41), (0, 0));
    rig.write(0x40, &[CONFIRM]);
    assert_eq!([0x40, 0x41, 0x42, 0x43].map(|at| rig.byte(at).0), [7, 8, 9, 0]);
}

#[test]
fn wrong_sequences_are_told_and_change_nothing() {
    let rig = Rig::new().unwrap();
    for sequence in [&[ERASE, 0x55][..], &[WRITE_BUFFER, 0xff], &[WRITE_BUFFER, 0, 1, 0]] {
        rig.write(0, &[CLEAR_STATUS]);
        rig.write(0, sequence);
        assert_eq!(rig.read(0), STATUS_READY | STATUS_ERASE_FAILED | STATUS_PROGRAM_FAILED, "{sequence:x?}");
        assert_eq!(rig.byte(0), (0, 0));
    }
}

#[test]
fn it_names_itself() {
    let rig = Rig::new().unwrap();
    rig.write(0, &[READ_ID]);
    assert_eq!([rig.read(0), rig.read(1)], IDENTITY);
    rig.write(0, &[QUERY]);
    assert_eq!([0x10, 0x11, 0x12].map(|at| rig.read(at)), *b"QRY");
    assert_eq!((rig.read(0x27), rig.read(0x2d), rig.read(0x2f), rig.read(0x99)), (16, 15, 16, 0));
}

#[test]
fn state_is_restored() {
    let rig = Rig::new().unwrap();
    rig.write(0x40, &[WRITE_BUFFER, 1, 7]);
    let saved = rig.flash.save();
    rig.flash.reset();
    assert_ne!(rig.flash.save(), saved);
    rig.flash.restore(&saved).unwrap();
    assert_eq!(rig.flash.save(), saved);
    rig.write(0x41, &[8, CONFIRM]);
    assert_eq!([0x40, 0x41].map(|at| rig.byte(at).0), [7, 8]);
    assert!(rig.flash.restore(b"nonsense").is_err());
}
