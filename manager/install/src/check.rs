//! [`check`]: all that speaks against an installation, before anything is made.

use lodge_guests::{DiskBus, Firmware, Profile, Size, Support, Unattended};

/// How the installer is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From a disc or floppy.
    Medium,
    /// Over the network, by PXE.
    Pxe,
}

/// A network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its model.
    pub model: lodge_guests::Nic,
    /// Its network leads somewhere.
    pub connected: bool,
    /// Its network offers what to start (PXE).
    pub offers_boot: bool,
}

/// A machine for an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// RAM.
    pub memory: Size,
    /// The disk's size.
    pub disk: Size,
    /// Processors.
    pub cpus: u32,
    /// Firmware.
    pub firmware: Firmware,
    /// The disk's bus.
    pub bus: DiskBus,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// How the installer is started.
    pub start: Start,
    /// What the medium was recognised as, any of these ids; empty if it was not looked at or not recognised.
    pub medium_is: Vec<String>,
    /// Nobody is there to answer.
    pub unattended: bool,
}

impl Plan {
    /// What a profile asks for: first choices of its lists, what it recommends, and one network card that leads nowhere
    /// yet.
    pub fn recommended(profile: &Profile) -> Self {
        let nic = |model: &lodge_guests::Nic| Nic { model: *model, connected: false, offers_boot: false };
        Self {
            memory: profile.recommended.memory,
            disk: profile.recommended.disk,
            cpus: profile.recommended.cpus,
            // The data's test sees to it that no list is empty.
            firmware: profile.firmware.first().copied().unwrap_or(Firmware::Bios),
            bus: profile.disks.first().copied().unwrap_or(DiskBus::Ide),
            nics: profile.nics.first().map(nic).into_iter().collect(),
            start: Start::Medium,
            medium_is: Vec::new(),
            unattended: false,
        }
    }
}

/// Something that speaks against an installation, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is known not to work.
    #[error("{name} is known not to work here: {note}")]
    Broken {
        /// The system.
        name: String,
        /// Why, from its profile.
        note: String,
    },
    /// It is not installed at all.
    #[error("{name} is not installed on a disk; start it from its medium with `lodge run`")]
    NotInstalled {
        /// The system.
        name: String,
    },
    /// It does not start from this firmware.
    #[error("{name} does not start from {given}; use {wanted}")]
    Firmware {
        /// The system.
        name: String,
        /// What was planned.
        given: Firmware,
        /// What it starts from.
        wanted: String,
    },
    /// Too little of something.
    #[error("{name} takes at least {least} of {what}, and {given} are planned; give it {recommended}")]
    TooLittle {
        /// The system.
        name: String,
        /// Of what.
        what: &'static str,
        /// The least.
        least: String,
        /// What was planned.
        given: String,
        /// What is recommended.
        recommended: String,
    },
    /// It has no driver for a device.
    #[error("{name} has no driver of its own for a {what} '{given}'; use {wanted}")]
    NoDriver {
        /// The system.
        name: String,
        /// What kind of device.
        what: &'static str,
        /// What was planned.
        given: String,
        /// What it has drivers for.
        wanted: String,
    },
    /// Its installer can't be started over the network.
    #[error("the installer of {name} does not start by PXE; give its disc")]
    NoPxe {
        /// The system.
        name: String,
    },
    /// PXE without a card.
    #[error("there is no network card to start from; add one, on a network that offers what to start")]
    NoNic,
    /// PXE without an offer.
    #[error(
        "no network card is on a network that offers what to start; name a folder with what to start, or a network with a server for PXE"
    )]
    NoOffer,
    /// The medium is another system's.
    #[error("the medium is of {found}, and not of {name}; give the right one, or the right name")]
    OtherMedium {
        /// The system that was asked for.
        name: String,
        /// What the medium is of.
        found: String,
    },
    /// No answers can be written for it.
    #[error("lodge writes no answers for the installer of {name}; install it attended")]
    NotUnattended {
        /// The system.
        name: String,
    },
    /// Its installer fetches packages.
    #[error("unattended, the installer of {name} fetches packages, and no network card is connected; connect one")]
    NoNetwork {
        /// The system.
        name: String,
    },
}

/// All that speaks against a plan for a system, worst first; nothing if there is nothing.
pub fn check(profile: &Profile, plan: &Plan) -> Vec<Problem> {
    let name = || profile.name.clone();
    let mut found = Vec::new();
    if profile.support == Support::Broken {
        found.push(Problem::Broken { name: name(), note: profile.note.clone().unwrap_or_default() });
    }
    if profile.recommended.disk.bytes() == 0 {
        found.push(Problem::NotInstalled { name: name() });
    }
    if !plan.medium_is.is_empty() && !plan.medium_is.contains(&profile.id) {
        found.push(Problem::OtherMedium { name: name(), found: plan.medium_is.join(" or ") });
    }
    if !profile.firmware.contains(&plan.firmware) {
        found.push(Problem::Firmware { name: name(), given: plan.firmware, wanted: either(&profile.firmware) });
    }
    let sizes = [
        ("memory", plan.memory, profile.minimum.memory, profile.recommended.memory),
        ("disk", plan.disk, profile.minimum.disk, profile.recommended.disk),
    ];
    for (what, given, least, recommended) in sizes.into_iter().filter(|(_, given, least, _)| given < least) {
        let [least, given, recommended] = [least, given, recommended].map(|size| size.to_string());
        found.push(Problem::TooLittle { name: name(), what, least, given, recommended });
    }
    if plan.cpus < profile.minimum.cpus {
        let [least, given, recommended] =
            [profile.minimum.cpus, plan.cpus, profile.recommended.cpus].map(|cpus| cpus.to_string());
        found.push(Problem::TooLittle { name: name(), what: "processors", least, given, recommended });
    }
    if !profile.disks.contains(&plan.bus) {
        let (given, wanted) = (plan.bus.to_string(), either(&profile.disks));
        found.push(Problem::NoDriver { name: name(), what: "disk on the bus", given, wanted });
    }
    for nic in plan.nics.iter().filter(|nic| !profile.nics.contains(&nic.model)) {
        let (given, wanted) = (nic.model.to_string(), either(&profile.nics));
        found.push(Problem::NoDriver { name: name(), what: "network card", given, wanted });
    }
    if plan.start == Start::Pxe {
        if !profile.pxe {
            found.push(Problem::NoPxe { name: name() });
        }
        if plan.nics.is_empty() {
            found.push(Problem::NoNic);
        } else if !plan.nics.iter().any(|nic| nic.offers_boot) {
            found.push(Problem::NoOffer);
        }
    }
    if plan.unattended {
        match profile.unattended {
            Unattended::None => found.push(Problem::NotUnattended { name: name() }),
            // Debian's answers name a mirror, from which security updates come even where packages are on the disc.
            Unattended::Preseed if !plan.nics.iter().any(|nic| nic.connected) => {
                found.push(Problem::NoNetwork { name: name() });
            }
            _ => {}
        }
    }
    found
}

/// One of these, in words.
fn either<T: ToString>(items: &[T]) -> String {
    match items {
        [] => "none".into(),
        items => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
    }
}

#[cfg(test)]
mod tests;
