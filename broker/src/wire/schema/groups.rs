//! Requests about groups and their offsets.

use super::{BOOL, INT8, INT16, INT32, INT64, Layout, Shape, UUID, always, layout, since, within};

/// Topics with partitions, each a number alone.
static PARTITIONS: Layout = layout(&[always(Shape::Text), always(Shape::Each(&INT32))]);

pub(crate) static JOIN_GROUP: Layout = layout(&[
    always(Shape::Text), // group
    always(INT32),       // session
    since(1, INT32),     // time to join again
    always(Shape::Text), // member
    since(5, Shape::Text),
    always(Shape::Text), // type of protocol
    always(Shape::List(&layout(&[
        always(Shape::Text),
        always(Shape::Blob),
    ]))),
    since(8, Shape::Text), // reason
]);

pub(crate) static SYNC_GROUP: Layout = layout(&[
    always(Shape::Text),
    always(INT32),
    always(Shape::Text),
    since(3, Shape::Text),
    since(5, Shape::Text),
    since(5, Shape::Text),
    always(Shape::List(&layout(&[
        always(Shape::Text),
        always(Shape::Blob),
    ]))),
]);

pub(crate) static HEARTBEAT: Layout = layout(&[
    always(Shape::Text),
    always(INT32),
    always(Shape::Text),
    since(3, Shape::Text),
]);

pub(crate) static LEAVE_GROUP: Layout = layout(&[
    always(Shape::Text),
    within(0, 2, Shape::Text),
    since(
        3,
        Shape::List(&layout(&[
            always(Shape::Text),
            always(Shape::Text),
            since(5, Shape::Text),
        ])),
    ),
]);

pub(crate) static OFFSET_COMMIT: Layout = layout(&[
    always(Shape::Text),
    since(1, INT32),
    since(1, Shape::Text),
    since(7, Shape::Text),
    within(2, 4, INT64),
    always(Shape::List(&layout(&[
        always(Shape::Text),
        always(Shape::List(&layout(&[
            always(INT32),
            always(INT64),
            since(6, INT32),
            always(Shape::Text),
        ]))),
    ]))),
]);

pub(crate) static OFFSET_FETCH: Layout = layout(&[
    within(0, 7, Shape::Text),
    within(0, 7, Shape::List(&PARTITIONS)),
    since(
        8,
        Shape::List(&layout(&[
            always(Shape::Text),
            since(9, Shape::Text),
            since(9, INT32),
            always(Shape::List(&PARTITIONS)),
        ])),
    ),
    since(7, INT8),
]);

pub(crate) static DESCRIBE_GROUPS: Layout =
    layout(&[always(Shape::Each(&Shape::Text)), since(3, INT8)]);

pub(crate) static LIST_GROUPS: Layout = layout(&[
    since(4, Shape::Each(&Shape::Text)),
    since(5, Shape::Each(&Shape::Text)),
]);

pub(crate) static DELETE_GROUPS: Layout = layout(&[always(Shape::Each(&Shape::Text))]);

pub(crate) static OFFSET_DELETE: Layout = layout(&[
    always(Shape::Text),
    always(Shape::List(&layout(&[
        always(Shape::Text),
        always(Shape::List(&layout(&[always(INT32)]))),
    ]))),
]);

pub(crate) static TXN_OFFSET_COMMIT: Layout = layout(&[
    always(Shape::Text), // transactional id
    always(Shape::Text), // group
    always(INT64),
    always(INT16),
    since(3, INT32),
    since(3, Shape::Text),
    since(3, Shape::Text),
    always(Shape::List(&layout(&[
        always(Shape::Text),
        always(Shape::List(&layout(&[
            always(INT32),
            always(INT64),
            since(2, INT32),
            always(Shape::Text),
        ]))),
    ]))),
]);

pub(crate) static CONSUMER_GROUP_HEARTBEAT: Layout = layout(&[
    always(Shape::Text), // group
    always(Shape::Text), // member
    always(INT32),
    always(Shape::Text), // instance
    always(Shape::Text), // rack
    always(INT32),       // time to give partitions back
    always(Shape::Each(&Shape::Text)),
    since(1, Shape::Text), // regular expression
    always(Shape::Text),   // assignor
    always(Shape::List(&layout(&[
        always(UUID),
        always(Shape::Each(&INT32)),
    ]))),
]);

pub(crate) static CONSUMER_GROUP_DESCRIBE: Layout =
    layout(&[always(Shape::Each(&Shape::Text)), always(BOOL)]);
