//! The suite on the object log: in memory, with settings that cut everything small, and in a directory with fsync.

use std::sync::Arc;

use object_store::{ObjectStore, local::LocalFileSystem, memory::InMemory};
use wal::{
    Backend,
    object::{self, ObjectLog},
    testing::{Storage, conformance},
};

fn object_config() -> object::Config {
    object::Config {
        capacity: 4 << 20,
        ..object::Config::default()
    }
}

fn object_log(store: &Arc<dyn ObjectStore>, config: object::Config) -> Arc<dyn Backend> {
    let log = ObjectLog::new(Arc::clone(store), "some/wal", 0xabc).unwrap();
    Arc::new(log.with_config(config))
}

#[tokio::test]
async fn the_object_log_in_memory_keeps_the_contract() {
    conformance(|| {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        move || object_log(&store, object_config())
    })
    .await;
}

#[tokio::test]
async fn the_object_log_with_tiny_objects_and_many_in_flight_keeps_the_contract() {
    let config = object::Config {
        commit_bytes_max: 500,
        overlap_bytes: 0,
        slab_bytes: 700,
        in_flight_max: 5,
        puts_per_s: 1_000_000,
        puts_burst: 1_000_000,
        replay_bytes: 1000,
        objects_max: 1 << 20,
        ..object_config()
    };
    conformance(|| {
        let (store, config) = (
            Arc::new(InMemory::new()) as Arc<dyn ObjectStore>,
            config.clone(),
        );
        move || object_log(&store, config.clone())
    })
    .await;
}

struct InBucket(tempfile::TempDir);

impl Storage for InBucket {
    fn backend(&self) -> Arc<dyn Backend> {
        let store = LocalFileSystem::new_with_prefix(self.0.path()).unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(store.with_fsync(true));
        object_log(&store, object_config())
    }
}

#[tokio::test]
async fn the_object_log_in_a_directory_keeps_the_contract() {
    conformance(|| InBucket(tempfile::tempdir().unwrap())).await;
}
