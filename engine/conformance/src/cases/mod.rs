//! The cases, by subject.

/// Assembles instructions one after the other: `emit!(a; mov(eax, 1); rep().movsb())`.
macro_rules! emit {
    ($a:ident; $($($m:ident($($x:expr),* $(,)?)).+);+ $(;)?) => {{
        $( $a$(.$m($($x),*))+?; )+
        Ok(())
    }};
}

mod exceptions;
mod integer;
mod memory;
mod modify;
mod paging;
mod strings;
mod system;

use crate::Case;

/// Every case.
pub fn suite() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(integer::cases());
    all.extend(exceptions::cases());
    all.extend(memory::cases());
    all.extend(strings::cases());
    all.extend(modify::cases());
    all.extend(paging::cases());
    all.extend(system::cases());
    all
}
