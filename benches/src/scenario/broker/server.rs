//! Servers as processes: started on free ports, looked at through `/proc`, killed when they are dropped.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use crate::{Options, Result, Workplace, report::significant};

/// The first argument with which this program is a broker.
pub const SERVE: &str = "broker-server";
/// What is deleted between turns is gone soon, here and there: a run needs no room for all that it ever wrote.
const OURS: &str = "[engine]\ncondemn_grace_ms = 1000\n";
const KAFKAS: &str = "log.segment.delete.delay.ms=1000";
/// How long a server may take to start.
const START: Duration = Duration::from_secs(120);
/// Processor time in `/proc` is in hundredths of a second, on every Linux there is.
const TICKS_PER_S: f64 = 100.0;

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) address: String,
    child: Child,
}

/// This broker, and Kafka twice if it is there.
pub(super) fn all(options: &Options, workplace: &Workplace) -> Result<Vec<Server>> {
    let mut servers = vec![Server::ours(options, &workplace.join("ours"))?];
    if let Some(program) = &options.kafka {
        for (name, settings) in [
            ("kafka_flushing", &["log.flush.interval.messages=1"][..]),
            ("kafka", &[][..]),
        ] {
            let dir = workplace.join(name);
            let mut command = Command::new(program);
            command.arg("run").arg(&dir).arg(KAFKAS).args(settings);
            servers.push(Server::start(name, command, |line| Some(line.to_owned()))?);
        }
    }
    Ok(servers)
}

impl Server {
    /// This broker with its data below `dir`, which may be there from before.
    pub(super) fn ours(options: &Options, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let wal = options.wal.clone();
        let wal =
            wal.unwrap_or_else(|| format!("block:{}?capacity=1GiB", dir.join("wal").display()));
        let bucket = options.bucket.clone();
        let bucket = bucket.unwrap_or_else(|| format!("file:{}", dir.join("bucket").display()));
        let config = dir.join("broker.toml");
        fs::write(&config, OURS)?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(SERVE)
            .arg("--config")
            .arg(config)
            .args(["--listen", "127.0.0.1:0"])
            .args(["--wal", &wal, "--bucket", &bucket])
            .env("RUST_LOG", "warn");
        Self::start("ours", command, |line| {
            let (_, rest) = line.split_once("clients on ")?;
            rest.split(' ').next().map(str::to_owned)
        })
    }

    /// Starts it, and waits until it answers at the address that `find` sees in what it prints.
    fn start(
        name: &'static str,
        mut command: Command,
        find: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let begun = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}"))?;
        let out = child.stdout.take().ok_or("its output is piped")?;
        let mut server = Self {
            name,
            address: String::new(),
            child,
        };
        for line in BufReader::new(out).lines() {
            if let Some(address) = find(&line?) {
                server.address = address;
                break;
            }
        }
        if server.address.is_empty() {
            return Err(format!("{name} ended before it served").into());
        }
        while !answers(&server.address) {
            if begun.elapsed() > START || server.child.try_wait()?.is_some() {
                return Err(format!("{name} does not answer at {}", server.address).into());
            }
        }
        Ok(server)
    }

    /// The processor time it has used.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // After the name in parentheses, which may hold anything: the state is the first field.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(Duration::from_secs_f64(ticks / TICKS_PER_S))
    }

    /// The resident set now; nothing where `/proc` does not tell.
    pub(super) fn resident_mib(&self) -> Option<f64> {
        self.status_mib("VmRSS:")
    }

    /// The largest resident set so far.
    pub(super) fn peak_mib(&self) -> Option<f64> {
        self.status_mib("VmHWM:")
    }

    fn status_mib(&self, name: &str) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(significant(kib / 1024.0))
    }

    /// SIGTERM, and the wait until it has ended.
    pub(super) fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("{} ended with {status}", self.name).into()),
        }
    }
}

/// kill -9.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answers(address: &str) -> bool {
    let client: Result<BaseConsumer, _> = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("log_level", "0")
        .create();
    client.is_ok_and(|client| {
        let metadata = client.fetch_metadata(None, Duration::from_secs(2));
        metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
    })
}
