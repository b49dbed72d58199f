//! What stands behind devices on the host.
//!
//! * [`Disk`]: blocks of bytes with a size; [`RawDisk`] is a raw image file, [`Overlay`] a decorator that keeps writes to
//!   itself and forgets them.
//! * [`CharStream`]: bytes in both directions, with backpressure, that never block a device: [`NullStream`],
//!   [`FdStream`] (standard input and output, files), [`SocketStream`] (a Unix socket that others connect to).
//!
//! * [`Tray`]: a drive whose medium can be changed; [`OpticalDrive`] is one of the host's.
//! * [`Entropy`]: random bytes. [`listen_at`]: Unix sockets with a name.
//!
//! Neighbours: `lodge-virtio` and `lodge-chipset` hold these behind traits; the front end names them.
mod character;
mod disk;
mod entropy;
mod listen;
mod optical;
mod tray;

pub use character::{CharStream, FdStream, NullStream, Receiver, SocketStream};
pub use disk::{Disk, DiskError, Overlay, Padded, RawDisk, SECTOR, VastDisk, stretches, write_all};
pub use entropy::{Entropy, HostEntropy};
pub use listen::{Openness, listen_at};
pub use optical::OpticalDrive;
pub use tray::{Absent, Content, EjectError, Ejection, Locked, Mechanism, Tray};
