//! A device that fails where it is told to.
//!
//! - Operations of each kind are counted from when the fault was planted: the `nth` is the first for 0.
//! - A failed write leaves nothing, or its first sectors if it was torn; a stalled one is asked of the device below only when it is released.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::block::{Device, Geometry, ReadDone, WriteDone};

/// Something that goes wrong once, or for a flipped bit every time.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The `nth` write fails.
    Write {
        /// Which.
        nth: u64,
        /// How.
        kind: io::ErrorKind,
    },
    /// The `nth` read fails.
    Read {
        /// Which.
        nth: u64,
        /// How.
        kind: io::ErrorKind,
    },
    /// The `nth` sync fails.
    Sync {
        /// Which.
        nth: u64,
        /// How.
        kind: io::ErrorKind,
    },
    /// The `nth` write waits for [`FaultyDevice::release`].
    Stall {
        /// Which.
        nth: u64,
    },
    /// Every read sees this bit flipped.
    Flip {
        /// The byte on the device.
        byte: u64,
        /// The bit in it, 0 to 7.
        bit: u8,
    },
    /// The `nth` write fails after its first sectors are there.
    Torn {
        /// Which.
        nth: u64,
        /// How many sectors of 512 bytes.
        sectors: usize,
    },
    /// The `nth` write is said to be done, and nothing is there.
    Lose {
        /// Which.
        nth: u64,
    },
    /// The `nth` write's completion is dropped uncalled.
    Drop {
        /// Which.
        nth: u64,
    },
}

/// Fails over any device. Clones are the same device.
#[derive(Clone, Debug)]
pub struct FaultyDevice {
    device: Arc<dyn Device>,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    faults: Vec<Fault>,
    stalled: Vec<(u64, Bytes, WriteDone)>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

enum Verdict {
    Pass,
    Fail(io::ErrorKind),
    Torn(usize),
    Lose,
    Stall,
    Drop,
}

impl FaultyDevice {
    /// No fault yet.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self {
            device,
            plan: Arc::default(),
        }
    }

    /// Plants a fault.
    pub fn plant(&self, fault: Fault) {
        self.plan.lock().faults.push(fault);
    }

    /// Writes that are stalled.
    pub fn stalled(&self) -> usize {
        self.plan.lock().stalled.len()
    }

    /// Lets stalled writes go on.
    pub fn release(&self) {
        let stalled = std::mem::take(&mut self.plan.lock().stalled);
        for (at, data, done) in stalled {
            self.device.write(at, data, done);
        }
    }
}

impl Plan {
    /// Counts one operation against the faults that `of` says are of its kind; the first that is due happens.
    fn judge(&mut self, of: impl Fn(&mut Fault) -> Option<(&mut u64, Verdict)>) -> Verdict {
        let mut due = None;
        for (index, fault) in self.faults.iter_mut().enumerate() {
            let Some((nth, verdict)) = of(fault) else {
                continue;
            };
            match nth.checked_sub(1) {
                Some(left) => *nth = left,
                None if due.is_none() => due = Some((index, verdict)),
                None => {}
            }
        }
        let Some((index, verdict)) = due else {
            return Verdict::Pass;
        };
        self.faults.remove(index);
        verdict
    }
}

impl Device for FaultyDevice {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn write(&self, at: u64, data: Bytes, done: WriteDone) {
        let verdict = self.plan.lock().judge(|fault| match fault {
            Fault::Write { nth, kind } => Some((nth, Verdict::Fail(*kind))),
            Fault::Torn { nth, sectors } => Some((nth, Verdict::Torn(*sectors))),
            Fault::Lose { nth } => Some((nth, Verdict::Lose)),
            Fault::Stall { nth } => Some((nth, Verdict::Stall)),
            Fault::Drop { nth } => Some((nth, Verdict::Drop)),
            _ => None,
        });
        match verdict {
            Verdict::Pass => self.device.write(at, data, done),
            // The completion must not come from inside this call: a sync below carries it.
            Verdict::Fail(kind) => self.device.sync(Box::new(move |_| done(Err(kind.into())))),
            Verdict::Torn(sectors) => {
                let there = data.slice(..data.len().min(sectors * 512));
                let short = move |_| done(Err(io::ErrorKind::WriteZero.into()));
                self.device.write(at, there, Box::new(short));
            }
            Verdict::Lose => self.device.sync(done),
            Verdict::Stall => self.plan.lock().stalled.push((at, data, done)),
            Verdict::Drop => self.device.sync(Box::new(move |_| drop(done))),
        }
    }

    fn read(&self, at: u64, len: usize, done: ReadDone) {
        let (verdict, flips) = {
            let mut plan = self.plan.lock();
            let verdict = plan.judge(|fault| match fault {
                Fault::Read { nth, kind } => Some((nth, Verdict::Fail(*kind))),
                _ => None,
            });
            let flips: Vec<_> = plan
                .faults
                .iter()
                .filter_map(|fault| match fault {
                    Fault::Flip { byte, bit } => Some((*byte, *bit)),
                    _ => None,
                })
                .collect();
            (verdict, flips)
        };
        self.device.read(
            at,
            len,
            Box::new(move |result| {
                if let Verdict::Fail(kind) = verdict {
                    return done(Err(kind.into()));
                }
                done(result.map(|bytes| {
                    let mut bytes = BytesMut::from(bytes);
                    for (byte, bit) in flips {
                        let inside = byte.checked_sub(at).and_then(|i| usize::try_from(i).ok());
                        if let Some(byte) = inside.and_then(|i| bytes.get_mut(i)) {
                            *byte ^= 1 << bit;
                        }
                    }
                    bytes.freeze()
                }));
            }),
        );
    }

    fn sync(&self, done: WriteDone) {
        let verdict = self.plan.lock().judge(|fault| match fault {
            Fault::Sync { nth, kind } => Some((nth, Verdict::Fail(*kind))),
            _ => None,
        });
        self.device.sync(Box::new(move |result| match verdict {
            Verdict::Fail(kind) => done(Err(kind.into())),
            _ => done(result),
        }));
    }

    fn name(&self) -> String {
        self.device.name()
    }
}
