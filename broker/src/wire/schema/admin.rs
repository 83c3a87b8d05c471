//! Requests about settings, partitions and the cluster.

use super::{BOOL, INT8, INT32, Layout, Shape, always, layout, since};

static NAMED_PARTITIONS: Layout = layout(&[always(Shape::Text), always(Shape::Each(&INT32))]);

pub(crate) static DESCRIBE_ACLS: Layout = layout(&[
    always(INT8),
    always(Shape::Text),
    always(INT8), // pattern
    always(Shape::Text),
    always(Shape::Text),
    always(INT8),
    always(INT8),
]);

pub(crate) static CREATE_ACLS: Layout = layout(&[always(Shape::List(&DESCRIBE_ACLS))]);

pub(crate) static DELETE_ACLS: Layout = layout(&[always(Shape::List(&DESCRIBE_ACLS))]);

pub(crate) static DESCRIBE_CONFIGS: Layout = layout(&[
    always(Shape::List(&layout(&[
        always(INT8),
        always(Shape::Text),
        always(Shape::Each(&Shape::Text)),
    ]))),
    always(BOOL),
    since(3, BOOL),
]);

pub(crate) static ALTER_CONFIGS: Layout = layout(&[
    always(Shape::List(&layout(&[
        always(INT8),
        always(Shape::Text),
        always(Shape::List(&layout(&[
            always(Shape::Text),
            always(Shape::Text),
        ]))),
    ]))),
    always(BOOL),
]);

pub(crate) static ALTER_REPLICA_LOG_DIRS: Layout = layout(&[always(Shape::List(&layout(&[
    always(Shape::Text),
    always(Shape::List(&NAMED_PARTITIONS)),
])))]);

pub(crate) static DESCRIBE_QUORUM: Layout = layout(&[always(Shape::List(&layout(&[
    always(Shape::Text),
    always(Shape::List(&layout(&[always(INT32)]))),
])))]);

pub(crate) static DESCRIBE_LOG_DIRS: Layout = layout(&[always(Shape::List(&NAMED_PARTITIONS))]);

pub(crate) static CREATE_PARTITIONS: Layout = layout(&[
    always(Shape::List(&layout(&[
        always(Shape::Text),
        always(INT32),
        always(Shape::List(&layout(&[always(Shape::Each(&INT32))]))),
    ]))),
    always(INT32),
    always(BOOL),
]);

pub(crate) static ELECT_LEADERS: Layout = layout(&[
    since(1, INT8),
    always(Shape::List(&NAMED_PARTITIONS)),
    always(INT32),
]);

pub(crate) static INCREMENTAL_ALTER_CONFIGS: Layout = layout(&[
    always(Shape::List(&layout(&[
        always(INT8),
        always(Shape::Text),
        always(Shape::List(&layout(&[
            always(Shape::Text),
            always(INT8),
            always(Shape::Text),
        ]))),
    ]))),
    always(BOOL),
]);

pub(crate) static ALTER_PARTITION_REASSIGNMENTS: Layout = layout(&[
    always(INT32),
    since(1, BOOL),
    always(Shape::List(&layout(&[
        always(Shape::Text),
        always(Shape::List(&layout(&[
            always(INT32),
            always(Shape::Each(&INT32)),
        ]))),
    ]))),
]);

pub(crate) static LIST_PARTITION_REASSIGNMENTS: Layout =
    layout(&[always(INT32), always(Shape::List(&NAMED_PARTITIONS))]);

pub(crate) static DESCRIBE_CLUSTER: Layout =
    layout(&[always(BOOL), since(1, INT8), since(2, BOOL)]);

pub(crate) static LIST_CONFIG_RESOURCES: Layout = layout(&[since(1, Shape::Each(&INT8))]);

pub(crate) static DESCRIBE_TOPIC_PARTITIONS: Layout = layout(&[
    always(Shape::List(&layout(&[always(Shape::Text)]))),
    always(INT32),
    always(Shape::Maybe(&layout(&[always(Shape::Text), always(INT32)]))),
]);
