//! The end of the process between any two steps of a transaction, and topics that end in one.

use super::*;

/// The end of the process between any two steps, and what comes after.
#[test]
fn a_crash_after_each_step_leaves_a_transaction_whole_or_not_at_all() {
    for bumps in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        for step in 0..6 {
            let running = Running::start(on_disk(dir.path()));
            let mut client = running.client();
            if step == 0 {
                client.create("t", 1);
            }
            assert_eq!(settled(&mut client, "t"), expected);
            let id = format!("id {step}");
            let mut producer = Transactional {
                bumps,
                ..Transactional::new(&running, &id)
            };
            let value = format!("value {step}");
            if step == 1 && !bumps {
                producer.add("t", 0);
            }
            if step >= 2 {
                producer.write("t", &value);
            }
            let mut next = producer.producer;
            match step {
                3 => producer.end(false),
                4 => {
                    // Sent, and the answer not awaited: it may have been done.
                    let request = EndTxnRequest::default()
                        .with_transactional_id(transactional_id(&id))
                        .with_producer_id(ProducerId(producer.producer.0))
                        .with_producer_epoch(producer.producer.1)
                        .with_committed(true);
                    let version = if bumps { 5 } else { 3 };
                    producer.client.send(ApiKey::EndTxn, version, &request);
                }
                5 => producer.end(true),
                _ => {}
            }
            if step >= 3 {
                next = producer.producer;
            }
            running.crash();
            let running = Running::start(on_disk(dir.path()));
            let mut again = Transactional {
                client: running.client(),
                id,
                producer: next,
                sequence: producer.sequence,
                bumps,
            };
            find_coordinator(&mut again.client, &again.id.clone());
            let mut client = running.client();
            match step {
                // It goes on where it was.
                0..=2 => {
                    if step < 2 {
                        again.write("t", &value);
                    }
                    until(|| Some(()).filter(|()| again.describe().error_code == 0));
                    again.end(true);
                    expected.push(value);
                }
                3 => {}
                4 => {
                    // It asks again, as it has no answer.
                    let version = if bumps { 5 } else { 3 };
                    until(|| match again.ask_end(version, true).error_code {
                        0 => Some(()),
                        CONCURRENT | 14 | 15 | 16 => None,
                        code => panic!("error {code}"),
                    });
                    expected.push(value);
                }
                _ => expected.push(value),
            }
            assert_eq!(
                settled(&mut client, "t"),
                expected,
                "step {step}, bumps {bumps}"
            );
            running.crash();
        }
    }
}

/// A transaction that nobody ends is aborted in time, also if the broker was away then.
#[test]
fn f50_a_time_out_holds_over_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(on_disk(dir.path()));
    running.client().create("t", 1);
    let mut producer = Transactional::new(&running, "id");
    let given = producer.ask_init(4, 500, (-1, -1));
    producer.producer = (given.producer_id.0, given.producer_epoch);
    producer.write("t", "too late");
    running.crash();
    let running = Running::start(on_disk(dir.path()));
    assert_eq!(settled(&mut running.client(), "t"), [""; 0]);
    running.stop();
}

/// Markers for a deleted topic are not waited for.
#[test]
fn a_topic_that_was_deleted_does_not_hold_the_end_of_its_transactions() {
    let running = Running::start(memory());
    let mut client = running.client();
    client.create("t", 1);
    client.create("other", 1);
    let mut producer = Transactional::new(&running, "id");
    producer.write("t", "v");
    producer.write("other", "v");
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t")]);
    let gone: DeleteTopicsResponse = client.call(ApiKey::DeleteTopics, 1, &delete);
    assert_eq!(gone.responses[0].error_code, 0);
    producer.end(true);
    assert_eq!(settled(&mut client, "other"), ["v"]);
    until(|| (producer.describe().transaction_state.as_str() == "CompleteCommit").then_some(()));
    running.stop();
}
