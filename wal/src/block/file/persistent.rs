//! Persistent reservations of a Linux block device (`linux/pr.h`), and what an NVMe namespace says of being shared. A thin layer: each call is one ioctl.
//!
//! The kernel asks the device to keep reservations through a loss of power, and translates for SCSI, NVMe and multipath devices.

#![allow(
    unsafe_code,
    reason = "ioctls take addresses; see the note at each place"
)]

use std::{fs::File, io, os::fd::AsRawFd, sync::Arc};

use rustix::ioctl::opcode;

use crate::block::{
    aligned,
    reservation::{Refusal, Reservations},
};

/// `PR_WRITE_EXCLUSIVE_ALL_REGS`: whoever is registered may write. Under this type alone a pre-emption needs no key of the one it removes.
const ALL_REGISTRANTS: u32 = 5;
/// `PR_FL_IGNORE_KEY`: whether or not this host is registered.
const IGNORE_KEY: u32 = 1;
/// A SCSI status, in the low byte of what the kernel says, and an NVMe status without "more" and "do not retry": kernels before 6.4 say what the device said.
const SCSI_CONFLICT: i32 = 0x18;
const NVME_CONFLICT: i32 = 0x83;
/// Set where the command did not get to the device or back.
const HOST_FAILED: i32 = 0x00ff_0000;

fn is_conflict(status: i32) -> bool {
    status & HOST_FAILED == 0 && (status & 0xff == SCSI_CONFLICT || status & 0x7ff == NVME_CONFLICT)
}

#[repr(C)]
struct Registration {
    old_key: u64,
    new_key: u64,
    flags: u32,
    pad: u32,
}

#[repr(C)]
struct Reservation {
    key: u64,
    kind: u32,
    flags: u32,
}

#[repr(C)]
struct Preemption {
    old_key: u64,
    new_key: u64,
    kind: u32,
    flags: u32,
}

/// `struct nvme_passthru_cmd`.
#[repr(C)]
#[derive(Default)]
struct Admin {
    opcode: u8,
    flags: u8,
    reserved: u16,
    nsid: u32,
    cdw2: [u32; 2],
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

const _: () = assert!(size_of::<Registration>() == 24 && size_of::<Reservation>() == 16);
const _: () = assert!(size_of::<Preemption>() == 24 && size_of::<Admin>() == 72);

const REGISTER: rustix::ioctl::Opcode = opcode::write::<Registration>(b'p', 200);
const RESERVE: rustix::ioctl::Opcode = opcode::write::<Reservation>(b'p', 201);
const PREEMPT_ABORT: rustix::ioctl::Opcode = opcode::write::<Preemption>(b'p', 204);
const NVME_ID: rustix::ioctl::Opcode = opcode::none(b'N', 0x40);
const NVME_ADMIN: rustix::ioctl::Opcode = opcode::read_write::<Admin>(b'N', 0x41);

/// The reservations of one open block device.
#[derive(Debug)]
pub(super) struct Persistent(pub(super) Arc<File>);

impl Persistent {
    /// One ioctl, whose argument is `argument`. The device's status, if it has one.
    fn ask<T>(&self, code: rustix::ioctl::Opcode, argument: &mut T) -> io::Result<i32> {
        // SAFETY: `argument` lives through the call and is the structure whose size the code names; the file is open as long as `self`. What `Admin`
        // points to is said there.
        let status = unsafe { libc::ioctl(self.0.as_raw_fd(), code as _, &raw mut *argument) };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(status)
    }
}

/// What the answer to a reservation command means.
fn answer(asked: io::Result<i32>) -> Result<(), Refusal> {
    match asked {
        Ok(0) => Ok(()),
        Ok(status) if is_conflict(status) => Err(Refusal::Conflict),
        Ok(status) => Err(Refusal::Failed(io::Error::other(format!(
            "device status {status:#x}"
        )))),
        Err(e) => match e.raw_os_error() {
            // Not this kind of device, not this kind of command, or a partition (EPERM).
            Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL | libc::ENOSYS | libc::EPERM) => {
                Err(Refusal::Unsupported(e.to_string()))
            }
            _ => Err(Refusal::Failed(e)),
        },
    }
}

impl Reservations for Persistent {
    fn register(&self, key: u64) -> Result<(), Refusal> {
        let mut argument = Registration {
            old_key: 0,
            new_key: key,
            flags: IGNORE_KEY,
            pad: 0,
        };
        match self.ask(REGISTER, &mut argument) {
            // What SCSI and NVMe devices say to a command that they do not know, and to some they cannot do. One that fails would fail at the next read.
            Ok(status) if status != 0 && status & HOST_FAILED == 0 && !is_conflict(status) => {
                let what = format!("the device answers {status:#x}");
                Err(Refusal::Unsupported(what))
            }
            asked => answer(asked),
        }
    }

    fn reserve(&self, key: u64) -> Result<(), Refusal> {
        let mut argument = Reservation {
            key,
            kind: ALL_REGISTRANTS,
            flags: 0,
        };
        answer(self.ask(RESERVE, &mut argument))
    }

    fn preempt(&self, key: u64) -> Result<(), Refusal> {
        // By name this host's key is the new one. Both SCSI's and NVMe's driver send the first one as the key of the host that asks, and the second as
        // the one to remove: zero is all others.
        let mut argument = Preemption {
            old_key: key,
            new_key: 0,
            kind: ALL_REGISTRANTS,
            flags: 0,
        };
        answer(self.ask(PREEMPT_ABORT, &mut argument))
    }

    /// NVMe's Identify Namespace has a bit for it (NMIC); of others nothing is known.
    fn shared(&self) -> io::Result<bool> {
        const IDENTIFY: u8 = 6;
        const NMIC: usize = 30;
        let nsid = match self.ask(NVME_ID, &mut ()) {
            Ok(nsid) => nsid,
            Err(_) => return Ok(false),
        };
        let mut said = aligned::zeroed(4096);
        let mut command = Admin {
            opcode: IDENTIFY,
            nsid: u32::try_from(nsid).unwrap_or(0),
            // The kernel writes 4096 bytes there, which `said` owns and outlives the call.
            addr: said.as_mut_ptr().expose_provenance() as u64,
            data_len: 4096,
            ..Admin::default()
        };
        match self.ask(NVME_ADMIN, &mut command)? {
            0 => Ok(said.get(NMIC).is_some_and(|nmic| nmic & 1 != 0)),
            status => Err(io::Error::other(format!("device status {status:#x}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_of_the_kernel() {
        let codes = [REGISTER, RESERVE, PREEMPT_ABORT, NVME_ID, NVME_ADMIN];
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            let expected = [0x4018_70c8, 0x4010_70c9, 0x4018_70cc, 0x4e40, 0xc048_4e41];
            assert_eq!(codes.map(|code| code as u64), expected);
        }
    }

    #[test]
    fn a_status_is_not_taken_for_success_nor_a_conflict_for_a_missing_feature() {
        assert!(answer(Ok(0)).is_ok());
        // The third is what the SCSI target of Linux 6.1 was seen to say.
        for status in [0x18, 0x83, 0x118, 0x4083] {
            assert!(matches!(answer(Ok(status)), Err(Refusal::Conflict)));
        }
        assert!(matches!(answer(Ok(0xe_0000)), Err(Refusal::Failed(_))));
        let unsupported = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        assert!(matches!(
            answer(Err(unsupported)),
            Err(Refusal::Unsupported(_))
        ));
        let failed = io::Error::from_raw_os_error(libc::EIO);
        assert!(matches!(answer(Err(failed)), Err(Refusal::Failed(_))));
    }
}
