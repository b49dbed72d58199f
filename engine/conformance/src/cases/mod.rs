//! The cases, by subject.

/// Assembles instructions one after the other: `emit!(a; mov(eax, 1); rep().movsb())`.
macro_rules! emit {
    ($a:ident; $($($m:ident($($x:expr),* $(,)?)).+);+ $(;)?) => {{
        $( $a$(.$m($($x),*))+?; )+
        Ok(())
    }};
}

mod branches;
mod crossings;
mod debug;
mod escapes;
mod exceptions;
mod integer;
mod interrupts;
mod maps;
mod memory;
mod modify;
mod paging;
mod programs;
mod segments;
mod smp;
mod stack;
mod states;
mod strings;
mod system;
mod virtual_flag;
mod walks;

use crate::Case;

pub use escapes::escapes;

/// Every case.
pub fn suite() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(integer::cases());
    all.extend(exceptions::cases());
    all.extend(interrupts::cases());
    all.extend(memory::cases());
    all.extend(strings::cases());
    all.extend(modify::cases());
    all.extend(paging::cases());
    all.extend(programs::cases());
    all.extend(branches::cases());
    all.extend(system::cases());
    all.extend(segments::cases());
    all.extend(debug::cases());
    all.extend(crossings::cases());
    all.extend(states::cases());
    all.extend(stack::cases());
    all.extend(walks::cases());
    all.extend(smp::cases());
    all.extend(virtual_flag::cases());
    all.extend(maps::cases());
    all
}
