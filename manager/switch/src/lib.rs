//! A host-only learning switch among the machines of one user, in a process of its own.
//!
//! ```text
//!   machine ── SwitchLink ══ socket ══╗                            ╔══ socket ══ SwitchLink ── machine
//!                                     Switch ── Core: to whom, if at all
//!                                       └── UserNet, if the machines want a way out
//! ```
//!
//! * [`core`](Core) is what a switch knows and decides: who is where, who may say what.
//! * [`serve`] is the process: sockets, and the pace. A frame for one machine that has no room holds up whoever sent it, for a
//!   while; one for many is lost for those who have none.
//!
//! Neighbours: `lodge_net::switch` is the machines' end and the protocol; `lodge switch` runs it.
#![forbid(unsafe_code)]

mod core;
mod server;
#[cfg(test)]
mod tests;

pub use self::core::{Core, Fault, MOST_PORTS, PortId, Verdict};
pub use server::{Ended, ServeError, serve};
