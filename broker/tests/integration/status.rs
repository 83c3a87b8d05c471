//! The status page and the log: what people and machines are told, and that nobody can make the page a burden.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use broker::Config;
use kafka_protocol::messages::{
    ApiKey, FindCoordinatorRequest, FindCoordinatorResponse, GroupId, OffsetCommitRequest,
    OffsetCommitResponse,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
};
use serde_json::Value;

use super::{
    program::Places,
    support::{Client, Running, batch, memory, topic_name},
};

fn with_a_page() -> Running {
    Running::start(Config {
        metrics_listen: "127.0.0.1:0".into(),
        ..memory()
    })
}

/// Sends `request` as it is; all that comes back until the end.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // A server that has refused may be gone before all was sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// The head and the body of an answer.
fn get(address: SocketAddr, path: &str) -> (String, String) {
    let answer = exchange(
        address,
        format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes(),
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn json(address: SocketAddr) -> Value {
    let (head, body) = get(address, "/status.json");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    serde_json::from_str(&body).unwrap()
}

/// Commits an offset for group `readers`, as a client without a membership does. The first one waits for the coordinator.
fn commit(client: &mut Client, topic: &str, partition: i32, offset: i64) {
    let find = FindCoordinatorRequest::default().with_key("readers".into());
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId("readers".into()))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    for _ in 0..200 {
        let _: FindCoordinatorResponse = client.call(ApiKey::FindCoordinator, 1, &find);
        let answer: OffsetCommitResponse = client.call(ApiKey::OffsetCommit, 5, &request);
        match answer.topics[0].partitions[0].error_code {
            0 => return,
            // Being loaded, or not there yet.
            14..=16 => std::thread::sleep(Duration::from_millis(20)),
            code => panic!("{code}"),
        }
    }
    panic!("the coordinator is not there");
}

#[test]
fn what_was_done_is_in_the_numbers() {
    let running = with_a_page();
    let mut client = running.client();
    client.create("greetings", 3);
    for _ in 0..7 {
        client.produce("greetings", 1, batch(1, &[b"hello"]));
    }
    client.fetch("greetings", 1, 0);
    commit(&mut client, "greetings", 1, 3);
    // An answer is counted when it is sent: the next one comes after that.
    client.assert_serves();
    let status = json(running.metrics_address());
    let partitions = status["topics"]["partitions"].as_u64().unwrap();
    assert!(
        partitions >= 3,
        "with those of internal topics: {partitions}"
    );
    assert_eq!(status["partitions"][0]["topic"], "greetings");
    assert_eq!(status["partitions"][0]["partition"], 1);
    assert_eq!(status["partitions"][0]["high_watermark"], 7);
    assert_eq!(status["group_totals"]["groups"], 1);
    assert_eq!(status["groups"][0]["group"], "readers");
    assert_eq!(status["groups"][0]["lag"], 4);
    assert_eq!(status["connections"]["open"], 1);
    assert_eq!(status["reads"]["from_log_cache"], 1);
    let requests = status["requests"].as_array().unwrap();
    let produce = requests.iter().find(|row| row["api"] == "Produce").unwrap();
    assert_eq!(produce["requests"], 7);
    assert!(status["process"]["resident_bytes"].as_u64().unwrap() > 1 << 20);
    let (head, text) = get(running.metrics_address(), "/metrics");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let count = "\ns3stream_request_duration_seconds_count{api=\"Produce\"} 7\n";
    assert!(text.contains(count), "{text}");
}

#[test]
fn the_page_asks_for_nothing_outside() {
    let running = with_a_page();
    let (head, page) = get(running.metrics_address(), "/");
    assert!(head.contains("content-type: text/html"), "{head}");
    assert!(
        head.contains("content-security-policy: default-src 'none'"),
        "{head}"
    );
    for outside in ["http:", "https:", "//cdn", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn other_paths_methods_and_what_is_no_http_are_refused_and_harm_nobody() {
    let running = with_a_page();
    let address = running.metrics_address();
    let (head, _) = get(address, "/secrets");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let head = exchange(
        address,
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    );
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    assert!(!exchange(address, many.as_bytes()).starts_with("HTTP/1.1 200"));
    let long = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(100_000));
    assert!(!exchange(address, long.as_bytes()).starts_with("HTTP/1.1 200"));
    assert!(!exchange(address, &[0xff; 100]).starts_with("HTTP/1.1 200"));
    json(address);
}

#[test]
fn who_holds_every_place_of_the_page_holds_up_neither_clients_nor_its_end() {
    let running = with_a_page();
    let address = running.metrics_address();
    let silent: Vec<_> = (0..32)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    // They are taken in the order in which they came, so this one finds no place.
    let mut refused = Client::connect(address);
    assert!(refused.is_closed());
    let mut client = running.client();
    client.assert_serves();
    drop(silent);
    running.stop();
}

#[test]
fn without_an_address_there_is_no_page() {
    let config = memory();
    assert!(config.metrics_listen.is_empty());
    let dir = tempfile::tempdir().unwrap();
    let places = Places::under(dir.path());
    let mut child = places.command(&[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !said.contains("kcat") {
        said.push_str(&lines.next().unwrap().unwrap());
    }
    assert!(!said.contains("http"), "{said}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn log_lines_are_objects_with_fields_if_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places {
        environment: vec![("RUST_LOG", "s3stream=warn,broker=debug")],
        ..Places::under(dir.path())
    };
    let mut command = places.command(&["--log-format", "json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address: SocketAddr = loop {
        let line = lines.next().unwrap().unwrap();
        if let Some((_, rest)) = line.split_once("clients on ") {
            break rest.split(' ').next().unwrap().parse().unwrap();
        }
    };
    Client::connect(address).assert_serves();
    let mut wrong = Client::connect(address);
    wrong.send_body(9999, 0, &[]);
    assert!(wrong.is_closed());
    let mut ends = Vec::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while ends.len() < 2 {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(line["timestamp"].is_string() && line["target"].is_string());
        let message = line["message"].as_str().unwrap();
        if message.starts_with("connection ") {
            let peer: SocketAddr = line["peer"].as_str().unwrap().parse().unwrap();
            assert!(peer.ip().is_loopback());
            ends.push(format!("{} {message} {}", line["level"], line["error"]));
        }
    }
    ends.sort();
    assert_eq!(
        ends,
        [
            r#""DEBUG" connection closed null"#,
            r#""INFO" connection ended "api key 9999 is not served""#,
        ]
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Loads the page in a browser and returns its elements as they are when the script has run.
fn in_a_browser(url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--virtual-time-budget=5000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--dump-dom", url])
        .stdin(Stdio::null());
    let output = command
        .output()
        .expect("chromium is installed by .ci/run page");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("Content Security Policy"), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs chromium: .ci/run page"]
fn the_page_works_in_a_browser() {
    let running = with_a_page();
    let mut client = running.client();
    client.create("greetings", 2);
    client.produce("greetings", 1, batch(1, &[b"hello"]));
    commit(&mut client, "greetings", 1, 0);
    client.assert_serves();
    let page = in_a_browser(&format!("http://{}/", running.metrics_address()));
    for part in [
        ">serving</span>",
        "<td>Produce</td>",
        "<td>greetings-1</td>",
        "<td>PUT</td>",
        "Groups: 1, 0 members, 1 offsets behind",
        "<td>readers</td>",
        "Write-ahead log",
        "Not yet in the bucket",
        "<polyline",
    ] {
        assert!(page.contains(part), "{part:?} is not in: {page}");
    }
    for wrong in ["NaN", "undefined", "[object", "no answer"] {
        // The script is part of the page.
        let shown = page.split("<script>").next().unwrap();
        assert!(!shown.contains(wrong), "{wrong:?} is in: {shown}");
    }
}
