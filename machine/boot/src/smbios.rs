//! SMBIOS tables, by which systems learn make and model of the machine (DMTF DSP0134 2.8).
//!
//! [`build`] makes structures and entry point for firmware, which places them, and adds a structure about itself.

/// The file of the structures, in firmware's configuration device.
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";
/// The file of the entry point.
pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";

/// What the tables tell about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The machine type with its version.
    pub machine: String,
    /// The machine's own number; all zeroes where it has none.
    pub uuid: [u8; 16],
    /// vCPUs, each in a socket of its own.
    pub vcpus: u32,
    /// Bytes of RAM below 4 GiB.
    pub memory_below_4g: u64,
    /// Bytes of RAM above 4 GiB.
    pub memory_above_4g: u64,
    /// CPUID leaf 1: EAX, then EDX.
    pub processor_id: [u32; 2],
}

/// What firmware is handed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smbios {
    /// [`TABLES_FILE`].
    pub tables: Vec<u8>,
    /// [`ANCHOR_FILE`].
    pub anchor: Vec<u8>,
}

const MAKER: &str = "lodge";
const VERSION: (u8, u8) = (2, 8);
/// "None known": of strings, and of handles.
const NO_STRING: u8 = 0;
const NO_HANDLE: u16 = 0xffff;
const NO_ERRORS: u16 = 0xfffe;
const UNKNOWN: u8 = 2;

/// Types of structures (6.3).
mod kind {
    pub const SYSTEM: u8 = 1;
    pub const ENCLOSURE: u8 = 3;
    pub const PROCESSOR: u8 = 4;
    pub const MEMORY_ARRAY: u8 = 16;
    pub const MEMORY_DEVICE: u8 = 17;
    pub const MEMORY_ADDRESSES: u8 = 19;
    pub const BOOT: u8 = 32;
    pub const END: u8 = 127;
}

/// Structures, one behind the other.
#[derive(Default)]
struct Structures {
    bytes: Vec<u8>,
    count: u16,
    largest: usize,
}

impl Structures {
    /// Adds a structure: its fields behind the header, and its strings, which fields number from 1 on.
    fn add(&mut self, kind: u8, handle: u16, fields: &[&[u8]], strings: &[&str]) {
        let start = self.bytes.len();
        let length = 4 + fields.iter().map(|field| field.len()).sum::<usize>();
        self.bytes.extend([kind, length as u8]);
        self.bytes.extend(handle.to_le_bytes());
        fields.iter().for_each(|field| self.bytes.extend(*field));
        for string in strings {
            self.bytes.extend(string.bytes().filter(|byte| *byte != 0));
            self.bytes.push(0);
        }
        if strings.is_empty() {
            self.bytes.push(0);
        }
        self.bytes.push(0);
        self.count += 1;
        self.largest = self.largest.max(self.bytes.len() - start);
    }
}

/// Handles: the type in the upper byte, as other virtual machines number theirs.
const fn handle(kind: u8, number: u16) -> u16 {
    (kind as u16) << 8 | number
}

/// Makes the tables.
pub fn build(description: &Description) -> Smbios {
    let mut structures = Structures::default();
    system(&mut structures, description);
    for socket in 0..description.vcpus.min(255) {
        processor(&mut structures, socket as u16, description.processor_id);
    }
    memory(&mut structures, description);
    // No errors in booting (7.33).
    structures.add(kind::BOOT, handle(kind::BOOT, 0), &[&[0; 6], &[0]], &[]);
    structures.add(kind::END, handle(kind::END, 0), &[], &[]);
    Smbios { anchor: anchor(&structures), tables: structures.bytes }
}

/// System and enclosure (7.2, 7.4).
fn system(structures: &mut Structures, description: &Description) {
    const POWER_SWITCH: u8 = 6;
    const OTHER: u8 = 1;
    const SAFE: u8 = 3;
    let product = "Standard PC (i440FX + PIIX)";
    let strings = [MAKER, product, &description.machine];
    let fields: [&[u8]; 3] = [&[1, 2, 3, NO_STRING], &description.uuid, &[POWER_SWITCH, NO_STRING, NO_STRING]];
    structures.add(kind::SYSTEM, handle(kind::SYSTEM, 0), &fields, &strings);
    let states = [SAFE, SAFE, SAFE, UNKNOWN];
    let fields: [&[u8]; 4] = [&[1, OTHER, 2, NO_STRING, NO_STRING], &states, &[0; 4], &[0; 4]];
    structures.add(kind::ENCLOSURE, handle(kind::ENCLOSURE, 0), &fields, &[MAKER, &description.machine]);
}

/// A processor in its socket (7.5).
fn processor(structures: &mut Structures, socket: u16, id: [u32; 2]) {
    const CENTRAL: u8 = 3;
    const OTHER: u8 = 1;
    const POPULATED_AND_ENABLED: u8 = 0x41;
    const IS_64_BIT: u16 = 1 << 2;
    let name = format!("CPU {socket}");
    let fields: [&[u8]; 10] = [
        &[1, CENTRAL, OTHER, 2],
        &id[0].to_le_bytes(),
        &id[1].to_le_bytes(),
        // Version, voltage; external, highest and current clock are not known.
        &[3, 0, 0, 0, 0, 0, 0, 0],
        &[POPULATED_AND_ENABLED, OTHER],
        &NO_HANDLE.to_le_bytes().repeat(3),
        &[NO_STRING; 3],
        // Cores, of which so many work, with so many threads.
        &[1, 1, 1],
        &IS_64_BIT.to_le_bytes(),
        &u16::from(OTHER).to_le_bytes(),
    ];
    structures.add(kind::PROCESSOR, handle(kind::PROCESSOR, socket), &fields, &[&name, MAKER, "virtual"]);
}

/// The memory array, its one device, and where that is mapped (7.17, 7.18, 7.20).
fn memory(structures: &mut Structures, description: &Description) {
    const MIB: u64 = 1 << 20;
    const SYSTEM_BOARD: u8 = 3;
    const SYSTEM_MEMORY: u8 = 3;
    const NO_CORRECTION: u8 = 3;
    const ELSEWHERE: u32 = 0x8000_0000;
    const DIMM: u8 = 9;
    const RAM: u8 = 7;
    const OTHER: u16 = 1 << 1;
    let bytes = description.memory_below_4g + description.memory_above_4g;
    let array = handle(kind::MEMORY_ARRAY, 0);
    let fields: [&[u8]; 5] = [
        &[SYSTEM_BOARD, SYSTEM_MEMORY, NO_CORRECTION],
        &ELSEWHERE.to_le_bytes(),
        &NO_ERRORS.to_le_bytes(),
        &1u16.to_le_bytes(),
        &bytes.to_le_bytes(),
    ];
    structures.add(kind::MEMORY_ARRAY, array, &fields, &[]);
    let mib = bytes / MIB;
    // Sizes from 32 GiB on are in a field of their own.
    let small = u16::try_from(mib).ok().filter(|mib| *mib < 0x7fff).unwrap_or(0x7fff);
    let large = if small == 0x7fff { mib as u32 & 0x7fff_ffff } else { 0 };
    let fields: [&[u8]; 12] = [
        &array.to_le_bytes(),
        &NO_ERRORS.to_le_bytes(),
        // Widths are not known.
        &[0xff; 4],
        &small.to_le_bytes(),
        &[DIMM, 0, 1, NO_STRING, RAM],
        &OTHER.to_le_bytes(),
        // Speed.
        &[0; 2],
        &[2, NO_STRING, NO_STRING, NO_STRING, 0],
        &large.to_le_bytes(),
        // Speed as configured; voltages.
        &[0; 2],
        &[0; 4],
        &[0; 2],
    ];
    structures.add(kind::MEMORY_DEVICE, handle(kind::MEMORY_DEVICE, 0), &fields, &["DIMM 0", MAKER]);
    let above = (1 << 32, description.memory_above_4g);
    let ranges = [(0, description.memory_below_4g), above];
    for (number, (start, length)) in (0..).zip(ranges.into_iter().filter(|(_, length)| *length > 0)) {
        let (first, last) = (start, start + length - 1);
        let fits = last / 1024 < u64::from(u32::MAX);
        // In KiB, or in bytes further down.
        let near = |address: u64| if fits { (address / 1024) as u32 } else { u32::MAX };
        let far = |address: u64| if fits { 0 } else { address };
        let fields: [&[u8]; 6] = [
            &near(first).to_le_bytes(),
            &near(last).to_le_bytes(),
            &array.to_le_bytes(),
            &[1],
            &far(first).to_le_bytes(),
            &far(last).to_le_bytes(),
        ];
        structures.add(kind::MEMORY_ADDRESSES, handle(kind::MEMORY_ADDRESSES, number), &fields, &[]);
    }
}

/// The entry point (5.2.1); firmware fills in where the structures are.
fn anchor(structures: &Structures) -> Vec<u8> {
    const LENGTH: usize = 31;
    const SECOND: usize = 16;
    let mut bytes = vec![0; LENGTH];
    bytes[..4].copy_from_slice(b"_SM_");
    bytes[5] = LENGTH as u8;
    (bytes[6], bytes[7]) = VERSION;
    bytes[8..10].copy_from_slice(&(structures.largest as u16).to_le_bytes());
    bytes[SECOND..SECOND + 5].copy_from_slice(b"_DMI_");
    bytes[22..24].copy_from_slice(&(structures.bytes.len() as u16).to_le_bytes());
    bytes[28..30].copy_from_slice(&structures.count.to_le_bytes());
    bytes[30] = VERSION.0 << 4 | VERSION.1;
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    bytes[21] = sum(&bytes[SECOND..]);
    bytes[4] = sum(&bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Description {
        Description {
            machine: "pc-1".into(),
            uuid: [7; 16],
            vcpus: 2,
            memory_below_4g: 3 << 30,
            memory_above_4g: 61 << 30,
            processor_id: [0x00a2_0f12, 0x178b_fbff],
        }
    }

    /// Type, length, formatted part and strings of each structure.
    fn parse(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>, Vec<String>)> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (formatted, rest) = bytes.split_at(bytes[1].into());
            let end = rest.windows(2).position(|pair| pair == [0, 0]).unwrap();
            let strings = rest[..end].split(|byte| *byte == 0).filter(|string| !string.is_empty());
            let strings = strings.map(|string| String::from_utf8(string.to_vec()).unwrap()).collect();
            all.push((formatted[0], formatted.to_vec(), strings));
            bytes = &rest[end + 2..];
        }
        all
    }

    #[test]
    fn structures_have_the_lengths_of_version_2_8() {
        let smbios = build(&description());
        let lengths: Vec<_> = parse(&smbios.tables).iter().map(|(kind, part, _)| (*kind, part.len())).collect();
        let expected = [
            (1, 0x1b),
            (3, 0x15),
            (4, 0x2a),
            (4, 0x2a),
            (16, 0x17),
            (17, 0x28),
            (19, 0x1f),
            (19, 0x1f),
            (32, 0x0b),
            (127, 4),
        ];
        assert_eq!(lengths, expected);
    }

    #[test]
    fn fields_are_where_they_belong() {
        let all = parse(&build(&description()).tables);
        let of = |kind: u8| all.iter().find(|(other, ..)| *other == kind).unwrap();
        let (_, system, strings) = of(1);
        assert_eq!((&system[8..24], system[24]), (&[7; 16][..], 6));
        assert_eq!(strings[..], ["lodge", "Standard PC (i440FX + PIIX)", "pc-1"]);
        let (_, processor, _) = of(4);
        assert_eq!(processor[8..16], [0x12, 0x0f, 0xa2, 0, 0xff, 0xfb, 0x8b, 0x17]);
        assert_eq!((processor[0x18], &processor[0x23..0x26]), (0x41, &[1, 1, 1][..]));
        let (_, array, _) = of(16);
        assert_eq!(array[15..23], (64u64 << 30).to_le_bytes());
        let (_, device, _) = of(17);
        assert_eq!((&device[12..14], &device[28..32]), (&[0xff, 0x7f][..], &(64u32 << 10).to_le_bytes()[..]));
        let addresses: Vec<_> = all.iter().filter(|(kind, ..)| *kind == 19).map(|(_, part, _)| &part[4..12]).collect();
        assert_eq!(addresses[0], [0, 0, 0, 0, 0xff, 0xff, 0x2f, 0]);
        assert_eq!(addresses[1], [0, 0, 0x40, 0, 0xff, 0xff, 0x0f, 0x04]);
        let handles: std::collections::BTreeSet<_> = all.iter().map(|(_, part, _)| [part[2], part[3]]).collect();
        assert_eq!(handles.len(), all.len(), "each has its own");
    }

    #[test]
    fn the_entry_point_adds_up() {
        let smbios = build(&description());
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((sum(&smbios.anchor), sum(&smbios.anchor[16..])), (0, 0));
        assert_eq!(usize::from(u16::from_le_bytes([smbios.anchor[22], smbios.anchor[23]])), smbios.tables.len());
        assert_eq!(u16::from_le_bytes([smbios.anchor[28], smbios.anchor[29]]), 10);
    }
}
