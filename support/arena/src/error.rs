//! Why a program cannot be started over in the arena: [`Error`].

use std::io;

/// What stands in the way.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Other threads run in what would be unmapped.
    #[error("the program has {0} threads already")]
    Threads(u64),
    /// There would be nobody to load the program's libraries, or it cannot be moved.
    #[error("the program is not a dynamically linked, position-independent one")]
    Static,
    /// A reservation of all of the address space is more than is allowed.
    #[error("the size of the address space is limited (ulimit -v)")]
    AddressSpaceLimit,
    /// The kernel started the program with another's rights.
    #[error("the program runs with rights that its user has not")]
    Privileged,
    /// Return addresses are kept in a shadow stack, which cannot be moved.
    #[error("the program has a shadow stack")]
    ShadowStack,
    /// The arguments are not to be had.
    #[error("the program's arguments are not known")]
    Arguments,
    /// What has to be known of the process cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// The host's answer.
        source: io::Error,
    },
    /// What was read is not what it should be.
    #[error("{path} is not understood: {what}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Something lies where it cannot stay.
    #[error("something is mapped at {0:#x}")]
    Occupied(u64),
    /// The kernel does not let memory be mapped or reserved.
    #[error("the kernel refuses {what}: {source}")]
    Refused {
        /// What for.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The kernel does not look for room in the arena.
    #[error("the kernel would place mappings from below up (vm.legacy_va_layout)")]
    Placement,
    /// There is a vsyscall page that any code can read (vsyscall=emulate).
    #[error("the host's vsyscall page can be read (it was booted with vsyscall=emulate)")]
    Vsyscall,
    /// The program has entered, and yet something is mapped elsewhere.
    #[error("mapped outside the arena: {name} at {at:#x}")]
    Outside {
        /// Where.
        at: u64,
        /// What the kernel calls it.
        name: String,
    },
}

impl Error {
    /// What would mend it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Threads(_) | Self::Arguments | Self::Occupied(_) | Self::Outside { .. } => {
                "leave out libraries that are loaded into every program (LD_PRELOAD)"
            }
            Self::Static => "use a build for glibc that is dynamically linked and position-independent",
            Self::AddressSpaceLimit => "ulimit -v unlimited",
            Self::Privileged => "take the set-user-id bit and file capabilities from the program",
            Self::ShadowStack => "switch shadow stacks off for it: GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
            Self::Unreadable { .. } => "make the file readable; in a sandbox, mount /proc",
            Self::Malformed { .. } => "build the program with the system's own linker",
            Self::Refused { .. } => {
                "use a kernel or sandbox that allows mappings to be moved (no CONFIG_MSEAL_SYSTEM_MAPPINGS)"
            }
            Self::Vsyscall => "boot the host with vsyscall=xonly or vsyscall=none",
            Self::Placement => "sudo sysctl vm.legacy_va_layout=0",
        }
    }

    /// From a system call's failure.
    pub(crate) fn refused(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Refused { what, source }
    }

    /// From a file's.
    pub(crate) fn unreadable(path: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Unreadable { path: path.to_owned(), source }
    }
}
