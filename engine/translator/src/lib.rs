//! t
pub mod asm;
