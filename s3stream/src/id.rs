//! The names of things: one newtype per kind of id, so that no two can be confused.
//!
//! Ids are never reused. They are plain numbers on the wire and in formats; text is for people.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $repr:ty, $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name($repr);

        impl $name {
            /// Wraps a number.
            pub const fn new(value: $repr) -> Self {
                Self(value)
            }

            /// The number.
            pub const fn get(self) -> $repr {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "(", $format, ")"), self.0)
            }
        }
    };
}

id!(
    /// A bucket's cluster, drawn at random when the bucket is first opened.
    ClusterId, u128, "{:032x}"
);
id!(
    /// A node: a name given by whoever runs it, kept over restarts.
    NodeId, u64, "{}"
);
id!(
    /// One life of a node. Drawn from one counter for the whole cluster, so it also orders lives of different nodes.
    NodeEpoch, u64, "{}"
);
id!(
    /// A group of streams that share an owner and an epoch (M3).
    GroupId, u64, "{}"
);
id!(
    /// A stream.
    StreamId, u64, "{}"
);
id!(
    /// One ownership of a group. What epoch e acknowledged, e+1 sees (S4).
    StreamEpoch, u64, "{}"
);
id!(
    /// An object in the bucket.
    ObjectId, u64, "{}"
);
