//! Board devices of the PC: timers, clock, power management, keyboard controller, serial ports and a parallel one.
//!
//! Each is a folder with the same files: the device, its `registers`, its saved state, its tests. Each is made from its
//! configuration and wiring, and reached through the facets of `lodge_bus::Device`.
//!
//! Nothing here ticks: counters are derived from guest time when read, and host timers armed only for interrupts that the
//! guest has enabled, so that an idle guest costs nothing.
#![forbid(unsafe_code)]

pub mod board;
pub mod dma;
pub mod flash;
pub mod fw_cfg;
pub mod hpet;
pub mod i8042;
pub mod parallel;
pub mod pit;
pub mod pm;
pub mod rtc;
#[cfg(test)]
mod testing;
pub mod uart;

pub use board::{Board, BoardConfig};
pub use dma::{Dma, DmaChannel};
pub use flash::Flash;
pub use fw_cfg::{FwCfg, Items};
pub use hpet::{Hpet, HpetWiring};
pub use i8042::I8042;
pub use parallel::Parallel;
pub use pit::Pit;
pub use pm::Pm;
pub use rtc::{CmosConfig, Rtc};
pub use uart::{Uart, UartConfig};
