//! What a run found: one line of JSON whose fields come in a fixed order, or a table.
//!
//! A figure that was not measured is `null`, never 0.

use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};

use crate::{
    Options, Result,
    baseline::Baseline,
    price::Requests,
    process::{self, Machine},
    slices::{self, GIB, MIB, Pair, Slice},
};

/// The result of one scenario. The order of the fields is the order in the JSON line: add new ones at the end.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    scenario: &'static str,
    #[serde(serialize_with = "rounded")]
    throughput_mib_s: Option<f64>,
    #[serde(serialize_with = "rounded")]
    records_per_s: Option<f64>,
    #[serde(serialize_with = "rounded")]
    ack_p50_us: Option<f64>,
    #[serde(serialize_with = "rounded")]
    ack_p99_us: Option<f64>,
    #[serde(serialize_with = "rounded")]
    ack_p999_us: Option<f64>,
    #[serde(serialize_with = "rounded")]
    cpu_s_per_gib: Option<f64>,
    #[serde(serialize_with = "rounded")]
    peak_rss_mib: Option<f64>,
    requests: Requests,
    #[serde(serialize_with = "rounded")]
    cost_usd_per_gib: Option<f64>,
    #[serde(serialize_with = "rounded")]
    cost_usd_per_million_records: Option<f64>,
    #[serde(serialize_with = "rounded")]
    cost_usd_per_hour: Option<f64>,
    #[serde(serialize_with = "rounded")]
    uploaded_per_appended: Option<f64>,
    baseline: Baseline,
    #[serde(serialize_with = "rounded")]
    ratio_p50: Option<f64>,
    #[serde(serialize_with = "rounded")]
    ratio_p99: Option<f64>,
    #[serde(serialize_with = "rounded")]
    ratio_throughput: Option<f64>,
    /// CPU time of the load generator itself, not in `cpu_s_per_gib`.
    #[serde(serialize_with = "rounded")]
    generator_cpu_s_per_gib: Option<f64>,
    details: Details,
    commit: String,
    machine: Machine,
    settings: Settings,
}

/// Figures of one scenario alone, by name.
pub(crate) type Details = BTreeMap<&'static str, serde_json::Value>;

/// How the run was set.
#[derive(Clone, Debug, Serialize)]
struct Settings {
    wal: String,
    bucket: String,
    streams: usize,
    record_bytes: usize,
    load: String,
    window: Option<usize>,
    seconds: f64,
    slices: usize,
}

/// What a scenario hands in to be reported.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) pairs: Vec<Pair>,
    pub(crate) baseline: Baseline,
    pub(crate) window: Option<usize>,
    /// Requests of the measured part.
    pub(crate) requests: Requests,
    /// Per record, from a run of the generator alone.
    pub(crate) generator_cpu_per_record: Option<std::time::Duration>,
    /// A paced side is never at its limit: its throughput says nothing about the other's.
    pub(crate) paced: bool,
    pub(crate) details: Details,
}

impl Report {
    pub(crate) fn new(options: &Options, findings: Findings) -> Self {
        let engine = slices::total(findings.pairs.iter().map(|pair| &pair.engine));
        let baseline = slices::total(findings.pairs.iter().map(|pair| &pair.baseline));
        let gib = engine.bytes as f64 / GIB;
        let per_gib = |amount: f64| (gib > 0.0).then(|| amount / gib);
        let ratio = |quantile| {
            slices::median_ratio(&findings.pairs, |slice| slice.latency.micros(quantile))
        };
        let generator_s = findings
            .generator_cpu_per_record
            .map(|own| engine.spun.as_secs_f64() + own.as_secs_f64() * engine.records as f64);
        let cpu_s = engine.cpu.as_secs_f64();
        let has_cpu = !engine.cpu.is_zero();
        let ratio_throughput = slices::median_ratio(&findings.pairs, Slice::mib_per_s);
        Self {
            scenario: options.scenario.name(),
            throughput_mib_s: engine.mib_per_s(),
            records_per_s: engine.records_per_s(),
            ack_p50_us: engine.latency.micros(0.5),
            ack_p99_us: engine.latency.micros(0.99),
            ack_p999_us: engine.latency.micros(0.999),
            cpu_s_per_gib: per_gib((cpu_s - generator_s.unwrap_or(0.0)).max(0.0))
                .filter(|_| has_cpu),
            peak_rss_mib: engine.peak_rss_mib,
            requests: findings.requests,
            cost_usd_per_gib: per_gib(findings.requests.cost_usd()),
            cost_usd_per_million_records: (engine.records > 0)
                .then(|| findings.requests.cost_usd() * 1e6 / engine.records as f64),
            cost_usd_per_hour: (!engine.elapsed.is_zero())
                .then(|| findings.requests.cost_usd() * 3600.0 / engine.elapsed.as_secs_f64()),
            uploaded_per_appended: (findings.requests.put > 0 && engine.bytes > 0)
                .then(|| findings.requests.put_bytes as f64 / engine.bytes as f64),
            baseline: findings.baseline.with(&baseline),
            ratio_p50: ratio(0.5),
            ratio_p99: ratio(0.99),
            ratio_throughput: ratio_throughput.filter(|_| !findings.paced),
            generator_cpu_s_per_gib: generator_s.and_then(per_gib),
            details: findings.details,
            commit: process::commit(),
            machine: Machine::of(&options.dir),
            settings: Settings::of(options, findings.window),
        }
    }

    /// One line of JSON.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }
}

impl Settings {
    fn of(options: &Options, window: Option<usize>) -> Self {
        let load = match options.interval() {
            None => "max".to_owned(),
            Some(interval) => format!(
                "{:.1} appends/s, latency from the intended start",
                1.0 / interval.as_secs_f64()
            ),
        };
        let place = |url: &Option<String>, default: &str| {
            url.as_deref().map_or(default.to_owned(), without_secrets)
        };
        Self {
            wal: place(&options.wal, "block: temporary file"),
            bucket: place(&options.bucket, "file: temporary directory"),
            streams: options.streams,
            record_bytes: options.record_bytes,
            load,
            window,
            seconds: options.seconds,
            slices: options.slices,
        }
    }
}

/// A URL without user, password and parameters: reports are passed around.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let authority_end = rest.find('/').unwrap_or(rest.len());
            let start = rest
                .get(..authority_end)
                .and_then(|authority| authority.rfind('@'))
                .map_or(0, |at| at + 1);
            format!("{scheme}://{}", rest.get(start..).unwrap_or_default())
        }
        None => url.to_owned(),
    }
}

/// Four significant digits: more would claim what was not measured.
pub(crate) fn significant(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    // Scaled by an integer power of ten in the direction that keeps decimal values short.
    if digits >= 0 {
        let scale = 10f64.powi(digits);
        (value * scale).round() / scale
    } else {
        value.round()
    }
}

/// For serde: as [`significant`]; what is not finite is `null`.
pub(crate) fn rounded<S: Serializer>(
    value: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value
        .filter(|value| value.is_finite())
        .map(significant)
        .serialize(serializer)
}

/// A line of the table: name, engine, baseline, ratio.
type Row = (&'static str, Option<f64>, Option<f64>, Option<f64>);

impl Report {
    #[rustfmt::skip]
    fn rows(&self) -> [Row; 13] {
        let base = &self.baseline;
        [
            ("throughput, MiB/s", self.throughput_mib_s, base.throughput_mib_s, self.ratio_throughput),
            ("records or operations/s", self.records_per_s, base.operations_per_s, None),
            ("p50, us", self.ack_p50_us, base.p50_us, self.ratio_p50),
            ("p99, us", self.ack_p99_us, base.p99_us, self.ratio_p99),
            ("p99.9, us", self.ack_p999_us, None, None),
            ("memcpy + crc32c, MiB/s", None, base.memcpy_crc32c_mib_s, None),
            ("CPU, s/GiB", self.cpu_s_per_gib, None, None),
            ("generator's CPU, s/GiB", self.generator_cpu_s_per_gib, None, None),
            ("peak memory, MiB", self.peak_rss_mib, None, None),
            ("requests, $/GiB", self.cost_usd_per_gib, None, None),
            ("requests, $/10^6 records", self.cost_usd_per_million_records, None, None),
            ("requests, $/h", self.cost_usd_per_hour, None, None),
            ("uploaded / appended", self.uploaded_per_appended, None, None),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        writeln!(
            f,
            "{}: {} streams, records of {} bytes, {}, window {}",
            self.scenario,
            settings.streams,
            settings.record_bytes,
            settings.load,
            settings.window.map_or("-".to_owned(), |w| w.to_string())
        )?;
        let heads = ["engine", "baseline"];
        writeln!(f, "  {:<26}{:>14}{:>14}", "", heads[0], heads[1])?;
        for (name, engine, baseline, ratio) in self.rows() {
            let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let (engine, baseline) = (shown(engine), shown(baseline));
            writeln!(f, "  {name:<26}{engine:>14}{baseline:>14}{ratio:>8}")?;
        }
        let Requests {
            put,
            get,
            list,
            delete,
            ..
        } = self.requests;
        writeln!(
            f,
            "  requests: {put} PUT, {get} GET, {list} LIST, {delete} DELETE"
        )?;
        for (name, value) in &self.details {
            writeln!(f, "  {name}: {value}")?;
        }
        writeln!(f, "  baseline: {}", self.baseline.what)?;
        let machine = serde_json::to_string(&self.machine).map_err(|_| fmt::Error)?;
        write!(f, "  commit {} on {machine}", self.commit)
    }
}

fn shown(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{}", significant(value)))
}

/// A mean for the details; `null` without anything to take it of.
pub(crate) fn mean(sum: u64, count: u64) -> serde_json::Value {
    if count == 0 {
        return serde_json::Value::Null;
    }
    serde_json::json!(significant(sum as f64 / count as f64))
}

/// Bytes as MiB for the details.
pub(crate) fn mib(bytes: u64) -> serde_json::Value {
    serde_json::json!(significant(bytes as f64 / MIB))
}

#[cfg(test)]
mod tests;
