//! Interrupt controllers of the PC.
//!
//! [`InterruptController`] is the seam: what vCPU threads and devices see of them. [`Controllers`] implements it in user
//! space out of the 8259A pair ([`pic`]), the I/O APIC ([`ioapic`]) and one local APIC per vCPU ([`lapic`]), which pass
//! [`Message`]s to each other.
//!
//! Neighbours: devices hold `lodge_bus::IrqLine`s and `MsiTarget`s that lead here; the vCPU threads in `vm/` take events
//! from here and pass them to the engine.
#![forbid(unsafe_code)]

mod controller;
mod controllers;
pub mod ioapic;
pub mod lapic;
mod message;
pub mod pic;

pub use controller::{GuestTsc, InterruptController, Waker};
pub use controllers::{Controllers, ControllersState};
pub use message::{Message, mode};
