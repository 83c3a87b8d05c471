//! The command line: flags over a file over defaults, signals, exit codes, and what is printed.
//!
//! This is the only place that reads the environment (`RUST_LOG`, and what the bucket's client reads for credentials).

use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use s3stream::store::Credentials;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{
    broker::Broker,
    config::Config,
    start_error::{StartError, redacted},
};

const EXIT_CODES: &str = "\
Exit codes: 0 stopped cleanly; 2 wrong flag or configuration; 3 the address cannot be listened on; 4 the bucket or the log
is not this node's, in use, or of a newer format; 5 stored data is damaged; 6 the bucket or the log cannot be reached or
written; 7 another process took over as this node; 8 stopped, but not everything is in the bucket yet (start again with
the same log).";

/// A Kafka broker on s3stream. Without flags it serves 127.0.0.1:9092 and keeps its data in ./s3stream-data.
#[derive(Parser, Debug)]
#[command(name = "s3stream-broker", version, after_help = EXIT_CODES)]
struct Args {
    /// Address to listen on [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Address of the status page and of /metrics [default: none]
    #[arg(long, value_name = "HOST:PORT")]
    metrics_listen: Option<String>,
    /// Where the data is [default: file:s3stream-data/bucket]
    #[arg(long, value_name = "URL")]
    bucket: Option<String>,
    /// Where the write-ahead log is [default: block:s3stream-data/wal?capacity=256MiB]
    #[arg(long, value_name = "URL")]
    wal: Option<String>,
    /// Where the metadata is [default: bucket:]
    #[arg(long, value_name = "URL")]
    metadata: Option<String>,
    /// Number of this node in the cluster [default: 1]
    #[arg(long, value_name = "N")]
    node_id: Option<u32>,
    /// Nodes that clients see, at consecutive ports [default: 1]
    #[arg(long, value_name = "N")]
    nodes: Option<u32>,
    /// Partitions of a topic whose creator does not say [default: 1]
    #[arg(long, value_name = "N")]
    default_partitions: Option<u32>,
    /// Whether a client that asks for an unknown topic creates it [default: true]
    #[arg(long, value_name = "BOOL")]
    auto_create: Option<bool>,
    /// Configuration file; docs/config.toml has every key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How log lines are written to stderr; RUST_LOG says which
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object with its fields, for machines.
    Json,
}

impl Args {
    /// Flags override the file, the file overrides the defaults.
    fn config(self) -> Result<Config, StartError> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        let overrides = [
            (&mut config.listen, self.listen),
            (&mut config.metrics_listen, self.metrics_listen),
            (&mut config.bucket, self.bucket),
            (&mut config.wal, self.wal),
            (&mut config.metadata, self.metadata),
        ];
        for (place, value) in overrides {
            if let Some(value) = value {
                *place = value;
            }
        }
        config.node_id = self.node_id.unwrap_or(config.node_id);
        config.nodes = self.nodes.unwrap_or(config.nodes);
        let topics = &mut config.topics;
        topics.partitions_default = self.default_partitions.unwrap_or(topics.partitions_default);
        topics.auto_create = self.auto_create.unwrap_or(topics.auto_create);
        Ok(config)
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

/// Runs the program with these arguments, the first of which is its name: for a program that is a broker among other things.
pub fn main_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = Args::parse_from(arguments);
    log_to_stderr(args.log_format);
    raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("s3stream-broker: no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(args));
    // What still runs at the deadline of a stop is not waited for.
    runtime.shutdown_background();
    code
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

async fn run(args: Args) -> ExitCode {
    let started = async {
        let config = args.config()?;
        Broker::start_with(config, credentials()).await
    };
    let signals = Signals::new();
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("s3stream-broker: no signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let broker = tokio::select! {
        biased;
        () = signals.next() => return ExitCode::from(130),
        started = started => started,
    };
    let broker = match broker {
        Ok(broker) => broker,
        Err(error) => {
            eprintln!("s3stream-broker: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    greet(&broker);
    let ended = tokio::select! {
        biased;
        () = signals.next() => None,
        error = broker.ended() => Some(error),
    };
    if let Some(error) = ended {
        let error = StartError::open(broker.config(), error);
        eprintln!("s3stream-broker: {error}");
        return ExitCode::from(error.exit_code());
    }
    eprintln!("stopping; a second signal ends it at once, nothing acknowledged is lost either way");
    tokio::select! {
        biased;
        () = signals.next() => ExitCode::from(130),
        stopped = broker.stop() => match stopped {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("s3stream-broker: {error}");
                ExitCode::from(8)
            }
        },
    }
}

/// What the bucket's client may find in the environment, as its documentation names it.
fn credentials() -> Credentials {
    let pairs = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    Credentials::from_pairs(pairs)
}

fn greet(broker: &Broker) {
    let address = broker.address();
    let config = broker.config();
    let (version, topics) = (env!("CARGO_PKG_VERSION"), broker.topic_count());
    let node = match config.nodes {
        1 => config.node_id.to_string(),
        nodes => format!("{} and {} after it", config.node_id, nodes - 1),
    };
    let (bucket, wal) = (redacted(&config.bucket), redacted(&config.wal));
    let metadata = redacted(&config.metadata);
    let status = broker.metrics_address();
    let status = status.map_or(String::new(), |at| format!("\n  status    http://{at}/"));
    let text = format!(
        "s3stream-broker {version}
  serves    Kafka clients on {address} (node {node}, {topics} topics)
  bucket    {bucket}
  log       {wal}
  metadata  {metadata}{status}
  try       echo hello | kcat -P -b {address} -t greetings && kcat -C -b {address} -t greetings -e
"
    );
    // Whoever started it may not read what it prints.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A connection is a descriptor; shells give 1,024 though the system allows more. What cannot be raised stays.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_the_file_and_the_file_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.toml");
        std::fs::write(&path, "listen = \"127.0.0.1:1\"\nnode_id = 7\n").unwrap();
        let path = path.to_str().unwrap();
        let args = Args::parse_from(["x", "--config", path, "--listen", "127.0.0.1:2"]);
        let config = args.config().unwrap();
        assert_eq!((config.nodes, config.topics.auto_create), (1, true));
        assert_eq!((config.listen.as_str(), config.node_id), ("127.0.0.1:2", 7));
        assert_eq!(config.bucket, Config::default().bucket);
        let nodes = ["x", "--nodes", "3"];
        let topics = ["--default-partitions", "4", "--auto-create", "false"];
        let config = Args::parse_from(nodes.iter().chain(&topics));
        let config = config.config().unwrap();
        assert_eq!((config.nodes, config.topics.auto_create), (3, false));
        assert_eq!(config.topics.partitions_default, 4);
    }

    #[test]
    fn the_help_names_the_defaults() {
        use clap::CommandFactory;
        let help = Args::command().render_long_help().to_string();
        let defaults = Config::default();
        for default in [
            defaults.listen,
            defaults.bucket,
            defaults.wal,
            defaults.metadata,
        ] {
            assert!(help.contains(&format!("[default: {default}]")), "{default}");
        }
    }
}
