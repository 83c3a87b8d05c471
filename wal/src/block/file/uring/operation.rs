//! One operation with its memory: how it is submitted, what a result of the kernel means for it, and how it ends when there will be none.
//!
//! - Memory is freed by [`Operation::after`] alone, which has the kernel's word that it is done with it. An operation that is dropped leaks it.

use std::{io, mem::ManuallyDrop};

use bytes::{Bytes, BytesMut};
use io_uring::{opcode, squeue, types};

use super::{super::Job, quietly};
use crate::block::{
    aligned,
    device::{ReadDone, WriteDone},
};

/// The file's index among the registered ones, of which it is the only one: before Linux 6.13 to unregister waits for every request that
/// uses a registered file, and the poll of the eventfd never ends.
const FILE: types::Fixed = types::Fixed(0);
/// One operation reads or writes at most this much: what the kernel does at once, in whole blocks. The rest follows.
const PIECE_MAX: usize = 1 << 30;

/// What is in the kernel, with its memory. `through` bytes of it are done.
pub(super) enum Operation {
    Write {
        at: u64,
        data: ManuallyDrop<Bytes>,
        through: usize,
        done: WriteDone,
    },
    Read {
        at: u64,
        buffer: ManuallyDrop<BytesMut>,
        through: usize,
        done: ReadDone,
    },
    Sync {
        done: WriteDone,
    },
}

pub(super) enum After {
    More(Operation),
    Wrote(WriteDone, io::Result<()>),
    Read(ReadDone, io::Result<Bytes>),
    Synced(WriteDone, io::Result<()>),
}

impl Operation {
    pub(super) fn of(job: Job) -> Self {
        match job {
            Job::Write { at, data, done } => Self::Write {
                at,
                data: ManuallyDrop::new(data),
                through: 0,
                done,
            },
            Job::Read { at, len, done } => Self::Read {
                at,
                buffer: ManuallyDrop::new(aligned::zeroed(len)),
                through: 0,
                done,
            },
            Job::Sync { done } => Self::Sync { done },
        }
    }

    /// The submission. Its addresses are those of memory that this value owns: they hold while it lives, wherever it is moved to.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        match self {
            Self::Write {
                at, data, through, ..
            } => {
                let rest = data.get(*through..).unwrap_or_default();
                let len = rest.len().min(PIECE_MAX) as u32;
                opcode::Write::new(FILE, rest.as_ptr(), len)
                    .offset(*at + *through as u64)
                    .build()
            }
            Self::Read {
                at,
                buffer,
                through,
                ..
            } => {
                let rest = buffer.get_mut(*through..).unwrap_or_default();
                let len = rest.len().min(PIECE_MAX) as u32;
                opcode::Read::new(FILE, rest.as_mut_ptr(), len)
                    .offset(*at + *through as u64)
                    .build()
            }
            Self::Sync { .. } => opcode::Fsync::new(FILE)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
        }
    }

    /// As `write_all_at` and `read_exact_at` do: what was cut short goes on, what was interrupted is asked again, all else is the outcome.
    pub(super) fn after(self, result: io::Result<usize>) -> After {
        let interrupted = |e: &io::Error| e.kind() == io::ErrorKind::Interrupted;
        if result.as_ref().is_err_and(interrupted) {
            return After::More(self);
        }
        match self {
            Self::Sync { done } => After::Synced(done, result.map(drop)),
            Self::Write {
                at,
                data,
                through,
                done,
            } => match step(result, through, data.len(), io::ErrorKind::WriteZero) {
                Ok(through) if through < data.len() => After::More(Self::Write {
                    at,
                    data,
                    through,
                    done,
                }),
                result => {
                    drop(ManuallyDrop::into_inner(data));
                    After::Wrote(done, result.map(drop))
                }
            },
            Self::Read {
                at,
                buffer,
                through,
                done,
            } => match step(result, through, buffer.len(), io::ErrorKind::UnexpectedEof) {
                Ok(through) if through < buffer.len() => After::More(Self::Read {
                    at,
                    buffer,
                    through,
                    done,
                }),
                result => {
                    let buffer = ManuallyDrop::into_inner(buffer);
                    After::Read(done, result.map(|_| buffer.freeze()))
                }
            },
        }
    }

    /// Answers with `error` without a word of the kernel, and leaves it the memory for ever, since it may still read from it or write to it. How many
    /// bytes that are.
    pub(super) fn give_up(self, error: io::Error) -> usize {
        let (len, answer): (_, Box<dyn FnOnce()>) = match self {
            Self::Write { data, done, .. } => (data.len(), Box::new(move || done(Err(error)))),
            Self::Read { buffer, done, .. } => (buffer.len(), Box::new(move || done(Err(error)))),
            Self::Sync { done } => (0, Box::new(move || done(Err(error)))),
        };
        quietly(answer);
        len
    }
}

/// How much of `len` bytes is done after one more result. To get nowhere is `stuck`.
fn step(
    result: io::Result<usize>,
    through: usize,
    len: usize,
    stuck: io::ErrorKind,
) -> io::Result<usize> {
    match result? {
        0 if through < len => Err(stuck.into()),
        n => Ok(through + n),
    }
}
