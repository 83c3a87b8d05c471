//! The scenarios, one file each.

mod append;
mod catchup;
mod idle;
mod recovery;
mod tail;
mod wal;

use crate::{Options, Report, Result, Scenario, Workplace};

pub(crate) fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    match options.scenario {
        Scenario::Append => append::run(options, workplace),
        Scenario::Tail => tail::run(options, workplace),
        Scenario::Catchup => catchup::run(options, workplace),
        Scenario::Recovery => recovery::run(options, workplace),
        Scenario::Idle => idle::run(options, workplace),
        Scenario::Wal => wal::run(options, workplace),
    }
}
