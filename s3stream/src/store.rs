//! The bucket: what the engine needs of an object store.
