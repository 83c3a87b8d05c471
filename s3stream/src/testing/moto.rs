//! A model of S3 in another language (moto's server) on loopback, for one test, with a bucket of its own.
//!
//! Right under races of conditional puts, in memory, slow. Gone when it is dropped: only the process that was started here is ended, by its id.
#![allow(
    clippy::disallowed_methods,
    reason = "test support: it finds the server through the environment and waits for a real process"
)]

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use object_store::aws::AmazonS3;

use super::seaweedfs::status;
use crate::{Error, Result};

const BUCKET: &str = "s3stream-test";
/// A start is given up after so many looks.
const LOOKS_MAX: u32 = 300;
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A port can be taken between the choice and the use of it.
const STARTS_MAX: u32 = 3;

/// A running server.
#[derive(Debug)]
pub struct Moto {
    child: Child,
    s3: SocketAddr,
}

impl Moto {
    /// Starts a server and waits until it has its bucket.
    ///
    /// The program is `$S3STREAM_MOTO`, else `moto_server` on the path.
    ///
    /// # Errors
    /// `Unavailable` when there is no such program or it does not become ready; the message says what installs it.
    pub fn start() -> Result<Self> {
        let mut starts = 1;
        loop {
            let mut server = Self::spawn()?;
            match server.wait_ready() {
                Ok(()) => return Ok(server),
                Err(error) if starts == STARTS_MAX => return Err(error),
                Err(_) => starts += 1,
            }
        }
    }

    fn spawn() -> Result<Self> {
        let named = std::env::var_os("S3STREAM_MOTO");
        let program = named.unwrap_or_else(|| OsString::from("moto_server"));
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(|error| Error::unavailable("a loopback port for moto").caused_by(error))?
            .port();
        let child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                Error::unavailable(
                    "no moto to test with: `.ci/run setup` installs it, S3STREAM_MOTO names it",
                )
                .with("program", program.to_string_lossy())
                .caused_by(error)
            })?;
        let s3 = (Ipv4Addr::LOCALHOST, port).into();
        Ok(Self { child, s3 })
    }

    fn wait_ready(&mut self) -> Result<()> {
        for _ in 0..LOOKS_MAX {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            if status(self.s3, "PUT", &format!("/{BUCKET}"), b"") == Some(200) {
                return Ok(());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Err(Error::unavailable("moto did not become ready"))
    }

    /// Where S3 is served.
    pub fn address(&self) -> SocketAddr {
        self.s3
    }

    /// The bucket, without retries of the client, as the engine uses it.
    ///
    /// # Errors
    /// `Internal` when the client refuses the settings.
    pub fn store(&self) -> Result<AmazonS3> {
        object_store::aws::AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_endpoint(format!("http://{}", self.s3))
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id("test")
            .with_secret_access_key("testtest")
            .with_retry(object_store::RetryConfig {
                max_retries: 0,
                ..Default::default()
            })
            .build()
            .map_err(|error| Error::internal("the settings of the S3 client").caused_by(error))
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Failing means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
