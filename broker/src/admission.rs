//! Who may connect: `open connections <= limits.connections_max`, `those of one address <= limits.connections_per_address_max`.
//!
//! Every listener of a broker asks the same one. A place comes back when it is dropped, however its connection ended.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::config::Limits;

/// The places that there are.
#[derive(Debug)]
pub(crate) struct Admission {
    all_max: usize,
    per_address_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// The right to one connection.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    address: IpAddr,
}

/// Why there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error("{0} connections are open (limits.connections_max)")]
    Full(usize),
    #[error("{0} connections of this address are open (limits.connections_per_address_max)")]
    FullForAddress(usize),
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            all_max: limits.connections_max,
            per_address_max: limits.connections_per_address_max,
            open: Mutex::default(),
        })
    }

    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, NoPlace> {
        // One client is one client, whichever family its address is written in.
        let address = address.to_canonical();
        let mut open = self.open.lock();
        if open.all >= self.all_max {
            return Err(NoPlace::Full(self.all_max));
        }
        let of_address = open.by_address.get(&address).copied().unwrap_or(0);
        if of_address >= self.per_address_max {
            return Err(NoPlace::FullForAddress(self.per_address_max));
        }
        open.all += 1;
        open.by_address.insert(address, of_address + 1);
        Ok(Place {
            admission: self.clone(),
            address,
        })
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.open.lock().all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock();
        open.all -= 1;
        if let Some(of_address) = open.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(all: usize, per_address: usize) -> Arc<Admission> {
        Admission::new(&Limits {
            connections_max: all,
            connections_per_address_max: per_address,
            ..Limits::default()
        })
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn an_address_that_has_its_share_leaves_room_for_others() {
        let admission = admission(3, 2);
        let mut places = vec![
            admission.admit(address(1)).unwrap(),
            admission.admit(address(1)).unwrap(),
        ];
        let refused = admission.admit(address(1)).unwrap_err();
        assert_eq!(refused, NoPlace::FullForAddress(2));
        places.push(admission.admit(address(2)).unwrap());
        let refused = admission.admit(address(3)).unwrap_err();
        assert_eq!(refused, NoPlace::Full(3));
        places.swap_remove(0);
        places.push(admission.admit(address(1)).unwrap());
        assert_eq!(admission.open(), 3);
    }

    #[test]
    fn nothing_is_kept_of_those_who_have_gone() {
        let admission = admission(10, 10);
        let places: Vec<_> = (0..10)
            .map(|last| admission.admit(address(last)).unwrap())
            .collect();
        drop(places);
        let open = admission.open.lock();
        assert_eq!((open.all, open.by_address.len()), (0, 0));
    }

    #[test]
    fn an_address_is_one_in_both_families() {
        let admission = admission(10, 1);
        let _place = admission.admit(address(1)).unwrap();
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert!(admission.admit(mapped).is_err());
    }
}
