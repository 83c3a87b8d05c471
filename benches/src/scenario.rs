//! The scenarios, one file each.

mod append;
mod broker;
mod catchup;
mod idle;
mod kafka_log;
mod recovery;
mod replay;
mod tail;
mod tasks;
mod wal;

use crate::{Options, Report, Result, Scenario, Workplace, measure::runtime, place::Places};

pub use self::broker::SERVE;

pub(crate) fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    let report = measure(options, workplace);
    let of_log_alone = matches!(
        options.scenario,
        Scenario::Wal | Scenario::Replay | Scenario::Tasks | Scenario::KafkaLog | Scenario::Broker
    );
    if options.bucket.is_some() && !of_log_alone {
        let emptied = runtime()?.block_on(Places::of(options, workplace).empty_bucket());
        // What was measured, or why it was not, is said first.
        report.and_then(|report| emptied.map(|()| report))
    } else {
        report
    }
}

fn measure(options: &Options, workplace: &Workplace) -> Result<Report> {
    match options.scenario {
        Scenario::Append => append::run(options, workplace),
        Scenario::Tail => tail::run(options, workplace),
        Scenario::Catchup => catchup::run(options, workplace),
        Scenario::Recovery => recovery::run(options, workplace),
        Scenario::Idle => idle::run(options, workplace),
        Scenario::Replay => replay::run(options, workplace),
        Scenario::Wal => wal::run(options, workplace),
        Scenario::Tasks => tasks::run(options, workplace),
        Scenario::KafkaLog => kafka_log::run(options, workplace),
        Scenario::Broker => broker::run(options, workplace),
    }
}
