//! A real S3 server (SeaweedFS) on loopback, for one test, with a bucket and an empty directory of its own.
//!
//! Ready when [`SeaweedFs::start`] returns: the bucket is there and takes writes. Gone when it is dropped: only the process that
//! was started here is ended, by its id. Does not keep anything: its data is lost with it, so it is killed rather than waited for.
#![allow(
    clippy::disallowed_methods,
    reason = "test support: it finds the server through the environment and waits for a real process"
)]

use std::{
    ffi::OsString,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use object_store::aws::AmazonS3;

use crate::{Error, Result};

const BUCKET: &str = "s3stream-test";
const ACCESS_KEY: &str = "test";
const SECRET_KEY: &str = "testtest";
/// A start is given up after so many looks.
const LOOKS_MAX: u32 = 300;
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A port can be taken between the choice and the use of it.
const STARTS_MAX: u32 = 3;

/// A running server.
#[derive(Debug)]
pub struct SeaweedFs {
    child: Child,
    s3: SocketAddr,
    dir: tempfile::TempDir,
}

/// The ports that the server's parts listen on; all are chosen, so that several servers run beside each other.
struct Ports([u16; 8]);

impl Ports {
    fn choose() -> std::io::Result<Self> {
        // All are held until the last one is known, so that they differ.
        let held = (0..8)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<std::io::Result<Vec<_>>>()?;
        let mut ports = [0; 8];
        for (port, listener) in ports.iter_mut().zip(&held) {
            *port = listener.local_addr()?.port();
        }
        Ok(Self(ports))
    }

    fn s3(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.0[0]).into()
    }

    fn filer(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.0[1]).into()
    }

    fn arguments(&self) -> impl Iterator<Item = String> {
        let names = [
            "s3.port",
            "filer.port",
            "master.port",
            "volume.port",
            "s3.port.grpc",
            "filer.port.grpc",
            "master.port.grpc",
            "volume.port.grpc",
        ];
        names
            .into_iter()
            .zip(self.0)
            .map(|(name, port)| format!("-{name}={port}"))
    }
}

impl SeaweedFs {
    /// Starts a server and waits until it takes writes, which needs about 3 s.
    ///
    /// The program is `$S3STREAM_WEED`, else `weed` on the path.
    ///
    /// # Errors
    /// `Unavailable` when there is no such program or it does not become ready; the message says what installs it, or quotes its log.
    pub fn start() -> Result<Self> {
        let mut starts = 1;
        loop {
            let (mut server, filer) = Self::spawn()?;
            match server.wait_ready(filer) {
                Ok(()) => return Ok(server),
                Err(error) if starts == STARTS_MAX => return Err(error),
                Err(_) => starts += 1,
            }
        }
    }

    fn spawn() -> Result<(Self, SocketAddr)> {
        let program = std::env::var_os("S3STREAM_WEED").unwrap_or_else(|| OsString::from("weed"));
        let io = |what: &'static str| {
            move |error: std::io::Error| Error::unavailable(what).caused_by(error)
        };
        let dir = tempfile::tempdir().map_err(io("a directory for the S3 server"))?;
        let ports = Ports::choose().map_err(io("loopback ports for the S3 server"))?;
        let log = std::fs::File::create(dir.path().join("log"))
            .map_err(io("the log of the S3 server"))?;
        let errors = log.try_clone().map_err(io("the log of the S3 server"))?;
        std::fs::write(dir.path().join("s3.json"), identities())
            .map_err(io("the configuration of the S3 server"))?;
        std::fs::create_dir(dir.path().join("data"))
            .map_err(io("a directory for the S3 server"))?;
        let child = Command::new(&program)
            .args(arguments(dir.path()))
            .args(ports.arguments())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| {
                Error::unavailable("no S3 server to test with: `.ci/run setup` installs it, S3STREAM_WEED names it")
                    .with("program", program.to_string_lossy())
                    .caused_by(error)
            })?;
        let server = Self {
            child,
            s3: ports.s3(),
            dir,
        };
        Ok((server, ports.filer()))
    }

    fn wait_ready(&mut self, filer: SocketAddr) -> Result<()> {
        for _ in 0..LOOKS_MAX {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            // The first write through the filer makes the bucket and the first volume; S3 answers once it knows the filer.
            let is_writable = || {
                status(filer, "PUT", &format!("/buckets/{BUCKET}/.probe"), b"probe") == Some(201)
            };
            if status(self.s3, "GET", "/status", b"") == Some(200) && is_writable() {
                return Ok(());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(5).collect();
        Err(Error::unavailable("the S3 server did not become ready").with("log", tail.join(" | ")))
    }

    /// Where S3 is served, as `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.s3)
    }

    /// The place of a prefix in the server's bucket, as the engine's builder and the broker take it.
    pub fn url(&self, prefix: &str) -> String {
        format!(
            "s3://{BUCKET}/{prefix}?endpoint={}&allow_http=true",
            self.endpoint()
        )
    }

    /// The variables through which a program that is started by the test finds its credentials.
    pub fn environment(&self) -> [(&'static str, &'static str); 3] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_REGION", "us-east-1"),
        ]
    }

    /// The bucket, without retries of the client, as the engine uses it.
    ///
    /// # Errors
    /// `Internal` when the client refuses the settings.
    pub fn store(&self) -> Result<AmazonS3> {
        Self::store_at(&self.endpoint())
    }

    /// The bucket of a server that another process started, as [`store`](Self::store) gives it.
    ///
    /// # Errors
    /// `Internal` when the client refuses the settings.
    pub fn store_at(endpoint: &str) -> Result<AmazonS3> {
        object_store::aws::AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_endpoint(endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .with_retry(object_store::RetryConfig {
                max_retries: 0,
                ..Default::default()
            })
            .build()
            .map_err(|error| Error::internal("the settings of the S3 client").caused_by(error))
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        // It can take half a minute to stop when asked, and nothing in it is kept. Failing means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn identities() -> String {
    format!(
        r#"{{"identities":[{{"name":"admin","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],"actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
    )
}

fn arguments(dir: &Path) -> Vec<OsString> {
    let fixed = [
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ];
    let sizes = [
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=20",
        "-master.telemetry=false",
    ];
    let mut arguments: Vec<OsString> = std::iter::once("-logtostderr=true")
        .chain(fixed)
        .chain(sizes)
        .map(OsString::from)
        .collect();
    for (name, file) in [
        ("-dir=", "data"),
        ("-s3.config=", "s3.json"),
        ("-filer.localSocket=", "filer.sock"),
        ("-s3.localSocket=", "s3.sock"),
    ] {
        let mut argument = OsString::from(name);
        argument.push(dir.join(file));
        arguments.push(argument);
    }
    arguments
}

/// The status of one plain HTTP request; `None` when there is no answer.
pub(super) fn status(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> Option<u16> {
    let mut connection = TcpStream::connect_timeout(&to, Duration::from_secs(1)).ok()?;
    connection
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection
        .write_all(head.as_bytes())
        .and_then(|()| connection.write_all(body))
        .ok()?;
    let mut answer = Vec::new();
    connection.take(64).read_to_end(&mut answer).ok()?;
    let line = String::from_utf8_lossy(&answer);
    line.split(' ').nth(1)?.parse().ok()
}
