//! The examples, as they were built: each ends by itself and says what it should; the broker keeps what it acknowledged, and its limits.
//!
//! Cargo builds the examples before it runs this, unless it is told to build this test alone.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// Nothing here takes longer unless it hangs.
const LONG: Duration = Duration::from_secs(120);

fn command(name: &str) -> Command {
    let test = env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap();
    let path: PathBuf = built.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built: cargo build -p s3stream-examples --examples",
        path.display()
    );
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    async fn end(&mut self) -> ExitStatus {
        let wait = async {
            loop {
                if let Some(status) = self.0.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("it ends")
    }
}

/// What an example prints, without arguments. It is less than a pipe holds.
async fn output(name: &str) -> String {
    let mut process = Process::start(&mut command(name));
    let status = process.end().await;
    let mut said = String::new();
    let mut stdout = process.0.stdout.take().unwrap();
    stdout.read_to_string(&mut said).unwrap();
    assert!(status.success(), "{name}: {status}\n{said}");
    said
}

#[tokio::test]
async fn quickstart_fetches_what_it_appended() {
    let said = output("quickstart").await;
    assert_eq!(
        said,
        "durable at offset 0\n\
         fetched offset 0: hello, stream\n\
         closed: the bucket has it all, the log owes nothing\n"
    );
}

#[tokio::test]
async fn tail_and_catch_up_reads_everything_three_times() {
    let said = output("tail_and_catch_up").await;
    for expected in [
        "written: 8000 records, all durable\n",
        "followed: 8000 records as they came\n",
        "caught up: 8000 records from the start\n",
        "closed, and the log is deleted\nfrom the bucket alone: 8000 records\n",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    let requests = said.lines().filter(|line| line.starts_with("requests to "));
    assert_eq!(requests.count(), 2, "{said}");
}

#[tokio::test]
async fn s3_wal_acknowledges_with_one_put_and_loses_nothing_to_a_crash() {
    let said = output("s3_wal").await;
    let lines: Vec<_> = said.lines().collect();
    let [alone, together, idle, after, closed] = lines[..] else {
        panic!("{said}");
    };
    assert_eq!(alone, "20 records, one at a time: 20 put, 0 other requests");
    let puts = together
        .strip_prefix("20000 records, all at once: ")
        .and_then(|rest| rest.split(' ').next())
        .and_then(|puts| puts.parse::<u64>().ok());
    // How many depends on how fast the directory is; a PUT for each it is not.
    assert!(puts.is_some_and(|puts| puts < 2_000), "{said}");
    assert_eq!(
        idle,
        "a second without anything to do: 0 put, 0 other requests"
    );
    assert_eq!(after, "after a crash: 20020 records");
    assert!(closed.ends_with("owes nothing"), "{said}");
}

#[tokio::test]
async fn failover_serves_everything_and_the_first_owner_hears_that_it_is_fenced() {
    let said = output("failover").await;
    let lines: Vec<_> = said.lines().collect();
    let [stopped, serves, all, goes_on, fenced, closed] = lines[..] else {
        panic!("{said}");
    };
    assert!(stopped.ends_with("records, and is stopped"), "{said}");
    assert!(
        serves.starts_with("the second owner serves after"),
        "{said}"
    );
    assert_eq!([all, goes_on], ["it has all of them", "and goes on"]);
    assert!(fenced.contains("fenced"), "{said}");
    assert_eq!(closed, "closed: nothing is lost, nothing forked");
}

#[tokio::test]
async fn custom_wal_passes_the_suite_and_loses_nothing_to_a_kill() {
    let said = output("custom_wal").await;
    let lines: Vec<_> = said.lines().collect();
    let [passed, killed, reopened, closed] = lines[..] else {
        panic!("{said}");
    };
    assert!(passed.ends_with("every case of the suite passed"), "{said}");
    let killed = killed.strip_prefix("killed the writer after ").unwrap();
    let acknowledged: u64 = killed.split(' ').next().unwrap().parse().unwrap();
    assert!(acknowledged >= 300, "{said}");
    assert!(
        reopened.starts_with("reopened: all of them are there"),
        "{said}"
    );
    assert!(closed.ends_with(" owes nothing"), "{said}");
}

/// Runs the writer of `custom_wal` in `dir` until it has acknowledged something, and kills it.
fn write_until_killed(dir: &Path) {
    let mut command = command("custom_wal");
    let mut process = Process::start(command.arg(dir));
    let said = BufReader::new(process.0.stdout.take().unwrap());
    assert_eq!(said.lines().map_while(Result::ok).take(100).count(), 100);
}

/// The files of a directory with their content, by name.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn custom_wal_refuses_what_is_damaged_and_leaves_it_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::create_dir(&log).unwrap();
    write_until_killed(dir.path());
    // It comes back from a kill: the damage below is what it refuses.
    write_until_killed(dir.path());

    let whole = files(&log);
    let is_commit = |path: &Path| path.extension().is_some_and(|kind| kind == "commit");
    let commits: Vec<_> = whole.iter().filter(|(path, _)| is_commit(path)).collect();
    assert!(commits.len() > 4, "{} commits", commits.len());
    let (middle, middle_bytes) = commits[commits.len() / 2];
    let (last, last_bytes) = commits[commits.len() - 1];
    let (label, label_bytes) = whole
        .iter()
        .find(|(path, _)| path.ends_with("label"))
        .unwrap();
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let damages = [
        (middle, None),
        (middle, Some(flipped(middle_bytes, 0))),
        (middle, Some(flipped(middle_bytes, 40))),
        (middle, Some(flipped(middle_bytes, middle_bytes.len() - 1))),
        (last, Some(last_bytes[..last_bytes.len() - 1].to_vec())),
        (last, Some(Vec::new())),
        (label, None),
        (label, Some(flipped(label_bytes, 20))),
    ];
    for (path, damaged) in damages {
        match damaged {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let before = files(&log);
        let mut command = command("custom_wal");
        let mut process = Process::start(command.arg(dir.path()).stderr(Stdio::piped()));
        let status = process.end().await;
        let mut said = String::new();
        let mut stderr = process.0.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert!(!status.success(), "{}: opened", path.display());
        assert!(
            said.contains("corrupt at position"),
            "{}: {said}",
            path.display()
        );
        assert_eq!(
            files(&log),
            before,
            "{}: something was written",
            path.display()
        );
        for (path, bytes) in &whole {
            fs::write(path, bytes).unwrap();
        }
    }
    write_until_killed(dir.path());
}

#[tokio::test]
async fn minimal_broker_shows_itself() {
    let said = output("minimal_broker").await;
    let said: Vec<_> = said
        .lines()
        .map(|line| match line.split_once("ERR ") {
            // Of an error the kind; its words may change.
            Some((client, error)) => format!("{client}ERR {}", error.split(' ').next().unwrap()),
            None => line.to_owned(),
        })
        .collect();
    let expected = "\
anna > CREATE greetings
anna < OK
anna > CREATE greetings
anna < ERR Invalid
ben > TAIL greetings 0
anna > PUT greetings hello
anna < OK 0
anna > PUT greetings hello again
anna < OK 1
ben < 0 hello
ben < 1 hello again
ben > LIST
ben < END 2
ben < greetings 0 2
ben < END
anna > GET greetings 1 10
anna < 1 hello again
anna < END 2
anna > GET greetings 7 10
anna < ERR OutOfRange
anna > PUT nothing x
anna < ERR NotFound
-- closed; now without the log, from the bucket alone
carl > GET greetings 0 10
carl < 0 hello
carl < 1 hello again
carl < END 2
carl > PUT greetings and on it goes
carl < OK 2";
    assert_eq!(said.join("\n"), expected);
}

/// A broker of its own process.
struct Served {
    process: Process,
    address: String,
    said: BufReader<ChildStdout>,
}

impl Served {
    fn start(data: &Path) -> Self {
        let mut command = command("minimal_broker");
        command
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data);
        let mut process = Process::start(&mut command);
        let mut said = BufReader::new(process.0.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect(&line);
        Self {
            address: address.to_owned(),
            process,
            said,
        }
    }

    fn connect(&self) -> Client {
        let socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Client(BufReader::new(socket))
    }

    async fn end_by(mut self, signal: Signal) -> (ExitStatus, String) {
        kill_process(Pid::from_child(&self.process.0), signal).unwrap();
        let status = self.process.end().await;
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        (status, rest)
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line.trim_end_matches('\n').to_owned())
    }

    fn ask(&mut self, request: &str) -> String {
        self.send(&format!("{request}\n"));
        self.hear().unwrap()
    }
}

#[tokio::test]
async fn a_broker_that_is_interrupted_closes_and_one_that_is_killed_has_it_all() {
    let data = tempfile::tempdir().unwrap();
    let mut expected = 0;
    for (round, signal) in [Signal::INT, Signal::KILL, Signal::TERM, Signal::KILL]
        .into_iter()
        .enumerate()
    {
        let served = Served::start(data.path());
        let mut client = served.connect();
        if round == 0 {
            assert_eq!(client.ask("CREATE kept"), "OK");
        }
        client.send("GET kept 0 1000\n");
        for offset in 0..expected {
            assert_eq!(client.hear().unwrap(), format!("{offset} line {offset}"));
        }
        assert_eq!(client.hear().unwrap(), format!("END {expected}"));
        for _ in 0..20 {
            let put = client.ask(&format!("PUT kept line {expected}"));
            assert_eq!(put, format!("OK {expected}"));
            expected += 1;
        }
        let (status, said) = served.end_by(signal).await;
        let closed = signal != Signal::KILL;
        assert_eq!(status.success(), closed, "{status}");
        assert_eq!(
            said == "closed: the bucket has everything\n",
            closed,
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_second_broker_on_the_same_data_is_refused_and_the_first_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let served = Served::start(data.path());
    let mut client = served.connect();
    assert_eq!(client.ask("CREATE kept"), "OK");
    let mut second = command("minimal_broker");
    second
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .stderr(Stdio::piped());
    let mut second = Process::start(&mut second);
    assert!(!second.end().await.success());
    let mut said = String::new();
    let mut stderr = second.0.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(said.contains("is in use by"), "{said}");
    assert_eq!(client.ask("PUT kept x"), "OK 0");
}

#[test]
fn a_line_that_is_too_long_ends_its_connection_alone() {
    let data = tempfile::tempdir().unwrap();
    let served = Served::start(data.path());
    let (mut long, mut other) = (served.connect(), served.connect());
    assert_eq!(other.ask("CREATE s"), "OK");
    // The longest that is taken, its end included.
    let fits = format!("PUT s {}", "x".repeat(64 * 1024 - "PUT s \n".len()));
    assert_eq!(long.ask(&fits), "OK 0");
    long.send(&format!("{fits}x\n"));
    assert!(long.hear().unwrap().starts_with("ERR Invalid"));
    // It is closed; what was not read of it may make that a reset.
    assert!(long.hear().map_or(true, |line| line.is_empty()));
    assert_eq!(other.ask("PUT s y"), "OK 1");
    for unknown in [
        "",
        "PUT",
        "put s x",
        "GET s 0",
        "TAIL s x",
        "CREATE a b",
        "CREATE \u{e9}",
    ] {
        let answer = other.ask(unknown);
        assert!(answer.starts_with("ERR Invalid"), "{unknown:?}: {answer}");
    }
}

#[test]
fn a_connection_past_the_limit_waits_for_one_that_ends() {
    let data = tempfile::tempdir().unwrap();
    let served = Served::start(data.path());
    let mut first = served.connect();
    assert_eq!(first.ask("CREATE s"), "OK");
    let mut others: Vec<_> = (1..64).map(|_| served.connect()).collect();
    for client in &mut others {
        assert_eq!(client.ask("LIST"), "s 0 0");
        assert_eq!(client.hear().unwrap(), "END");
    }
    let mut late = served.connect();
    late.send("LIST\n");
    let socket = late.0.get_ref();
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(late.hear().is_err(), "answered past the limit");
    late.0.get_ref().set_read_timeout(Some(LONG)).unwrap();
    drop(first);
    assert_eq!(late.hear().unwrap(), "s 0 0");
}
