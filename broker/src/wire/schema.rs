//! The shape of every request that is served: enough to walk it, nothing of what it means.
//!
//! One table per API, all its versions in it. A test encodes each request in each version with the codec and walks it, so
//! that table and codec cannot drift apart. Responses have no table: they are only written.

pub(crate) mod admin;
mod groups;

pub(crate) use groups::*;

/// What stands in one place of a request.
#[derive(Debug)]
pub(crate) enum Shape {
    /// A number, a boolean or an id of this many bytes.
    Fixed(usize),
    /// A string, perhaps null.
    Text,
    /// Bytes, perhaps null.
    Blob,
    /// An array, perhaps null, of one shape.
    Each(&'static Shape),
    /// An array, perhaps null, of structures.
    List(&'static Layout),
    /// A structure.
    One(&'static Layout),
    /// A byte that says whether there is one, and perhaps a structure.
    Maybe(&'static Layout),
}

/// A field and the versions that have it.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) since: i16,
    pub(crate) until: i16,
    pub(crate) shape: Shape,
}

/// A structure: its fields in order, then, in flexible versions, tagged fields of which the codec knows some.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) fields: &'static [Field],
    pub(crate) tagged: &'static [(u32, Shape)],
}

const INT8: Shape = Shape::Fixed(1);
const BOOL: Shape = Shape::Fixed(1);
const INT16: Shape = Shape::Fixed(2);
const INT32: Shape = Shape::Fixed(4);
const INT64: Shape = Shape::Fixed(8);
const UUID: Shape = Shape::Fixed(16);

const fn always(shape: Shape) -> Field {
    within(0, i16::MAX, shape)
}

const fn since(version: i16, shape: Shape) -> Field {
    within(version, i16::MAX, shape)
}

const fn within(since: i16, until: i16, shape: Shape) -> Field {
    Field {
        since,
        until,
        shape,
    }
}

const fn layout(fields: &'static [Field]) -> Layout {
    Layout {
        fields,
        tagged: &[],
    }
}

pub(crate) static API_VERSIONS: Layout = layout(&[since(3, Shape::Text), since(3, Shape::Text)]);

pub(crate) static METADATA: Layout = layout(&[
    always(Shape::List(&layout(&[
        since(10, UUID),
        always(Shape::Text),
    ]))),
    since(4, BOOL),
    within(8, 10, BOOL),
    since(8, BOOL),
]);

pub(crate) static PRODUCE: Layout = layout(&[
    always(Shape::Text), // transactional id
    always(INT16),       // acks
    always(INT32),       // timeout
    always(Shape::List(&layout(&[
        within(0, 12, Shape::Text),
        since(13, UUID),
        always(Shape::List(&layout(&[always(INT32), always(Shape::Blob)]))),
    ]))),
]);

pub(crate) static FETCH: Layout = Layout {
    fields: &[
        within(0, 14, INT32), // replica
        always(INT32),        // max wait
        always(INT32),        // min bytes
        always(INT32),        // max bytes
        always(INT8),         // isolation
        since(7, INT32),
        since(7, INT32),
        always(Shape::List(&layout(&[
            within(0, 12, Shape::Text),
            since(13, UUID),
            always(Shape::List(&Layout {
                fields: &[
                    always(INT32),
                    since(9, INT32),
                    always(INT64),
                    since(12, INT32),
                    since(5, INT64),
                    always(INT32),
                ],
                tagged: &[(0, UUID), (1, INT64)], // directory, high watermark
            })),
        ]))),
        since(
            7,
            Shape::List(&layout(&[
                within(0, 12, Shape::Text),
                since(13, UUID),
                always(Shape::Each(&INT32)),
            ])),
        ),
        since(11, Shape::Text),
    ],
    // Cluster id, replica.
    tagged: &[
        (0, Shape::Text),
        (1, Shape::One(&layout(&[always(INT32), always(INT64)]))),
    ],
};

pub(crate) static LIST_OFFSETS: Layout = layout(&[
    always(INT32),
    since(2, INT8),
    always(Shape::List(&layout(&[
        always(Shape::Text),
        always(Shape::List(&layout(&[
            always(INT32),
            since(4, INT32),
            always(INT64),
        ]))),
    ]))),
    since(10, INT32),
]);

pub(crate) static FIND_COORDINATOR: Layout = layout(&[
    within(0, 3, Shape::Text),
    since(1, INT8),
    since(4, Shape::Each(&Shape::Text)),
]);

pub(crate) static CREATE_TOPICS: Layout = layout(&[
    always(Shape::List(&layout(&[
        always(Shape::Text),
        always(INT32),
        always(INT16),
        always(Shape::List(&layout(&[
            always(INT32),
            always(Shape::Each(&INT32)),
        ]))),
        always(Shape::List(&layout(&[
            always(Shape::Text),
            always(Shape::Text),
        ]))),
    ]))),
    always(INT32),
    always(BOOL),
]);

pub(crate) static DELETE_TOPICS: Layout = layout(&[
    since(
        6,
        Shape::List(&layout(&[always(Shape::Text), always(UUID)])),
    ),
    within(0, 5, Shape::Each(&Shape::Text)),
    always(INT32),
]);

pub(crate) static DELETE_RECORDS: Layout = layout(&[
    always(Shape::List(&layout(&[
        always(Shape::Text),
        always(Shape::List(&layout(&[always(INT32), always(INT64)]))),
    ]))),
    always(INT32),
]);

pub(crate) static INIT_PRODUCER_ID: Layout = layout(&[
    always(Shape::Text), // transactional id
    always(INT32),
    since(3, INT64),
    since(3, INT16),
]);

pub(crate) static OFFSET_FOR_LEADER_EPOCH: Layout = layout(&[
    since(3, INT32),
    always(Shape::List(&layout(&[
        always(Shape::Text),
        always(Shape::List(&layout(&[
            always(INT32),
            always(INT32),
            always(INT32),
        ]))),
    ]))),
]);

pub(crate) static ADD_PARTITIONS_TO_TXN: Layout = layout(&[
    always(Shape::Text), // transactional id
    always(INT64),
    always(INT16),
    always(Shape::List(&TOPIC_PARTITIONS)),
]);

pub(crate) static ADD_OFFSETS_TO_TXN: Layout = layout(&[
    always(Shape::Text), // transactional id
    always(INT64),
    always(INT16),
    always(Shape::Text), // group
]);

pub(crate) static END_TXN: Layout = layout(&[
    always(Shape::Text), // transactional id
    always(INT64),
    always(INT16),
    always(BOOL),
]);

pub(crate) static WRITE_TXN_MARKERS: Layout = layout(&[always(Shape::List(&layout(&[
    always(INT64),
    always(INT16),
    always(BOOL),
    always(Shape::List(&TOPIC_PARTITIONS)),
    always(INT32),
])))]);

pub(crate) static DESCRIBE_PRODUCERS: Layout = layout(&[always(Shape::List(&TOPIC_PARTITIONS))]);

pub(crate) static DESCRIBE_TRANSACTIONS: Layout = layout(&[always(Shape::Each(&Shape::Text))]);

pub(crate) static LIST_TRANSACTIONS: Layout = layout(&[
    always(Shape::Each(&Shape::Text)),
    always(Shape::Each(&INT64)),
    since(1, INT64),
]);

/// A topic's name, and partitions of it.
static TOPIC_PARTITIONS: Layout = layout(&[always(Shape::Text), always(Shape::Each(&INT32))]);
