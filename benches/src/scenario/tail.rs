//! One reader right behind one writer: the latency is from the append to the reader, and needs no GET.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;
use futures::StreamExt;
use s3stream::{Append, Config, ErrorKind, Stream};

use crate::{
    Options, Report, Result, Workplace,
    arrivals::Arrivals,
    engine::Running,
    load::{Submitted, Target},
    measure::{Beside, Course, runtime},
    place::Places,
};

pub(crate) fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    let options = &Options {
        streams: 1,
        ..options.clone()
    };
    let places = Places::of(options, workplace);
    let log = places.log()?;
    let running = Running::open(&places, Config::default(), runtime()?)?;
    let (group, streams) = running.create(1)?;
    let stream = streams
        .into_iter()
        .next()
        .ok_or("a group without a stream")?;
    let arrivals = Arc::new(Arrivals::default());
    let reader = running
        .runtime
        .spawn(follow(stream.clone(), Arc::clone(&arrivals)));
    let course = Course {
        options,
        commits: running.commits.clone(),
        beside: Beside::of_log(&log, workplace, options)?,
        depth: options.baseline_depth.unwrap_or(log.depth),
    };
    let mut target = Followed {
        stream,
        arrivals,
        queued: VecDeque::new(),
        at_hand: (0, Instant::now()),
    };
    let findings = course.run(&mut target, &running)?;
    reader.abort();
    running.finish(group)?;
    Ok(Report::new(options, findings))
}

async fn follow(stream: Stream, arrivals: Arc<Arrivals<()>>) {
    let mut tail = stream.tail(stream.start());
    while let Some(record) = tail.next().await {
        match record {
            Ok(_) => arrivals.push(1, ()),
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => return arrivals.fail(error),
        }
    }
}

/// An append is done when the reader has it.
struct Followed {
    stream: Stream,
    arrivals: Arc<Arrivals<()>>,
    queued: VecDeque<Append>,
    at_hand: (usize, Instant),
}

impl Target for Followed {
    fn submit(&mut self, _stream: usize, payload: &Bytes) -> Result<Submitted> {
        match self.stream.append(1, &[payload]) {
            Ok(append) => {
                self.queued.push_back(append);
                Ok(Submitted::Accepted)
            }
            Err(error) if error.kind() == ErrorKind::Full => {
                std::thread::sleep(std::time::Duration::from_micros(200));
                Ok(Submitted::Full)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn oldest(&mut self, deadline: Instant) -> Result<Option<Instant>> {
        while self.at_hand.0 == 0 {
            let Some(group) = self.arrivals.take(deadline)? else {
                return Ok(None);
            };
            self.at_hand = (group.records, group.at);
        }
        self.at_hand.0 -= 1;
        // What the reader has is durable: nothing is left to be waited for.
        self.queued.pop_front();
        Ok(Some(self.at_hand.1))
    }
}
