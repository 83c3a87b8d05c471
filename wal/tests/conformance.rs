//! The suite on every backend of this crate.

use std::{path::Path, sync::Arc, time::Duration};

use wal::{
    Backend,
    block::{BlockLog, Config},
    memory::MemoryLog,
    nfs::{self, NfsLog},
    testing::{MemoryDevice, ModelDirectory, RuntimeClock, Storage, conformance},
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

#[tokio::test(start_paused = true)]
async fn the_nfs_log_in_a_model_directory_keeps_the_contract() {
    let clock = Arc::new(RuntimeClock::default());
    conformance(|| {
        let directory = ModelDirectory::<()>::default();
        let clock = Arc::clone(&clock);
        // Each opening is a host of its own: nothing but the directory tells it of the others.
        move || {
            let log = NfsLog::on(Arc::new(directory.host()), 4 << 20);
            Arc::new(log.with_clock(Arc::clone(&clock) as _)) as Arc<dyn Backend>
        }
    })
    .await;
}

struct InDirectory {
    directory: tempfile::TempDir,
    direct_io: bool,
}

impl InDirectory {
    fn within(parent: &Path, direct_io: bool) -> Self {
        Self {
            directory: tempfile::tempdir_in(parent).expect("a directory to test in"),
            direct_io,
        }
    }
}

impl Storage for InDirectory {
    fn backend(&self) -> Arc<dyn Backend> {
        let config = nfs::Config {
            commits: Config {
                direct_io: self.direct_io,
                ..Config::default()
            },
            // Waited for in real time by each opening that follows an owner without a close.
            lease: Duration::from_millis(20),
            ..nfs::Config::default()
        };
        Arc::new(NfsLog::at(self.directory.path(), 8 << 20).with_config(config))
    }
}

#[tokio::test]
async fn the_nfs_log_in_a_directory_keeps_the_contract() {
    let parent = std::env::temp_dir();
    conformance(|| InDirectory::within(&parent, true)).await;
}

#[tokio::test]
async fn the_nfs_log_in_memory_and_through_the_page_cache_keeps_the_contract() {
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() {
        shared.to_owned()
    } else {
        std::env::temp_dir()
    };
    conformance(|| InDirectory::within(&parent, false)).await;
}

#[tokio::test]
#[ignore = "needs a mounted NFS directory: .ci/run nfs"]
#[expect(
    clippy::disallowed_methods,
    reason = "whoever mounts the directory says where"
)]
async fn the_nfs_log_on_an_nfs_server_keeps_the_contract() {
    let mounted = std::env::var_os("S3STREAM_NFS_DIR")
        .expect("S3STREAM_NFS_DIR, a mounted directory: .ci/run nfs");
    for direct_io in [true, false] {
        conformance(|| InDirectory::within(Path::new(&mounted), direct_io)).await;
    }
}
