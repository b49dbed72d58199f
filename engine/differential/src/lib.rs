//! Random instructions on the host's processor and under an engine must leave the same.
//!
//! The host has the guest's architecture, so it is the oracle. A [`generate::Generator`] makes cases: a state and one
//! to twelve instructions. [`native`] runs them in a forked child, [`guest`] as a guest's program at CPL 3, both from
//! the same linear addresses and over the same data. [`compare`] holds the ends against each other: registers, flags,
//! x87, MMX, SSE and AVX state, memory, and the exception with its error code, address and instruction pointer.
//! [`Tester`] drives all three in batches and shortens what differs to the first instructions that suffice.
//!
//! Neighbours: [`exclusions`] says what is left out and why; engines come by `lodge_engine_api` alone.

pub mod compare;
pub mod exclusions;
pub mod flags;
pub mod generate;
pub mod guest;
pub mod layout;
pub mod native;
mod operands;
pub mod random;
mod sequences;

use std::collections::BTreeMap;
use std::fmt;

use lodge_engine_api::{Engine, Mirroring};

use generate::{Case, Generator};
use guest::{Guest, GuestError};
use layout::{BATCH, CODE, CODE_BYTES, DATA_BYTES, Record, SLOT};
use native::Native;

/// Why testing cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The native side.
    #[error("the native side fails: {0}")]
    Native(#[from] std::io::Error),
    /// The engine's side.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// A case that differs.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// The number of the case since the seed.
    pub number: u64,
    /// Its instructions.
    pub listing: Vec<String>,
    /// The registers at the beginning.
    pub inputs: Vec<String>,
    /// What differs.
    pub differences: Vec<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "case {}:", self.number)?;
        for line in self.listing.iter().chain(&self.inputs) {
            writeln!(f, "    {line}")?;
        }
        for line in &self.differences {
            writeln!(f, "  * {line}")?;
        }
        Ok(())
    }
}

/// What was tested.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Cases run on both sides.
    pub cases: u64,
    /// How they ended natively: vector, and how often.
    pub endings: BTreeMap<u64, u64>,
    /// Cases that the native side could not run.
    pub skipped: u64,
}

/// Runs random cases on both sides.
pub struct Tester<'a> {
    engine: &'a dyn Engine,
    mirroring: Mirroring,
    generator: Generator,
    native: Native,
    guest: Guest,
    summary: Summary,
    code: Vec<u8>,
}

impl<'a> Tester<'a> {
    /// With a seed, on an engine that may mirror programs' memory or not.
    ///
    /// # Errors
    ///
    /// The host or the engine refuses.
    pub fn new(engine: &'a dyn Engine, mirroring: Mirroring, seed: u64) -> Result<Self, Error> {
        Ok(Self {
            engine,
            mirroring,
            generator: Generator::new(seed),
            native: Native::new()?,
            guest: Guest::new(engine, mirroring)?,
            summary: Summary::default(),
            code: vec![layout::INT3; CODE_BYTES],
        })
    }

    /// What was tested so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Instruction codes that cases draw from.
    pub fn codes(&self) -> usize {
        self.generator.codes()
    }

    /// Runs a batch of random cases; what differs.
    ///
    /// # Errors
    ///
    /// A side cannot go on.
    pub fn batch(&mut self) -> Result<Vec<Mismatch>, Error> {
        let first = self.summary.cases;
        let template = self.generator.data();
        let mut cases: Vec<Case> = (0..BATCH).map(|n| self.generator.case(address(n))).collect();
        let mut found = Vec::new();
        let different = self.run(&mut cases, &template, true)?;
        for (number, differences) in different {
            let case = cases[number].clone();
            found.push(self.shorten(first + number as u64, number, case, &template, differences)?);
        }
        self.summary.cases += BATCH as u64;
        Ok(found)
    }

    /// Runs cases that have their places; the numbers of those that differ, and how.
    fn run(&mut self, cases: &mut [Case], template: &[u8], count: bool) -> Result<Vec<(usize, Vec<String>)>, Error> {
        self.code.fill(layout::INT3);
        for (n, case) in cases.iter_mut().enumerate() {
            let bytes = case.bytes();
            self.code[n * SLOT..n * SLOT + bytes.len()].copy_from_slice(&bytes);
            case.input.set(Record::RIP, address(n));
        }
        let inputs: Vec<Record> = cases.iter().map(|case| case.input).collect();
        self.native.prepare(&self.code, template, &inputs);
        self.native.start()?;
        let engine = self.guest.run(&self.code, template, &inputs);
        if let Some(number) = self.native.finish()? {
            self.summary.skipped += (cases.len() - number) as u64;
            return Ok(Vec::new());
        }
        match engine {
            Ok(()) => {}
            Err(GuestError::Crash { case, text }) => {
                self.guest = Guest::new(self.engine, self.mirroring)?;
                return Ok(vec![(case.min(cases.len() - 1), vec![text])]);
            }
            Err(error) => return Err(error.into()),
        }
        let mut different = Vec::new();
        let (mut record, mut data) = (Record::new(), vec![0; DATA_BYTES]);
        for (n, case) in cases.iter().enumerate() {
            self.guest.result(n, &mut record, &mut data)?;
            let native = self.native.result(n);
            if count {
                *self.summary.endings.entry(native.0.get(Record::VECTOR)).or_default() += 1;
            }
            if same(native, (&record, &data)) {
                continue;
            }
            let mut differences = compare::differences(&case.instructions(address(n)), native, (&record, &data));
            if !differences.is_empty() {
                let (record, _) = native;
                differences.push(format!(
                    "natively vector {} at {:#x}",
                    record.get(Record::VECTOR),
                    record.get(Record::RIP)
                ));
                different.push((n, differences));
            }
        }
        Ok(different)
    }

    /// Finds the fewest first instructions that still differ.
    fn shorten(
        &mut self,
        number: u64,
        place: usize,
        case: Case,
        template: &[u8],
        mut differences: Vec<String>,
    ) -> Result<Mismatch, Error> {
        let mut shortest = case.clone();
        for count in 1..case.starts.len() {
            // At the same place, for operands relative to it.
            let prefix = case.prefix(count);
            let empty = Case { code: Vec::new(), starts: Vec::new(), input: case.input };
            let mut cases = vec![empty; place];
            cases.push(prefix.clone());
            let different = self.run(&mut cases, template, false)?;
            if let Some((_, found)) = different.into_iter().find(|(n, _)| *n == place) {
                shortest = prefix;
                differences = found;
                break;
            }
        }
        Ok(describe(number, address(place), &shortest, differences))
    }
}

/// Where a case's code lies.
fn address(number: usize) -> u64 {
    CODE + (number * SLOT) as u64
}

/// Whether two ends are alike to the last byte that is compared, quickly.
fn same(native: (&Record, &[u8]), engine: (&Record, &[u8])) -> bool {
    let (n, e) = (native.0, engine.0);
    let plain = n.0[..Record::CR2] == e.0[..Record::CR2];
    let (a, b) = (n.xsave(), e.xsave());
    plain
        && n.get(Record::VECTOR) == 3
        && a[512] & 7 == b[512] & 7
        && a[..5] == b[..5]
        && a[24..28] == b[24..28]
        && a[32..416] == b[32..416]
        && a[576..] == b[576..]
        && native.1 == engine.1
}

fn describe(number: u64, address: u64, case: &Case, differences: Vec<String>) -> Mismatch {
    use iced_x86::{Formatter, IntelFormatter};
    let mut formatter = IntelFormatter::new();
    let listing = case
        .instructions(address)
        .iter()
        .map(|instruction| {
            let mut text = String::new();
            formatter.format(instruction, &mut text);
            let at = (instruction.ip() - address) as usize;
            let bytes: String =
                case.code[at..at + instruction.len()].iter().map(|byte| format!("{byte:02x} ")).collect();
            format!("{:#x}: {bytes:<32} {text}", instruction.ip())
        })
        .collect();
    let input = &case.input;
    const NAMES: [&str; 16] =
        ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"];
    let registers: Vec<String> =
        NAMES.iter().enumerate().map(|(n, name)| format!("{name}={:#x}", input.gpr(n))).collect();
    let area = input.xsave();
    let inputs = vec![
        registers.join(" "),
        format!(
            "RFLAGS={:#x} FCW={:02x}{:02x} FSW={:02x}{:02x} MXCSR={:02x?}",
            input.get(Record::RFLAGS),
            area[1],
            area[0],
            area[3],
            area[2],
            &area[24..28]
        ),
    ];
    Mismatch { number, listing, inputs, differences }
}
