//! What a case is: a guest of a few instructions, the state that it begins with, and what must be true at its end.
//!
//! A case begins in its mode at [`layout::CODE`] and ends with the first vector that has no handler of its own; the
//! harness appends `int 0xff`, so the ending of a case that goes well is vector 0xff. Everything that a case does not
//! mention must come out as it went in: all general-purpose registers, and no accesses to ports or MMIO.

use std::fmt;

use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use lodge_engine_api::{Event, GuestMemory, MemoryChange};
use lodge_x86::descriptor::Gate;
use lodge_x86::{CpuState, Gpr};

use crate::layout;

/// The mode that a case begins in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Real mode.
    Real16,
    /// Virtual-8086 mode, IOPL 3 unless the case changes it.
    V86,
    /// Protected mode, 16-bit segments.
    Protected16,
    /// Protected mode, flat 32-bit segments.
    Protected32,
    /// Long mode, flat 32-bit segments.
    Compat32,
    /// Long mode, 64-bit code.
    Long64,
}

impl Mode {
    /// Width of code.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Real16 | Self::V86 | Self::Protected16 => 16,
            Self::Protected32 | Self::Compat32 => 32,
            Self::Long64 => 64,
        }
    }

    /// Whether EFER.LMA is set.
    pub const fn is_long(self) -> bool {
        matches!(self, Self::Compat32 | Self::Long64)
    }

    /// What to subtract from a linear address in the code for an offset in CS.
    pub const fn code_base(self) -> u64 {
        if self.bits() == 16 { layout::CODE } else { 0 }
    }

    /// Offset of [`layout::DATA`] in DS.
    pub const fn data(self) -> u64 {
        if self.bits() == 16 { 0 } else { layout::DATA }
    }

    /// What a case's stack pointer is at first.
    pub const fn stack(self) -> u64 {
        if self.bits() == 16 { layout::STACK - layout::STACKS } else { layout::STACK }
    }
}

/// How linear addresses are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// Not at all.
    None,
    /// Two levels.
    Bits32,
    /// Three levels.
    Pae,
    /// Four levels.
    FourLevel,
}

/// A mapping besides the board's own.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// The address space, 0 or 1.
    pub space: usize,
    /// Where.
    pub linear: u64,
    /// To where.
    pub physical: u64,
    /// The entry's other bits; `P` is not implied.
    pub bits: u64,
    /// 1: 4 KiB; 2: 2 or 4 MiB; 3: 1 GiB.
    pub level: u32,
}

/// Names an entry of the page tables.
#[derive(Clone, Copy, Debug)]
pub struct EntryName {
    /// The address space, 0 or 1.
    pub space: usize,
    /// A linear address that it translates.
    pub linear: u64,
    /// Its level: 1 is the lowest.
    pub level: u32,
}

/// Names a place in the case's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind the appended `int 0xff`.
    End,
    /// The beginning of the code's nth instruction.
    Instruction(usize),
    /// An offset in CS.
    Offset(u64),
    /// Not looked at.
    Any,
}

/// How a case ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a vector that has no handler of the case's own.
    Vector {
        /// The vector.
        vector: u8,
        /// The error code that was pushed.
        error: Option<u32>,
        /// The saved instruction pointer.
        rip: Place,
    },
    /// With a write to [`layout::port::STOP`] by the case itself.
    Stop,
    /// With a HLT, which nothing ends.
    Halt,
    /// With a triple fault.
    TripleFault,
}

/// An access to a port or to MMIO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// IN: port, bytes.
    PortRead(u16, usize),
    /// OUT: port, bytes, value.
    PortWrite(u16, usize, u32),
    /// MMIO: address, bytes.
    MmioRead(u64, usize),
    /// MMIO: address, data.
    MmioWrite(u64, Vec<u8>),
}

/// What a handler's stack held when a case ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The error code.
    pub error: Option<u32>,
    /// The saved instruction pointer.
    pub rip: u64,
    /// The saved CS.
    pub cs: u16,
    /// The saved flags.
    pub rflags: u64,
    /// The saved stack pointer, or what it was.
    pub rsp: u64,
    /// The saved SS, or the SS in use.
    pub ss: u16,
}

/// A case at its end, for checks of its own.
pub struct End<'a> {
    /// The processor in the handler.
    pub state: &'a CpuState,
    /// What it was before, if a vector ended the case.
    pub frame: Frame,
    /// Guest memory.
    pub memory: &'a GuestMemory,
}

type Assemble = Box<dyn Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync>;
type Tweak = Box<dyn Fn(&mut CpuState) + Send + Sync>;
type Check = Box<dyn Fn(&End<'_>) -> Result<(), String> + Send + Sync>;

/// Code in a case.
pub struct Chunk {
    /// Where it lies.
    pub linear: u64,
    /// Where it is assembled for.
    pub offset: u64,
    /// Its width.
    pub bits: u32,
    /// Makes it.
    pub assemble: Assemble,
}

/// What a case changes about a gate.
pub type GateChange = fn(&mut Gate);

/// A case. Made by [`Case::new`] and the methods that follow it.
pub struct Case {
    /// Its name, unique in the suite.
    pub name: String,
    /// The mode that it begins in.
    pub mode: Mode,
    /// How linear addresses are translated.
    pub paging: Paging,
    /// The privilege level that it begins at, 0 or 3.
    pub cpl: u8,
    /// The code; the first chunk is where it begins.
    pub chunks: Vec<Chunk>,
    /// Registers at the beginning that differ from the board's.
    pub registers: Vec<(Gpr, u64)>,
    /// Changes of the whole state at the beginning.
    pub tweaks: Vec<Tweak>,
    /// Bytes in physical memory.
    pub pokes: Vec<(u64, Vec<u8>)>,
    /// Mappings.
    pub maps: Vec<Mapping>,
    /// Changes of entries: bits to clear, bits to set.
    pub entries: Vec<(EntryName, u64, u64)>,
    /// Gates: the vector, what to change; the offset is that of a place in the code where one is given.
    pub gates: Vec<(u8, Option<Place>, GateChange)>,
    /// Processors.
    pub vcpus: u32,
    /// Events by number: for which processor, and what.
    pub events: Vec<(u32, Event)>,
    /// Changes of memory by number.
    pub changes: Vec<MemoryChange>,
    /// How many of the events are pending at the beginning.
    pub pending: usize,
    /// An event that comes by itself, after the processor has run for a while.
    pub late: Option<usize>,
    /// One that comes when processor 0 halts.
    pub at_halt: Option<usize>,
    /// How it ends.
    pub ending: Ending,
    /// CR2 at the end.
    pub cr2: Option<u64>,
    /// Registers at the end that differ from the beginning; `None`: not looked at.
    pub expected: Vec<(Gpr, Option<u64>)>,
    /// Flags at the end: mask, value.
    pub flags: (u64, u64),
    /// Memory at the end.
    pub memory: Vec<(u64, Vec<u8>)>,
    /// Page-table entries at the end: mask, value.
    pub entries_after: Vec<(EntryName, u64, u64)>,
    /// Accesses, in order.
    pub log: Vec<Access>,
    /// More that must be true.
    pub checks: Vec<Check>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Case {
    /// A case at CPL 0 (in virtual-8086 mode 3), with paging in long mode only.
    pub fn new(
        mode: Mode,
        name: impl Into<String>,
        assemble: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static,
    ) -> Self {
        let chunk = Chunk {
            linear: layout::CODE,
            offset: layout::CODE - mode.code_base(),
            bits: mode.bits(),
            assemble: Box::new(assemble),
        };
        Self {
            name: name.into(),
            mode,
            paging: if mode.is_long() { Paging::FourLevel } else { Paging::None },
            cpl: if mode == Mode::V86 { 3 } else { 0 },
            chunks: vec![chunk],
            registers: Vec::new(),
            tweaks: Vec::new(),
            pokes: Vec::new(),
            maps: Vec::new(),
            entries: Vec::new(),
            gates: Vec::new(),
            vcpus: 1,
            events: Vec::new(),
            changes: Vec::new(),
            pending: 0,
            late: None,
            at_halt: None,
            ending: Ending::Vector { vector: layout::END, error: None, rip: Place::End },
            cr2: None,
            expected: Vec::new(),
            flags: (0, 0),
            memory: Vec::new(),
            entries_after: Vec::new(),
            log: Vec::new(),
            checks: Vec::new(),
        }
    }

    /// 64-bit code.
    pub fn long(
        name: &str,
        assemble: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static,
    ) -> Self {
        Self::new(Mode::Long64, name, assemble)
    }

    /// Flat 32-bit code without paging.
    pub fn flat(
        name: &str,
        assemble: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static,
    ) -> Self {
        Self::new(Mode::Protected32, name, assemble)
    }

    /// Real-mode code.
    pub fn real(
        name: &str,
        assemble: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static,
    ) -> Self {
        Self::new(Mode::Real16, name, assemble)
    }

    /// At CPL 3.
    pub fn user(mut self) -> Self {
        self.cpl = 3;
        self
    }

    /// With this paging.
    pub fn paged(mut self, paging: Paging) -> Self {
        self.paging = paging;
        self
    }

    /// More code.
    pub fn chunk(
        mut self,
        linear: u64,
        offset: u64,
        bits: u32,
        assemble: impl Fn(&mut CodeAssembler) -> Result<(), IcedError> + Send + Sync + 'static,
    ) -> Self {
        self.chunks.push(Chunk { linear, offset, bits, assemble: Box::new(assemble) });
        self
    }

    /// Begins with the code here rather than at [`layout::CODE`].
    pub fn at(mut self, linear: u64) -> Self {
        if let Some(chunk) = self.chunks.first_mut() {
            chunk.linear = linear;
            chunk.offset = linear - self.mode.code_base();
        }
        self
    }

    /// A register at the beginning.
    pub fn with(mut self, register: Gpr, value: u64) -> Self {
        self.registers.push((register, value));
        self
    }

    /// The state at the beginning.
    pub fn tweak(mut self, tweak: impl Fn(&mut CpuState) + Send + Sync + 'static) -> Self {
        self.tweaks.push(Box::new(tweak));
        self
    }

    /// Physical memory at the beginning.
    pub fn poke(mut self, address: u64, bytes: &[u8]) -> Self {
        self.pokes.push((address, bytes.to_vec()));
        self
    }

    /// A descriptor.
    pub fn descriptor(self, selector: u16, raw: u64) -> Self {
        self.poke(layout::GDT + u64::from(selector & !7), &raw.to_le_bytes())
    }

    /// A 4 KiB mapping in address space 0.
    pub fn map(self, linear: u64, physical: u64, bits: u64) -> Self {
        self.map_in(0, 1, linear, physical, bits)
    }

    /// A mapping.
    pub fn map_in(mut self, space: usize, level: u32, linear: u64, physical: u64, bits: u64) -> Self {
        self.maps.push(Mapping { space, linear, physical, bits, level });
        self
    }

    /// Changes an entry of address space 0's tables.
    pub fn entry(mut self, linear: u64, level: u32, clear: u64, set: u64) -> Self {
        self.entries.push((EntryName { space: 0, linear, level }, clear, set));
        self
    }

    /// Has a vector lead to the code's nth instruction.
    pub fn handler(self, vector: u8, instruction: usize) -> Self {
        self.gate(vector, Some(Place::Instruction(instruction)), |_| {})
    }

    /// Changes a gate.
    pub fn gate(mut self, vector: u8, place: Option<Place>, change: GateChange) -> Self {
        self.gates.push((vector, place, change));
        self
    }

    /// An event for processor 0 that the code raises by its number.
    pub fn event(self, event: Event) -> Self {
        self.event_for(0, event)
    }

    /// An event for a processor.
    pub fn event_for(mut self, vcpu: u32, event: Event) -> Self {
        self.events.push((vcpu, event));
        self
    }

    /// An event that is pending from the beginning.
    pub fn pending(mut self, event: Event) -> Self {
        self.events.insert(self.pending, (0, event));
        self.pending += 1;
        self
    }

    /// An event that comes by itself after a while.
    pub fn later(mut self, event: Event) -> Self {
        self.late = Some(self.events.len());
        self.events.push((0, event));
        self
    }

    /// An event that comes when processor 0 halts.
    pub fn once_halted(mut self, event: Event) -> Self {
        self.at_halt = Some(self.events.len());
        self.events.push((0, event));
        self
    }

    /// Several processors.
    pub fn processors(mut self, count: u32) -> Self {
        self.vcpus = count;
        self
    }

    /// A change of memory, which a write of its number to the board's port has take place.
    pub fn change(mut self, change: MemoryChange) -> Self {
        self.changes.push(change);
        self
    }

    /// Ends otherwise.
    pub fn ends(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    /// Ends with an exception that the nth instruction raises.
    pub fn raises(self, vector: u8, error: Option<u32>, instruction: usize) -> Self {
        self.ends(Ending::Vector { vector, error, rip: Place::Instruction(instruction) })
    }

    /// Ends with a page fault that the nth instruction raises.
    pub fn page_fault(mut self, error: u32, address: u64, instruction: usize) -> Self {
        self.cr2 = Some(address);
        self.raises(14, Some(error), instruction)
    }

    /// Ends with a page fault at an offset in CS.
    pub fn page_fault_at(mut self, error: u32, address: u64, offset: u64) -> Self {
        self.cr2 = Some(address);
        self.ends(Ending::Vector { vector: 14, error: Some(error), rip: Place::Offset(offset) })
    }

    /// A register at the end.
    pub fn gives(mut self, register: Gpr, value: u64) -> Self {
        self.expected.push((register, Some(value)));
        self
    }

    /// A register that is not looked at.
    pub fn any(mut self, register: Gpr) -> Self {
        self.expected.push((register, None));
        self
    }

    /// Flags at the end.
    pub fn flags(mut self, mask: u64, value: u64) -> Self {
        self.flags = (mask, value);
        self
    }

    /// Physical memory at the end.
    pub fn leaves(mut self, address: u64, bytes: &[u8]) -> Self {
        self.memory.push((address, bytes.to_vec()));
        self
    }

    /// An entry of address space 0's tables at the end.
    pub fn entry_after(mut self, linear: u64, level: u32, mask: u64, value: u64) -> Self {
        self.entries_after.push((EntryName { space: 0, linear, level }, mask, value));
        self
    }

    /// The next access to a port or MMIO.
    pub fn accesses(mut self, access: Access) -> Self {
        self.log.push(access);
        self
    }

    /// More that must be true at the end.
    pub fn check(mut self, check: impl Fn(&End<'_>) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.checks.push(Box::new(check));
        self
    }
}
