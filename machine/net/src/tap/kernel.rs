//! A tap by way of Linux's driver: the ioctls of `linux/if_tun.h` (Documentation/networking/tuntap.rst).
#![expect(unsafe_code, reason = "ioctls of the kernel's that no crate has safe functions for")]
// UNSAFETY: the requests here are given a number, or memory of the size that the kernel reads and writes for them.

use std::os::fd::OwnedFd;

use rustix::io::Result;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl};

use crate::vnet;

/// TUNSETIFF: which interface a file is of.
const INTERFACE: Opcode = 0x4004_54ca;
/// TUNSETOFFLOAD: what is left to whoever reads.
const OFFLOAD: Opcode = 0x4004_54d0;
/// TUNSETVNETHDRSZ: bytes of the header.
const HEADER_SIZE: Opcode = 0x4004_54d8;
/// IFF_TAP, IFF_NO_PI, IFF_VNET_HDR: frames, nothing before them but a header as virtio has it.
const FRAMES: u16 = 0x0002 | 0x1000 | 0x4000;
/// IFF_MULTI_QUEUE: one of several files of the interface.
const MULTI_QUEUE: u16 = 0x0100;
/// TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN.
const OFFLOADS: usize = 0x01 | 0x02 | 0x04 | 0x08;
/// IFNAMSIZ: bytes of an interface's name, with a zero at its end.
pub(super) const NAME: usize = 16;

/// struct ifreq, with flags.
#[repr(C)]
struct Request {
    name: [u8; NAME],
    flags: u16,
    rest: [u8; 22],
}

/// Makes `file`, the driver's, one of the interface `name`, with headers and offloads. `multi_queue` has to be what the
/// interface was made with.
///
/// # Errors
/// The kernel's: EPERM for somebody else's interface, EBUSY for one that another process has, EINVAL for what is no tap or was
/// made otherwise. It would make an interface that there is not, for those who may.
pub(super) fn attach(file: &OwnedFd, name: &str, multi_queue: bool) -> Result<()> {
    let flags = if multi_queue { FRAMES | MULTI_QUEUE } else { FRAMES };
    let mut request = Request { name: [0; NAME], flags, rest: [0; 22] };
    // The last byte stays zero.
    for (to, from) in request.name[..NAME - 1].iter_mut().zip(name.as_bytes()) {
        *to = *from;
    }
    // SAFETY: TUNSETIFF reads and writes a struct ifreq, of 40 bytes on x86-64, which `Request` has.
    unsafe { ioctl(file, Updater::<INTERFACE, Request>::new(&mut request)) }?;
    // SAFETY: TUNSETVNETHDRSZ reads an int.
    unsafe { ioctl(file, Setter::<HEADER_SIZE, i32>::new(vnet::HEADER as i32)) }?;
    // SAFETY: TUNSETOFFLOAD takes a number.
    unsafe { ioctl(file, IntegerSetter::<OFFLOAD>::new_usize(OFFLOADS)) }
}
