//! Interrupt controllers of the PC.
//!
//! The seam is [`InterruptController`].
#![forbid(unsafe_code)]

mod controller;

pub use controller::{GuestTsc, InterruptController, Waker};
