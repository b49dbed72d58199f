//! The control socket of a running machine: its protocol, and both of its ends.
//!
//! A [`Request`] is one line of JSON on a Unix socket that only its user can open, and so is its [`Response`]; requests of one
//! connection are served in turn, and connections side by side.
//!
//! ```text
//!   {"command":"status"}                                   {"status":{"phase":"running", …}}
//!   {"command":"media","device":"cd0","file":"/b.iso"}     "done"
//!   {"command":"link","card":"net0","up":false}            "done"
//!   {"command":"powerdown"}                                {"error":"the guest does not listen to its power button; …"}
//! ```
//!
//! [`Server`] is `lodge run --control`'s end, [`ask`] is `lodge ctl`'s. The server holds nothing of the machine: it enqueues
//! with `lodge_vm::Handle` and moves media in and out of `lodge_backend::Tray`s.
#![forbid(unsafe_code)]

mod client;
mod protocol;
mod server;
#[cfg(test)]
mod tests;

pub use client::{AskError, ask};
pub use protocol::{CardReport, DriveReport, Request, Response, StatusReport};
pub use server::{Drive, Machine, Server};
