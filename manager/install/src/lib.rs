//! Installing guest operating systems: what has to be so beforehand, and answers for installers that ask nobody.
//!
//! ```text
//! Profile ─► Plan::recommended ─► check ─► problems, each with its remedy
//! Answers ─► prepare (debian, ubuntu, anaconda, windows) ─► Prepared: what carries the answers, kernel parameters
//! Prepared, a machine ─► Installation ─► stages; a disk that starts, or a failure and the installer's log
//! ```
//!
//! * [`Plan`] and [`check`]: a machine for an installation, and all that speaks against it.
//! * [`Answers`]: what installers would ask; checked by strict grammars before any of it is written.
//! * [`prepare`] and [`Prepared`]: the answers as the installer looks for them: an archive to go behind its initial RAM
//!   disk, or the image of a volume.
//!
//! * [`boot_files`] and [`pxe`]: where installers' kernels and loaders are, and a tree for the network that answers.
//! * [`Installation`] runs the machine as a process of its own, tells [`Stage`]s, and gives the disk its name when it is
//!   ready; [`stages`] reads the installer's log, and [`boots`] looks whether firmware finds something to start.
//!
//! What is before the running is pure functions of profiles and answers, but for reading discs and folders.
//!
//! Neighbours: `manager/guests` has the profiles; front ends ask, run and show.
#![forbid(unsafe_code)]

mod anaconda;
mod answers;
pub mod boot_files;
mod carrier;
mod check;
mod debian;
mod installation;
mod prepare;
pub mod pxe;
pub mod stages;
mod starts;
mod ubuntu;
mod windows;

pub use answers::{AnswerError, Answers, Finish, Mirror, User, WindowsAnswers};
pub use carrier::{Archive, CarrierError, Volume, append_archive};
pub use check::{Nic, Plan, Problem, Start, check};
pub use installation::{InstallError, Installation, Stage, Target};
pub use prepare::{Carrier, PrepareError, Prepared, prepare};
pub use starts::boots;
