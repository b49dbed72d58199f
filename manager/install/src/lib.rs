//! Installing guest operating systems: what has to be so beforehand, and answers for installers that ask nobody.
//!
//! ```text
//! Profile ─► Plan::recommended ─► check ─► problems, each with its remedy
//! Answers ─► prepare (debian, ubuntu, anaconda, windows) ─► Prepared: what carries the answers, kernel parameters
//! ```
//!
//! * [`Plan`] and [`check`]: a machine for an installation, and all that speaks against it.
//! * [`Answers`]: what installers would ask; checked by strict grammars before any of it is written.
//! * [`prepare`] and [`Prepared`]: the answers as the installer looks for them: an archive to go behind its initial RAM
//!   disk, or the image of a volume.
//!
//! All here is a pure function; running the machine is left to whoever calls.
//!
//! Neighbours: `manager/guests` has the profiles; front ends ask, run and show.
#![forbid(unsafe_code)]

mod anaconda;
mod answers;
mod carrier;
mod check;
mod debian;
mod prepare;
mod ubuntu;
mod windows;

pub use answers::{AnswerError, Answers, Finish, Mirror, User, WindowsAnswers};
pub use carrier::{Archive, CarrierError, Volume, append_archive};
pub use check::{Nic, Plan, Problem, Start, check};
pub use prepare::{Carrier, PrepareError, Prepared, prepare};
