//! A directory in memory that several hosts share, and that can lose what a real one could.
//!
//! - A write is visible before it is durable, and durable when it completes; an image keeps both, with the names that no sync has covered.
//! - Every operation of a [`ModelHost`] has a moment before and one after it takes effect: there a host can be paused, killed, or told a lie.
//! - Waits are tokio's; on a paused runtime a run is the same every time.
//!
//! Hosts see each other's changes at once, but for lists that are told to [lag](ModelHost::lag_lists).

use std::{collections::BTreeMap, io, sync::Arc};

use parking_lot::Mutex;

mod host;
mod image;

pub use host::{DirectoryFault, ModelHost};
pub use image::{Change, DirectoryImage};

/// A moment of a run, with all that is needed to crash there.
#[derive(Clone, Debug)]
pub struct Step<M> {
    /// What the test marked, if it is a mark.
    pub mark: Option<M>,
    /// The directory.
    pub image: DirectoryImage,
    /// Changes that were asked for and have not been answered.
    pub in_flight: Vec<Change>,
}

#[derive(Debug)]
struct World<M> {
    image: DirectoryImage,
    in_flight: BTreeMap<u64, Change>,
    next_id: u64,
    recording: bool,
    steps: Vec<Step<M>>,
}

impl<M> World<M> {
    fn note(&mut self, mark: Option<M>) {
        if self.recording {
            let (image, in_flight) = (self.image.clone(), self.in_flight.values().cloned());
            let in_flight = in_flight.collect();
            self.steps.push(Step {
                mark,
                image,
                in_flight,
            });
        }
    }
}

impl<M> World<M> {
    fn ask(&mut self, change: Change) -> u64 {
        self.next_id += 1;
        self.in_flight.insert(self.next_id, change);
        self.note(None);
        self.next_id
    }

    /// The change takes effect; `None` if it was lost with the server.
    fn see(
        &mut self,
        id: u64,
        change: &Change,
        fault: Option<DirectoryFault>,
    ) -> Option<io::Result<()>> {
        self.in_flight.get(&id)?;
        let result = match (fault, change) {
            (Some(fault), change) => {
                self.image
                    .apply_in_part(change, |part| part < fault.parts, true);
                Err(io::Error::from_raw_os_error(fault.errno))
            }
            (None, Change::Write { file, at, data }) => self.image.write(*file, *at, data, true),
            (None, change) => self.image.apply(change),
        };
        self.note(None);
        Some(result)
    }

    /// What took effect is durable.
    fn settle(&mut self, id: u64, change: &Change, seen: io::Result<()>) -> Option<io::Result<()>> {
        self.in_flight.remove(&id)?;
        let result = match (change, seen) {
            (Change::Write { file, at, data }, Ok(())) => self.image.write(*file, *at, data, false),
            (_, seen) => seen,
        };
        self.note(None);
        Some(result)
    }
}

/// A directory that hosts share.
#[derive(Debug)]
pub struct ModelDirectory<M = ()> {
    world: Arc<Mutex<World<M>>>,
}

impl<M> Clone for ModelDirectory<M> {
    fn clone(&self) -> Self {
        Self {
            world: Arc::clone(&self.world),
        }
    }
}

impl<M> Default for ModelDirectory<M> {
    fn default() -> Self {
        Self::holding(DirectoryImage::default())
    }
}

impl<M> ModelDirectory<M> {
    /// One that holds `image`.
    pub fn holding(image: DirectoryImage) -> Self {
        let world = World {
            image,
            in_flight: BTreeMap::new(),
            next_id: 0,
            recording: false,
            steps: Vec::new(),
        };
        Self {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// The same, which from now on keeps every step.
    #[must_use]
    pub fn recording(self) -> Self {
        self.world.lock().recording = true;
        self
    }

    /// What is there now.
    pub fn image(&self) -> DirectoryImage {
        self.world.lock().image.clone()
    }

    /// Replaces what is there: what hosts find after a power cut of the server.
    pub fn restore(&self, image: DirectoryImage) {
        let mut world = self.world.lock();
        world.image = image;
        world.in_flight.clear();
    }

    /// Changes that were asked for and have not been answered.
    pub fn in_flight(&self) -> Vec<Change> {
        self.world.lock().in_flight.values().cloned().collect()
    }

    /// Notes something between two steps.
    pub fn mark(&self, mark: M) {
        self.world.lock().note(Some(mark));
    }

    /// The steps so far.
    pub fn steps(&self) -> Vec<Step<M>>
    where
        M: Clone,
    {
        self.world.lock().steps.clone()
    }

    /// A host that has it mounted.
    pub fn host(&self) -> ModelHost<M> {
        ModelHost::new(Arc::clone(&self.world))
    }
}
