//! The suite on every backend of this crate.

use std::sync::Arc;

use wal::{
    Backend,
    block::{BlockLog, Config},
    memory::MemoryLog,
    testing::{MemoryDevice, Storage, conformance},
};

#[tokio::test]
async fn the_memory_log_keeps_the_contract() {
    conformance(|| {
        let log = MemoryLog::with_capacity(4 << 20);
        move || Arc::new(log.clone()) as Arc<dyn Backend>
    })
    .await;
}

#[tokio::test]
async fn the_block_log_on_a_memory_device_keeps_the_contract() {
    conformance(|| {
        let log = BlockLog::on(Arc::new(MemoryDevice::new(5 << 20)));
        move || Arc::new(log.clone()) as Arc<dyn Backend>
    })
    .await;
}

#[tokio::test]
async fn the_block_log_with_one_tiny_commit_at_a_time_keeps_the_contract() {
    let config = Config {
        commit_bytes_max: 4096,
        in_flight_max: 1,
        overlap_bytes: 0,
        slab_bytes: 4096,
        ..Config::default()
    };
    conformance(|| {
        let log = BlockLog::on(Arc::new(MemoryDevice::new(5 << 20)));
        let config = config.clone();
        move || Arc::new(log.clone().with_config(config.clone())) as Arc<dyn Backend>
    })
    .await;
}

struct InFolder(tempfile::TempDir);

impl Storage for InFolder {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(BlockLog::file(self.0.path().join("wal"), 8 << 20))
    }
}

#[tokio::test]
async fn the_block_log_in_a_file_keeps_the_contract() {
    conformance(|| InFolder(tempfile::tempdir().unwrap())).await;
}
