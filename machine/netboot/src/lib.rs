//! Boot files for guests that boot from the network: machines of states without sockets, threads or clocks of their own.
//!
//! ```text
//!   guest's DHCP request ──► offer ── where the boot file is
//!   guest's datagrams    ──► Tftp ─┐
//!   guest's TCP stream   ──► Http ─┴─► Folder ── files of the host's, and none outside of it
//! ```
//!
//! * [`Folder`] is what is served. A guest names files in it and never one outside.
//! * [`Tftp`] serves datagrams; [`Http`] serves one connection. Both are fed with what guests send, and give what goes back.
//! * [`offer()`] says what DHCP tells a client of its boot file ([`BootFile`]); [`decode_request`] reads what clients ask.
//!
//! The network in user mode (`machine/usernet`) brings packets here.
#![forbid(unsafe_code)]

mod folder;
mod http;
mod offer;
mod tftp;

pub use folder::{Folder, FolderError, ServedFile};
pub use http::{Connection, Http};
pub use offer::{BootFile, Offer, OfferConfig, decode_request, offer};
pub use tftp::Tftp;
