//! The lease: a chain of numbered files, each made by linking a written, durable draft (F3). `docs/format.md`, "NFS log", "Lease".
//!
//! - `lease n + 1` is made by whoever holds `n`, which renews it, or by a taker, which ends it. A link decides, and no cache is asked.
//! - Valid: `now < moment before the newest own link was sent + term`, on the own clock.
//! - A taker reads nothing before `now ≥ moment after its link + wait of the number before`, which is at least the term of every holder before.
//! - Numbers are removed in ascending order and the two newest stay, so a number that is missing was never made if the one before it is there.
//!
//! It has no timer: [`Lease::hold`] renews when something wants to be acknowledged.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    Config, Directory,
    lease_record::{FILE_BYTES, LeaseRecord},
    look::{failed, list, read, while_stale},
    names::Name,
};
use crate::{Clock, Error, LogState, Position};

/// A link is sent again so often while it is not known whether it was made.
const LINK_TRIES: u32 = 5;
/// Takers that race for numbers: each lost race is a number that someone else got.
const TAKE_TRIES: u32 = 100;
/// Old numbers that are removed at once. A renewal leaves one; whatever else lies there must not make it wait.
const CLEAN_MAX: usize = 16;

/// The lease of one opening.
#[derive(Debug)]
pub(crate) struct Lease {
    directory: Arc<dyn Directory>,
    clock: Arc<dyn Clock>,
    term: Duration,
    /// Locked while the next number is made.
    chain: tokio::sync::Mutex<Chain>,
    validity: Mutex<Validity>,
    renewing: AtomicBool,
}

#[derive(Debug)]
struct Chain {
    /// The newest number that is this opening's.
    newest: LeaseRecord,
    /// Lower numbers that are there, ascending.
    before: VecDeque<u64>,
}

#[derive(Clone, Debug)]
struct Validity {
    until: Duration,
    /// Whoever took the directory; or this opening, which gave it back.
    ended: Option<Error>,
}

/// What became of the attempt to make a number.
enum Made {
    Ours,
    /// By a try before this one, which failed after its link: ours, but how long ago says nothing of now.
    Earlier,
    /// Somebody else has it, or a later one.
    Lost,
}

impl Lease {
    /// Takes the directory for `state.epoch`: makes the first missing number and waits until no holder before can acknowledge anything any more.
    pub(crate) async fn take(
        directory: Arc<dyn Directory>,
        clock: Arc<dyn Clock>,
        config: &Config,
        state: &LogState,
        nonce: u128,
    ) -> Result<Self, Error> {
        for _ in 0..TAKE_TRIES {
            let before = newest(&*directory).await?;
            let held_by_later = before
                .as_ref()
                .filter(|held| held.identity.log == state.identity.log && held.epoch > state.epoch);
            if let Some(held) = held_by_later {
                return Err(Error::Fenced { by: held.holder() });
            }
            let wait = before.as_ref().map_or(Duration::ZERO, LeaseRecord::left);
            let record = LeaseRecord {
                number: before.as_ref().map_or(0, |held| held.number) + 1,
                identity: state.identity.clone(),
                epoch: state.epoch,
                nonce,
                // Who takes the directory while this one still waits, waits for all that this one waits for.
                wait: wait.max(config.lease),
                released: false,
            };
            let began = clock.now();
            if matches!(
                make(&*directory, &record, before.as_ref()).await?,
                Made::Lost
            ) {
                continue;
            }
            let mut before = numbers(&*directory).await?;
            before.retain(|number| *number < record.number);
            let mut chain = Chain {
                newest: record,
                before: before.into(),
            };
            chain.clean(&*directory).await;
            let free = clock.now() + config.wait_for(wait);
            if !wait.is_zero() {
                tracing::info!(
                    place = directory.name(),
                    ?wait,
                    lease = chain.newest.number,
                    "waiting for the lease of the owner before"
                );
            }
            wait_until(&*clock, free).await;
            let validity = Validity {
                until: began + config.lease,
                ended: None,
            };
            return Ok(Self {
                directory,
                clock,
                term: config.lease,
                chain: tokio::sync::Mutex::new(chain),
                validity: Mutex::new(validity),
                renewing: AtomicBool::new(false),
            });
        }
        Err(Error::InUse {
            place: directory.name(),
            by: format!("others that took it {TAKE_TRIES} times meanwhile"),
        })
    }

    /// Whether an acknowledgement needs nothing more.
    pub(crate) fn is_valid(&self) -> bool {
        let validity = self.validity.lock();
        validity.ended.is_none() && self.clock.now() < validity.until
    }

    /// Whether more than half of it is over, and nobody renews it: then whoever asks is the one to do so.
    pub(crate) fn begin_renewal(&self) -> bool {
        let late = {
            let validity = self.validity.lock();
            validity.ended.is_none() && self.clock.now() + self.term / 2 >= validity.until
        };
        late && !self.renewing.swap(true, Ordering::AcqRel)
    }

    /// Ahead of need; a failure is left to the one that needs it.
    pub(crate) async fn renew_early(&self) {
        let mut chain = self.chain.lock().await;
        if let Err(error) = self.renew(&mut chain).await {
            tracing::warn!(place = self.directory.name(), %error, "the lease was not renewed");
        }
        self.renewing.store(false, Ordering::Release);
    }

    /// Returns when what was durable before this call may be acknowledged: the lease is valid, or a number was made after the call, which shows that
    /// nobody had taken the directory. A later taker then reads what was durable.
    ///
    /// # Errors
    /// `Fenced`, `Io`, `Closed` after a release.
    pub(crate) async fn hold(&self) -> Result<(), Error> {
        if self.is_valid() {
            return Ok(());
        }
        let mut chain = self.chain.lock().await;
        if self.is_valid() {
            return Ok(());
        }
        self.renew(&mut chain).await
    }

    async fn renew(&self, chain: &mut Chain) -> Result<(), Error> {
        self.ended()?;
        // After an earlier number the next one decides.
        for _ in 0..LINK_TRIES {
            let next = LeaseRecord {
                number: chain.newest.number + 1,
                wait: self.term,
                ..chain.newest.clone()
            };
            let began = self.clock.now();
            let made = make(&*self.directory, &next, Some(&chain.newest)).await?;
            if matches!(made, Made::Lost) {
                return Err(self.lost().await);
            }
            chain.before.push_back(chain.newest.number);
            chain.newest = next;
            if matches!(made, Made::Ours) {
                self.validity.lock().until = began + self.term;
                chain.clean(&*self.directory).await;
                return Ok(());
            }
        }
        let error = io::Error::other("numbers of this owner that it did not know of");
        Err(failed("renew a lease in", &self.directory.name(), error))
    }

    /// What a failed write means: a later owner may have removed the file that it was for. Only looks, and renews nothing (W6).
    pub(crate) async fn explain(&self, error: io::Error) -> io::Error {
        let chain = self.chain.lock().await;
        if is_taken(&*self.directory, &chain.newest).await {
            return io::Error::other(self.lost().await);
        }
        error
    }

    /// Nothing will be acknowledged any more; the next holder need not wait. Best effort: without it, it waits.
    pub(crate) async fn release(&self) {
        let mut chain = self.chain.lock().await;
        if self.ended().is_err() {
            return;
        }
        self.validity.lock().ended = Some(Error::Closed);
        let last = LeaseRecord {
            number: chain.newest.number + 1,
            wait: Duration::ZERO,
            released: true,
            ..chain.newest.clone()
        };
        match make(&*self.directory, &last, Some(&chain.newest)).await {
            Ok(Made::Ours | Made::Earlier) => chain.newest = last,
            Ok(Made::Lost) => {}
            Err(error) => {
                tracing::warn!(place = self.directory.name(), %error, "the lease was not released");
            }
        }
    }

    fn ended(&self) -> Result<(), Error> {
        self.validity.lock().ended.clone().map_or(Ok(()), Err)
    }

    /// Ends the lease, and says who has it.
    async fn lost(&self) -> Error {
        let by = match newest(&*self.directory).await {
            Ok(Some(held)) => held.holder(),
            Ok(None) => "someone who emptied the directory".to_owned(),
            Err(error) => format!("a later lease, which cannot be read: {error}"),
        };
        let fenced = Error::Fenced { by };
        self.validity.lock().ended = Some(fenced.clone());
        fenced
    }
}

impl Chain {
    /// Removes all but the two newest numbers, in ascending order and some at a time: at the first that stays it stops, and the next time goes on there.
    async fn clean(&mut self, directory: &dyn Directory) {
        let old = self.before.len().saturating_sub(1);
        for _ in 0..old.min(CLEAN_MAX) {
            let Some(number) = self.before.front() else {
                return;
            };
            match directory.remove(&Name::Lease(*number).to_string()).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(place = directory.name(), %error, "an old lease file stays");
                    return;
                }
                _ => drop(self.before.pop_front()),
            }
        }
    }
}

/// Waits on a clock that may count time in which the machine slept.
async fn wait_until(clock: &dyn Clock, free: Duration) {
    loop {
        let now = clock.now();
        if now >= free {
            return;
        }
        tokio::time::sleep(free - now).await;
    }
}

/// The highest number there is.
async fn newest(directory: &dyn Directory) -> Result<Option<LeaseRecord>, Error> {
    for _ in 0..TAKE_TRIES {
        let Some(number) = numbers(directory).await?.pop() else {
            return Ok(None);
        };
        // Renewed, and removed since, if it is not there.
        if let Some(record) = read_record(directory, number).await? {
            return Ok(Some(record));
        }
    }
    Err(Error::InUse {
        place: directory.name(),
        by: "an owner that renews its lease faster than it can be read".to_owned(),
    })
}

/// What a number says; `None` if it is not there.
async fn read_record(directory: &dyn Directory, number: u64) -> Result<Option<LeaseRecord>, Error> {
    let place = directory.name();
    let name = Name::Lease(number).to_string();
    let bytes = match read(directory, &name, 0, FILE_BYTES).await {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(|e| failed("read a lease in", &place, e))?,
    };
    match LeaseRecord::decode(&place, number, &bytes) {
        Err(Error::Invalid(what)) => Err(Error::Corrupt {
            position: Position::default(),
            what: format!(
                "{what}; without it nobody knows how long its owner may go on: when that one is surely dead, remove the file"
            ),
        }),
        result => result.map(Some),
    }
}

/// Whether another holder is known to have come after `newest`. Asks for names: a list may be old.
async fn is_taken(directory: &dyn Directory, newest: &LeaseRecord) -> bool {
    for number in (newest.number..).take(LINK_TRIES as usize) {
        match read_record(directory, number).await {
            // The own number, or one that this opening made and does not know of.
            Ok(Some(held)) if held.nonce == newest.nonce => {}
            Ok(Some(_)) => return true,
            // Only a later holder removes the number that it follows.
            Ok(None) => return number == newest.number,
            Err(_) => return false,
        }
    }
    false
}

/// The numbers that are there, ascending.
async fn numbers(directory: &dyn Directory) -> Result<Vec<u64>, Error> {
    let names = list(directory).await?;
    let numbers = names.iter().filter_map(|name| match name {
        Name::Lease(number) => Some(*number),
        _ => None,
    });
    Ok(numbers.collect())
}

/// Makes the number of `record`, right after `before`.
async fn make(
    directory: &dyn Directory,
    record: &LeaseRecord,
    before: Option<&LeaseRecord>,
) -> Result<Made, Error> {
    let place = directory.name();
    let draft = Name::Draft(record.nonce ^ u128::from(record.number)).to_string();
    let name = Name::Lease(record.number).to_string();
    let created = directory
        .create(&draft, FILE_BYTES, 0, record.encode())
        .await;
    let linked = match &created {
        Ok(()) => link(directory, &draft, &name).await,
        Err(_) => Ok(false),
    };
    // Its name is what counts from here on, and the next try needs the draft's; one that stays is swept later.
    let _ = directory.remove(&draft).await;
    created.map_err(|e| failed("write a lease in", &place, e))?;
    let linked = linked.map_err(|e| failed("link a lease in", &place, e))?;
    if !linked {
        // A try before this one may have made it, and failed after that: then its content is what this one would have.
        match read(directory, &name, 0, FILE_BYTES).await {
            Ok(bytes) if bytes.starts_with(&record.encode()) => {}
            Ok(_) => return Ok(Made::Lost),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Made::Lost),
            Err(e) => return Err(failed("read a lease in", &place, e)),
        }
    }
    // The name must outlive a power cut before anything rests on it.
    directory
        .sync()
        .await
        .map_err(|e| failed("sync", &place, e))?;
    Ok(match is_next(directory, record.number, before).await? {
        true if linked => Made::Ours,
        true => Made::Earlier,
        false => Made::Lost,
    })
}

/// Gives the file `from` the name `to`, if nobody else has that; a link whose answer was lost is settled by the number of the file's names.
pub(crate) async fn link(directory: &dyn Directory, from: &str, to: &str) -> io::Result<bool> {
    let mut tries = 0;
    loop {
        let Err(error) = directory.link(from, to).await else {
            return Ok(true);
        };
        if while_stale(|| directory.links(from)).await? > 1 {
            return Ok(true);
        }
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Ok(false);
        }
        tries += 1;
        if tries == LINK_TRIES {
            return Err(error);
        }
    }
}

/// Whether `number` was the first missing one when it was made: an owner that slept for long may have filled a gap that a clean-up left. The number before
/// is still there as it was, and no later one is.
async fn is_next(
    directory: &dyn Directory,
    number: u64,
    before: Option<&LeaseRecord>,
) -> Result<bool, Error> {
    let place = directory.name();
    if let Some(before) = before {
        let name = Name::Lease(before.number).to_string();
        match read(directory, &name, 0, FILE_BYTES).await {
            Ok(bytes) if bytes.starts_with(&before.encode()) => {}
            Ok(_) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(failed("read a lease in", &place, e)),
        }
    }
    // A list may lag behind the own link; what counts is that it shows nothing later.
    let newest = numbers(directory).await?.pop();
    Ok(newest.is_none_or(|newest| newest <= number))
}
