//! Small images, laid out by the specifications rather than by what reads them.

use std::collections::BTreeMap;

const SECTOR: usize = 2048;

/// Where long names are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    #[default]
    RockRidge,
    Joliet,
}

/// An ISO 9660 image with files in up to one directory below the root.
#[derive(Default)]
pub struct IsoImage {
    pub label: String,
    pub system: String,
    pub names: Names,
    /// Platforms of El Torito's entries.
    pub boot: Vec<u8>,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl IsoImage {
    pub fn add(&mut self, path: &str, data: &[u8]) {
        self.files.insert(path.into(), data.to_vec());
    }

    pub fn build(&self) -> Vec<u8> {
        let mut image = vec![0; 24 * SECTOR];
        // Files, then directories, those below first; the root of the primary tree is the last.
        let mut places = BTreeMap::new();
        for (path, data) in &self.files {
            places.insert(path.clone(), (append(&mut image, data), data.len()));
        }
        let wide = self.names == Names::Joliet;
        let joliet = wide.then(|| self.tree(&mut image, &places, true));
        let root = self.tree(&mut image, &places, false);
        let mut sector = 16;
        let blocks = image.len() / SECTOR;
        let mut descriptor = |kind: u8, fill: &dyn Fn(&mut [u8])| {
            let at = &mut image[sector * SECTOR..(sector + 1) * SECTOR];
            at[0] = kind;
            at[1..7].copy_from_slice(b"CD001\x01");
            fill(at);
            sector += 1;
        };
        let volume = |at: &mut [u8], root: (usize, usize)| {
            padded(&mut at[8..40], &self.system);
            padded(&mut at[40..72], &self.label);
            at[80..84].copy_from_slice(&(blocks as u32).to_le_bytes());
            at[128..130].copy_from_slice(&(SECTOR as u16).to_le_bytes());
            at[156..190].copy_from_slice(&record(b"\0", root, true, &[]));
        };
        descriptor(1, &|at| volume(at, root));
        if !self.boot.is_empty() {
            descriptor(0, &|at| {
                at[7..30].copy_from_slice(b"EL TORITO SPECIFICATION");
                at[0x47] = 23;
            });
        }
        if let Some(root) = joliet {
            descriptor(2, &|at| {
                volume(at, root);
                at[88..91].copy_from_slice(b"%/E");
            });
        }
        descriptor(255, &|_| {});
        // El Torito: a validation entry, the default one, and a section for each more.
        let mut catalogue = Vec::new();
        for (number, platform) in self.boot.iter().enumerate() {
            let header = if number == 0 { 1 } else { 0x91 };
            catalogue.extend([[header, *platform].as_slice(), &[0; 30], &[0x88], &[0; 31]].concat());
        }
        image[23 * SECTOR..23 * SECTOR + catalogue.len()].copy_from_slice(&catalogue);
        image
    }

    fn tree(&self, image: &mut Vec<u8>, places: &BTreeMap<String, (usize, usize)>, wide: bool) -> (usize, usize) {
        let entry = |name: &str, place: (usize, usize), directory: bool, number: usize| {
            if wide {
                let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_be_bytes).collect();
                return record(&units, place, directory, &[]);
            }
            // Names of the primary tree are short; Rock Ridge has the long ones.
            let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_') && name.len() <= 12;
            let own = if fits { name.to_uppercase() } else { format!("F{number:07}") };
            let own = if directory { own } else { format!("{own};1") };
            let mut rock_ridge = Vec::new();
            if self.names == Names::RockRidge {
                rock_ridge.extend([b'N', b'M', 5 + name.len() as u8, 1, 0]);
                rock_ridge.extend(name.as_bytes());
            }
            record(own.as_bytes(), place, directory, &rock_ridge)
        };
        let mut root = Vec::new();
        let mut below: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for (number, (path, place)) in places.iter().enumerate() {
            match path.split_once('/') {
                Some((directory, name)) => {
                    below.entry(directory).or_default().extend(entry(name, *place, false, number));
                }
                None => root.extend(entry(path, *place, false, number)),
            }
        }
        for (number, (name, records)) in below.iter().enumerate() {
            let place = (append(image, records), SECTOR);
            root.extend(entry(name, place, true, 1000 + number));
        }
        (append(image, &root), SECTOR)
    }
}

/// A directory record (ECMA-119, 9.1).
fn record(name: &[u8], (extent, length): (usize, usize), directory: bool, system_use: &[u8]) -> Vec<u8> {
    let mut this = vec![0; 33];
    this[2..6].copy_from_slice(&(extent as u32).to_le_bytes());
    this[10..14].copy_from_slice(&(length as u32).to_le_bytes());
    this[25] = if directory { 2 } else { 0 };
    this[32] = name.len() as u8;
    this.extend(name);
    if this.len() % 2 == 1 {
        this.push(0);
    }
    this.extend(system_use);
    if this.len() % 2 == 1 {
        this.push(0);
    }
    this[0] = this.len() as u8;
    this
}

fn padded(field: &mut [u8], text: &str) {
    field.fill(b' ');
    field[..text.len()].copy_from_slice(text.as_bytes());
}

/// Puts data at an image's end; the sector that they begin at.
fn append(image: &mut Vec<u8>, data: &[u8]) -> usize {
    let sector = image.len() / SECTOR;
    image.extend(data);
    image.resize((sector + data.len().div_ceil(SECTOR).max(1)) * SECTOR, 0);
    sector
}

/// A descriptor of UDF with its tag (ECMA-167, 3/7.2).
fn tagged(identifier: u16, body: &[(usize, &[u8])]) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    for (at, bytes) in body {
        sector[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    sector[..2].copy_from_slice(&identifier.to_le_bytes());
    sector[2] = 2;
    sector[4] = sector[..16].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    sector
}

/// Adds a UDF volume with files, each given by its directory, name and data, to an ISO image.
pub fn udf(mut image: Vec<u8>, label: &str, files: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let word = |value: usize| (value as u32).to_le_bytes();
    let after_iso = (16..).find(|sector| image[sector * SECTOR..][1..6] != *b"CD001").unwrap();
    for (number, name) in [b"BEA01", b"NSR02", b"TEA01"].iter().enumerate() {
        image[(after_iso + number) * SECTOR + 1..][..5].copy_from_slice(*name);
    }
    // The anchor and the descriptors that it leads to; the partition begins behind them.
    image.resize(image.len().max(256 * SECTOR), 0);
    image.resize(image.len().next_multiple_of(SECTOR), 0);
    let first = if image.len() / SECTOR == 256 { 257 } else { image.len() / SECTOR };
    image.resize((first + 3) * SECTOR, 0);
    image[256 * SECTOR..][..SECTOR].copy_from_slice(&tagged(2, &[(16, &word(3 * SECTOR)), (20, &word(first))]));
    let partition = first + 3;
    let named: Vec<u8> = [&[8], label.as_bytes()].concat();
    let volume = tagged(
        6,
        &[
            (84, &named),
            (211, &[named.len() as u8]),
            (212, &word(SECTOR)),
            (252, &word(0)),
            (268, &word(1)),
            (440, &[1, 6]),
        ],
    );
    for (number, descriptor) in [tagged(5, &[(188, &word(partition))]), volume, tagged(8, &[])].iter().enumerate() {
        image[(first + number) * SECTOR..][..SECTOR].copy_from_slice(descriptor);
    }
    let mut blocks = vec![0; SECTOR];
    let mut root = Vec::new();
    for (directory, name, data) in files {
        let data_at = append(&mut blocks, data);
        // A file of a long allocation descriptor, a directory of a short one.
        let file = tagged(261, &entry(5, 1, data.len(), &[&word(data.len())[..], &word(data_at), &[0; 8]].concat()));
        let file_at = append(&mut blocks, &file);
        let listing = [identifier("", 8, 0), identifier(name, 0, file_at)].concat();
        let listing_at = append(&mut blocks, &listing);
        let directory_ = tagged(261, &entry(4, 0, listing.len(), &[word(listing.len()), word(listing_at)].concat()));
        let directory_at = append(&mut blocks, &directory_);
        root.extend(identifier(directory, 2, directory_at));
    }
    // The root is embedded in its entry.
    let root_at = append(&mut blocks, &tagged(261, &entry(4, 3, root.len(), &root)));
    blocks[..SECTOR].copy_from_slice(&tagged(256, &[(404, &word(root_at))]));
    image.extend(blocks);
    image
}

/// A file entry's body (ECMA-167, 4/14.9).
fn entry(kind: u8, told: u8, length: usize, descriptors: &[u8]) -> Vec<(usize, &'static [u8])> {
    let leak = |bytes: &[u8]| -> &'static [u8] { Box::leak(bytes.to_vec().into_boxed_slice()) };
    vec![
        (27, leak(&[kind])),
        (34, leak(&[told, 0])),
        (56, leak(&(length as u64).to_le_bytes())),
        (172, leak(&(descriptors.len() as u32).to_le_bytes())),
        (176, leak(descriptors)),
    ]
}

/// A file identifier descriptor (ECMA-167, 4/14.4).
fn identifier(name: &str, characteristics: u8, block: usize) -> Vec<u8> {
    let own: Vec<u8> = if name.is_empty() { Vec::new() } else { [&[8], name.as_bytes()].concat() };
    let body: [(usize, &[u8]); 3] =
        [(18, &[characteristics, own.len() as u8]), (24, &(block as u32).to_le_bytes()), (38, &own)];
    let mut this = tagged(257, &body);
    this.truncate((38 + own.len()).next_multiple_of(4));
    this
}

/// The header and description of a Windows image.
pub fn windows_image(build: &str, product: &str) -> Vec<u8> {
    let text = format!(
        "\u{feff}<WIM><IMAGE INDEX=\"1\"><WINDOWS><ARCH>9</ARCH><EDITIONID>Standard</EDITIONID><PRODUCTTYPE>{product}\
         </PRODUCTTYPE><VERSION><MAJOR>10</MAJOR><BUILD>{build}</BUILD></VERSION></WINDOWS></IMAGE></WIM>"
    );
    let text: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut image = vec![0; 4096];
    image[..8].copy_from_slice(b"MSWIM\0\0\0");
    image[72..80].copy_from_slice(&(text.len() as u64 | 2 << 56).to_le_bytes());
    image[80..88].copy_from_slice(&4096u64.to_le_bytes());
    image.extend(text);
    image
}

/// A floppy of 1440 KiB.
pub fn floppy(oem: &str, label: &str, boot: &[u8], names: &[&str]) -> Vec<u8> {
    let mut image = vec![0; 1440 << 10];
    image[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
    padded(&mut image[3..11], oem);
    for (at, value) in [(11, 512u16), (14, 1), (16, 2), (17, 224), (22, 9)] {
        image[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    image[100..100 + boot.len()].copy_from_slice(boot);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    let root = (1 + 2 * 9) * 512;
    let mut entries = Vec::new();
    if !label.is_empty() {
        entries.push((label.to_owned(), 8));
    }
    for name in names {
        let (name, extension) = name.split_once('.').unwrap_or((name, ""));
        entries.push((format!("{name:8}{extension:3}"), 0x20));
    }
    for (number, (name, attributes)) in entries.iter().enumerate() {
        let at = root + number * 32;
        padded(&mut image[at..at + 11], name);
        image[at + 11] = *attributes;
    }
    image
}
