//! One operation with its memory: how it is submitted, what a result of the kernel means for it, and how it ends when there will be none.

use std::{io, mem};

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
        data: Bytes,
        through: usize,
        done: WriteDone,
    },
    Read {
        at: u64,
        buffer: BytesMut,
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
                data,
                through: 0,
                done,
            },
            Job::Read { at, len, done } => Self::Read {
                at,
                buffer: aligned::zeroed(len),
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
            } => match result {
                Err(e) => After::Wrote(done, Err(e)),
                Ok(n) if through + n >= data.len() => After::Wrote(done, Ok(())),
                Ok(0) => After::Wrote(done, Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => After::More(Self::Write {
                    at,
                    data,
                    through: through + n,
                    done,
                }),
            },
            Self::Read {
                at,
                buffer,
                through,
                done,
            } => match result {
                Err(e) => After::Read(done, Err(e)),
                Ok(n) if through + n >= buffer.len() => After::Read(done, Ok(buffer.freeze())),
                Ok(0) => After::Read(done, Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => After::More(Self::Read {
                    at,
                    buffer,
                    through: through + n,
                    done,
                }),
            },
        }
    }

    /// Answers with `error` without a word of the kernel, and leaves it the memory for ever, since it may still read from it or write to it. How many
    /// bytes that are.
    pub(super) fn give_up(self, error: io::Error) -> usize {
        match self {
            Self::Write { data, done, .. } => {
                let len = data.len();
                mem::forget(data);
                quietly(move || done(Err(error)));
                len
            }
            Self::Read { buffer, done, .. } => {
                let len = buffer.len();
                mem::forget(buffer);
                quietly(move || done(Err(error)));
                len
            }
            Self::Sync { done } => {
                quietly(move || done(Err(error)));
                0
            }
        }
    }
}
