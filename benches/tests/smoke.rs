//! Every scenario runs with tiny settings and reports on one line. No figure is judged.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use bench::{Options, Workplace};
use clap::Parser;

fn run(arguments: &[&str]) -> serde_json::Value {
    let parent = tempfile::tempdir_in(".").unwrap();
    let tiny = ["--seconds=0.1", "--slices=2", "--streams=3", "--json"];
    let dir = format!("--dir={}", parent.path().display());
    let arguments = ["s3stream-bench"]
        .iter()
        .chain(arguments)
        .chain(&tiny)
        .copied();
    let options = Options::parse_from(arguments.chain([dir.as_str()]));
    assert_eq!(options.problems(), Vec::<String>::new());
    let workplace = Workplace::new(&options.dir).unwrap();
    let report = bench::run(&options, &workplace).unwrap();
    drop(workplace);
    let left: Vec<_> = std::fs::read_dir(parent.path()).unwrap().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(!report.to_string().is_empty());
    let json = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    println!("{json}");
    json
}

fn positive(json: &serde_json::Value, fields: &[&str]) {
    for field in fields {
        let value = json[field].as_f64();
        assert!(
            value.is_some_and(|value| value > 0.0),
            "{field}: {}",
            json[field]
        );
    }
}

const APPENDS: [&str; 6] = [
    "throughput_mib_s",
    "records_per_s",
    "ack_p50_us",
    "ack_p999_us",
    "ratio_p50",
    "ratio_p99",
];

#[test]
fn wal_in_memory_at_full_load_is_compared_with_memory() {
    let json = run(&["wal", "--wal=memory:"]);
    positive(&json, &APPENDS);
    positive(&json, &["ratio_throughput"]);
    assert_eq!(json["baseline"]["kind"], "memory");
    assert!(json["settings"]["window"].as_u64().unwrap() >= 1);
}

#[test]
fn wal_in_memory_at_low_load_has_one_append_outstanding() {
    let json = run(&["wal", "--wal=memory:", "--requests-per-second=200"]);
    positive(&json, &APPENDS);
    assert_eq!(json["settings"]["window"], 1);
    assert!(json["ratio_throughput"].is_null());
}

#[test]
fn wal_on_a_file_is_compared_with_the_device() {
    let json = run(&["wal"]);
    positive(&json, &APPENDS);
    positive(&json, &["ratio_throughput"]);
    assert_eq!(json["baseline"]["kind"], "device");
}

#[test]
fn append_uploads_what_it_appended() {
    let json = run(&["append"]);
    positive(&json, &APPENDS);
    positive(
        &json,
        &["ratio_throughput", "cost_usd_per_gib", "cpu_s_per_gib"],
    );
    let uploaded = json["uploaded_per_appended"].as_f64().unwrap();
    assert!(uploaded >= 0.9, "{uploaded}");
}

#[test]
fn tail_needs_no_get() {
    let json = run(&["tail", "--requests-per-second=500"]);
    positive(&json, &APPENDS);
    assert_eq!(json["requests"]["get"], 0);
}

#[test]
fn catchup_reads_everything_from_the_bucket() {
    let json = run(&["catchup"]);
    positive(
        &json,
        &["throughput_mib_s", "records_per_s", "ratio_throughput"],
    );
    assert!(json["requests"]["get"].as_u64().unwrap() > 0);
}

#[test]
fn recovery_opens_after_a_crash() {
    let json = run(&["recovery"]);
    positive(&json, &["throughput_mib_s", "ratio_throughput"]);
    positive(&json["details"], &["open_ms_median", "log_used_mib"]);
}

#[test]
fn idle_costs_no_request() {
    for place in ["--bucket=memory:", "--wal=object:"] {
        let json = run(&["idle", place]);
        assert_eq!(json["details"]["requests_while_idle"], 0, "{place}");
    }
}

#[test]
fn what_an_object_log_asks_of_its_bucket_is_counted_and_priced() {
    let prices = ["cost_usd_per_million_records", "cost_usd_per_hour"];
    let alone = run(&["wal", "--wal=object:memory:"]);
    positive(&alone, &prices);
    let commits = alone["details"]["commits"].as_u64().unwrap();
    let puts = alone["requests"]["put"].as_u64().unwrap();
    assert!(commits > 0 && puts >= commits, "{puts} for {commits}");
    let below = run(&["append", "--wal=object:memory:"]);
    positive(&below, &prices);
    let commits = below["details"]["commits"].as_u64().unwrap();
    let puts = below["requests"]["put"].as_u64().unwrap();
    assert!(commits > 0 && puts >= commits, "{puts} for {commits}");
    assert_eq!(run(&["wal", "--wal=memory:"])["requests"]["put"], 0);
}

#[test]
fn the_program_prints_one_line_and_leaves_nothing_behind() {
    let parent = tempfile::tempdir_in(".").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_s3stream-bench"))
        .args(["wal", "--seconds=0.1", "--slices=1", "--json", "--dir"])
        .arg(parent.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.starts_with("{\"scenario\":\"wal\",\"throughput_mib_s\":"),
        "{text}"
    );
    let left: Vec<_> = std::fs::read_dir(parent.path()).unwrap().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn a_bucket_given_by_url_keeps_what_it_had_and_nothing_of_the_run() {
    let bucket = tempfile::tempdir_in(".").unwrap();
    let theirs = bucket.path().join("theirs");
    std::fs::write(&theirs, b"theirs").unwrap();
    let url = format!(
        "--bucket=file://{}",
        bucket.path().canonicalize().unwrap().display()
    );
    run(&["append", &url]);
    assert_eq!(std::fs::read(&theirs).unwrap(), b"theirs");
    let mut folders = vec![bucket.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert!(
                    path == theirs || name.starts_with('.'),
                    "left behind: {path:?}"
                );
            }
        }
    }
}

#[test]
fn replay_reads_a_log_back_and_compares_it_with_raw_reads() {
    let json = run(&["replay", "--record-bytes=16384"]);
    positive(&json, &["throughput_mib_s", "ratio_throughput"]);
    assert_eq!(json["baseline"]["kind"], "log_read");
    positive(&json["details"], &["open_ms_median", "log_mib"]);
}

#[test]
fn many_tasks_are_compared_with_the_same_tasks_on_a_log_that_does_nothing() {
    let json = run(&["tasks", "--record-bytes=100", "--tasks=20"]);
    positive(&json, &["records_per_s", "ack_p50_us", "cpu_s_per_gib"]);
    positive(&json["baseline"], &["operations_per_s"]);
    positive(&json["details"], &["wakeup_p50_us"]);
    assert!(json["details"]["cpu_us_per_record_less_null"].is_number());
    assert!(json["ratio_throughput"].is_null());
}

#[test]
fn kafka_log_appends_beside_a_checksum_and_a_copy_and_opens_partitions_after_a_crash() {
    let json = run(&["kafka-log", "--partitions=60"]);
    positive(
        &json,
        &["throughput_mib_s", "ack_p50_us", "ratio_throughput"],
    );
    assert_eq!(json["baseline"]["kind"], "memory");
    let appended = [
        "append_gib_per_s_median",
        "append_cpu_ns_per_batch",
        "append_cpu_ratio",
        "baseline_cpu_ns_per_batch",
    ];
    positive(&json["details"], &appended);
    let opened = ["partitions_opened_per_s", "partition_open_ms_median"];
    positive(&json["details"], &opened);
    // Of so few it is lost in what the process gives back meanwhile.
    assert!(json["details"]["partition_resident_kib"].is_number());
    assert_eq!(json["details"]["partitions"], 60);
    let compacted = ["compaction_mib_per_s", "compaction_mib_per_cpu_s"];
    positive(&json["details"], &compacted);
    let bytes = |name: &str| json["details"][name].as_f64().unwrap();
    assert!(bytes("compaction_out_mib") < bytes("compaction_in_mib"));
}

#[test]
fn the_broker_is_measured_as_a_process_of_its_own() {
    let parent = tempfile::tempdir_in(".").unwrap();
    let program = env!("CARGO_BIN_EXE_s3stream-bench");
    let output = std::process::Command::new(program)
        .args(["broker", "--seconds=0.2", "--slices=2", "--partitions=20"])
        .arg("--json")
        .arg(format!("--dir={}", parent.path().display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    positive(&json, &["throughput_mib_s", "ack_p50_us"]);
    for part in ["partitions_1", "partitions_100"] {
        let ours = &json["details"][part]["ours"];
        positive(
            ours,
            &["produce_mib_s", "fetch_mib_s", "client_cpu_s_per_gib"],
        );
    }
    positive(&json["details"]["steady_100"]["ours"], &["ack_p99_ms"]);
    let many = &json["details"]["many"];
    assert_eq!(many["partitions"], 20);
    positive(
        many,
        &[
            "resident_mib_peak",
            "start_after_stop_s",
            "start_after_kill_s",
        ],
    );
    let left: Vec<_> = std::fs::read_dir(parent.path()).unwrap().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
