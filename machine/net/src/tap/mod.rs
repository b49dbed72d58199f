//! A tap: an interface of the host's kernel whose other end is a guest's card.
//!
//! Its owner makes it, gives it to the user and puts it into a bridge, or gives it an address; none of that is done here, and
//! it takes no privilege to use ([`Tap::open`], `docs/networks.md`). Checksums and large segments are left undone in either
//! direction, as between virtio cards.

mod kernel;
#[cfg(test)]
mod tests;

use std::io::{Error, ErrorKind};
use std::sync::{Arc, Weak};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::packets::Packets;
use crate::{Accepts, Frame, Listener, Network};

/// The driver.
const DRIVER: &str = "/dev/net/tun";

/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface can be called so.
    #[error("'{name}' is not the name of an interface")]
    Name {
        /// What it was to be called.
        name: String,
    },
    /// There is no such interface.
    #[error("there is no interface '{name}'")]
    Missing {
        /// Its name.
        name: String,
    },
    /// It is an interface of another kind.
    #[error("the interface '{name}' is not a tap")]
    Kind {
        /// Its name.
        name: String,
    },
    /// It belongs to somebody else.
    #[error("the tap '{name}' belongs to another user")]
    Owner {
        /// Its name.
        name: String,
    },
    /// Another process has it.
    #[error("the tap '{name}' is in use by another program")]
    Busy {
        /// Its name.
        name: String,
    },
    /// The kernel's driver can't be opened.
    #[error("{DRIVER} can't be opened: {0}")]
    Driver(Error),
    /// Something else the host does not give.
    #[error("the host has no room for a network: {0}")]
    Host(#[from] Error),
}

impl TapError {
    /// What can be done.
    pub fn remedy(&self) -> String {
        let make = |name| format!("sudo ip tuntap add dev {name} mode tap user \"$USER\"");
        let delete = |name| format!("sudo ip link del {name}");
        match self {
            Self::Name { .. } => "`ip link` lists those there are".into(),
            Self::Missing { name } => format!("make it with: {}; sudo ip link set {name} up", make(name)),
            Self::Kind { name } => {
                format!("make one of another name, say for a bridge of {name}: {}", make(&"tap0".into()))
            }
            Self::Owner { name } => format!("make it over as yours: {}; {}", delete(name), make(name)),
            Self::Busy { .. } => "each card needs a tap of its own; end the other program, or make another tap".into(),
            Self::Driver(error) if error.kind() == ErrorKind::PermissionDenied => {
                format!("sudo chmod a+rw {DRIVER} lets everybody, and what can be done with it depends on taps' owners")
            }
            Self::Driver(_) => "sudo modprobe tun".into(),
            Self::Host(_) => "end other programs, or raise their limits (ulimit -a)".into(),
        }
    }
}

/// An end of a tap.
pub struct Tap(Packets);

impl Tap {
    /// The tap that is called `name`, which somebody has made for this user.
    ///
    /// # Errors
    /// There is none, or it is not ours to have.
    pub fn open(name: &str) -> Result<Arc<Self>, TapError> {
        let named = || name.to_owned();
        // A template such as tap%d is no name (net/core/dev.c, `dev_valid_name` and `dev_alloc_name`).
        let is_name = (1..kernel::NAME).contains(&name.len())
            && !matches!(name, "." | "..")
            && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'));
        if !is_name {
            return Err(TapError::Name { name: named() });
        }
        // Asked first: the driver makes what there is not, if it may.
        let anything = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
        let anything = anything.map_err(Error::from)?;
        match name_to_index(&anything, name) {
            Ok(_) => {}
            Err(Errno::NODEV) => return Err(TapError::Missing { name: named() }),
            Err(error) => return Err(TapError::Host(error.into())),
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || rustix::fs::open(DRIVER, flags, Mode::empty()).map_err(|error| TapError::Driver(error.into()));
        let mut file = open()?;
        let mut result = kernel::attach(&file, name, false);
        if result == Err(Errno::INVAL) {
            // It may have been made for several queues; one of them will do.
            file = open()?;
            result = kernel::attach(&file, name, true);
        }
        result.map_err(|error| match error {
            Errno::PERM | Errno::ACCESS => TapError::Owner { name: named() },
            Errno::BUSY => TapError::Busy { name: named() },
            Errno::INVAL => TapError::Kind { name: named() },
            other => TapError::Host(other.into()),
        })?;
        Ok(Arc::new(Self(Packets::new(name, file)?)))
    }
}

impl Network for Tap {
    fn connect(&self, listener: Weak<dyn Listener>) {
        self.0.connect(listener);
    }

    fn accepts(&self) -> Accepts {
        Accepts::ALL
    }

    fn send(&self, frame: &Frame) -> bool {
        self.0.send(frame)
    }

    fn receive(&self) -> Option<Frame> {
        self.0.receive()
    }
}
