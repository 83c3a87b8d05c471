//! The broker talks to itself: two clients, a restart from the bucket alone. `>` is what a client sends, `<` what it gets.

use std::{error::Error, io, net::SocketAddr, path::Path};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
    task::JoinHandle,
};

use super::{broker::Broker, server};

pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    let data = tempfile::tempdir()?;
    let running = Running::start(data.path()).await?;
    let mut anna = Client::connect("anna", running.address).await?;
    let mut ben = Client::connect("ben", running.address).await?;

    anna.ask("CREATE greetings").await?;
    anna.ask("CREATE greetings").await?;
    ben.send("TAIL greetings 0").await?; // there is nothing yet
    anna.ask("PUT greetings hello").await?;
    anna.ask("PUT greetings hello again").await?;
    ben.hear().await?;
    ben.hear().await?;
    ben.send("LIST").await?; // any line ends the tail
    ben.hear_all().await?;
    ben.hear_all().await?;
    anna.ask("GET greetings 1 10").await?;
    anna.ask("GET greetings 7 10").await?;
    anna.ask("PUT nothing x").await?;
    running.stop().await?;

    println!("-- closed; now without the log, from the bucket alone");
    std::fs::remove_file(data.path().join("log"))?;
    let running = Running::start(data.path()).await?;
    let mut carl = Client::connect("carl", running.address).await?;
    carl.ask("GET greetings 0 10").await?;
    carl.ask("PUT greetings and on it goes").await?;
    running.stop().await
}

/// A broker that serves on a free port.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<s3stream::Result<()>>,
}

impl Running {
    async fn start(data: &Path) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let broker = Broker::open(data).await?;
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // Dropped without a word is a stop too.
            let _ = stopped.await;
        };
        Ok(Self {
            address,
            stop,
            server: tokio::spawn(server::serve(listener, broker, stopped)),
        })
    }

    async fn stop(self) -> Result<(), Box<dyn Error>> {
        // It may have ended by itself: then this is its error.
        let _ = self.stop.send(());
        Ok(self.server.await??)
    }
}

struct Client {
    name: &'static str,
    answers: Lines<BufReader<OwnedReadHalf>>,
    requests: OwnedWriteHalf,
}

impl Client {
    async fn connect(name: &'static str, broker: SocketAddr) -> io::Result<Self> {
        let (read, requests) = TcpStream::connect(broker).await?.into_split();
        Ok(Self {
            name,
            answers: BufReader::new(read).lines(),
            requests,
        })
    }

    async fn send(&mut self, request: &str) -> io::Result<()> {
        println!("{} > {request}", self.name);
        self.requests
            .write_all(format!("{request}\n").as_bytes())
            .await
    }

    /// One line.
    async fn hear(&mut self) -> io::Result<String> {
        let line = self.answers.next_line().await?;
        let line = line.ok_or(io::ErrorKind::UnexpectedEof)?;
        println!("{} < {line}", self.name);
        Ok(line)
    }

    /// Up to the line that ends an answer.
    async fn hear_all(&mut self) -> io::Result<()> {
        loop {
            let line = self.hear().await?;
            if ["OK", "ERR", "END"].iter().any(|end| line.starts_with(end)) {
                return Ok(());
            }
        }
    }

    async fn ask(&mut self, request: &str) -> io::Result<()> {
        self.send(request).await?;
        self.hear_all().await
    }
}
