//! One suite of small guests for every engine.
//!
//! A [`Case`] is a few assembled instructions in some mode, with the state they begin with and what must be true at
//! their end: registers, flags, memory, accesses to the outside, the exception with its error code and saved
//! instruction pointer. [`suite`] gives all cases; [`run`] runs one through `lodge_engine_api` alone, so that every
//! engine is held to the same. Expectations are from the manuals: "SDM 3A 6.15" is the Intel 64 and IA-32
//! Architectures Software Developer's Manual, "APM 2 8.2" the AMD64 Architecture Programmer's Manual.
//!
//! Neighbours: [`case`] says what a case is, [`layout`] where things lie, `board` is the world around the processor,
//! `setup` and `tables` make the beginning, [`cases`] has the cases by subject.

pub mod board;
pub mod case;
pub mod cases;
pub mod layout;
mod run;
mod setup;
pub mod tables;

pub use case::Case;
pub use cases::{escapes, suite};
pub use run::{Failure, run, run_keeping};
