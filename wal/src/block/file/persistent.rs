//! Persistent reservations of a Linux block device (`linux/pr.h`), and what an NVMe namespace says of being shared. A thin layer: each call is one ioctl.
//!
//! The kernel asks the device to keep reservations through a loss of power, and translates for SCSI and NVMe devices. Multipath devices are refused: a
//! host is registered by its paths there, and a pre-emption goes down one of them.

#![allow(
    unsafe_code,
    reason = "ioctls take addresses; see the note at each place"
)]

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

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
/// Statuses of a SCSI device that is busy, or gave a command up: a later one may be done.
const SCSI_LATER: [i32; 3] = [0x08, 0x28, 0x40];
/// A SCSI device's word for "look at the sense data", which the kernel keeps: an unknown command, or that something else happened since the last command,
/// which is told once. An NVMe device's for a field that it does not know.
const CHECK: i32 = 0x02;
/// How often a registration is repeated that ends in [`CHECK`]: what is told once is told on each path and for each event.
const TRIES: u32 = 8;
/// Set where the command did not get to the device or back.
const HOST_FAILED: i32 = 0x00ff_0000;

/// Whether a device says that it does not know a command, and not that it may do it later.
fn says_unknown(status: i32) -> bool {
    let later = SCSI_LATER.contains(&(status & 0xff));
    status != 0 && status & HOST_FAILED == 0 && !is_conflict(status) && !later
}

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

/// How deep mapped devices may lie on one another.
const STACKED_MAX: u32 = 8;

/// Whether a device that the kernel describes at a path is a multipath one, or lies on one.
fn is_over_multipath(device: &Path, depth: u32) -> bool {
    let uuid = fs::read_to_string(device.join("dm/uuid")).unwrap_or_default();
    if uuid.starts_with("mpath-") || depth == 0 {
        return true;
    }
    let below = fs::read_dir(device.join("slaves")).into_iter().flatten();
    below
        .flatten()
        .any(|slave| is_over_multipath(&slave.path(), depth - 1))
}

/// The reservations of one open block device.
#[derive(Debug)]
pub(super) struct Persistent(pub(super) Arc<File>);

impl Persistent {
    /// Where the kernel describes the device.
    fn described(&self) -> Option<PathBuf> {
        let device = self.0.metadata().ok()?.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        Some(PathBuf::from(format!("/sys/dev/block/{major}:{minor}")))
    }

    fn is_partition(&self) -> bool {
        let described = self.described();
        described.is_some_and(|device| device.join("partition").exists())
    }

    fn is_over_multipath(&self) -> bool {
        self.described()
            .is_some_and(|device| is_over_multipath(&device, STACKED_MAX))
    }

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
            // Not this kind of device, or not this kind of command.
            Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL | libc::ENOSYS) => {
                Err(Refusal::Unsupported(e.to_string()))
            }
            // Whether it takes reservations is then not known. Kernels before 6.2 let nobody else ask.
            Some(libc::EPERM | libc::EACCES) => Err(Refusal::Unguarded(
                "whether it takes reservations may be asked with CAP_SYS_ADMIN alone".to_owned(),
            )),
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
        // Not asked: some kernels would reserve the whole device for it.
        if self.is_partition() {
            return Err(Refusal::Unsupported("it is a partition".to_owned()));
        }
        if self.is_over_multipath() {
            let what = "a pre-emption over one of several paths would keep this host's others from writing, too";
            return Err(Refusal::Unguarded(what.to_owned()));
        }
        let mut asked = self.ask(REGISTER, &mut argument);
        for _ in 1..TRIES {
            if !matches!(asked, Ok(status) if status & HOST_FAILED == 0 && status & 0xff == CHECK) {
                break;
            }
            asked = self.ask(REGISTER, &mut argument);
        }
        match asked {
            // What SCSI and NVMe devices say to a command that they do not know, and to some they cannot do.
            Ok(status) if says_unknown(status) => {
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
        for status in [0x08, 0x28, 0x40, 0x18, 0xe_0000, 0] {
            assert!(!says_unknown(status), "{status:#x}");
        }
        assert!(says_unknown(0x02) && says_unknown(0x01) && says_unknown(0x0800_0002));
        for code in [libc::EPERM, libc::EACCES] {
            let refused = answer(Err(io::Error::from_raw_os_error(code)));
            assert!(matches!(refused, Err(Refusal::Unguarded(_))));
        }
        let unsupported = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        assert!(matches!(
            answer(Err(unsupported)),
            Err(Refusal::Unsupported(_))
        ));
        let failed = io::Error::from_raw_os_error(libc::EIO);
        assert!(matches!(answer(Err(failed)), Err(Refusal::Failed(_))));
    }

    #[test]
    fn a_mapped_device_that_lies_on_a_multipath_one_is_found() {
        let sys = tempfile::tempdir().unwrap();
        let device = |name: &str, uuid: &str| {
            let device = sys.path().join(name);
            fs::create_dir_all(device.join("dm")).unwrap();
            fs::write(device.join("dm/uuid"), uuid).unwrap();
            device
        };
        let linear = device("linear", "LVM-abc\n");
        assert!(!is_over_multipath(&linear, STACKED_MAX));
        assert!(is_over_multipath(
            &device("paths", "mpath-360\n"),
            STACKED_MAX
        ));
        let below = linear.join("slaves/dm-0/dm");
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("uuid"), "mpath-360\n").unwrap();
        assert!(is_over_multipath(&linear, STACKED_MAX));
    }
}
