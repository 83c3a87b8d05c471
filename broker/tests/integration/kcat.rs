//! kcat, a Kafka client of another make and age: what it sends with each codec it reads back.
//!
//! Ignored by default, because only `.ci/run` brings kcat.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
};

use super::{
    clients::CODECS,
    program::{Places, Program},
    support::Client,
};

const PARTITIONS: usize = 16;

fn kcat(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("kcat")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kcat is installed by .ci/run setup");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kcat {arguments:?}: {said}");
    output.stdout
}

/// Codec and end offset of the batches of partition 0 from `from` on, as one fetch gives them; `None` at the end.
fn batches_from(client: &mut Client, from: i64) -> Option<Vec<(u8, i64)>> {
    let answer = client.fetch("t", 0, from);
    let records = answer.responses[0].partitions[0].records.clone()?;
    let number = |at: usize| i32::from_be_bytes(records[at..at + 4].try_into().unwrap());
    let mut batches = Vec::new();
    let mut at = 0;
    while at + 61 <= records.len() {
        let base = i64::from_be_bytes(records[at..at + 8].try_into().unwrap());
        batches.push((records[at + 22] & 7, base + i64::from(number(at + 23)) + 1));
        at += 12 + number(at + 8) as usize;
    }
    (!batches.is_empty()).then_some(batches)
}

/// Sends `records`, a fifth with each codec, and reads them from the broker that took them and from one that was started
/// anew after `kill -9`.
fn round_trip(records: usize) {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::under(dir.path());
    let program = Program::start(&places, &[]);
    let address = program.address.to_string();
    program.client().create("t", PARTITIONS as i32);
    let mut expected = vec![String::new(); PARTITIONS];
    for codec in CODECS {
        for (partition, expected) in expected.iter_mut().enumerate() {
            let lines: String = (0..records / PARTITIONS / CODECS.len())
                .map(|index| format!("{codec} {partition} {index} {}\n", "x".repeat(index % 50)))
                .collect();
            let partition = partition.to_string();
            kcat(
                &[
                    "-P", "-b", &address, "-t", "t", "-p", &partition, "-z", codec, "-X",
                    "acks=all",
                ],
                lines.as_bytes(),
            );
            expected.push_str(&lines);
        }
    }
    let read = |address: &str| -> Vec<String> {
        let read = |partition: usize| {
            let partition = partition.to_string();
            let arguments = ["-C", "-b", address, "-t", "t", "-p", &partition, "-e", "-q"];
            String::from_utf8(kcat(&[&arguments[..], &["-o", "beginning"]].concat(), b"")).unwrap()
        };
        (0..PARTITIONS).map(read).collect()
    };
    assert!(read(&address) == expected);
    let mut client = program.client();
    let mut stored = BTreeSet::new();
    let mut next = 0;
    // The codec of a batch stands in the low bits of its attributes.
    while let Some(batches) = batches_from(&mut client, next) {
        for (codec, end) in batches {
            stored.insert(codec);
            next = end;
        }
    }
    assert_eq!(stored, BTreeSet::from([0, 1, 2, 3, 4]));
    program.kill();
    let program = Program::start(&places, &[]);
    assert!(read(&program.address.to_string()) == expected);
    program.stop();
}

#[test]
#[ignore = "needs kcat: .ci/run kcat"]
fn what_kcat_sends_with_each_codec_to_16_partitions_it_reads_back() {
    round_trip(10_000);
}

#[test]
#[ignore = "takes minutes and needs the client: .ci/run million"]
fn a_million_records_of_another_make_of_client_are_read_back_exactly() {
    round_trip(1_000_000);
}

#[test]
#[ignore = "needs kcat: .ci/run kcat"]
fn the_line_that_the_program_prints_for_kcat_works() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(&Places::under(dir.path()), &[]);
    let address = program.address.to_string();
    kcat(&["-P", "-b", &address, "-t", "greetings"], b"hello\n");
    let read = kcat(&["-C", "-b", &address, "-t", "greetings", "-e"], b"");
    assert_eq!(read, b"hello\n");
    program.stop();
}
