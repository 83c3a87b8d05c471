//! One client: a line, its answer, the next line.
//!
//! Memory is bounded: a line by [`LINE_LEN_MAX`], an answer by [`FETCH_BYTES`] at a time and by how fast the client reads.

use std::io;

use futures::StreamExt;
use s3stream::{Error, ErrorKind, RecordBatch, Result, Stream};
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

    /// The error here is the connection's; those of the engine are told to the client.
    async fn answer(&mut self, line: &[u8]) -> io::Result<()> {
        let request = match std::str::from_utf8(line) {
            Ok(line) => Request::parse(line),
            Err(e) => Err(Error::invalid("a line is UTF-8").caused_by(e)),
        };
        let result = match request {
            Ok(Request::Create { name }) => {
                let created = self.broker.create(name).await;
                created.map(|()| "OK\n".to_owned())
            }
            Ok(Request::Put { name, text }) => self.put(name, text).await,
            Ok(Request::List) => self.list().await,
            Ok(Request::Get {
                name,
                offset,
                count,
            }) => match self.broker.stream(name).await {
                Ok(stream) => return self.get(stream, offset, count).await,
                Err(error) => Err(error),
            },
            Ok(Request::Tail { name, offset }) => match self.broker.stream(name).await {
                Ok(stream) => return self.tail(stream, offset).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match result {
            Ok(answer) => self.answers.write_all(answer.as_bytes()).await,
            Err(error) => self.answer_error(&error).await,
        }
    }

    async fn put(&self, name: &str, text: &str) -> Result<String> {
        let stream = self.broker.stream(name).await?;
        // Waits for room instead of refusing; meanwhile nothing is read, and the client's own sends wait.
        let permit = stream.ready(text.len()).await?;
        let offsets = stream.append_with(permit, 1, &[text.as_bytes()])?.await?;
        Ok(format!("OK {}\n", offsets.start))
    }

    async fn list(&self) -> Result<String> {
        let mut answer = String::new();
        for name in self.broker.names() {
            let stream = self.broker.stream(&name).await?;
            // `latest`, not `confirm`: a node that was replaced and does not know it must not say where a stream ends (S8).
            let end = stream.latest().await?;
            answer.push_str(&format!("{name} {} {end}\n", stream.start()));
        }
        answer.push_str("END\n");
        Ok(answer)
    }

    async fn get(&mut self, stream: Stream, offset: u64, count: u64) -> io::Result<()> {
        let end = offset.saturating_add(count);
        let mut next = offset;
        loop {
            let fetched = match stream.fetch(next, FETCH_BYTES).await {
                Ok(fetched) => fetched,
                Err(error) => return self.answer_error(&error).await,
            };
            let wanted = fetched
                .records
                .iter()
                .take_while(|record| record.offsets.end <= end);
            let before = next;
            for record in wanted {
                self.write_record(record).await?;
                next = record.offsets.end;
            }
            if next == before {
                return self
                    .answers
                    .write_all(format!("END {next}\n").as_bytes())
                    .await;
            }
        }
    }

    async fn tail(&mut self, stream: Stream, offset: u64) -> io::Result<()> {
        let mut records = stream.tail(offset);
        loop {
            // Before it waits, what is there is sent.
            self.answers.flush().await?;
            tokio::select! {
                biased;
                // Something from the client, or its end: the line stays in the buffer and is served next.
                more = self.lines.fill_buf() => {
                    more?;
                    let end = format!("END {}\n", records.next_offset());
                    return self.answers.write_all(end.as_bytes()).await;
                }
                record = records.next() => match record {
                    Some(Ok(record)) => self.write_record(&record).await?,
                    // The tail goes on by itself when the log or the bucket answers again.
                    Some(Err(error)) if error.kind() == ErrorKind::Unavailable => {
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                    Some(Err(error)) => return self.answer_error(&error).await,
                    None => return Ok(()),
                }
            }
        }
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
