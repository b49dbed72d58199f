//! Guest operating systems: what each needs of a machine, and how its media are recognised.
//!
//! * [`Profile`]: what is known of one operating system. The data are the TOML files in `data`, one for each family;
//!   `docs/guests.md` says how to add to them.
//! * [`Catalogue`]: all profiles, to be found by id or searched.
//! * [`detect`]: which operating system the image of a disc or floppy holds, and why that is believed.
//!
//! Images come from anywhere: whatever one contains, nothing here panics, hangs or takes memory without bound.
//!
//! Neighbours: `manager/install` checks plans against profiles and writes answers for installers; front ends show them.
#![forbid(unsafe_code)]

mod catalogue;
mod media;
mod pattern;
mod profile;
mod size;

pub use catalogue::{Catalogue, DataError};
pub use media::{Detection, Kind, MediaError, Medium, ReadAt, TreeInfo, WindowsImage, detect, read_file};
pub use pattern::Pattern;
pub use profile::{
    Architecture, DiskBus, Firmware, Graphics, MediaRule, Nic, Pointer, Profile, Resources, Sound, Support, Unattended,
};
pub use size::Size;
