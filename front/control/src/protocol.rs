//! What is said on the socket.

use serde::{Deserialize, Serialize};

/// What can be asked of a machine. Fields that a later version adds have defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Request {
    /// What it is doing.
    Status,
    /// Hold its processors and its time.
    Pause,
    /// Let them go on, or wake the guest up.
    Resume,
    /// Press its reset button.
    Reset,
    /// Press its power button.
    Powerdown,
    /// End it at once.
    Quit,
    /// What the screen shows, as a picture.
    Screenshot,
    /// What can be read on the screen.
    Text,
    /// Type text on the keyboard, as if it were a US one.
    Type {
        /// The text.
        text: String,
    },
    /// Press keys, one after the other.
    Key {
        /// Each a key or several that are held together: `f12`, `ctrl-alt-delete`.
        keys: Vec<String>,
    },
    /// Change the medium in a drive.
    Media {
        /// The drive: `cd0`, `floppy0` and so on.
        device: String,
        /// The medium's file; none to eject. Absolute, since the machine has a folder of its own.
        file: Option<std::path::PathBuf>,
        /// It is not to be written.
        #[serde(default)]
        readonly: bool,
    },
    /// Plug a network card's cable in, or pull it.
    Link {
        /// The card: `net0` and so on.
        card: String,
        /// Plug it in.
        up: bool,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// It is done, or under way.
    Done,
    /// What the machine is doing.
    Status(StatusReport),
    /// A picture in the PNG format, in base 64.
    Screenshot(String),
    /// What can be read, in lines.
    Text(String),
    /// It can't be done: why, and what to do, in a line.
    Error(String),
}

/// What a machine is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// `running`, `paused` or `suspended`.
    pub phase: String,
    /// Seconds since it was started.
    pub uptime: f64,
    /// How often it was reset.
    pub resets: u64,
    /// The engine that runs it.
    pub engine: String,
    /// The drives whose media can be changed.
    #[serde(default)]
    pub drives: Vec<DriveReport>,
    /// The network cards.
    #[serde(default)]
    pub cards: Vec<CardReport>,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardReport {
    /// Its name.
    pub name: String,
    /// Its cable is plugged in.
    pub up: bool,
}

/// A drive whose medium can be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveReport {
    /// Its name.
    pub name: String,
    /// There is a medium in it.
    pub loaded: bool,
    /// The guest holds the medium.
    pub locked: bool,
}
