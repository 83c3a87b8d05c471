//! A list of numbers that finds those below a bound without looking at the others one by one.
//!
//! `levels[k][i]` is the least of the `2^k` numbers from `i * 2^k` on, and is there once they all are: so a number at
//! the end comes or goes without a change to the rest.

/// The list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Earliest {
    levels: Vec<Vec<i64>>,
}

impl Earliest {
    fn len(&self) -> usize {
        self.levels.first().map_or(0, Vec::len)
    }

    pub(super) fn push(&mut self, number: i64) {
        let mut least = number;
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let numbers = &mut self.levels[level];
            numbers.push(least);
            match numbers.as_slice() {
                [.., left, right] if numbers.len().is_multiple_of(2) => least = *left.min(right),
                _ => return,
            }
        }
    }

    /// Leaves the first so many.
    pub(super) fn truncate(&mut self, len: usize) {
        for (level, numbers) in self.levels.iter_mut().enumerate() {
            numbers.truncate(len >> level);
        }
        self.levels.retain(|numbers| !numbers.is_empty());
    }

    /// The places, from `from` on, of the numbers that are below `bound`.
    pub(super) fn below(&self, bound: i64, from: usize) -> Below<'_> {
        Below {
            list: self,
            bound,
            at: from,
            looks: 0,
        }
    }
}

impl FromIterator<i64> for Earliest {
    fn from_iter<T: IntoIterator<Item = i64>>(numbers: T) -> Self {
        let mut list = Self::default();
        numbers.into_iter().for_each(|number| list.push(number));
        list
    }
}

/// The places of numbers below a bound.
pub(super) struct Below<'a> {
    list: &'a Earliest,
    bound: i64,
    at: usize,
    /// How many numbers were looked at.
    looks: u64,
}

impl Iterator for Below<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.at < self.list.len() {
            // The largest run that begins here, is whole, and has nothing to find; or the number here.
            let aligned = self.at.trailing_zeros() as usize;
            let mut level = aligned.min(self.list.levels.len() - 1);
            loop {
                let least = self.list.levels[level].get(self.at >> level);
                self.looks += 1;
                match least {
                    Some(least) if *least >= self.bound => {
                        self.at += 1 << level;
                        break;
                    }
                    _ if level == 0 => {
                        self.at += 1;
                        return Some(self.at - 1);
                    }
                    _ => level -= 1,
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_looking_at_each_would_find(
            steps in prop::collection::vec((0..50i64, 0..40usize), 0..80),
            bound in 0..50i64,
            from in 0..80usize,
        ) {
            let (mut list, mut model) = (Earliest::default(), Vec::new());
            for (number, len) in steps {
                list.push(number);
                model.push(number);
                if number % 7 == 0 {
                    list.truncate(len);
                    model.truncate(len);
                }
            }
            let expected = (from..model.len()).filter(|at| model[*at] < bound);
            let found: Vec<usize> = list.below(bound, from).collect();
            prop_assert_eq!(found, expected.collect::<Vec<_>>());
            prop_assert_eq!(&list, &model.into_iter().collect::<Earliest>());
        }
    }

    #[test]
    fn what_is_looked_at_is_what_is_found_and_a_logarithm_for_each() {
        let many = 1 << 20;
        let list: Earliest = (0..many + 77).collect();
        for (from, bound, found) in [(0, 0, 0), (0, 9, 9), (1000, 1005, 5), (many as usize, 5, 0)] {
            let mut below = list.below(bound, from);
            assert_eq!(below.by_ref().count(), found);
            let most = 3 * 21 * (found as u64 + 1);
            assert!(below.looks <= most, "{} looks for {found}", below.looks);
        }
        // One that is early at the very end.
        let list: Earliest = (10..many).chain([3]).collect();
        let mut below = list.below(5, 0);
        assert_eq!(below.next(), Some(many as usize - 10));
        assert!(below.looks < 100, "{}", below.looks);
    }
}
