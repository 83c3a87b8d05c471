//! `s3stream-bench`: see `--help`.

use std::{path::PathBuf, process::ExitCode};

use bench::{Options, Result, Workplace};
use clap::Parser;

fn main() -> ExitCode {
    // The broker to measure is this program, too: one build has both, and neither is older than the other.
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == bench::SERVE) {
        let name = std::iter::once(bench::SERVE.into());
        return broker::main_with(name.chain(arguments));
    }
    let options = Options::parse();
    let problems = options.problems();
    if !problems.is_empty() {
        for problem in problems {
            eprintln!("s3stream-bench: {problem}");
        }
        return ExitCode::from(2);
    }
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("s3stream-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<()> {
    let workplace = Workplace::new(&options.dir)?;
    remove_when_interrupted(workplace.path().to_owned())?;
    let report = bench::run(options, &workplace)?;
    if options.json {
        println!("{}", report.to_json()?);
    } else {
        println!("{report}");
    }
    Ok(())
}

/// Nothing is left behind on Ctrl-C either. The run's threads end with the process. It is given the path alone: the
/// directory is removed when its owner, the run, ends.
fn remove_when_interrupted(workplace: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                if let Err(error) = std::fs::remove_dir_all(&workplace) {
                    let path = workplace.display();
                    eprintln!("s3stream-bench: {path} is left behind: {error}");
                }
                std::process::exit(130);
            }
        })?;
    Ok(())
}
