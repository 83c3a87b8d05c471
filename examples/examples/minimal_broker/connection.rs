//! One client: a line, its answer, the next line.
//!
//! Memory is bounded: a line by [`LINE_LEN_MAX`], an answer by [`FETCH_BYTES`]: no more is fetched before the client has read that.

use std::{io, time::Duration};

use futures::StreamExt;
use s3stream::{Error, ErrorKind, RecordBatch};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{broker::Broker, request::Request};

/// The longest line of a client, its end included.
const LINE_LEN_MAX: usize = 64 * 1024;
const FETCH_BYTES: usize = 1024 * 1024;

/// How long a tail lets the log or the bucket be before it asks again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Why a line was not served.
enum Failure {
    /// Told to the client, which goes on.
    Request(Error),
    /// Ends the connection.
    Socket(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Request(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

pub(crate) struct Connection {
    broker: Broker,
    lines: BufReader<OwnedReadHalf>,
    answers: BufWriter<OwnedWriteHalf>,
}

impl Connection {
    pub(crate) fn new(broker: Broker, socket: TcpStream) -> Self {
        let (read, write) = socket.into_split();
        Self {
            broker,
            lines: BufReader::new(read),
            answers: BufWriter::new(write),
        }
    }

    /// Serves until the client goes, or sends what is no line.
    pub(crate) async fn serve(mut self) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = (&mut self.lines).take(LINE_LEN_MAX as u64);
            if limited.read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            let Some(line) = line.strip_suffix(b"\n") else {
                // Either too long, or cut off: where the next one would begin is not known.
                let what = Error::invalid(format!("a line ends within {LINE_LEN_MAX} bytes"));
                self.answer_error(&what).await?;
                return self.answers.flush().await;
            };
            self.answer(line.strip_suffix(b"\r").unwrap_or(line))
                .await?;
            self.answers.flush().await?;
        }
    }

    /// The error here is the connection's; those of a request are told to the client.
    async fn answer(&mut self, line: &[u8]) -> io::Result<()> {
        match self.serve_line(line).await {
            Ok(()) => Ok(()),
            Err(Failure::Request(error)) => self.answer_error(&error).await,
            Err(Failure::Socket(error)) => Err(error),
        }
    }

    async fn serve_line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let line = std::str::from_utf8(line)
            .map_err(|error| Error::invalid("a line is UTF-8").caused_by(error))?;
        match Request::parse(line)? {
            Request::Create { name } => {
                self.broker.create(name).await?;
                self.write_line("OK").await
            }
            Request::Put { name, text } => self.put(name, text).await,
            Request::Get {
                name,
                offset,
                count,
            } => self.get(name, offset, count).await,
            Request::Tail { name, offset } => self.tail(name, offset).await,
            Request::List => self.list().await,
        }
    }

    async fn put(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        let stream = self.broker.stream(name).await?;
        // Waits for room instead of refusing; meanwhile nothing is read, and the client's own sends wait.
        let permit = stream.ready(text.len()).await?;
        let offsets = stream.append_with(permit, 1, &[text.as_bytes()])?.await?;
        self.write_line(&format!("OK {}", offsets.start)).await
    }

    async fn list(&mut self) -> Result<(), Failure> {
        for name in self.broker.names() {
            let stream = self.broker.stream(&name).await?;
            // `latest`, not `confirm`: a node that was replaced and does not know it must not say where a stream ends (S8).
            let end = stream.latest().await?;
            let line = format!("{name} {} {end}", stream.start());
            self.write_line(&line).await?;
        }
        self.write_line("END").await
    }

    async fn get(&mut self, name: &str, offset: u64, count: u64) -> Result<(), Failure> {
        let stream = self.broker.stream(name).await?;
        let end = offset.saturating_add(count);
        let mut next = offset;
        loop {
            let fetched = stream.fetch(next, FETCH_BYTES).await?;
            let before = next;
            for record in &fetched.records {
                if record.offsets.end > end {
                    break;
                }
                self.write_record(record).await?;
                next = record.offsets.end;
            }
            if next == before {
                return self.write_line(&format!("END {next}")).await;
            }
        }
    }

    async fn tail(&mut self, name: &str, offset: u64) -> Result<(), Failure> {
        let mut records = self.broker.stream(name).await?.tail(offset);
        loop {
            // Before it waits, what is there is sent.
            self.answers.flush().await?;
            tokio::select! {
                biased;
                // Something from the client, or its end: the line stays in the buffer and is served next.
                more = self.lines.fill_buf() => {
                    more?;
                    return self.write_line(&format!("END {}", records.next_offset())).await;
                }
                record = records.next() => match record {
                    Some(Ok(record)) => self.write_record(&record).await?,
                    // The tail goes on by itself once the log or the bucket answers again, and does not wait for that.
                    Some(Err(error)) if error.kind() == ErrorKind::Unavailable => {
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    Some(Err(error)) => return Err(error.into()),
                    None => return Err(Error::internal("a tail ended without an error").into()),
                }
            }
        }
    }

    async fn write_line(&mut self, line: &str) -> Result<(), Failure> {
        self.answers.write_all(line.as_bytes()).await?;
        Ok(self.answers.write_all(b"\n").await?)
    }

    async fn write_record(&mut self, record: &RecordBatch) -> io::Result<()> {
        let offset = format!("{} ", record.offsets.start);
        self.answers.write_all(offset.as_bytes()).await?;
        self.answers.write_all(&record.payload).await?;
        self.answers.write_all(b"\n").await
    }

    async fn answer_error(&mut self, error: &Error) -> io::Result<()> {
        // One line, whatever is in the error.
        let text = format!("ERR {:?} {error}", error.kind()).replace(['\r', '\n'], " ");
        self.answers.write_all(text.as_bytes()).await?;
        self.answers.write_all(b"\n").await
    }
}
