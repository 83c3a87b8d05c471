//! The line of JSON: its fields, their order, and what it must not repeat.

use std::time::Duration;

use clap::Parser;

use super::*;

fn options() -> Options {
    Options::parse_from([
        "s3stream-bench",
        "append",
        "--bucket",
        "s3://key:secret@b/p?token=t",
    ])
}

fn findings() -> Findings {
    let slice = |micros, bytes| {
        let mut slice = Slice {
            bytes,
            records: bytes >> 10,
            elapsed: Duration::from_secs(1),
            cpu: Duration::from_millis(600),
            ..Slice::default()
        };
        slice.latency.record(Duration::from_micros(micros));
        slice
    };
    Findings {
        pairs: vec![Pair {
            engine: slice(150, 512 << 20),
            baseline: slice(100, 1 << 30),
        }],
        requests: Requests {
            put: 8,
            put_bytes: 1 << 30,
            ..Requests::default()
        },
        generator_cpu_per_record: Some(Duration::from_nanos(100)),
        ..Findings::default()
    }
}

#[test]
fn the_json_line_starts_with_the_promised_fields_in_order() {
    let line = Report::new(&options(), findings()).to_json().unwrap();
    assert!(!line.contains('\n'));
    let promised = [
        "\"scenario\":\"append\"",
        "\"throughput_mib_s\":512.0",
        "\"records_per_s\":524288.0",
        "\"ack_p50_us\":",
        "\"ack_p99_us\":",
        "\"ack_p999_us\":",
        "\"cpu_s_per_gib\":",
        "\"peak_rss_mib\":",
        "\"requests\":{\"put\":8,\"get\":0,\"list\":0,\"delete\":0}",
        "\"cost_usd_per_gib\":0.00008",
        // 8 requests for 524,288 records in a second.
        "\"cost_usd_per_million_records\":0.00007629",
        "\"cost_usd_per_hour\":0.144",
        "\"uploaded_per_appended\":2.0",
        "\"baseline\":{",
        "\"ratio_p50\":1.5",
        "\"ratio_p99\":1.5",
        "\"ratio_throughput\":0.5",
    ];
    let mut rest = line.strip_prefix('{').unwrap();
    for (index, field) in promised.iter().enumerate() {
        let at = rest
            .find(field)
            .unwrap_or_else(|| panic!("{field} after {rest}"));
        if index == 0 {
            assert_eq!(at, 0);
        }
        rest = &rest[at + field.len()..];
    }
    let keys: Vec<_> = top_level_keys(&line);
    let names: Vec<_> = promised
        .iter()
        .map(|field| field.split('"').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(&keys[..names.len()], names);
    assert!(
        ["commit", "machine", "settings"]
            .iter()
            .all(|key| keys.contains(&(*key).to_owned()))
    );
}

/// Keys of the outermost object, in order.
fn top_level_keys(line: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut keys) = (0, None, Vec::new());
    for (at, byte) in line.bytes().enumerate() {
        match (byte, quoted) {
            (b'"', None) => quoted = Some(at),
            (b'"', Some(start)) => {
                if depth == 1 && line.as_bytes()[at + 1] == b':' {
                    keys.push(line[start + 1..at].to_owned());
                }
                quoted = None;
            }
            (b'{' | b'[', None) => depth += 1,
            (b'}' | b']', None) => depth -= 1,
            _ => {}
        }
    }
    keys
}

#[test]
fn the_generators_own_time_is_stated_and_not_the_engines() {
    let report = Report::new(&options(), findings());
    // 0.6 s for half a GiB, less 524,288 records of 100 ns.
    assert!((report.generator_cpu_s_per_gib.unwrap() - 0.1048576).abs() < 1e-6);
    assert!((report.cpu_s_per_gib.unwrap() - (1.2 - 0.1048576)).abs() < 1e-6);
}

#[test]
fn what_was_not_measured_is_null_and_paced_load_has_no_throughput_ratio() {
    let report = Report::new(&options(), Findings::default());
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    for name in [
        "throughput_mib_s",
        "ack_p50_us",
        "cost_usd_per_gib",
        "cost_usd_per_hour",
        "ratio_p50",
    ] {
        assert!(json[name].is_null(), "{name}");
    }
    let paced = Findings {
        paced: true,
        ..findings()
    };
    assert_eq!(Report::new(&options(), paced).ratio_throughput, None);
}

#[test]
fn secrets_of_a_url_stay_out_of_the_report() {
    let report = Report::new(&options(), findings());
    for text in [report.to_json().unwrap(), report.to_string()] {
        assert!(
            !text.contains("secret") && !text.contains("token"),
            "{text}"
        );
    }
    assert_eq!(without_secrets("block:/a/b@c?capacity=1"), "block:/a/b@c");
    assert_eq!(without_secrets("file:///a/b@c"), "file:///a/b@c");
}

#[test]
fn figures_have_four_significant_digits() {
    assert_eq!(significant(123_456.7), 123_457.0);
    assert_eq!(significant(1.234_567), 1.235);
    assert_eq!(significant(0.000_123_456), 0.000_123_5);
    assert_eq!(significant(0.0), 0.0);
}
