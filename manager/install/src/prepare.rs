//! [`prepare`]: the answers as the installer of a system looks for them.

use lodge_guests::{Architecture, Firmware, Profile, Unattended};

use crate::answers::{AnswerError, Answers};
use crate::carrier::{Archive, CarrierError, Volume};
use crate::{anaconda, debian, ubuntu, windows};

/// The serial port is the console of the installer and of the system that it installs.
const SERIAL_FROM_THEN_ON: &str = "--- console=ttyS0";

/// How answers reach an installer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Behind its initial RAM disk ([`crate::append_archive`]).
    Initrd(Archive),
    /// On a disk of its own, that is only read; the installer finds it by its label. The disk to install on has to come
    /// before it.
    Disk(Volume),
    /// On a floppy.
    Floppy(Volume),
}

/// Answers, and how the installer gets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// What carries them.
    pub carrier: Carrier,
    /// What the installer's kernel has to be told, where it is started directly; Windows has no such thing.
    pub kernel_parameters: String,
}

/// Why there are no answers.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No answers are written for this system.
    #[error("lodge writes no answers for the installer of {0}; install it attended")]
    NoMethod(String),
    /// Answers that can't be given.
    #[error("{}", lines(.0))]
    Answers(Vec<AnswerError>),
    /// They can't be written.
    #[error("{0}")]
    Carrier(#[from] CarrierError),
}

fn lines(errors: &[AnswerError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Writes the answers for a system that is to start from `firmware`.
///
/// # Errors
///
/// There is no way to answer its installer, an answer can't be given (all such are named), or they are too long.
pub fn prepare(profile: &Profile, answers: &Answers, firmware: Firmware) -> Result<Prepared, PrepareError> {
    let wrong = match profile.unattended {
        Unattended::None => return Err(PrepareError::NoMethod(profile.name.clone())),
        Unattended::Autounattend => windows::problems(answers),
        Unattended::Preseed | Unattended::Autoinstall | Unattended::Kickstart => answers.problems_on_linux(),
    };
    if !wrong.is_empty() {
        return Err(PrepareError::Answers(wrong));
    }
    // Those behind the dashes are the new system's, too.
    let parameters = |own: &str, end: &str| {
        let all = [own, answers.kernel_parameters.as_str(), end];
        all.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    };
    let (carrier, kernel_parameters) = match profile.unattended {
        Unattended::Preseed => {
            (Carrier::Initrd(debian::archive(answers)), parameters(debian::KERNEL_PARAMETERS, SERIAL_FROM_THEN_ON))
        }
        Unattended::Autoinstall => {
            let user_data =
                ubuntu::user_data(answers).map_err(|error| CarrierError::Write(std::io::Error::other(error)))?;
            let meta_data = ubuntu::meta_data(answers);
            let files = [("user-data", user_data.as_bytes()), ("meta-data", meta_data.as_bytes())];
            (
                Carrier::Disk(Volume::new(ubuntu::LABEL, &files)?),
                parameters(ubuntu::KERNEL_PARAMETERS, SERIAL_FROM_THEN_ON),
            )
        }
        Unattended::Kickstart => {
            let kickstart = anaconda::kickstart(answers);
            let files = [("ks.cfg", kickstart.as_bytes())];
            (
                Carrier::Disk(Volume::new(anaconda::LABEL, &files)?),
                parameters(anaconda::KERNEL_PARAMETERS, "console=ttyS0"),
            )
        }
        Unattended::Autounattend | Unattended::None => {
            let architecture = profile.architectures.first().copied().unwrap_or(Architecture::X86_64);
            let file = windows::answer_file(answers, firmware, architecture).map_err(CarrierError::Write)?;
            (Carrier::Floppy(Volume::new("ANSWERS", &[(windows::FILE, file.as_bytes())])?), String::new())
        }
    };
    Ok(Prepared { carrier, kernel_parameters })
}

#[cfg(test)]
mod tests;
